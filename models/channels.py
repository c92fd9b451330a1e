"""Which of the seed's channels a narrower network keeps (paper, table 6)."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

# How much an output channel matters, from its conv's weight and the weight of the BN after it.
IMPORTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bn": lambda conv, bn: bn.abs(),
    "std": lambda conv, bn: conv.flatten(1).std(1, correction=0),
    "l1": lambda conv, bn: conv.flatten(1).abs().sum(1),
}

_MBCONV_KEY = re.compile(
    r"blocks\.(?P<stage>\d+)\.layers\.(?P<layer>\d+)\.(?P<part>expand|depthwise|project)\."
    r"(?P<index>[01])\..+"
)
_CONV_KEY = re.compile(r"blocks\.(?P<block>\d+)\.(?:conv\.)?(?P<index>[01])\..+")


def channel_picker(seed: dict[str, Tensor], width: str) -> Callable[[str, torch.Size], Tensor]:
    """The width rule: (a key of the seed, the target's shape) → the channels that it keeps.

    Channels are judged by the conv that makes them and its BN: expanded ones by the expand conv,
    because the depthwise conv only filters them; a stage's outputs by the sum over its layers'
    project convs, because all of them add to the same channels. All tensors that share channels
    follow one list of indices, in ascending order.
    """
    names = _channel_names(seed)
    scores: dict[str, Tensor] = {}
    for key, (name, *others) in names.items():
        if others:  # a conv that makes new channels; a depthwise conv has one name
            bn = seed[re.sub(r"\.0\.weight$", ".1.weight", key)]
            scores[name] = scores.get(name, 0) + IMPORTANCE[width](seed[key], bn)
    ranked = {name: score.argsort(descending=True, stable=True) for name, score in scores.items()}

    def pick(key: str, shape: torch.Size) -> Tensor:
        tensor = seed[key]
        for axis, (name, size) in enumerate(zip(names.get(key, ()), shape, strict=False)):
            if size < tensor.shape[axis] and name in ranked:
                tensor = tensor.index_select(axis, ranked[name][:size].sort().values)
        return tensor

    return pick


def _channel_names(seed: dict[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Names of the channels along the leading axes of each tensor of a seed.

    Axes of one name share their channels: ``blocks.2`` are the outputs of that block, which the
    residual additions of its layers mix and the next block reads; ``blocks.2.layers.0`` are what
    that layer expands to. In a layer without expansion, its inputs are inside.
    """
    names = {}
    for key in seed:
        if match := _MBCONV_KEY.fullmatch(key):
            stage, layer = int(match["stage"]), int(match["layer"])
            outputs = f"blocks.{stage}"
            inputs = outputs if layer else f"blocks.{stage - 1}"
            prefix = f"{outputs}.layers.{layer}"
            inside = prefix if f"{prefix}.expand.0.weight" in seed else inputs
            of_conv = dict(expand=(inside, inputs), depthwise=(inside,), project=(outputs, inside))[
                match["part"]
            ]
        elif match := _CONV_KEY.fullmatch(key):  # stem and last conv
            block = int(match["block"])
            of_conv = f"blocks.{block}", f"blocks.{block - 1}"
        else:
            continue
        names[key] = of_conv[:1] if match["index"] == "1" else of_conv  # a BN has its outputs only
    return names
