"""The architecture that a checkpoint carries, and whether its weights are a model's."""

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from models import InputError, NetConfig
from models.backbone import differing_tensors
from models.errors import printable, shown
from models.net_config import is_text

_NET_CONFIG = "--net-config the one it was trained with?"


def own_net_config(model: nn.Module) -> NetConfig | None:
    """The architecture of a model's backbone, None where it has none."""
    return getattr(getattr(model, "backbone", None), "net_config", None)


def carried_net_config(checkpoint: Mapping, where: str) -> NetConfig | None:
    """The architecture that a checkpoint carries; None in one of others, or of a search.

    Args:
        where: What to call the file in a message.

    Raises:
        InputError: What it carries is no architecture.
    """
    meta = checkpoint.get("meta")
    text = meta.get("net_config") if isinstance(meta, Mapping) else None
    if text is None:
        return None
    if not isinstance(text, str) or not is_text(text):  # a path in it would be read
        raise InputError(f"{where}: meta.net_config is {shown(text)}, expected an architecture")
    try:
        return NetConfig.parse(text)
    except InputError as error:
        raise InputError(f"{where}: meta.{error}") from None


def take_net_config(cfg: Config, checkpoint: Mapping, where: str, asked: str | None = None) -> bool:
    """Put the architecture that a checkpoint carries into a config, in place of the config's.

    Args:
        where: What to call the file in a message.
        asked: What to call the config's architecture there, if the user asked for it.

    Returns:
        Whether the config had another one.

    Raises:
        InputError: The user asked for another one.
    """
    backbone = cfg.get("model", {}).get("backbone", {})
    carried = carried_net_config(checkpoint, where)
    if carried is None or "net_config" not in backbone:
        return False
    configured = NetConfig.parse(backbone.net_config)
    if asked:
        hint = f"leave {asked} out to take the checkpoint's"
        refuse_other(carried, configured, where, asked, hint)
    backbone.net_config = str(carried)
    return carried.without_skips() != configured.without_skips()


def refuse_other(carried: NetConfig, expected: NetConfig, where: str, name: str, hint: str) -> None:
    """Raise InputError where a checkpoint carries another architecture than ``name`` says."""
    carried, expected = carried.without_skips(), expected.without_skips()
    if carried == expected:
        return
    pairs = enumerate(zip(carried.stages, expected.stages, strict=False), 1)
    different = next(((n, one, other) for n, (one, other) in pairs if one != other), None)
    if different:
        number, one, other = different
        what = f"its stage {number} is {one}, not {other}"
    else:
        what = f"it has {len(carried.stages)} stages, not {len(expected.stages)}"
    raise InputError(f"{where}: is of another architecture than {name}: {what} ({hint})")


def check_weights(model: nn.Module, checkpoint: Mapping, where: str, cfg: Mapping) -> None:
    """Refuse a checkpoint that is not a model's; mmengine would load what happens to fit.

    Args:
        where: What to call the file in a message.
        cfg: The config that built the model.

    Raises:
        InputError: It has no weights, lacks a tensor of the model, has one more, or one of another
            shape or that is not finite, or it carries another architecture than the model's
            backbone has.
    """
    state_dict = checkpoint.get("state_dict")
    if not isinstance(state_dict, dict):
        raise InputError(f"{where}: holds no state_dict")
    carried, own = carried_net_config(checkpoint, where), own_net_config(model)
    if carried and own:
        refuse_other(carried, own, where, "the model", f"is {_NET_CONFIG}")
    found = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    if differing := differing_tensors(model.state_dict(), found):
        raise InputError(f"{where}: is {_what_differs(differing, cfg)}")
    for key, tensor in state_dict.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{where}: {printable(key)} is not finite")


def _what_differs(differing: list[tuple], cfg: Mapping) -> str:
    """Which tensors differ, and which of the two, architecture or config, is the wrong one.

    Only the backbone follows from net_config: what else differs, another config built.
    """
    others = [difference for difference in differing if not difference[0].startswith("backbone.")]
    if others:
        config = Path(getattr(cfg, "filename", None) or "this config").name
        what, question = "another model's", f"is {config} the one it was trained with?"
    else:
        what, question = "of another architecture", f"is {_NET_CONFIG}"
    key, expected, found = (others or differing)[0]
    return (
        f"{what}; {len(differing)} tensors differ, first {printable(key)}: expected "
        f"{expected or 'none'}, found {found or 'none'} ({question})"
    )
