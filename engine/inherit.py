"""Parameter adaptation that starts from what a search has learned, and not from the seed."""

from pathlib import Path

from mmengine.config import Config

from models import InputError, NetConfig
from models.inherit import find_path, load_search

from .architecture import refuse_other
from .checkpoints import newest_checkpoint

_NET_CONFIG = "net_config.txt"


def inherit_from(cfg: Config, source: str, asked: str | None = None) -> None:
    """Give a config the architecture that a search found, and initializers that take its weights.

    The backbone takes those of its path; the other parts, such as neck and heads, take theirs where
    names and shapes are equal.

    Args:
        source: The search's work dir, of which the newest checkpoint is taken, or a checkpoint in
            it; an absolute path.
        asked: What to call the config's architecture in a message, if the user asked for it.

    Raises:
        InputError: The config is of a search itself, ``source`` is no search that has found an
            architecture, or the user asked for another one.
    """
    backbone = cfg.model.get("backbone") or {}
    if "net_config" not in backbone:
        raise InputError(
            "--inherit: the config's backbone takes no net_config; a search starts from the seed"
        )
    checkpoint = _checkpoint(Path(source))
    candidates, _ = load_search(checkpoint)
    found = checkpoint.parent / _NET_CONFIG
    if not found.is_file():
        raise InputError(
            f"--inherit {source}: the search has found no architecture yet: no {_NET_CONFIG} in "
            f"{checkpoint.parent}"
        )
    net_config = NetConfig.parse(found)
    if asked:
        configured = NetConfig.parse(backbone.net_config)
        refuse_other(net_config, configured, str(found), asked, f"leave {asked} out")
    try:
        find_path(net_config, candidates)
    except InputError as error:
        raise InputError(f"--inherit {source}: {found}: {error} of {checkpoint}") from None
    backbone.net_config = str(net_config)
    backbone.init_cfg = dict(type="Inherit", checkpoint=str(checkpoint))
    cfg.model.init_cfg = dict(type="InheritHeads", checkpoint=str(checkpoint))


def _checkpoint(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"--inherit {source}: no such folder or checkpoint")
    checkpoint, unusable = newest_checkpoint(source)
    if checkpoint is None:
        reasons = "; ".join(["holds no checkpoint of a search", *unusable])
        raise InputError(f"--inherit {source}: {reasons}")
    return checkpoint
