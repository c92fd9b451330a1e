"""A budget in place of a fixed λ: λ learns until the expected cost meets its target.

As in LightNAS (Luo et al., 2022).
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .backbone import FNABackbone
from .cost import Cost, CostTerm, build_cost, counted_in, fixed_cost, price_list
from .errors import InputError
from .net_config import NetConfig
from .supernet import FNASuperNet

_LEARNING = dict(rate=0.02, damping=1.0, negative=False)
_OF_SEED = re.compile(r"(\d+(?:\.\d+)?) ?seed")  # --cfg-options leaves out spaces


class BudgetTerm:
    """λ · gap + damping / 2 · gap², where gap = cost / target − 1 and λ learns.

    λ grows while the cost is above its target. The cost is the whole backbone's: of the searched
    layers what is expected, and what is fixed. Without damping, cost and λ would swing about the
    target, because α follows λ late; what damping adds is 0 at the target (an augmented
    Lagrangian: Hestenes, 1969). Where λ + damping · gap would be below its least, the term is flat.

    Args:
        cost: What prices an op.
        target: What the backbone may cost, as ``cost`` counts.
        fixed: What of it is not searched.
        rate: λ's learning rate: what one architecture step adds for a cost of twice the target.
        damping: What a step feels on top of λ for a cost of twice the target.
        negative: Whether λ may fall below 0 and pull a cheaper network up to the target.
        input_size: (height, width) in pixels at which ops are priced.
    """

    def __init__(
        self,
        cost: Cost,
        target: float,
        fixed: float,
        rate: float,
        damping: float,
        negative: bool,
        input_size: tuple[int, int],
    ):
        self.cost, self.target, self.fixed = cost, target, fixed
        self.rate, self.damping = rate, damping
        self.least = -math.inf if negative else 0.0  # λ's
        self.input_size = input_size
        self.weight = 0.0  # λ

    @property
    def budget(self) -> float:
        """What the searched layers may cost."""
        return self.target - self.fixed

    def __call__(self, expected: Tensor) -> Tensor:
        """Expected cost of the searched layers, a scalar → the term, a scalar."""
        gap = (expected + self.fixed) / self.target - 1
        felt = (self.weight + self.damping * gap).clamp_min(self.least)
        # its derivative by the gap is what is felt of λ
        return (felt.square() - self.weight**2) / (2 * self.damping)

    def learn(self, expected: float) -> None:
        """One step of λ, along the gradient of the term in λ."""
        gap = (expected + self.fixed) / self.target - 1
        self.weight = max(self.weight + self.rate * gap, self.least)

    def __str__(self) -> str:
        height, width = self.input_size
        return (
            f"lambda learns to keep the backbone within {self.target / self.cost.unit:.4g} "
            f"(fixed of it {self.fixed / self.cost.unit:.4g}), in {counted_in(self.cost)} at "
            f"{height}x{width}"
        )


def cost_term(
    cfg: dict, supernet: FNASuperNet, seed: NetConfig | str | Path
) -> CostTerm | BudgetTerm:
    """What a config's ``cost`` adds to an architecture step's loss.

    Args:
        cfg: What :meth:`CostTerm.from_cfg` takes, for a fixed λ; or, in place of ``weight``,
            ``base`` and ``scale``, a ``target`` (in units of the cost, or as ``'0.9 seed'``, times
            what the seed's architecture costs; None: there is none), and ``rate``, ``damping`` and
            ``negative`` where the defaults do not serve.
        seed: The seed's architecture.

    Raises:
        InputError: A setting is missing or unknown, or no architecture of the space, or every one,
            meets the target.
    """
    if cfg.get("target") is None:
        settings = {"target", *_LEARNING} if "target" in cfg else set()
        return CostTerm.from_cfg({k: v for k, v in cfg.items() if k not in settings})
    # a config that inherits a fixed λ and asks for a target means the target
    cfg = {key: value for key, value in cfg.items() if key not in ("weight", "base", "scale")}
    target, input_size = cfg.pop("target"), cfg.pop("input_size", None)
    learning = {key: cfg.pop(key, default) for key, default in _LEARNING.items()}
    if input_size is None:
        raise InputError("cost: input_size is missing or unknown")
    for key in ("rate", "damping"):
        if not _is_number(learning[key]) or not 0 < learning[key] < math.inf:
            raise InputError(f"cost: {key} {learning[key]!r}, expected a number above 0")
    if not isinstance(learning["negative"], bool):
        raise InputError(f"cost: negative {learning['negative']!r}, expected True or False")
    cost = build_cost(cfg, input_size)
    prices, fixed = price_list(supernet, cost, input_size), fixed_cost(supernet, cost, input_size)
    target = _absolute(target, cost, lambda: _seed_cost(seed, supernet, cost, input_size))
    least, greatest = (
        fixed + sum(choose(layer).item() for layer in supernet.rows(prices))
        for choose in (Tensor.min, Tensor.max)
    )
    if not least <= target <= greatest:
        raise InputError(
            f"cost: target {target / cost.unit:.4g}, but backbones of this search space cost "
            f"{least / cost.unit:.4g} to {greatest / cost.unit:.4g} (in {counted_in(cost)})"
        )
    return BudgetTerm(cost, target, fixed, **learning, input_size=tuple(input_size))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _absolute(target: object, cost: Cost, of_seed: Callable[[], float]) -> float:
    """A config's target as the cost counts."""
    if _is_number(target) and target > 0:
        return target * cost.unit
    if match := _OF_SEED.fullmatch(target) if isinstance(target, str) else None:
        return float(match[1]) * of_seed()
    raise InputError(
        f"cost: target {target!r}, expected a number in {counted_in(cost)}, or times the seed's as "
        "in '0.9 seed'"
    )


def _seed_cost(
    seed: NetConfig | str | Path, supernet: FNASuperNet, cost: Cost, input_size: tuple[int, int]
) -> float:
    """What a backbone of the seed's architecture costs in the super network's place."""
    with torch.device("meta"):
        backbone = FNABackbone(
            NetConfig.parse(seed), (0,), supernet.output_stride, supernet.last_channels
        )
    return fixed_cost(backbone, cost, input_size)
