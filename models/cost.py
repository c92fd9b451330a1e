"""What a network costs: parameters, multiply-adds, and the cost that a search pays for."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from mmengine.registry import Registry
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .backbone import StageBlock, StagedBackbone
from .errors import InputError
from .searched_layer import SearchedLayer
from .supernet import FNASuperNet

COSTS = Registry("cost")


def count_params(module: nn.Module) -> int:
    """Number of parameters: weights, biases and BN's affine terms, without running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_madds(module: nn.Module, input_size: tuple[int, int], channels: int = 3) -> int:
    """Multiply-adds of one forward pass on an image of ``input_size`` = (height, width) in pixels.

    A conv (or linear) layer counts its multiply-adds, and one add for each output element where it
    has a bias; BN, activations, resizing and pooling count nothing. So counted, the paper's tables
    come out to their last digit. The pass runs on the meta device: it computes no image and leaves
    ``module`` as it is. Detectors and segmentors of mmdet and mmseg are counted as they train:
    backbone, neck and heads on one image. ``channels`` are the input's, for a layer counted alone.
    """
    madds = 0

    def count(layer: nn.Module, _, output: Tensor) -> None:
        nonlocal madds
        # weight is C_out × (what one output element multiplies)
        madds += output.numel() * (layer.weight[0].numel() + (layer.bias is not None))

    meta = without_norms(module)
    for layer in meta.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        meta(torch.empty(1, channels, *input_size, device="meta"))
    return madds


class Cost(Protocol):
    """Anything that prices an op. ``name`` and ``unit`` are for people: cost / unit is shown.

    One that holds for images of one size only says so by ``input_size`` = (height, width).
    """

    name: str
    unit: float

    def __call__(self, op: nn.Module, shape: tuple[int, int, int]) -> float:
        """The price of an op for one input of C×H×W."""


@COSTS.register_module()
class MAdds:
    """Multiply-adds as the cost of an op (paper, section 3.3)."""

    name = "MAdds"

    def __init__(self, unit: float = 1e9):
        self.unit = unit

    def __call__(self, op: nn.Module, shape: tuple[int, int, int]) -> float:
        channels, *size = shape
        return float(count_madds(op, size, channels))


