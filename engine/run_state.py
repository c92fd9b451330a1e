"""Whether a checkpoint holds the state of a run that this one can continue."""

import inspect
import math
from collections.abc import Mapping

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from models import InputError

from .hooks import loaded_path

_MAX_SEED = 2**32 - 1  # numpy's
_MAX_COUNT = 2**53
_MAX_DEPTH = 5


class CheckRunState(Hook):
    """Refuses to resume from a checkpoint whose state is damaged, or that of another run.

    mmengine would take what happens to fit: it writes whatever a file holds into a scheduler's
    attributes, and continues with fresh optimizers and schedulers where the file has none.

    Raises:
        InputError: A part of the state is missing, is of another kind than this run's own, or holds
            a number that is not finite.
    """

    priority = "BELOW_NORMAL"  # after what says that it is another run's

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        try:
            for key in ("meta", "message_hub", "optimizer"):
                _expect(isinstance(checkpoint.get(key), dict), f"{key} is no dict")
            _check_meta(checkpoint["meta"], runner)
            _check_hub(checkpoint["message_hub"])
            _check_progress(checkpoint, runner)
            _check_schedulers(checkpoint.get("param_schedulers"), runner.param_schedulers)
            _check_optimizers(checkpoint, runner.optim_wrapper)
        except _Damage as damage:
            raise InputError(
                f"checkpoint {loaded_path(runner)}: no run can continue from it: {damage}"
            ) from None


class _Damage(Exception):
    """What is wrong with a checkpoint's state."""


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _Damage(otherwise)


def _is_int(value: object, most: int = _MAX_COUNT) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_plain(value: object, depth: int = _MAX_DEPTH) -> bool:
    """Whether a value is a number, a text, a truth value or none, or a small tree of them."""
    if value is None or type(value) in (bool, int, float, str):
        return True
    if depth == 0:
        return False
    if isinstance(value, list | tuple):
        return all(is_plain(inner, depth - 1) for inner in value)
    if isinstance(value, dict):
        keys_are_plain = all(type(key) in (int, str) for key in value)
        return keys_are_plain and all(is_plain(inner, depth - 1) for inner in value.values())
    return False


def _check_meta(meta: dict, runner: Runner) -> None:
    for key in ("epoch", "iter"):
        _expect(_is_int(meta.get(key)), f"meta.{key} is no number of steps")
    seed = meta.get("seed")
    _expect(seed is None or _is_int(seed, _MAX_SEED), "meta.seed is no seed")
    _expect(is_plain(meta.get("dataset_meta")), "meta.dataset_meta is damaged")
    loop = runner.train_loop
    by_iter = isinstance(loop, IterBasedTrainLoop)
    unit, most = ("iter", loop.max_iters) if by_iter else ("epoch", loop.max_epochs)
    _expect(meta[unit] <= most, f"it has made {meta[unit]} {unit}s, and the config asks for {most}")
    _expect(meta["epoch"] <= meta["iter"], "meta has more epochs than iterations")


def _check_hub(hub: dict) -> None:
    """The logged numbers, as PlainHistory writes them, and what hooks keep."""
    for key in ("log_scalars", "runtime_info", "resumed_keys"):
        _expect(isinstance(hub.get(key), dict), f"message_hub.{key} is no dict")
        _expect(all(type(name) is str for name in hub[key]), f"message_hub.{key} is damaged")
    for history in hub["log_scalars"].values():
        _expect(_is_history(history), "message_hub.log_scalars is damaged")
    values = hub["resumed_keys"].values()
    _expect(all(type(value) is bool for value in values), "message_hub.resumed_keys is damaged")
    for name, value in hub["runtime_info"].items():
        _expect(_is_info(name, value), "message_hub.runtime_info is damaged")


def _is_history(history: object) -> bool:
    """(values, counts); a loss may have been infinite."""
    if not (isinstance(history, list | tuple) and len(history) == 2):
        return False
    values, counts = history
    return (
        isinstance(values, list)
        and isinstance(counts, list)
        and len(values) == len(counts)
        and all(type(value) in (int, float) for value in values)
        and all(type(count) in (int, float) for count in counts)
    )


def _is_info(name: str, value: object) -> bool:
    if name == "keep_ckpt_ids":
        return isinstance(value, list) and all(map(_is_int, value))
    if name == "epoch_began":
        return isinstance(value, list) and len(value) == 2 and all(map(_is_int, value))
    if name.startswith(("last_ckpt", "best_ckpt")):
        return value is None or type(value) is str
    if name in ("epoch", "iter", "max_epochs", "max_iters", "batches_per_epoch", "evaluated"):
        return _is_int(value)
    if name == "eta" or name.startswith("best_score"):
        return type(value) in (int, float)
    return is_plain(value)


def _check_progress(checkpoint: dict, runner: Runner) -> None:
    """Where it is known which epoch began when: do the two counts of meta agree with that?"""
    info = checkpoint["message_hub"]["runtime_info"]
    if "epoch_began" not in info or isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    (began, start), length = info["epoch_began"], info.get("batches_per_epoch")
    epoch, step = checkpoint["meta"]["epoch"], checkpoint["meta"]["iter"]
    made = step - start
    _expect(
        _is_int(length)
        and (0 <= made <= length if began == epoch else (began + 1, made) == (epoch, length)),
        f"its {epoch} epochs and {step} iterations do not agree with each other",
    )


