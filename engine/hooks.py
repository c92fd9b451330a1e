"""Hooks of both tasks."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint

from models import InputError

from .architecture import check_weights, own_net_config
from .model import unwrapped
from .released import convert


@HOOKS.register_module()
class ConvertReleased(Hook):
    """Lets a run load the paper's released checkpoints as they are, and logs what was used of them.

    Raises:
        InputError: When one is loaded that does not fit the model.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        where = f"checkpoint {loaded_path(runner)}"
        if converted := convert(checkpoint, unwrapped(runner.model), where):
            checkpoint["state_dict"], report = converted
            runner.logger.info(report)


@HOOKS.register_module()
class KeepNetConfig(Hook):
    """Writes the backbone's architecture into each checkpoint, as ``meta["net_config"]``."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        net_config = own_net_config(unwrapped(runner.model))
        if net_config is not None:  # a super network has none
            checkpoint["meta"]["net_config"] = str(net_config)


@HOOKS.register_module()
class MatchCheckpoint(Hook):
    """Refuses a checkpoint of another architecture; mmengine would load what happens to fit.

    Raises:
        InputError: When a checkpoint is loaded that :func:`check_weights` refuses; when a run is
            resumed from one without the state of a run.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        where = f"checkpoint {loaded_path(runner)}"
        check_weights(unwrapped(runner.model), checkpoint, where, runner.cfg)
        missing = {"meta", "message_hub", "optimizer"} - set(checkpoint)
        if runner.cfg.get("resume") and missing:
            raise InputError(
                f"{where}: has no {', '.join(sorted(missing))}, so no run can resume from it; to "
                "start from its weights, use --cfg-options load_from=CHECKPOINT"
            )


@HOOKS.register_module()
class CheckModel(Hook):
    """Refuses a model whose parts do not fit each other or the data set, before it runs.

    What the config says is compared: ``in_channels`` of the neck or, without one, of each part that
    has them; ``num_classes`` of each part that has them, and ``class_weight`` of mmseg's losses. If
    a detector's head has too few classes, mmdet silently takes the first missing one for
    background.

    Raises:
        InputError: A part expects other channels than the backbone gives, or has or weighs another
            number of classes than the data set has.
    """

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader.dataset.metainfo["classes"])

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader.dataset.metainfo["classes"])

    def _check(self, runner: Runner, classes: Sequence[str]) -> None:
        model = runner.cfg.model
        channels = list(unwrapped(runner.model).backbone.out_channels)
        parts = {"neck": model["neck"]} if model.get("neck") else model
        for name, part in _with(parts, "in_channels"):
            expected, given = part["in_channels"], _channels_for(part, channels)
            expected = expected if isinstance(expected, int) else list(expected)
            if given != expected:
                raise InputError(
                    f"model.{name}.in_channels is {expected}, but the backbone gives {given} "
                    "channels"
                )
        for name, part in _with(model, "num_classes"):
            if part["num_classes"] != len(classes):
                raise InputError(
                    f"model.{name}.num_classes is {part['num_classes']}, but the data set has "
                    f"{len(classes)} classes: {', '.join(classes)}"
                )
        for name, part in _with(model, "loss_decode"):
            losses = part["loss_decode"]
            for loss in [losses] if isinstance(losses, Mapping) else losses:
                weights = loss.get("class_weight")
                if isinstance(weights, Sequence) and len(weights) != len(classes):
                    raise InputError(
                        f"model.{name}.loss_decode.class_weight has {len(weights)} numbers, "
                        f"expected one for each of the {len(classes)} classes"
                    )


def _with(parts: Mapping, key: str) -> Iterator[tuple[str, Mapping]]:
    """The parts of a model's config that set a key, with their names."""
    for name, part in parts.items():
        if isinstance(part, Mapping) and key in part:
            yield name, part


def _channels_for(part: Mapping, channels: list[int]) -> int | list[int]:
    """The channels that a backbone passes to a part: of all maps, or of those in ``in_index``.

    A part that expects one map and names none gets the last.
    """
    if isinstance(part["in_channels"], int):
        return channels[part.get("in_index", -1)]
    return [channels[index] for index in part.get("in_index", range(len(channels)))]


@HOOKS.register_module()
class ChannelsLast(Hook):
    """Keeps conv weights, and with them all maps, in channels-last order, the faster one on CPUs.

    Not in several processes: DDP has laid out its buffers by then and would copy every gradient.
    Measured: benchmarks/channels_last.py.
    """

    def before_run(self, runner: Runner) -> None:
        if not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)


def loaded_path(runner: Runner) -> str | None:
    """The checkpoint that a run was told to load or, when it resumes without a path, finds."""
    return runner.cfg.get("load_from") or find_latest_checkpoint(runner.work_dir)