def build_cost(cfg: dict, input_size: tuple[int, int]) -> Cost:
    """The cost of a config: its ``type`` and settings, for images of ``input_size``.

    Raises:
        InputError: A setting is missing, unknown or out of its range, or the cost holds for another
            size.
    """
    sides = input_size if isinstance(input_size, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(f"cost: input_size {input_size!r}, expected (height, width) in pixels")
    settings = dict(cfg)
    try:
        # not COSTS.build, which warns in the scope of mmdet or mmseg
        cost = COSTS.module_dict[settings.pop("type")](**settings)
    except KeyError as error:
        raise InputError(f"cost: {error.args[0]} is missing or unknown") from None
    except TypeError as error:
        raise InputError(f"cost: {error}") from None
    if not isinstance(cost.unit, int | float) or not 0 < cost.unit < math.inf:
        raise InputError(f"cost: unit {cost.unit!r}, expected a number above 0")
    size = getattr(cost, "input_size", None)
    if size and tuple(size) != tuple(input_size):
        (height, width), (asked_height, asked_width) = size, input_size
        raise InputError(
            f"cost: {cfg['type']} is of images of {height}x{width}, but input_size is "
            f"{asked_height}x{asked_width}"
        )
    return cost


def counted_in(cost: Cost) -> str:
    """What a number in units of a cost is, such as ``'1e+09 MAdds'``."""
    return cost.name if cost.unit == 1 else f"{cost.unit:g} {cost.name}"


def price_list(supernet: FNASuperNet, cost: Cost, input_size: tuple[int, int]) -> Tensor:
    """What every candidate costs at the input that its layer sees.

    Args:
        supernet: Its weights do not matter, and nothing of it changes.
        input_size: (height, width) of the images in pixels.

    Returns:
        Layers × most candidates in double: for each searched layer a price per candidate, in the
        candidates' order, and 0 where a layer has fewer (``supernet.rows`` leaves these out). It is
        on the super network's device, or on the CPU where that is the meta device.
    """
    prices = [
        torch.tensor([cost(op, shape) for _, op in layer.describe_candidates()], dtype=torch.double)
        for layer, shape in layers_with_inputs(supernet, input_size)
        if isinstance(layer, SearchedLayer)
    ]
    matrix = pad_sequence(prices, batch_first=True)
    alpha = supernet.alphas()[0]
    return matrix if alpha.is_meta else matrix.to(alpha.device)


def fixed_cost(backbone: StagedBackbone, cost: Cost, input_size: tuple[int, int]) -> float:
    """What a backbone costs without its searched layers; all of it, if it has none."""
    return sum(
        cost(layer, shape)
        for layer, shape in layers_with_inputs(backbone, input_size)
        if not isinstance(layer, SearchedLayer)
    )


def expected_cost(supernet: FNASuperNet, prices: Tensor) -> Tensor:
    """Σ_layers Σ_o softmax(α)_o · price(o): a scalar in double, differentiable in α.

    Args:
        prices: A :func:`price_list`, on the super network's device.
    """
    return (supernet.probability_matrix().double() * prices).sum()


@dataclass(frozen=True)
class CostTerm:
    """λ · log_τ(γ · cost / unit): what an architecture step adds to the task's loss.

    Args:
        cost: What prices an op.
        weight: λ.
        base: τ, more than 1.
        scale: γ.
        input_size: (height, width) in pixels at which ops are priced.

    Raises:
        InputError: A number is out of its range.
    """

    cost: Cost
    weight: float
    base: float
    scale: float
    input_size: tuple[int, int]

    fixed = 0.0  # the paper's cost is that of the searched layers
    target = budget = None

    def __post_init__(self):
        numbers = self.weight, self.base, self.scale, self.cost.unit, *self.input_size
        if not all(isinstance(number, int | float) for number in numbers) or not (
            self.weight >= 0 and self.base > 1 and self.scale > 0 and self.cost.unit > 0
        ):
            raise InputError(
                f"cost: weight {self.weight}, base {self.base}, scale {self.scale}, unit "
                f"{self.cost.unit}; expected weight >= 0, base > 1, scale > 0, unit > 0"
            )

    @classmethod
    def from_cfg(cls, cfg: dict) -> "CostTerm":
        """The term of a config's ``cost``: its numbers, and ``type`` and settings of the cost.

        Raises:
            InputError: A setting is missing or unknown, or a number is out of its range.
        """
        cfg = dict(cfg)
        try:
            numbers = {key: cfg.pop(key) for key in ("weight", "base", "scale", "input_size")}
        except KeyError as error:
            raise InputError(f"cost: {error.args[0]} is missing or unknown") from None
        return cls(build_cost(cfg, numbers["input_size"]), **numbers)

    def __call__(self, expected: Tensor) -> Tensor:
        """Expected cost, a scalar → the term, a scalar."""
        return self.weight * torch.log(self.scale * expected / self.cost.unit) / math.log(self.base)

    def learn(self, expected: float) -> None:
        """λ is given."""

    def __str__(self) -> str:
        height, width = self.input_size
        return (
            f"lambda {self.weight:g}, tau {self.base:g}, gamma {self.scale:g}, cost in "
            f"{counted_in(self.cost)} at {height}x{width}"
        )


def without_norms(module: nn.Module) -> nn.Module:
    """A copy on the meta device, to count on. Norms count nothing, and refuse 1×1 maps."""
    meta = copy.deepcopy(module).to("meta").eval()
    for parent in list(meta.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm | nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    return meta


def layers_with_inputs(
    backbone: StagedBackbone, input_size: tuple[int, int]
) -> Iterator[tuple[nn.Module, tuple[int, int, int]]]:
    """Stem, layers and last conv, each with the C, H, W that it gets for ``input_size``."""
    meta = without_norms(backbone)
    if isinstance(meta, FNASuperNet):
        meta.set_path([0] * len(meta.mixed_layers))
    x = torch.empty(1, 3, *input_size, device="meta")
    for block, copied in zip(backbone.blocks, meta.blocks, strict=True):
        staged = isinstance(block, StageBlock)
        for layer, stand_in in zip(
            block.layers if staged else [block], copied.layers if staged else [copied], strict=True
        ):
            yield layer, tuple(x.shape[1:])
            x = stand_in(x)
