"""Loading checkpoints without running anything that they hold.

A pickle can run code when it is read, and so can mmengine's own loading, which falls back to a
full unpickle. Here every file goes through `torch.load(weights_only=True)`, and what mmengine's
checkpoints hold beyond tensors (logged numbers, in numpy arrays) is rebuilt by the small classes
below. They take the place of numpy's and mmengine's own, which are not safe on a crafted file:
numpy makes arrays of Python objects out of raw bytes, and mmengine stores functions.
"""

import os
import pickle
import re

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from models.errors import InputError

EXPECTED = "expected a file written by torch.save, with tensors, numbers and text only"
NUMBER_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def install_safe_loading() -> None:
    """Makes mmengine load every checkpoint, when it resumes too, by `load_checkpoint_file`.

    That holds for `mmengine.runner.load_checkpoint`, `Runner.resume`, `load_from` and the
    `Pretrained` initialization. Checkpoints by URL (http://, torchvision://, ...) are refused.
    """
    remote = [prefix for prefix in CheckpointLoader._schemes if prefix != ""]
    CheckpointLoader.register_scheme(remote, load_from_remote, force=True)
    CheckpointLoader.register_scheme("", load_from_local, force=True)


def load_from_local(filename: str, map_location: object = None) -> dict:
    """mmengine's loader of a file; see `load_checkpoint_file` for the errors.

    The tensors stay on the CPU whatever `map_location` says: `load_state_dict` copies them to
    where the model is, and a second copy on the GPU would only take memory.
    """
    return load_checkpoint_file(os.path.expanduser(filename))


def load_from_remote(filename: str, map_location: object = None) -> dict:
    """mmengine's loader of everything that is not a file; raises InputError."""
    raise InputError(
        f"checkpoint is not a local file: {filename} (download it and give the path of the file)"
    )


def load_checkpoint_file(path: str | os.PathLike) -> dict:
    """Returns what a checkpoint file holds, with all tensors on the CPU.

    Raises InputError where the file is missing, cannot be read, is damaged, holds Python objects
    other than those of mmengine's own checkpoints, or is not a dict.
    """
    try:
        open(path, "rb").close()
    except FileNotFoundError:
        raise InputError(f"checkpoint not found: {path} ({EXPECTED})") from None
    except OSError as error:
        raise InputError(f"checkpoint cannot be read, {error.strerror}: {path}") from None
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # Damage can show as almost any exception, from wherever the unpickling went astray.
    except Exception as error:
        name = _refused_object(error)
        if name is None:
            raise InputError(f"damaged, or not a checkpoint: {path} ({EXPECTED})") from error
        # The file chose the name: ascii() keeps control characters away from the terminal.
        raise InputError(f"holds Python objects ({name!a}), refused: {path} ({EXPECTED})") from None
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise InputError(f"checkpoint holds a {kind}, not a dict: {path} ({EXPECTED})")
    _drop_code(checkpoint)
    return checkpoint


def _refused_object(error: Exception) -> str | None:
    """Returns the name of the Python object for which loading was refused, None if not for one."""
    if isinstance(error, _RefusedObject):
        return str(error)
    # torch names it only in the text of its error.
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found and isinstance(error, pickle.UnpicklingError) else None


def _drop_code(checkpoint: dict) -> None:
    """Drops the two texts of a checkpoint that mmengine would run as Python: its configs.

    `Runner.resume` runs meta.config (which mmengine does not write, but mmcv 1 did) and mmengine's
    inferencer runs the config in the message hub, which a resumed run writes anew.
    """
    _drop(checkpoint.get("meta"), "config")
    hub = checkpoint.get("message_hub")
    if isinstance(hub, dict):
        _drop(hub.get("runtime_info"), "cfg")
        _drop(hub.get("resumed_keys"), "cfg")


def _drop(mapping: object, key: str) -> None:
    if isinstance(mapping, dict):
        mapping.pop(key, None)


class _RefusedObject(Exception):
    """A checkpoint asks for a Python object that it may not have; str(error) is its name."""


class _NumberType:
    """Stands in for numpy.dtype: plain numbers only, no objects and no fields."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if code not in NUMBER_TYPES:
            raise _RefusedObject(f"numpy.dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands in for numpy.ndarray: starts empty, and is filled from bytes as plain numbers."""

    def __new__(cls) -> "_Array":
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, number_type, fortran_order, data = state
        if not isinstance(number_type, _NumberType):
            raise _RefusedObject("numpy.ndarray without a number type")
        super().__setstate__((1, shape, number_type.dtype, fortran_order, data))

    def __reduce__(self) -> tuple:
        # Saved again, it is a plain array, which other programs can load.
        return np.asarray(self).__reduce__()


def _empty_array(subtype: type, shape: tuple, code: bytes) -> _Array:
    """Stands in for numpy's _reconstruct; shape and content come with the state that follows."""
    return _Array()


def _scalar(number_type: _NumberType, data: bytes) -> np.generic:
    """Stands in for numpy's scalar, which makes one number from its bytes."""
    return np.frombuffer(data, number_type.dtype, count=1)[0]


def _no_bytes() -> bytes:
    """Stands in for bytes, which a pickle calls for the content of an empty array."""
    return b""


class _History(HistoryBuffer):
    """Stands in for mmengine's HistoryBuffer, and becomes one once its numbers are there."""

    def __setstate__(self, state: dict) -> None:
        # The file also names the functions for the statistics; those of this process stay.
        logs, counts = state["_log_history"], state["_count_history"]
        if not (isinstance(logs, _Array) and isinstance(counts, _Array)):
            raise _RefusedObject("HistoryBuffer without arrays of numbers")
        self.__init__(logs, counts, int(state["max_length"]))
        self.__class__ = HistoryBuffer


def _statistics_name(owner: type, name: str) -> str:
    """Stands in for getattr, by which a HistoryBuffer's pickle names its functions."""
    if owner is not _History:
        raise _RefusedObject("getattr")
    return name


# What to make of each name that mmengine's checkpoints use. numpy was numpy.core before 2.0.
SAFE_GLOBALS = [
    (_History, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_statistics_name, "builtins.getattr"),
    (_no_bytes, "builtins.bytes"),
    (_NumberType, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    (_empty_array, "numpy._core.multiarray._reconstruct"),
    (_empty_array, "numpy.core.multiarray._reconstruct"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
]
