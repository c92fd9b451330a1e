"""Hooks of both tasks."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint

from models import InputError

from .distributed import unwrapped
from .released import convert


@HOOKS.register_module()
class ConvertReleased(Hook):
    """Lets a run load the paper's released checkpoints as they are, and says what it made of them.

    Raises:
        InputError: When one is loaded that does not fit the model.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        where = f"checkpoint {loaded_path(runner)}"
        if converted := convert(checkpoint, unwrapped(runner.model), where):
            checkpoint["state_dict"], report = converted
            runner.logger.info(report)


@HOOKS.register_module()
class MatchCheckpoint(Hook):
    """Refuses a checkpoint of another architecture; mmengine would load what happens to fit.

    Raises:
        InputError: When a checkpoint is loaded that lacks a tensor of the model, has one more, or
            one of another shape; when a run is resumed from one without the state of a run.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        where = f"checkpoint {loaded_path(runner)}"
        model = unwrapped(runner.model)
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        state_dict = checkpoint.get("state_dict")
        if not isinstance(state_dict, dict):
            raise InputError(f"{where}: holds no state_dict")
        found = {
            key.removeprefix("module."): tuple(getattr(tensor, "shape", ()))
            for key, tensor in state_dict.items()
        }
        differing = [
            key
            for key in expected | found
            # BN's counter is younger than some checkpoints, and nothing here reads it
            if expected.get(key) != found.get(key) and not key.endswith("num_batches_tracked")
        ]
        if differing:
            key = differing[0]
            raise InputError(
                f"{where}: is of another architecture; {len(differing)} tensors differ, first "
                f"{key}: expected {expected.get(key, 'none')}, found {found.get(key, 'none')} "
                "(is --net-config the one it was trained with?)"
            )
        missing = {"meta", "message_hub", "optimizer"} - set(checkpoint)
        if runner._resume and missing:
            raise InputError(
                f"{where}: has no {', '.join(sorted(missing))}, so no run can go on from it; to "
                "start from its weights, use --cfg-options load_from=CHECKPOINT"
            )


@HOOKS.register_module()
class CheckModel(Hook):
    """Refuses a model whose parts do not fit each other or the data set, before it runs.

    Of a detector's head with too few classes mmdet would take the first that it lacks for
    background, without a word.

    Raises:
        InputError: A neck or head expects other channels than the backbone gives, or the head
            another number of classes than the data set has.
    """

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader.dataset.metainfo["classes"])

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader.dataset.metainfo["classes"])

    def _check(self, runner: Runner, classes: Sequence[str]) -> None:
        cfg, model = runner.cfg.model, unwrapped(runner.model)
        channels = list(model.backbone.out_channels)
        for key, expected, maps in _uses_of_features(cfg):
            given = [channels[i] for i in maps] if isinstance(maps, Sequence) else channels[maps]
            if given != expected:
                raise InputError(
                    f"model.{key} is {expected}, but the backbone gives {given} channels"
                )
        head = "bbox_head" if "bbox_head" in cfg else "decode_head"
        num_classes = getattr(model, head).num_classes
        if num_classes != len(classes):
            raise InputError(
                f"model.{head}.num_classes is {num_classes}, but the data set has {len(classes)} "
                f"classes: {', '.join(classes)}"
            )


def _uses_of_features(model: Mapping) -> Iterator[tuple]:
    """Where a model's config says what channels it expects: the key, these, and of which maps."""
    if "neck" in model:
        yield "neck.in_channels", list(model["neck"]["in_channels"]), slice(None)
        return
    head = model["decode_head"]
    expected = head["in_channels"]
    if isinstance(expected, Sequence):
        expected = list(expected)
    yield "decode_head.in_channels", expected, head.get("in_index", -1)
    if "low_level_in_channels" in head:
        yield "decode_head.low_level_in_channels", head["low_level_in_channels"], 0


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
    """The checkpoint that a run was told to load or, when it resumes by itself, finds."""
    return runner._load_from or find_latest_checkpoint(runner.work_dir)
