"""What both entry points share: prepared libraries, and one line for a user's mistake."""

import logging
import os
import shutil
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable

from mmengine.config import Config
from mmengine.runner import Runner
from torch import distributed

from models import InputError, SampleError
from models.errors import printable

from . import ending
from .compat import mmcv_ops
from .compat.safe_load import PlainHistory, install_safe_loading
from .hooks import ConvertReleased
from .resume import DueEvaluation
from .runner import CarefulRunner

_SECONDS_FOR_LAUNCHER = 20
_NOISE = (
    # mmengine's own use of what it deprecates
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    # mmseg's metric gives its results no prefix
    "The prefix is not set in metric class",
)


def build_runner(cfg: Config) -> Runner:
    """mmengine's Runner of a config, without warnings that a user can do nothing about.

    It loads released checkpoints too, and writes checkpoints that hold no Python object.
    """
    # mmengine says it by the old name, in every process
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    # mmseg's advice on sizes of images, which are what the data set gives
    warnings.filterwarnings("ignore", "When align_corners=True", UserWarning)
    accept_no_compiler()
    runner = CarefulRunner.from_cfg(cfg)
    runner.register_hook(ConvertReleased())
    runner.register_hook(DueEvaluation())
    runner.register_hook(PlainHistory())
    runner.logger.addFilter(lambda record: not record.getMessage().startswith(_NOISE))
    return runner


def accept_no_compiler() -> None:
    """Keep a shell from complaining where the compiler that built Python is not installed.

    mmengine asks that compiler for its version, for the log.
    """
    compiler = (sysconfig.get_config_var("CC") or "").split()
    if compiler and not shutil.which(compiler[0]):
        sysconfig.get_config_vars()["CC"] = "false"  # fails in silence: the log says n/a


def one_line(error: InputError) -> str:
    """The message of an error, printable, without the traceback that a loader's process adds."""
    message = str(error)
    first, _, traceback = message.partition("\n")
    if first.startswith("Caught ") and "DataLoader worker" in first:
        kind = f"\n{type(error).__module__}.{type(error).__qualname__}: "
        message = traceback.partition(kind)[2]
    return printable(message.strip())


def run(main: Callable[[], None]) -> None:
    """Run ``main``; exit 2 after a user's mistake, 130 when interrupted, 143 when terminated."""
    mmcv_ops.install()  # before a config imports mmdet
    install_safe_loading()
    ending.terminate_like_an_interrupt()
    logging.raiseExceptions = False  # a full disk: the log's own tracebacks help nobody
    # all processes of a machine find the same mistake; another machine may have one of its own
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        main()
    except InputError as error:
        if speaks or isinstance(error, SampleError):
            print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as error:
        if outside := ending.explain(error):
            ending.ignore_signals()
            line, status = outside
            if speaks and not (status == ending.TERMINATED and under_torchrun()):
                print(line, file=sys.stderr)
            sys.exit(status)
        if "gloo" in str(error):
            # The connection to another process is lost. If that one has stopped, and said why, the
            # launcher is about to end this one, too.
            ending.end_silently()
            time.sleep(_SECONDS_FOR_LAUNCHER)
        raise
    finally:
        if distributed.is_initialized():  # torch warns at exit where the group still exists
            distributed.destroy_process_group()


def under_torchrun() -> bool:
    """Whether a launcher runs this, which ends all processes by SIGTERM and says why itself."""
    return "TORCHELASTIC_RUN_ID" in os.environ
