"""Parameter remapping: the seed's weights carried onto any network of the same stages.

Paper, section 3.2. Depth: layer i of a stage takes its tensors from the seed's layer min(i, l − 1),
l being the seed's layers in that stage. (The paper prints max; its text and figure mean min.)
Width: the first channels are copied. Kernel: centres coincide. The variants that the paper studies
(its table 6) keep the most important channels instead, or spread the kernel; each rule can also be
left out.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .errors import InputError
from .seed import load_seed

# A searched layer's candidates have their op's name in front: ….layers.0.ops.k5_e6.op.3.weight
_LAYER_KEY = re.compile(
    r"(?P<stage>blocks\.\d+)\.layers\.(?P<layer>\d+)\.(?:ops\.[^.]+\.)?"
    r"op\.(?P<part>\d+)\.(?P<tensor>.+)"
)
_CONV_KEY = re.compile(r"blocks\.(?P<block>\d+)\.(?:conv\.)?(?P<part>[01])\..+")
_PROJECT_PART = 6  # the project conv of an MBConv that expands; with E = 1 it is part 3
_EXPAND_PARTS = 3  # expand conv, BN, activation: what an MBConv with E = 1 lacks in front
# What the channels of the leading axes are, by part: the layer's inputs, those inside, its outputs.
_CHANNELS = {
    0: ("inside", "inputs"),
    1: ("inside",),
    3: ("inside",),
    4: ("inside",),
    6: ("outputs", "inside"),
    7: ("outputs",),
}

# How much an output channel matters, from its conv's weight and the weight of the BN after it.
_IMPORTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bn": lambda conv, bn: bn.abs(),
    "std": lambda conv, bn: conv.flatten(1).std(1, correction=0),
    "l1": lambda conv, bn: conv.flatten(1).abs().sum(1),
}
# How far apart neighbours in a smaller kernel lie in a larger one, from both sizes.
_KERNEL_STEP: dict[str, Callable[[int, int], int]] = {
    "center": lambda small, large: 1,
    "dilate": lambda small, large: (large - 1) // (small - 1) if small > 1 else 1,
}
_RULES = {
    "width": ("first", *_IMPORTANCE, None),
    "kernel": (*_KERNEL_STEP, None),
    "depth": (True, False),
}


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


def find_sources(
    seed: dict[str, Tensor],
    target: dict[str, Tensor],
    width: str | None = "first",
    kernel: str | None = "center",
    depth: bool = True,
) -> dict[str, str]:
    """The depth rule: which seed key each target key takes its values from.

    Target keys with no source, such as a neck's or the expansion of a stage whose seed layer has
    none, are left out, and so are those that need a rule which is left out (see :func:`remap`).
    Keys outside the stages (stem, last conv) are sought by their own name.
    """
    if width is None and kernel is None and not depth:
        return {}
    seed_keys = {place: key for key, place in _places(seed).items()}
    seed_depth = Counter()
    for place in seed_keys:
        seed_depth[place.stage] = max(seed_depth[place.stage], place.layer + 1)
    target_places = _places(target)

    sources = {}
    for key, initial in target.items():
        if place := target_places.get(key):
            last = seed_depth[place.stage] - 1
            layer = min(place.layer, last) if depth else place.layer
            source = seed_keys.get(_Place(place.stage, layer, place.part, place.tensor))
        else:
            source = key if key in seed else None
        if source is None:
            continue
        old, new = seed[source].shape, initial.shape
        if (width is None and old[:2] != new[:2]) or (kernel is None and old[2:] != new[2:]):
            continue
        sources[key] = source
    return sources


def _channel_names(seed: dict[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Names of the channels along the leading axes of each tensor of a seed.

    Axes of one name share their channels: ``blocks.2`` are the outputs of that block, which the
    residual additions of its layers mix and the next block reads; ``blocks.2.layers.0`` are what
    that layer expands to. A layer without expansion has its inputs inside.
    """
    places = _places(seed)
    expanding = {(place.stage, place.layer) for place in places.values() if place.part == 0}
    names = {}
    for key, place in places.items():
        stage, layer = place.stage, place.layer
        inputs = stage if layer else f"blocks.{int(stage.removeprefix('blocks.')) - 1}"
        inside = f"{stage}.layers.{layer}" if (stage, layer) in expanding else inputs
        of_layer = dict(inputs=inputs, inside=inside, outputs=stage)
        names[key] = tuple(of_layer[which] for which in _CHANNELS[place.part])
    for key in seed.keys() - names.keys():
        if match := _CONV_KEY.fullmatch(key):  # stem and last conv
            block, part = int(match["block"]), int(match["part"])
            names[key] = (f"blocks.{block}", f"blocks.{block - 1}")[: 2 - part]
    return names


def _kept_channels(
    seed: dict[str, Tensor], width: str | None
) -> Callable[[str, torch.Size], Tensor]:
    """The width rule: (a key of the seed, the target's shape) → the channels that it keeps.

    Channels are judged by the conv that makes them and its BN: expanded ones by the expand conv,
    for the depthwise conv only filters them; a stage's outputs by the sum over its layers' project
    convs, for all of them add to the same channels. Where nothing is narrower, or the first are
    kept, that is the whole tensor.
    """
    if width not in _IMPORTANCE:
        return lambda key, shape: seed[key]
    names = _channel_names(seed)
    scores: dict[str, Tensor] = {}
    for key, (name, *others) in names.items():
        if others:  # a conv that makes new channels; a depthwise conv has one name
            conv, part, _ = key.rsplit(".", 2)
            bn = seed[f"{conv}.{int(part) + 1}.weight"]
            scores[name] = scores.get(name, 0) + _IMPORTANCE[width](seed[key], bn)
    ranked = {name: score.argsort(descending=True, stable=True) for name, score in scores.items()}

    def keep(key: str, shape: torch.Size) -> Tensor:
        tensor = seed[key]
        for axis, (name, size) in enumerate(zip(names.get(key, ()), shape, strict=False)):
            if size < tensor.shape[axis] and name in ranked:
                tensor = tensor.index_select(axis, ranked[name][:size].sort().values)
        return tensor

    return keep


