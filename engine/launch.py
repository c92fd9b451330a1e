"""What the scripts call: start an entry point in one process, or in one for each GPU.

``python -m engine.launch MODULE DEFAULT_CONFIG DEFAULT_GPUS [CONFIG [CHECKPOINT]] [GPUS] [...]``
"""

import importlib
import logging
import os
import sys
from itertools import takewhile

import torch

from models import InputError

from .config import REPO
from .entry import run


def main() -> None:
    module, default_config, default_gpus, *args = sys.argv[1:]
    positional = list(takewhile(lambda arg: not arg.startswith("-"), args))
    options = args[len(positional) :]
    gpus = positional.pop() if positional and positional[-1].isdigit() else default_gpus
    if not positional:
        positional = [default_config]
        if module == "engine.test" and not {"-h", "--help"} & set(options):
            positional.append(latest_checkpoint())

    processes = count_processes(int(gpus))
    sys.argv = [module, *positional, *options]
    if processes == 1 and int(os.environ.get("NNODES", 1)) == 1:
        importlib.import_module(module).main()
    else:
        start_processes(processes)


def latest_checkpoint() -> str:
    """The last checkpoint of the default parameter adaptation."""
    work_dir = REPO / "work_dirs/retinanet_fna_param_adapt"
    last = work_dir / "last_checkpoint"  # mmengine writes the path into it
    if not last.is_file():
        raise InputError(f"no checkpoint in {work_dir}; give CONFIG and CHECKPOINT")
    return last.read_text().strip()


def count_processes(gpus: int) -> int:
    """How many processes to start on this machine: one a GPU, or on CPU what $PROCESSES says.

    0 GPUs asks for CPU; so does 1 on a machine that has none.

    Raises:
        InputError: More GPUs asked for than there are.
    """
    available = torch.cuda.device_count()
    if gpus > max(available, 1):
        raise InputError(
            f"{gpus} GPUs asked for, this machine has {available}; give their number after the "
            "config, 0 for CPU (with PROCESSES=N in the environment for N processes)"
        )
    if gpus and available:
        return gpus
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    return int(os.environ.get("PROCESSES", 1))


def start_processes(processes: int) -> None:
    """Run ``sys.argv`` in several processes of this machine (of $NNODES machines) by torchrun."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # a process has said itself why it stopped
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    nodes = os.environ.get("NNODES")
    where = ["--standalone"]
    if nodes:
        where = [f"--nnodes={nodes}", f"--node-rank={os.environ.get('NODE_RANK', 0)}"]
        where += [f"--master-addr={os.environ.get('MASTER_ADDR', '127.0.0.1')}"]
        where += [f"--master-port={os.environ.get('PORT', 29500)}"]
    module, *args = sys.argv
    try:
        torchrun.main(
            [*where, f"--nproc-per-node={processes}", "-m", module, *args, "--launcher", "pytorch"]
        )
    except ChildFailedError as error:
        sys.exit(next(iter(error.failures.values())).exitcode)


if __name__ == "__main__":
    run(main)
