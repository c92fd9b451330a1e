"""The model of a config or of a run."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope, init_default_scope
from torch import Tensor, nn

from models import NetConfig
from models.files import locate

from .architecture import check_weights, take_net_config
from .compat.safe_load import load_checkpoint_file
from .config import REPO, config_path, read_config
from .released import convert

# mmseg's on a setting that does not go with weights of classes
MMSEG_ADVICE = "Default ``avg_non_ignore`` is False"


def build_model(
    path: str, device: str = "meta", options: Mapping[str, object] | None = None
) -> tuple[nn.Module, Config]:
    """The model of a config, and the config; on the meta device it has shapes, but no weights.

    Args:
        path: A config file, from the repository's root, which becomes the current folder.
        device: Where to build it.
        options: Settings to override, as ``--cfg-options`` does.

    Raises:
        InputError: There is no such file.
    """
    os.chdir(REPO)
    cfg = read_config(config_path(path))
    cfg.merge_from_dict(dict(options or {}))
    return model_of(cfg, device), cfg


def model_of(cfg: Config, device: str) -> nn.Module:
    """The model of a config that has been read, as :func:`build_model` makes it."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model)


def init_model(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    net_config: NetConfig | str | Path | list | None = None,
) -> nn.Module:
    """The trained model of a config, for mmdet's ``inference_detector`` or mmseg's
    ``inference_model``.

    As mmdet's ``init_detector`` and mmseg's ``init_model`` make it, but of the architecture that
    the checkpoint carries, and never with layers that the checkpoint does not have.

    Args:
        config: The config of the training, from ``configs/`` or from the run's work dir. Paths are
            from the current folder or else the repository.
        checkpoint: A checkpoint of a run, or one of the authors'.
        device: Default: the GPU, or the CPU where there is none.
        net_config: The architecture of a checkpoint that carries none, where it is not the
            config's.

    Raises:
        InputError: The checkpoint cannot be read or is not of this config or architecture.
    """
    cfg = config.copy() if isinstance(config, Config) else read_config(locate(config))
    if net_config is not None:
        cfg.model.backbone.net_config = str(NetConfig.parse(net_config))
    return load_model(cfg, checkpoint, device, "net_config" if net_config is not None else None)


def load_model(
    cfg: Config,
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    asked: str | None = None,
) -> nn.Module:
    """As :func:`init_model`, of a config that may be changed.

    Args:
        asked: What to call the config's architecture in a message, if the user asked for it.
    """
    path = locate(checkpoint)
    where = f"checkpoint {path}"
    loaded = load_checkpoint_file(path)
    take_net_config(cfg, loaded, where, asked)

    init_default_scope(cfg.default_scope)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MMSEG_ADVICE, UserWarning)
        model = MODELS.build(cfg.model)
    if converted := convert(loaded, model, where):
        loaded = dict(loaded, state_dict=converted[0])
    check_weights(model, loaded, where, cfg)
    weights = {key.removeprefix("module."): w for key, w in loaded["state_dict"].items()}
    model.load_state_dict(weights, strict=False)  # BN's counters may be missing
    model.dataset_meta = _dataset_meta(cfg, loaded)
    model.cfg = cfg
    return model.to(device or get_device()).eval()


def _dataset_meta(cfg: Config, checkpoint: Mapping) -> dict:
    """Names and colours of the classes, from the checkpoint or else the config's data set."""
    meta = checkpoint.get("meta")
    kept = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    classes = kept.get("classes") if isinstance(kept, Mapping) else None
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        return kept
    return DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, whether or not a runner has wrapped it for several processes."""
    return model.module if is_model_wrapper(model) else model


def task_losses(model: BaseModel, batch: dict) -> dict[str, Tensor | list[Tensor]]:
    """The losses of a batch from a loader, by name, as the model's own ``train_step`` has them."""
    return model(**model.data_preprocessor(batch, True), mode="loss")
