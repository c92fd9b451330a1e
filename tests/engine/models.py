"""Checkpoints of toy models that have learned nothing."""

from pathlib import Path

import torch
from mmengine.registry import DATASETS, DefaultScope

from engine.model import build_model
from models import NetConfig
from tests.conftest import randomize

CONFIGS = {
    "retinanet": "configs/fna_det/retinanet_param_adapt_toy.py",
    "ssdlite": "configs/fna_det/ssdlite_param_adapt_toy.py",
    "deeplabv3": "configs/fna_seg/deeplabv3_param_adapt_toy.py",
}


def write_checkpoint(
    path: Path, framework: str, net_config: NetConfig | None = None, carried: bool = True
) -> dict:
    """Write weights of a framework's toy model, or a config's, of an architecture or its own.

    Beside it, ``NAME.py`` is the config as a run dumps it. Returns what the checkpoint holds.
    """
    options = {"model.backbone.net_config": str(net_config)} if net_config else {}
    model, cfg = build_model(CONFIGS.get(framework, framework), device="cpu", options=options)
    randomize(model.backbone)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        metainfo = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo
    meta = {"dataset_meta": {key: metainfo[key] for key in ("classes", "palette")}}
    architecture = NetConfig.parse(cfg.model.backbone.net_config)
    if carried:
        meta["net_config"] = str(architecture)
    checkpoint = dict(meta=meta, state_dict=model.state_dict())
    torch.save(checkpoint, path)
    cfg.model.backbone.net_config = str(architecture)
    cfg.dump(path.with_suffix(".py"))
    return checkpoint
