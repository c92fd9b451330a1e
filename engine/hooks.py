"""Hooks of both tasks."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint

from models import InputError

from .distributed import unwrapped


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
class ChannelsLast(Hook):
    """Keeps conv weights, and with them all maps, in channels-last order, the faster one on CPUs.

    Measured: benchmarks/channels_last.py.
    """

    def before_run(self, runner: Runner) -> None:
        runner.model.to(memory_format=torch.channels_last)


def loaded_path(runner: Runner) -> str | None:
    """The checkpoint that a run was told to load or, when it resumes by itself, finds."""
    return runner._load_from or find_latest_checkpoint(runner.work_dir)
