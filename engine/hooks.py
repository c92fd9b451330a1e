"""Hooks of both tasks."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from models import InputError


@HOOKS.register_module()
class MatchCheckpoint(Hook):
    """Refuses a checkpoint of another architecture; mmengine would load what happens to fit.

    Args:
        path: What to call the checkpoint in the message.

    Raises:
        InputError: When a checkpoint is loaded that lacks a tensor of the model, has one more, or
            one of another shape.
    """

    def __init__(self, path: str):
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        state_dict = checkpoint.get("state_dict")
        if not isinstance(state_dict, dict):
            raise InputError(f"checkpoint {self.path}: holds no state_dict")
        found = {
            key.removeprefix("module."): tuple(getattr(tensor, "shape", ()))
            for key, tensor in state_dict.items()
        }
        differing = [key for key in expected | found if expected.get(key) != found.get(key)]
        if differing:
            key = differing[0]
            raise InputError(
                f"checkpoint {self.path}: is of another architecture; {len(differing)} tensors "
                f"differ, first {key}: expected {expected.get(key, 'none')}, found "
                f"{found.get(key, 'none')} (is --net-config the one it was trained with?)"
            )
