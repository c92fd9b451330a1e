"""Checkpoints without Python objects: written so, and read without running what they hold.

A pickle can run code when it is read, and so can mmengine's own loading, which falls back to a full
unpickle. Here every file goes through `torch.load(weights_only=True)`. mmengine's checkpoints hold
two kinds of objects, HistoryBuffers of logged numbers and numpy numbers; ours hold plain numbers.
"""

import os

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from models import InputError
from models.files import load_tensors

_WAY_OUT = (
    ", mmengine's logs; if you trust the file, keep its weights alone, in Python: torch.save("
    "dict(state_dict=torch.load(FILE, weights_only=False)['state_dict']), NEW_FILE)"
)


@HOOKS.register_module()
class PlainHistory(Hook):
    """Keeps logged numbers in checkpoints as lists, and restores HistoryBuffers from them."""

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        hub = checkpoint["message_hub"]  # a copy of the running hub's content
        for name, history in hub["log_scalars"].items():
            hub["log_scalars"][name] = [numbers.tolist() for numbers in history.data]
        for name, value in hub["runtime_info"].items():
            if isinstance(value, np.generic):  # such as the time that is left
                hub["runtime_info"][name] = value.item()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner.cfg.get("resume"):
            return  # mmengine reads the weights only
        scalars = checkpoint["message_hub"]["log_scalars"]
        for name, (values, counts) in scalars.items():
            scalars[name] = HistoryBuffer(values, counts)


def install_safe_loading() -> None:
    """Makes mmengine load every checkpoint, when it resumes too, by `load_checkpoint_file`.

    That holds for `mmengine.runner.load_checkpoint`, `Runner.resume`, `load_from` and the
    `Pretrained` initialization. Checkpoints by URL (http://, torchvision://, ...) are refused.
    """
    # private, but mmengine lists its schemes nowhere else, and none of them may stay
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
        f"checkpoint {filename}: not a local file; download it and give the path of the file"
    )


def load_checkpoint_file(path: str | os.PathLike) -> dict:
    """Returns what a checkpoint file holds, with all tensors on the CPU.

    Raises InputError as `models.files.load_tensors`, or where the file does not hold a dict.
    """
    try:
        checkpoint = load_tensors(path, "checkpoint")
    except InputError as error:
        raise InputError(f"{error}{_WAY_OUT if 'HistoryBuffer' in str(error) else ''}") from None
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise InputError(f"checkpoint {path}: holds a {kind}, expected a dict")
    weights = checkpoint.get("state_dict", checkpoint)
    if isinstance(weights, dict) and not all(isinstance(key, str) for key in weights):
        raise InputError(f"checkpoint {path}: its state_dict has a key that is no text")
    _drop_code(checkpoint)
    return checkpoint


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
