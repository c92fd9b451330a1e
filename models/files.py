"""Files, written whole and read with mistrust."""

import errno
import os
import pickle
import re
from pathlib import Path

import torch

from .errors import InputError

_REPO = Path(__file__).resolve().parent.parent


def locate(path: str | os.PathLike) -> Path:
    """Where a path leads, absolute: from the current folder or, if nothing is there, from the
    repository."""
    here, in_repo = Path(path).expanduser().absolute(), _REPO / path
    return in_repo if in_repo.exists() and not here.exists() else here


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that, even after a power failure, it is the old one or the new one.

    Raises:
        OSError: It cannot be written; ``filename`` says which.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:  # a full disk has no name
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`write_whole` left in a folder where its process was killed."""
    for path in folder.glob(".*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no process's number
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def load_tensors(path: str | os.PathLike, what: str) -> object:
    """What a file that torch.save wrote holds, on the CPU; nothing in it is executed.

    Args:
        what: What to call the file in a message, such as ``'checkpoint'``.

    Raises:
        InputError: The file is missing, cannot be read, is damaged, or holds Python objects.
    """
    try:
        open(path, "rb").close()
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror or error}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader of archives may raise on arbitrary bytes
        reason = "truncated, or not a checkpoint"
        # pickle's name for an import; torch tells which one only in the text of its error
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused and isinstance(error, pickle.UnpicklingError):
            # the file chose the name: ascii keeps control characters away from the terminal
            reason = f"refused, it holds Python objects or code besides tensors ({refused[1]!a})"
        raise InputError(f"{what} {path}: {reason}") from None
