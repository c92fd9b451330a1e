"""What both entry points share: prepared libraries, and one line for a user's mistake."""

import gc
import logging
import os
import re
import shutil
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

from mmengine.config import Config
from mmengine.runner import Runner
from torch import distributed

from models import InputError, SampleError
from models.errors import printable

from . import ending
from .compat.safe_load import PlainHistory
from .data import CheckBatches, ReportData
from .hooks import ConvertReleased, KeepNetConfig
from .model import MMSEG_ADVICE
from .resume import DueEvaluation
from .runner import CarefulRunner

_SECONDS_FOR_LAUNCHER = 20
_NOISE = (
    # mmengine's own use of what it deprecates
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def build_runner(cfg: Config) -> Runner:
    """mmengine's Runner of a config, without warnings that a user can do nothing about.

    It loads released checkpoints too. Those that it writes carry the architecture, and no Python
    object.
    """
    # mmengine says it by the old name, in every process
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    # mmseg's advice on sizes of images, which are what the data set gives
    warnings.filterwarnings("ignore", "When align_corners=True", UserWarning)
    warnings.filterwarnings("ignore", MMSEG_ADVICE, UserWarning)
    # configs ask for it on GPUs; on CPU it means nothing
    warnings.filterwarnings("ignore", "'pin_memory' argument is set as true", UserWarning)
    accept_no_compiler()
    runner = CarefulRunner.from_cfg(cfg)
    runner.register_hook(ConvertReleased())
    runner.register_hook(DueEvaluation())
    runner.register_hook(KeepNetConfig())
    runner.register_hook(PlainHistory())
    runner.register_hook(ReportData())
    runner.register_hook(CheckBatches())
    runner.logger.addFilter(lambda record: not record.getMessage().startswith(_NOISE))
    return runner


def accept_no_compiler() -> None:
    """Keep a shell from complaining where the compiler that built Python is not installed.

    mmengine writes that compiler's version into the log.
    """
    compiler = (sysconfig.get_config_var("CC") or "").split()
    if compiler and not shutil.which(compiler[0]):
        sysconfig.get_config_vars()["CC"] = "false"  # fails in silence: the log says n/a


def one_line(error: InputError) -> str:
    """The message of an error, fit for a terminal.

    Of one that a loader's process raised, torch makes a text that ends with its traceback.
    """
    text, kind = str(error), type(error)
    if re.match(r"Caught \S+ in DataLoader worker process \d+\.\n", text):
        # at the start of a line of its own: a traceback's other lines are indented
        text = text.partition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2] or text
    return printable(text.strip())


def run(main: Callable[[], None]) -> None:
    """Run ``main``; exit 2 after a user's mistake, 130 when interrupted, 143 when terminated, 141
    when nobody reads the output."""
    ending.terminate_like_an_interrupt()
    logging.raiseExceptions = False  # a full disk: the log's own tracebacks help nobody
    # all processes of a machine find the same mistake; another machine may have one of its own
    speaks = local_rank() == "0"
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        if speaks or isinstance(error, SampleError):
            print(f"error: {one_line(error)}", file=sys.stderr)
        leave(2)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and ending.reader_has_left():
            leave(ending.UNREAD)
        if outside := ending.explain(error):
            ending.ignore_signals()
            line, status = outside
            if speaks and not (status == ending.TERMINATED and under_torchrun()):
                print(line, file=sys.stderr)
            leave(status)
        if over_nccl():
            traceback.print_exc()
            leave(1)
        if "gloo" in str(error):
            # The connection to another process is lost. If that one has stopped, and said why, the
            # launcher is about to end this one, too.
            ending.end_silently()
            time.sleep(_SECONDS_FOR_LAUNCHER)
        leave_group()
        raise
    leave_group()


def local_rank() -> str:
    """The number of this process on its machine, as torchrun or Slurm's srun says."""
    return os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"


def over_nccl() -> bool:
    """Whether this is one of several processes on GPUs."""
    return distributed.is_initialized() and "nccl" in distributed.get_backend()


def leave(status: int) -> NoReturn:
    """Exit after an error, which the other processes may not share.

    Over NCCL this process ends at once: destroying the process group, or ending as Python does,
    would wait for the others, and they may be waiting for this one's part of a sum. Once it is
    gone, the launcher ends them. Loaders' processes notice by themselves that their parent is gone.
    """
    if over_nccl():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    leave_group()
    sys.exit(status)


def leave_group() -> None:
    """Take leave of the other processes; torch warns at exit where that is left out.

    What a run leaves behind refers to itself, so Python would free it only while it ends. Loaders'
    threads, and the group's that a model's wrapper keeps, would then still run, and a thread that
    asks for the interpreter at that point is killed: inside C++ that aborts the whole process
    ("terminate called without an active exception"). Freed here, they end in peace.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def under_torchrun() -> bool:
    """Whether a launcher runs this, which ends all processes by SIGTERM and says why itself."""
    return "TORCHELASTIC_RUN_ID" in os.environ
