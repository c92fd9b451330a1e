"""The model of a config or of a run."""

import os
from collections.abc import Mapping

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from .compat import mmcv_ops
from .config import REPO, import_scope


def build_model(
    path: str, device: str = "meta", options: Mapping[str, object] | None = None
) -> tuple[nn.Module, Config]:
    """The model of a config, and the config; on the meta device it has shapes, but no weights.

    Args:
        path: A config file, from the repository's root, which becomes the current folder.
        device: Where to build it.
        options: Settings to override, as ``--cfg-options`` does.
    """
    os.chdir(REPO)
    with mmcv_ops.quiet_imports():
        cfg = Config.fromfile(path)
        import_scope(cfg.default_scope)
    cfg.merge_from_dict(dict(options or {}))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model), cfg


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, whether or not a runner has wrapped it for several processes."""
    return model.module if is_model_wrapper(model) else model


def task_losses(model: BaseModel, batch: dict) -> dict[str, Tensor | list[Tensor]]:
    """The losses of a batch from a loader, by name, as the model's own ``train_step`` has them."""
    return model(**model.data_preprocessor(batch, True), mode="loss")
