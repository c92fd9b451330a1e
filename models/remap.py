"""Parameter remapping: the seed's weights carried onto any network of the same stages.

Paper, section 3.2. Depth: layer i of a stage takes its tensors from the seed's layer min(i, l − 1),
l being the seed's layers in that stage. (The paper prints max; its text and figure mean min.)
Width: the first channels are copied. Kernel: centres coincide.
"""

import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .seed import load_seed

# A searched layer's candidates have their op's name in front: ….layers.0.ops.k5_e6.op.3.weight
_LAYER_KEY = re.compile(
    r"(?P<stage>blocks\.\d+)\.layers\.(?P<layer>\d+)\.(?:ops\.[^.]+\.)?"
    r"op\.(?P<part>\d+)\.(?P<tensor>.+)"
)
_PROJECT_PART = 6  # the project conv of an MBConv that expands; with E = 1 it is part 3
_EXPAND_PARTS = 3  # expand conv, BN, activation: what an MBConv with E = 1 lacks in front


@dataclass(frozen=True)
class _Place:
    """Where in a network of stages a tensor stands.

    ``part`` counts as in an MBConv that expands, so that it means the same (3: depthwise conv) for
    every expansion.
    """

    stage: str
    layer: int
    part: int
    tensor: str


def _places(state_dict: dict[str, Tensor]) -> dict[str, _Place]:
    """The place of every tensor of a state dict that belongs to a layer of a stage."""
    matches = {key: match for key in state_dict if (match := _LAYER_KEY.fullmatch(key))}
    # What precedes the part's number names one MBConv.
    mbconv = {key: key[: match.start("part")] for key, match in matches.items()}
    expands = {mbconv[key] for key, match in matches.items() if int(match["part"]) == _PROJECT_PART}
    return {
        key: _Place(
            stage=match["stage"],
            layer=int(match["layer"]),
            part=int(match["part"]) + (0 if mbconv[key] in expands else _EXPAND_PARTS),
            tensor=match["tensor"],
        )
        for key, match in matches.items()
    }


def find_sources(seed: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, str]:
    """The depth rule: which seed key each target key takes its values from.

    Target keys with no source, such as a neck's or the expansion of a stage whose seed layer has
    none, are left out. Keys outside the stages (stem, last conv) are sought by their own name.
    """
    seed_keys = {place: key for key, place in _places(seed).items()}
    seed_depth = Counter()
    for place in seed_keys:
        seed_depth[place.stage] = max(seed_depth[place.stage], place.layer + 1)
    target_places = _places(target)

    sources = {}
    for key in target:
        if place := target_places.get(key):
            layer = min(place.layer, seed_depth[place.stage] - 1)
            source = seed_keys.get(_Place(place.stage, layer, place.part, place.tensor))
        else:
            source = key if key in seed else None
        if source is not None:
            sources[key] = source
    return sources


def remap_tensor(source: Tensor, initial: Tensor) -> Tensor:
    """The width and kernel rules for one tensor.

    Conv weights are C_out×C_in×k×k: the first channels are copied and centres aligned; what the
    source does not cover becomes 0. Of 1-d tensors (BN) the first entries are copied and what the
    source does not cover keeps its initial value. Other tensors (BN's counter) are copied.

    Args:
        source: The seed's tensor.
        initial: The target's tensor before remapping; gives shape, type and device.
    """
    if source.dim() != initial.dim():
        raise ValueError(f"cannot remap {tuple(source.shape)} onto {tuple(initial.shape)}")
    remapped = initial.clone() if initial.dim() == 1 else torch.zeros_like(initial)
    into, out_of = [], []
    for axis, (new, old) in enumerate(zip(initial.shape, source.shape, strict=True)):
        size = min(new, old)
        # axes 0 and 1 are channels, aligned at the first; 2 and 3 the kernel's, at the centre
        new_start, old_start = ((new - size) // 2, (old - size) // 2) if axis >= 2 else (0, 0)
        into.append(slice(new_start, new_start + size))
        out_of.append(slice(old_start, old_start + size))
    remapped[tuple(into)] = source[tuple(out_of)].to(remapped)
    return remapped


def remap(
    seed_state_dict: dict[str, Tensor], target_state_dict: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Remap a seed's parameters onto a network of the same stages.

    Args:
        seed_state_dict: The seed's tensors, keys as in the released checkpoints.
        target_state_dict: The state dict of the network to initialize: a target or a super network.

    Returns:
        A new state dict with exactly the target's keys and shapes. Tensors with no source in the
        seed keep their values.
    """
    sources = find_sources(seed_state_dict, target_state_dict)
    return {
        key: remap_tensor(seed_state_dict[sources[key]], initial)
        if key in sources
        else initial.clone()
        for key, initial in target_state_dict.items()
    }


@WEIGHT_INITIALIZERS.register_module(name="Remap")
class Remap:
    """Initializer of a backbone: ``init_cfg=dict(type='Remap', seed='seed.pth')``.

    Args:
        seed: A seed file of any kind :func:`models.load_seed` reads.

    Raises:
        InputError: When it runs, if the file is no MobileNetV2 seed.
    """

    def __init__(self, seed: str | Path):
        self.seed = seed

    def __call__(self, module: nn.Module) -> None:
        seed, initial = load_seed(self.seed), module.state_dict()
        sources = find_sources(seed, initial)
        module.load_state_dict(remap(seed, initial))
        resized = sum(seed[source].shape != initial[key].shape for key, source in sources.items())
        print_log(
            f"Remap: {len(sources)} tensors from the seed {self.seed} ({resized} of them "
            f"cropped or embedded), {len(initial) - len(sources)} keep their initial values",
            logger="current",
            level=logging.INFO,
        )
