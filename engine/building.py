"""What of a config cannot be built, in one line.

Whatever fails while mmengine builds models, data sets, optimizers, loops and hooks of a config's
settings is taken for a mistake in those settings: that is the moment at which they are first looked
at. Errors of a step of training or of an evaluation stay as they are. Where a run has a log file,
the traceback of what could not be built is in there.
"""

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS, Registry, build_from_cfg
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from models import InputError
from models.errors import printable, shown

from .settings import did_you_mean

# not of the settings: the device's, or another process's
_OTHERS_FAULT = (torch.OutOfMemoryError, torch.AcceleratorError, torch.distributed.DistError)
# what a data set takes, and not what repeats or joins data sets
_OF_DATA = set(signature(BaseDataset).parameters)
# functions of mmengine that build, and their argument that is a part of the config
_BUILDERS = {
    build_from_cfg.__code__: "cfg",
    Runner.build_dataloader.__code__: "dataloader",
}


def check_optimizers(cfg: Config) -> None:
    """mmengine asks for an optimizer's signature before it has looked whether there is one."""
    for path, part in _parts(cfg):
        kind = part.get("type")
        is_name = path.split(".")[-1] == "optimizer" and isinstance(kind, str)
        if is_name and OPTIMIZERS.get(kind) is None:
            hint = did_you_mean(kind, _names(OPTIMIZERS))
            raise InputError(f"config {_name(cfg)}: {path}: unknown type {shown(kind)}{hint}")


@contextmanager
def building(cfg: Config) -> Iterator[None]:
    """Makes an InputError of what is raised inside, where things are built of ``cfg``."""
    try:
        yield
    except (InputError, *_OTHERS_FAULT):
        raise
    except Exception as error:
        if "gloo" in str(error):
            raise
        _keep_traceback(error)
        raise InputError(f"config {_name(cfg)}: {describe(error, cfg)}") from None


def _name(cfg: Config) -> str:
    return printable(Path(cfg.filename).name) if cfg.filename else "of this run"


def _keep_traceback(error: Exception) -> None:
    """Write an error's traceback into the log file, if there is one, and not onto the terminal."""
    logger = MMLogger.get_current_instance()
    text = "".join(traceback.format_exception(error))
    record = logger.makeRecord(logger.name, logging.DEBUG, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)  # whatever the level of the log


def describe(error: Exception, cfg: Config) -> str:
    """What an error that was raised while building says, and where in the config.

    Such as ``model.bbox_head: SSDHead has no argument 'num_class'; did you mean num_classes?``
    """
    built = [
        (frame.f_locals, frame.f_locals.get(_BUILDERS[frame.f_code]))
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code in _BUILDERS
    ]
    message = printable(" ".join(str(error).split()), 300)
    for local, part in reversed(built):  # the innermost first
        if isinstance(part, Mapping) and (key := _key(part, cfg)):
            return f"{key}: {_explain(error, message, part, local)}"
    return f"{type(error).__name__}: {message}"


def _explain(error: Exception, message: str, part: Mapping, local: Mapping) -> str:
    kind = part.get("type", "")
    kind = f"{kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    who = f"{kind} " if kind else ""
    if match := re.search(r"got an unexpected keyword argument '(\w+)'", message):
        argument, inner = match[1], part.get("dataset")
        if isinstance(inner, Mapping) and argument in _OF_DATA:
            hint = f"; it belongs one level deeper, as dataset.{argument}"
        else:
            hint = did_you_mean(argument, signature(local.get("obj_cls", DataLoader)).parameters)
        return f"{who}has no argument '{argument}'{hint}"
    if match := re.search(r"missing \d+ required [a-z -]*arguments?: (.+)", message):
        return f"{who}needs {match[1]}"
    if isinstance(error, KeyError) and " is not in the " in message and kind in message:
        return f"unknown type '{kind}'{did_you_mean(kind, _names(local.get('registry')))}"
    if isinstance(error, KeyError) and not kind:
        return "has no type, expected the name of what to build"
    if not message:  # of an assertion, whose code is all that it says
        message = traceback.extract_tb(error.__traceback__)[-1].line or "no reason given"
    return f"{kind}: {type(error).__name__}: {message}".removeprefix(": ")


def _names(registry: Registry | None) -> list[str]:
    """The names that a registry and those above it know."""
    names = []
    while registry is not None:
        names += registry.module_dict
        registry = registry.parent
    return names


def _key(part: Mapping, cfg: Config) -> str | None:
    """Where in the config a part stands that a builder got, which may have changed it."""
    best, most = None, 0
    for path, settings in _parts(cfg):
        if settings.get("type") != part.get("type"):
            continue
        equal = sum(key in part and part[key] == value for key, value in settings.items())
        if equal > most:
            best, most = path, equal
    return best


def _parts(value: object, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """Every dictionary inside a config, with its key as ``--cfg-options`` has it."""
    if isinstance(value, Mapping | Config):
        if path:
            yield path, value
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return
    for key, each in inner:
        yield from _parts(each, f"{path}.{key}" if path else str(key))
