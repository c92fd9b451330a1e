"""Search spaces: which ops each layer of a super network chooses from (paper, section 3.1)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import InputError
from .net_config import NetConfig, Stage
from .ops import SKIP, parse_op


@dataclass(frozen=True)
class SearchedStage:
    """A stage to be searched: ``ops`` holds the candidate ops of each of its layers."""

    in_channels: int
    out_channels: int
    ops: tuple[tuple[str, ...], ...]
    stride: int


@dataclass(frozen=True)
class SearchSpace:
    """The stages that are given, and after them those that are searched."""

    fixed: tuple[Stage, ...]
    searched: tuple[SearchedStage, ...]

    @classmethod
    def from_lists(
        cls,
        fixed_stage: str | list,
        channels: Sequence[int],
        layers: Sequence[int],
        strides: Sequence[int],
        ops: Sequence[str],
        layer_ops: Mapping[str, Sequence[str]] | None = None,
    ) -> "SearchSpace":
        """The search space of a config; its arguments are those of :class:`FNASuperNet`.

        Raises:
            InputError: The lists have unequal lengths or hold what makes no stage, an op is
                unknown, or a layer has no candidate.
        """
        fixed = NetConfig.parse(fixed_stage).stages
        _check_numbers(channels, layers, strides)
        if not isinstance(layer_ops or {}, Mapping):
            raise InputError(
                f"search space: layer_ops {layer_ops!r}, expected a dict such as "
                "{'6.0': ['k3_e6']}"
            )
        layer_ops = dict(layer_ops or {})
        in_channels, searched = fixed[-1].out_channels, []
        for out_channels, depth, stride in zip(channels, layers, strides, strict=True):
            number = 1 + len(fixed) + len(searched)
            candidates = []
            for name in (f"{number}.{layer}" for layer in range(depth)):
                where = f"layer_ops {name!r}" if name in layer_ops else "ops"
                candidates.append(_candidates(where, layer_ops.pop(name, ops), not candidates))
            searched.append(SearchedStage(in_channels, out_channels, tuple(candidates), stride))
            in_channels = out_channels
        if layer_ops:
            raise InputError(
                f"search space: layer_ops: no searched layer {next(iter(layer_ops))!r}, expected a "
                f"stage and a layer in it such as '{1 + len(fixed)}.0'"
            )
        return cls(fixed, tuple(searched))

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Candidate ops by layer, in the network's order.

        A layer is named ``S.L`` as in the state-dict keys ``blocks.S.layers.L``.
        """
        return {
            f"{number}.{layer}": ops
            for number, stage in enumerate(self.searched, 1 + len(self.fixed))
            for layer, ops in enumerate(stage.ops)
        }

    def net_config(self, choices: Iterable[int]) -> NetConfig:
        """The architecture of one candidate, by its index, for each searched layer."""
        choices, stages = iter(choices), list(self.fixed)
        for stage in self.searched:
            ops = tuple(candidates[next(choices)] for candidates in stage.ops)
            stages.append(Stage(stage.in_channels, stage.out_channels, ops, stage.stride))
        return NetConfig(tuple(stages))


def _check_numbers(channels: Sequence[int], layers: Sequence[int], strides: Sequence[int]) -> None:
    for name, numbers in dict(channels=channels, layers=layers, strides=strides).items():
        if not isinstance(numbers, Sequence) or not all(isinstance(n, int) for n in numbers):
            raise InputError(
                f"search space: {name} {numbers!r}, expected whole numbers, one per stage"
            )
    if not len(channels) == len(layers) == len(strides) >= 1:
        raise InputError(
            f"search space: channels {list(channels)}, layers {list(layers)} and strides "
            f"{list(strides)} have unequal lengths, expected one entry per stage in each"
        )
    for out_channels, depth, stride in zip(channels, layers, strides, strict=True):
        if depth < 1 or out_channels < 1 or stride not in (1, 2):
            raise InputError(
                f"search space: stage of {depth} layers, {out_channels} channels and stride "
                f"{stride}; expected at least 1 layer, 1 channel, and stride 1 or 2"
            )


def _candidates(where: str, ops: Sequence[str], first: bool) -> tuple[str, ...]:
    """The candidates of one layer; the first of a stage cannot be skipped."""
    if not isinstance(ops, Sequence):
        raise InputError(f"search space: {where}: {ops!r}, expected a list of ops")
    for op in ops:
        try:
            parse_op(str(op))
        except InputError as error:
            raise InputError(f"search space: {where}: {error}") from None
    real = tuple(op for op in ops if op != SKIP)
    if not real or len(set(ops)) < len(ops):
        raise InputError(
            f"search space: {where}: {list(ops)}, expected different ops, one of them real"
        )
    return real if first else tuple(ops)
