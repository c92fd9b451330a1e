"""What the scripts call: starts an entry point in one process, or in one process per GPU.

``python -m engine.launch MODULE DEFAULT_CONFIG DEFAULT_GPUS [CONFIG [CHECKPOINT]] [GPUS] [...]``
"""

import importlib
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping
from itertools import chain, pairwise, takewhile
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from models import InputError
from models.files import locate

from . import ending
from .checkpoints import newest_checkpoint
from .config import REPO, config_path
from .run import run

# only the processes know what they have written
HOW_TO_RESUME = " Training continues with --resume from its last checkpoint, if there is one."
_FLAGS = ("--amp", "--auto-scale-lr", "--latency")  # options without a value
_CONFIGS = (".py", ".json", ".yaml", ".yml")


def main() -> None:
    module, default_config, default_gpus, *args = sys.argv[1:]
    positional = list(takewhile(lambda arg: not arg.startswith("-"), args))
    options = args[len(positional) :]
    check_order(options)
    gpus = positional.pop() if positional and positional[-1].isdecimal() else default_gpus
    if not positional:
        positional = [default_config]
    if module == "engine.test" and len(positional) == 1 and not {"-h", "--help"} & set(options):
        config_path(positional[0])  # a mistake in its name is not one of its checkpoint
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
    pairs = [(a, b) for a, b in pairwise(options) if not b.startswith("-")]
    after_flags = (b for a, b in pairs if a in _FLAGS)
    # what follows an option is its value: --out may name a file that is there
    others = (b for a, b in pairs if not a.startswith("-") and b.endswith(_CONFIGS))
    configs = (each for each in others if os.path.isfile(locate(each)))
    if misplaced := next(chain(after_flags, configs), None):
        raise InputError(
            f"{misplaced} stands after an option; expected [CONFIG [CHECKPOINT]] [GPUS] first, "
            "options last"
        )


def latest_checkpoint(config: str) -> str:
    """The last checkpoint in the default work dir of a config's adaptation."""
    work_dir = REPO / "work_dirs" / Path(config).stem
    path, unusable = newest_checkpoint(work_dir)
    for line in unusable:
        print(line, file=sys.stderr)
    if path is None:
        raise InputError(f"no checkpoint in {work_dir}; give one after the config")
    return str(path)


def count_from_environment(
    name: str, default: int = 1, least: int = 1, most: int | None = None
) -> int:
    """A whole number from an environment variable, or a default where it is not set.

    Raises:
        InputError: It is none, or out of its range.
    """
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or not least <= int(value) <= (math.inf if most is None else most):
        to = "on" if most is None else f"to {most}"
        raise InputError(
            f"environment variable {name} is {value!r}, expected a number from {least} {to}"
        )
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
    logging.disable(logging.ERROR)
    nodes = count_from_environment("NNODES")
    if nodes == 1:
        # not by name, because a machine may not know its own: torchrun would wait, gloo would warn
        where = ["--standalone", "--local-addr=127.0.0.1"]
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        rank = count_from_environment("NODE_RANK", default=0, least=0, most=nodes - 1)
        port = count_from_environment("PORT", default=29500, most=65535)
        where = [f"--nnodes={nodes}", f"--node-rank={rank}"]
        where += [f"--master-addr={os.environ.get('MASTER_ADDR', '127.0.0.1')}"]
        where += [f"--master-port={port}"]
    module, *args = sys.argv
    try:
        torchrun.main(
            [*where, f"--nproc-per-node={processes}", "-m", module, *args, "--launcher", "pytorch"]
        )
    except ChildFailedError as error:
        sys.exit(status_of(error.failures))
    except SignalException as error:
        if error.sigval == signal.SIGTERM:
            print(f"Terminated.{HOW_TO_RESUME}", file=sys.stderr)
            sys.exit(ending.TERMINATED)
        sys.exit(ending.INTERRUPTED)  # as its first process has said


def status_of(failures: Mapping[int, ProcessFailure]) -> int:
    """The exit status for processes that failed, by rank; says which one was killed.

    Once one has failed, the launcher ends the others by SIGTERM: they are not the reason.
    """
    statuses = {rank: _as_in_a_shell(failure.exitcode) for rank, failure in failures.items()}
    own = {rank: code for rank, code in statuses.items() if code != ending.TERMINATED} or statuses
    # the others of a killed one have lost a connection, and failed, too
    rank, status = max(own.items(), key=lambda item: item[1] > 128)
    if status > 128:
        print(
            f"error: process {rank} was killed (signal {status - 128}).{HOW_TO_RESUME}",
            file=sys.stderr,
        )
    return status


def _as_in_a_shell(exitcode: int) -> int:
    return exitcode if exitcode >= 0 else 128 - exitcode


if __name__ == "__main__":
    run(main)
