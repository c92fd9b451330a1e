"""The folder of a run's results: can it be written to, and does no other run write there?"""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

from models import InputError

_NAME = ".lock"
# open until the process ends: the lock dies with it, however it ends
_held: dict[str, int] = {}


def make_work_dir(work_dir: str | Path) -> None:
    """Create the folder of the results and check that it can be written to.

    Raises:
        InputError: It cannot.
    """
    _make_writable(Path(work_dir), f"work dir {work_dir}")


def check_output_file(path: Path, option: str) -> None:
    """Raise InputError where a file cannot be written, before any time is spent on it.

    Args:
        path: The file. Its folder is created.
        option: What the command line calls it.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder, expected a file")
    _make_writable(path.parent, f"{option} {path}")


def _make_writable(folder: Path, what: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{what}: cannot write there: {error.strerror}") from None


def writes_results(launcher: str) -> bool:
    """Whether this process is the first of all that a launcher has started, or the only one."""
    names = dict(pytorch="RANK", slurm="SLURM_PROCID", mpi="OMPI_COMM_WORLD_RANK")
    return launcher == "none" or os.environ.get(names[launcher], "0") == "0"


def hold(work_dir: str | Path) -> None:
    """Keep other runs away from a folder, which exists, until this process has ended.

    Where the file system knows no locks, nothing is kept away.

    Raises:
        InputError: Another process holds it, or its lock cannot be opened.
    """
    path = os.path.realpath(Path(work_dir) / _NAME)
    if path in _held:
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:  # such as another user's
        raise InputError(f"work dir {work_dir}: cannot open {path}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(
                f"work dir {work_dir}: another run is using it; wait for it, or give another "
                "--work-dir"
            ) from None
        return
    _held[path] = file


def _let_go() -> None:
    """A forked child, such as a loader's process, does not hold what its parent holds."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
