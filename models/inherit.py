"""Weights for a derived network from the super network that it was derived from.

The paper remaps the seed again after its search. Here the network takes what its path has learned,
from a super network of either kind: whole tensors from separate candidates, slices from shared
weights. Its BN layers inside searched stages start with scale 1 and shift 0, as the super
network's have none; in training mode it computes what the super network's path computes.
"""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .backbone import FNABackbone
from .errors import InputError
from .files import load_tensors
from .net_config import NetConfig
from .ops import SKIP
from .remap import LAYER_KEY, remap_tensor

STATE = "arch_adapt"  # what a search keeps in its checkpoints
_LAYER = re.compile(r"\d+\.\d+")  # stage and layer


def load_search(path: str | Path) -> tuple[dict[str, tuple[str, ...]], dict[str, Tensor]]:
    """What a search's checkpoint knows.

    Returns:
        Candidate ops by layer, as in :attr:`SearchSpace.candidates`, and the model's state dict.

    Raises:
        InputError: The file is no checkpoint, or one of no search.
    """
    checkpoint = load_tensors(path, "checkpoint")
    state = checkpoint.get(STATE) if isinstance(checkpoint, Mapping) else None
    space = state.get("search_space") if isinstance(state, Mapping) else None
    tensors = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(space, Mapping) or not isinstance(tensors, Mapping):
        raise InputError(
            f"checkpoint {path}: is of no architecture adaptation, so nothing can inherit from it"
        )
    for layer, ops in space.items():
        named = isinstance(layer, str) and _LAYER.fullmatch(layer)
        if not named or not isinstance(ops, list) or not all(isinstance(op, str) for op in ops):
            raise InputError(f"checkpoint {path}: its search space is damaged")
    return {layer: tuple(ops) for layer, ops in space.items()}, dict(tensors)


def find_path(
    net_config: NetConfig,
    candidates: Mapping[str, tuple[str, ...]],
    scores: Mapping[str, list[float]] | None = None,
) -> dict[tuple[int, int], tuple[str, str]]:
    """Which searched layer each layer of an architecture comes from.

    A net_config has its stage's skips last, wherever they stood in the super network. Of all paths
    that the text may stand for, this is the one of the greatest score: for the derived
    architecture, the path that was derived.

    Args:
        candidates: Candidate ops by layer ``'S.L'``.
        scores: log softmax(α) by layer, one number per candidate; without them any of the paths.

    Returns:
        (stage, layer) of the net_config, counted from 1 and 0 → the searched layer's name, its op.
        Layers of a stage that is not searched are left out.

    Raises:
        InputError: The search space does not hold the architecture.
    """
    path = {}
    for number, stage in enumerate(net_config.stages, 1):
        layers = [name for name in candidates if name.split(".")[0] == str(number)]
        if not layers:
            continue
        real = [op for op in stage.ops if op != SKIP]
        best: tuple[float, list[str]] | None = None
        for chosen in itertools.combinations(range(len(layers)), len(real)):
            ops = [SKIP] * len(layers)
            for place, op in zip(chosen, real, strict=True):
                ops[place] = op
            if not all(op in candidates[name] for op, name in zip(ops, layers, strict=True)):
                continue
            score = sum(
                scores[name][candidates[name].index(op)] if scores else 0.0
                for op, name in zip(ops, layers, strict=True)
            )
            if best is None or score > best[0]:
                best = score, [layers[place] for place in chosen]
        if best is None:
            raise InputError(
                f"net_config: stage {number}: {', '.join(stage.ops)} is not in the search space"
            )
        for layer, (name, op) in enumerate(zip(best[1], real, strict=True)):
            path[number, layer] = name, op
    return path