def _check_schedulers(found: object, schedulers: list | dict | None) -> None:
    if schedulers is None:
        return
    if isinstance(schedulers, dict):
        _expect(isinstance(found, dict), "param_schedulers is no dict")
        _expect(found.keys() == schedulers.keys(), "param_schedulers are of other optimizers")
        for name, own in schedulers.items():
            _check_schedulers(found[name], own)
        return
    _expect(isinstance(found, list), "param_schedulers is no list")
    _expect(
        len(found) == len(schedulers),
        f"it has {len(found)} param_schedulers, and the config {len(schedulers)}",
    )
    for state, scheduler in zip(found, schedulers, strict=True):
        own = scheduler.state_dict()
        alike = isinstance(state, dict) and state.keys() == own.keys()
        _expect(
            alike and all(_is_like(state[key], own[key]) for key in own),
            f"param_schedulers has no state of a {type(scheduler).__name__}",
        )


def _is_like(found: object, own: object) -> bool:
    """Whether a value may stand where this run has ``own``: of its kind, with finite numbers."""
    if isinstance(own, bool):
        return type(found) is bool
    if own is None:
        return found is None or _is_number(found)
    if isinstance(own, int | float):
        return _is_number(found)
    if isinstance(own, list | tuple):
        return type(found) is type(own) and all(map(_is_number, found))
    if isinstance(own, dict):  # milestones: epoch → how many
        return type(found) is type(own) and all(map(_is_number, (*found, *found.values())))
    return type(found) is type(own) and found == own


def _check_optimizers(checkpoint: dict, wrapper: OptimWrapper | OptimWrapperDict) -> None:
    found, step = checkpoint["optimizer"], checkpoint["meta"]["iter"]
    if isinstance(wrapper, OptimWrapperDict):
        own = dict(wrapper.items())
        _expect(found.keys() == own.keys(), "optimizer is of other optimizers")
        for state, part in zip((found[name] for name in own), own.values(), strict=True):
            _check_optimizer(state, part)
        states = list(found.values())
    else:
        _check_optimizer(found, wrapper)
        own, states = {"": wrapper}, [found]
    empty = not any(state["state"] for state in states)
    keeps = any(_keeps_state(part.optimizer) for part in own.values())
    _expect(not (step and empty and keeps), "its optimizer has no state")


def _check_optimizer(found: object, wrapper: OptimWrapper) -> None:
    """The state of an optimizer, in torch's form: of each group, and by parameter's number."""
    groups = wrapper.optimizer.param_groups
    alike = (
        isinstance(found, dict)
        and isinstance(found.get("state"), dict)
        and isinstance(found.get("param_groups"), list)
        and len(found["param_groups"]) == len(groups)
    )
    _expect(alike, "optimizer has no state of this run's optimizer")
    for group, own in zip(found["param_groups"], groups, strict=True):
        _expect(_is_group(group, own), "optimizer has a group of another optimizer")
    numbers = [number for group in found["param_groups"] for number in group["params"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    _expect(len(by_number) == len(parameters), "optimizer counts a parameter twice")
    for number, state in found["state"].items():
        fits = number in by_number and isinstance(state, dict)
        _expect(
            fits and all(_is_entry(value, by_number[number]) for value in state.values()),
            "optimizer has a state that fits no parameter, or is not finite",
        )
    scaler = found.get("loss_scaler", {})
    _expect(
        isinstance(scaler, dict) and all(map(_is_number, scaler.values())),
        "optimizer.loss_scaler is damaged",
    )


def _is_group(group: object, own: Mapping) -> bool:
    if not isinstance(group, dict) or not isinstance(group.get("params"), list):
        return False
    numbers = group["params"]
    if len(numbers) != len(own["params"]) or not all(map(_is_int, numbers)):
        return False
    # torch's versions differ in a few keys
    settings = [key for key in group if key != "params"]
    return "lr" in group and all(
        type(key) is str
        and (_is_like(group[key], own[key]) if key in own else is_plain(group[key]))
        for key in settings
    )


def _is_entry(value: object, parameter: torch.Tensor) -> bool:
    """Whether a value may be a part of an optimizer's state for a parameter."""
    if isinstance(value, torch.Tensor):
        return value.shape in (parameter.shape, ()) and bool(torch.isfinite(value).all())
    return value is None or _is_number(value)


def _keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether one of torch's optimizers has a state after a step: found by making one."""
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim."):
        return False
    parameter = torch.nn.Parameter(torch.zeros(1))
    taken = inspect.signature(kind).parameters  # a default may be a subclass's own
    settings = {name: value for name, value in optimizer.defaults.items() if name in taken}
    twin = kind([parameter], **settings)
    parameter.grad = torch.ones(1)
    twin.step()
    return any(value is not None for state in twin.state.values() for value in state.values())