def remap_tensor(source: Tensor, initial: Tensor, kernel: str = "center") -> Tensor:
    """The width and kernel rules for one tensor.

    Conv weights are C_out×C_in×k×k: the first channels are copied and kernels aligned; what the
    source does not cover becomes 0. Of 1-d tensors (BN) the first entries are copied and what the
    source does not cover keeps its initial value. Other tensors (BN's counter) are copied.

    Args:
        source: The seed's tensor, or the channels of it that are to be copied.
        initial: The target's tensor before remapping; gives shape, type and device.
        kernel: ``'center'`` or ``'dilate'``. Kernel sizes are odd.
    """
    if source.dim() != initial.dim():
        raise ValueError(f"cannot remap {tuple(source.shape)} onto {tuple(initial.shape)}")
    remapped = initial.clone() if initial.dim() == 1 else torch.zeros_like(initial)
    into, out_of = [], []
    for axis, (new, old) in enumerate(zip(initial.shape, source.shape, strict=True)):
        size, large = min(new, old), max(new, old)
        # axes 0 and 1 are channels, aligned at the first; 2 and 3 the kernel's, at the centre
        step = _KERNEL_STEP[kernel](size, large) if axis >= 2 else 1
        start = (large - 1 - step * (size - 1)) // 2 if axis >= 2 else 0
        spread = slice(start, start + step * (size - 1) + 1, step)
        into.append(spread if new > old else slice(size))
        out_of.append(slice(size) if new > old else spread)
    remapped[tuple(into)] = source[tuple(out_of)].to(remapped)
    return remapped


def remap(
    seed_state_dict: dict[str, Tensor],
    target_state_dict: dict[str, Tensor],
    width: str | None = "first",
    kernel: str | None = "center",
    depth: bool = True,
) -> dict[str, Tensor]:
    """Remap a seed's parameters onto a network of the same stages.

    The defaults are the paper's method. All tensors that share channels follow one list of indices,
    so a narrower network computes what these channels compute in the seed.

    Args:
        seed_state_dict: The seed's tensors, keys as in the released checkpoints.
        target_state_dict: The state dict of the network to initialize: a target or a super network.
        width: Which channels of the seed a narrower tensor keeps, in their order: the ``'first'``,
            or the most important by ``'bn'`` (|weight| of the BN after the conv), ``'std'``
            (standard deviation of the conv's weights) or ``'l1'`` (their L1 norm). Wider tensors
            take all of the seed's channels in front. With None, tensors of another width keep
            their initial values.
        kernel: Where a kernel goes in a larger one: ``'center'``, or ``'dilate'`` for a 3x3 on the
            corners, the middles of the edges and the centre. A smaller kernel takes the seed's
            values from these places. With None, kernels of another size keep their initial values.
        depth: Whether layers beyond the seed's last of a stage take its tensors. If not, they keep
            their initial values.

    Without any of the three rules there is no remapping: every tensor keeps its initial value, even
    where it has the seed's shape.

    Returns:
        A new state dict with exactly the target's keys and shapes. Tensors with no source in the
        seed keep their values.

    Raises:
        InputError: ``width``, ``kernel`` or ``depth`` is none of these.
    """
    _check_rules(width=width, kernel=kernel, depth=depth)
    sources = find_sources(seed_state_dict, target_state_dict, width, kernel, depth)
    kept = _kept_channels(seed_state_dict, width)
    return {
        key: remap_tensor(kept(sources[key], initial.shape), initial, kernel or "center")
        if key in sources
        else initial.clone()
        for key, initial in target_state_dict.items()
    }


def _check_rules(**rules: str | bool | None) -> None:
    for name, value in rules.items():
        if value not in _RULES[name]:
            expected = ", ".join(map(repr, _RULES[name]))
            raise InputError(f"Remap: {name} is {value!r}, expected one of {expected}")


@WEIGHT_INITIALIZERS.register_module(name="Remap")
class Remap:
    """Initializer of a backbone: ``init_cfg=dict(type='Remap', seed='seed.pth')``.

    What takes nothing from the seed keeps the values that the network has by then: PyTorch's own,
    or in a list of initializers those of the ones before.

    Args:
        seed: A seed file of any kind :func:`models.load_seed` reads.
        width, kernel, depth: The rules, as in :func:`remap`; the defaults are the paper's method.

    Raises:
        InputError: A rule is unknown; when it runs, if the file is no MobileNetV2 seed.
    """

    def __init__(
        self,
        seed: str | Path,
        width: str | None = "first",
        kernel: str | None = "center",
        depth: bool = True,
    ):
        self.seed = seed
        self.rules = dict(width=width, kernel=kernel, depth=depth)
        _check_rules(**self.rules)

    def __call__(self, module: nn.Module) -> None:
        seed, initial = load_seed(self.seed), module.state_dict()
        sources = find_sources(seed, initial, **self.rules)
        module.load_state_dict(remap(seed, initial, **self.rules))
        resized = sum(seed[source].shape != initial[key].shape for key, source in sources.items())
        rules = ", ".join(f"{name} {rule}" for name, rule in self.rules.items())
        print_log(
            f"Remap ({rules}): {len(sources)} tensors from the seed {self.seed} ({resized} of them "
            f"cropped or embedded), {len(initial) - len(sources)} keep their initial values",
            logger="current",
            level=logging.INFO,
        )
