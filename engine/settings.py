"""What a config says, looked at before anything is built of it.

mmengine takes some mistakes in silence and reports others where they do harm, long after and in its
own words. What only building can tell is told by ``building.py``.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import signature
from types import NoneType

from mmengine.config import Config
from mmengine.runner import Runner

from models import InputError
from models.errors import shown

# least value of whole numbers, by the first and last part of their key
_WHOLE = {
    ("train_cfg", "max_epochs"): 1,
    ("train_cfg", "max_iters"): 1,
    ("train_cfg", "val_interval"): 1,
    **{(f"{split}_dataloader", "batch_size"): 1 for split in ("train", "val", "test")},
    **{(f"{split}_dataloader", "num_workers"): 0 for split in ("train", "val", "test")},
}
_MAX_SEED = 2**32 - 1  # numpy's
_KINDS = {
    "model": "settings with a type",
    "train_cfg": "settings",
    "val_cfg": "settings",
    "test_cfg": "settings",
    "train_dataloader": "settings",
    "val_dataloader": "settings",
    "test_dataloader": "settings",
    "optim_wrapper": "settings",
    "default_hooks": "settings",
    "env_cfg": "settings",
    "randomness": "settings",
    "auto_scale_lr": "settings",
    "headline": "settings",
    "custom_hooks": "a list of settings with a type",
}
_TEXTS = ("data_root", "work_dir", "load_from", "experiment_name")
# what mmengine's Runner reads of a config besides the arguments of its own
_READ = {
    "activation_checkpointing",
    "compile",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "sync_bn",
}
# environment variables that a launcher sets, and mmengine reads
_LAUNCHERS = {
    "pytorch": ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
    "mpi": (
        "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "MASTER_ADDR",
    ),
}  # fmt: skip


def check_options(options: Mapping[str, object], cfg: Config) -> None:
    """Check that ``--cfg-options`` name settings that the config or mmengine's Runner has.

    Only the first part of a key: what a class takes is known once it is built.

    Raises:
        InputError: A key has an empty part, or its first part is unknown.
    """
    known = set(cfg) | set(signature(Runner).parameters) | _READ
    for key in options:
        first, *others = key.split(".")
        if not first or not all(others):
            raise InputError(f"--cfg-options: {shown(key)} is no key, expected KEY=VALUE ...")
        if first not in known:
            raise InputError(
                f"--cfg-options: the config has no {shown(first)}{did_you_mean(first, known)}"
            )


def check_settings(cfg: Config) -> None:
    """Check a config's values that mmengine takes as they are or stumbles over.

    Raises:
        InputError: One cannot be; the message names the key and what is expected.
    """
    if "model" not in cfg:
        raise InputError("has no model; expected a config such as those in configs/")
    for key, expected in _KINDS.items():
        value = cfg.get(key)
        parts = value if key == "custom_hooks" and isinstance(value, list | tuple) else [value]
        fits = all(isinstance(part, Mapping) for part in parts)
        if key == "custom_hooks" and isinstance(value, Mapping):
            fits = False
        typed = not fits or "type" not in expected or all("type" in part for part in parts)
        if (value is not None or key == "model") and not (fits and typed):
            raise _wrong(key, value, expected)
    for key in _TEXTS:
        if not isinstance(cfg.get(key), str | NoneType):
            raise _wrong(key, cfg.get(key), "text")
    size = cfg.get("input_size", (1, 1))
    if not isinstance(size, list | tuple) or [_is_whole(side, 1) for side in size] != [True] * 2:
        raise _wrong("input_size", size, "(height, width)")
    for path, value in _settings(cfg):
        if isinstance(value, float) and math.isnan(value):
            raise _wrong(path, value, "a number")
        least = _WHOLE.get((path.partition(".")[0], path.rpartition(".")[2]))
        if least is not None and not _is_whole(value, least):
            raise _wrong(path, value, f"a whole number from {least} on")
        if path.endswith(".indices") and value == 0:
            raise _wrong(path, value, "how many samples to use, or a list of their numbers")
    randomness = cfg.get("randomness") or {}
    known = list(signature(Runner.set_randomness).parameters)[1:]
    if unknown := next((key for key in randomness if key not in known), None):
        raise InputError(f"randomness has no {shown(unknown)}{did_you_mean(unknown, known)}")
    seed = randomness.get("seed")
    if seed is not None and not (_is_whole(seed, 0) and seed <= _MAX_SEED):
        raise _wrong("randomness.seed", seed, f"a whole number from 0 to {_MAX_SEED}, or None")
    if randomness.get("diff_rank_seed"):
        raise _wrong("randomness.diff_rank_seed", True, "False: processes draw from one seed here")
    levels = logging.getLevelNamesMapping()
    level = cfg.get("log_level", "INFO")
    if not isinstance(level, str) or level not in levels:
        raise _wrong("log_level", level, f"one of {', '.join(levels)}")
    scope = cfg.get("default_scope", "mmengine")
    if not isinstance(scope, str) or not scope.isidentifier() or not find_spec(scope):
        raise _wrong("default_scope", scope, "an installed library such as mmdet or mmseg")


def check_launcher(launcher: str) -> None:
    """Check that a launcher has started this process, and has told it its place.

    Raises:
        InputError: It has not.
    """
    missing = [name for name in _LAUNCHERS.get(launcher, ()) if name not in os.environ]
    if missing:
        raise InputError(
            f"--launcher {launcher}: {', '.join(missing)} not in the environment, so {launcher} "
            "has not started this process; without this option the scripts start one per GPU"
        )


def did_you_mean(name: str, known: object) -> str:
    """The nearest of some names, as an addition to a message; empty where none is near."""
    near = get_close_matches(name, [str(each) for each in known], 1)
    return f"; did you mean {near[0]}?" if near else ""


def _wrong(key: str, value: object, expected: str) -> InputError:
    return InputError(f"{key} is {shown(value)}, expected {expected}")


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def _settings(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value inside a config that is no container, with its key as for ``--cfg-options``."""
    if isinstance(value, Mapping | Config):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        yield path, value
        return
    for key, part in parts:
        yield from _settings(part, f"{path}.{key}" if path else str(key))
