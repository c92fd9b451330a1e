"""How a run ends for a reason outside: a signal, a full disk, a process that was killed."""

import errno
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

# statuses as a shell gives them
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
UNREAD = 128 + signal.SIGPIPE
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which schedulers and containers end a run: it ends as by Ctrl-C."""


def terminate_like_an_interrupt() -> None:
    """From now on SIGTERM raises :class:`Terminated`, unless who started this ignores it."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(signum: int, frame: object) -> NoReturn:
    raise Terminated


def end_silently() -> None:
    """Let SIGTERM end this process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ignore_signals() -> None:
    """Let the end, which has begun, not be disturbed by another signal of the kind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def reader_has_left() -> bool:
    """Whether nobody reads standard output any more, as after ``| head``; then it leads nowhere
    from now on, because Python would complain again when it ends."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    if not any(state & select.POLLERR for _, state in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line to print for an end whose reason is outside, and the exit status.

    Notes that were added to the error are part of the line. None for any other error.
    """
    signals = [met for met in _chain(error) if isinstance(met, KeyboardInterrupt)]
    if any(isinstance(met, Terminated) for met in signals):
        line, status = "Terminated.", TERMINATED
    elif signals:
        line, status = "\nInterrupted.", INTERRUPTED  # the terminal has printed ^C
    elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f"{error.filename}: " if error.filename else ""
        line, status = f"error: {where}{error.strerror}.", 1
    elif _is_of_dead_loader(error):
        line, status = f"error: {str(error).splitlines()[0].rstrip('. ')}.", 1
    else:
        return None
    return " ".join([line, *getattr(error, "__notes__", ())]), status


def _is_of_dead_loader(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those during which it was raised: mmengine has some ``except:`` clauses."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