@WEIGHT_INITIALIZERS.register_module(name="Inherit")
class Inherit:
    """Initializer of a backbone: ``dict(type='Inherit', checkpoint='search/epoch_9.pth')``.

    Args:
        checkpoint: A checkpoint of an architecture adaptation, of either kind of super network.

    Raises:
        InputError: When it runs, if the file is no such checkpoint, or if the backbone is not in
            its search space.
    """

    def __init__(self, checkpoint: str | Path):
        self.checkpoint = checkpoint

    def __call__(self, module: FNABackbone) -> None:
        candidates, tensors = load_search(self.checkpoint)
        learned = {
            key.removeprefix("backbone."): tensor
            for key, tensor in tensors.items()
            if key.startswith("backbone.")
        }
        initial = module.state_dict()
        try:
            scores = {name: _scores(learned, name, ops) for name, ops in candidates.items()}
            path = find_path(module.net_config, candidates, scores)
            inherited = _inherit(initial, learned, path)
        except InputError as error:
            raise InputError(f"checkpoint {self.checkpoint}: {error}") from None
        module.load_state_dict(initial | inherited)
        print_log(
            f"Inherit: {len(inherited)} tensors from the search's checkpoint {self.checkpoint}, "
            f"{len(initial) - len(inherited)} keep their initial values",
            logger="current",
            level=logging.INFO,
        )


@WEIGHT_INITIALIZERS.register_module()
class InheritHeads:
    """Initializer of a whole model: what is not its backbone takes what the search has learned.

    Tensors of another name or shape, as of a head for other classes, keep their initial values.

    Args:
        checkpoint: As of :class:`Inherit`.

    Raises:
        InputError: When it runs, if the file is no checkpoint of a search.
    """

    def __init__(self, checkpoint: str | Path):
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        learned = load_search(self.checkpoint)[1]
        for child in module.children():
            if hasattr(child, "init_weights"):  # mmengine's own would come later, over ours
                child.init_weights()
        initial = {
            key: tensor
            for key, tensor in module.state_dict().items()
            if not key.startswith("backbone.")
        }
        inherited = {
            key: learned[key]
            for key, tensor in initial.items()
            if key in learned and learned[key].shape == tensor.shape
        }
        module.load_state_dict(inherited, strict=False)
        total, taken = (Counter(key.split(".")[0] for key in keys) for keys in (initial, inherited))
        shares = ", ".join(f"{part} {taken[part]} of {total[part]} tensors" for part in total)
        print_log(
            f"Inherit: {shares} from the search's checkpoint {self.checkpoint}",
            logger="current",
            level=logging.INFO,
        )


def _scores(learned: Mapping[str, Tensor], layer: str, ops: tuple[str, ...]) -> list[float]:
    alpha = learned.get("blocks.{}.layers.{}.alpha".format(*layer.split(".")))
    if not isinstance(alpha, Tensor) or alpha.shape != (len(ops),):
        raise InputError(f"has no alpha of {len(ops)} candidates for layer {layer}")
    return torch.log_softmax(alpha.double(), dim=0).tolist()


def _inherit(
    initial: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    path: Mapping[tuple[int, int], tuple[str, str]],
) -> dict[str, Tensor]:
    """The tensors of ``initial`` that the super network has, with its values."""
    inherited = {}
    for key, tensor in initial.items():
        match, sources = LAYER_KEY.fullmatch(key), [key]
        if match:
            place = int(match["stage"].split(".")[1]), int(match["layer"])
            if place in path:
                name, op = path[place]
                layer = "blocks.{}.layers.{}".format(*name.split("."))
                sources = [f"{layer}.ops.{op}.{match['rest']}", f"{layer}.{match['rest']}"]
        source = next((learned[name] for name in sources if name in learned), None)
        if source is not None:
            inherited[key] = _slice(key, source, tensor)
        elif tensor.dim() == 4:
            raise InputError(f"lacks {sources[0]}, expected the backbone that was searched")
    return inherited


def _slice(key: str, source: Tensor, initial: Tensor) -> Tensor:
    """Of a tensor that several candidates share, what belongs to the one."""
    larger = source.dim() == initial.dim() and all(
        old >= new for old, new in zip(source.shape, initial.shape, strict=True)
    )
    if not larger or (initial.dim() != 4 and source.shape != initial.shape):
        raise InputError(
            f"{key} is {tuple(source.shape)}, expected {tuple(initial.shape)} or a larger kernel"
        )
    return remap_tensor(source, initial)
