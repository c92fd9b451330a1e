"""What the scripts call: starts an entry point in one process, or in one process per GPU.

``python -m engine.launch MODULE DEFAULT_CONFIG DEFAULT_GPUS [CONFIG [CHECKPOINT]] [GPUS] [...]``
"""

import importlib
import logging
import os
import sys
from itertools import chain, pairwise, takewhile
from pathlib import Path

import torch

from models import InputError
from models.files import locate

from .config import REPO
from .run import run

_FLAGS = ("--amp", "--auto-scale-lr")  # options without a value
_CONFIGS = (".py", ".json", ".yaml", ".yml")


def main() -> None:
    module, default_config, default_gpus, *args = sys.argv[1:]
    positional = list(takewhile(lambda arg: not arg.startswith("-"), args))
    options = args[len(positional) :]
    check_order(options)
    gpus = positional.pop() if positional and positional[-1].isdigit() else default_gpus
    if not positional:
        positional = [default_config]
    if module == "engine.test" and len(positional) == 1 and not {"-h", "--help"} & set(options):
        positional.append(latest_checkpoint(positional[0]))

    available = torch.cuda.device_count()  # before the environment says otherwise
    processes, on_cpu = count_processes(int(gpus), available)
    sys.argv = [module, *positional, *options]
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    elif not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        # sizes change with path and image, and fixed segments would fall to pieces
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if processes > 1 or count_from_environment("NNODES") > 1:
        start_processes(processes)
    elif on_cpu and available:
        # mmengine has chosen its device on import: only a new process can choose another
        os.execv(sys.executable, [sys.executable, "-m", *sys.argv])
    else:
        importlib.import_module(module).main()


def check_order(options: list[str]) -> None:
    """Check that no config and no number of GPUs stands among the options.

    Raises:
        InputError: One does; it would be taken for an option's, and the default used.
    """
    after_flags = (b for a, b in pairwise(options) if a in _FLAGS and not b.startswith("-"))
    configs = (each for each in options if each.endswith(_CONFIGS) and os.path.isfile(locate(each)))
    if misplaced := next(chain(after_flags, configs), None):
        raise InputError(
            f"{misplaced} stands after an option; expected [CONFIG [CHECKPOINT]] [GPUS] first, "
            "options last"
        )


def latest_checkpoint(config: str) -> str:
    """The last checkpoint in the default work dir of a config's adaptation."""
    work_dir = REPO / "work_dirs" / Path(config).stem
    last = work_dir / "last_checkpoint"  # mmengine writes the path into it
    if not last.is_file():
        raise InputError(f"no checkpoint in {work_dir}; give one after the config")
    return last.read_text().strip()


def count_from_environment(name: str) -> int:
    """A whole number of at least 1 from an environment variable, 1 where it is not set."""
    value = os.environ.get(name, "1")
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"environment variable {name} is {value!r}, expected a number from 1 on")
    return int(value)


def count_processes(gpus: int, available: int) -> tuple[int, bool]:
    """How many processes to start on a machine with ``available`` GPUs, and whether on CPU.

    One per GPU, or on CPU the number in $PROCESSES. 0 GPUs asks for CPU; so does 1 on a machine
    without a GPU.

    Raises:
        InputError: More GPUs are asked for than exist.
    """
    if gpus > max(available, 1):
        raise InputError(
            f"{gpus} GPUs asked for, this machine has {available}; give their number after the "
            "config, 0 for CPU (with PROCESSES=N in the environment for N processes)"
        )
    if gpus and available:
        return gpus, False
    return count_from_environment("PROCESSES"), True


def start_processes(processes: int) -> None:
    """Run ``sys.argv`` in several processes of this machine (of $NNODES machines) by torchrun."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    threads = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    os.environ.setdefault("MKL_NUM_THREADS", threads)
    # a process has said itself why it stopped
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    nodes = count_from_environment("NNODES")
    if nodes == 1:
        # not by name, because a machine may not know its own: torchrun would wait, gloo would warn
        where = ["--standalone", "--local-addr=127.0.0.1"]
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
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
    except SignalException:
        sys.exit(130)  # interrupted, as its first process has said


if __name__ == "__main__":
    run(main)
