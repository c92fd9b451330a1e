"""The config of a search, as commands name it."""

import argparse

from mmengine.config import Config
from torch import nn

from engine.building import building
from engine.config import load_model_config
from engine.model import model_of
from models import FNASuperNet, InputError


def load_search_model(args: argparse.Namespace, device: str = "meta") -> tuple[nn.Module, Config]:
    """The model of a command line's config, whose backbone is a super network, and the config.

    Args:
        args: With ``config`` and ``cfg_options``, as ``add_model_arguments`` gives them.
        device: Where to build the model.

    Raises:
        InputError: There is no such config, it cannot be built, or it is not that of a search.
    """
    cfg = load_model_config(args)
    with building(cfg):
        model = model_of(cfg, device)
    is_supernet = isinstance(getattr(model, "backbone", None), FNASuperNet)
    if not is_supernet or not (cfg.get("train_cfg") or {}).get("cost"):
        raise InputError(f"config {args.config}: is of no architecture adaptation")
    return model, cfg
