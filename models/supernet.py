"""The super network: every architecture of a search space at once, as a backbone.

Paper, section 3.3. Each searched layer holds all its candidate ops and one vector of architecture
parameters α. With all ops active a layer's output is Σ_o softmax(α / temperature)_o · o(x); with
one path active only the chosen op computes, and its weight is 1.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .backbone import StagedBackbone
from .blocks import SKIP, build_op, parse_op
from .cost import count_madds
from .errors import InputError
from .net_config import NetConfig, Stage

_ALPHA_STD = 1e-3  # α starts nearly uniform


class MixedLayer(nn.Module):
    """A searched layer: its candidate ops and their α.

    ``path`` is the index of the one active op, or None for all.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        temperature: float,
    ):
        super().__init__()
        self.candidates = tuple(candidates)
        self.temperature = temperature
        self.ops = nn.ModuleDict(
            {
                name: build_op(name, in_channels, out_channels, stride, dilation)
                for name in self.candidates
            }
        )
        self.alpha = nn.Parameter(_ALPHA_STD * torch.randn(len(self.candidates)))
        self.path: int | None = None
        for module in self.ops.modules():
            if isinstance(module, nn.BatchNorm2d):
                _use_batch_statistics_only(module)

    def probabilities(self) -> Tensor:
        """softmax(α / temperature), one number a candidate."""
        return torch.softmax(self.alpha / self.temperature, dim=0)

    def forward(self, x: Tensor, return_expanded: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉.

        With ``return_expanded``, which needs candidates of one expansion E > 1, their expanded
        activations, N×(E·C_in)×H×W, come along, summed with the same weights.
        """
        # a skip takes no such argument, and never stands where it is asked for
        asked = dict(return_expanded=True) if return_expanded else {}
        if self.path is not None:
            return self.ops[self.candidates[self.path]](x, **asked)
        outputs = (op(x, **asked) for op in self.ops.values())
        if not return_expanded:
            return self._weighted_sum(outputs)
        outputs, expanded = zip(*outputs, strict=True)
        return self._weighted_sum(outputs), self._weighted_sum(expanded)

    def _weighted_sum(self, maps: Iterable[Tensor]) -> Tensor:
        return sum(w * m for w, m in zip(self.probabilities(), maps, strict=True))


def _use_batch_statistics_only(norm: nn.BatchNorm2d) -> None:
    """A candidate's BN has no affine terms and no running statistics: it sees all paths' inputs."""
    norm.affine = norm.track_running_stats = False
    norm.weight = norm.bias = None
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


@MODELS.register_module()
class FNASuperNet(StagedBackbone):
    """All architectures of a search space; forward gives features, like any backbone.

    Args:
        fixed_stage: The first stage, which is not searched: a net_config of one row.
        channels: Output channels of each searched stage.
        layers: Layers of each searched stage, at most: a layer may become ``skip``.
        strides: Stride of each searched stage's first layer.
        ops: Candidate ops of every searched layer. ``skip`` is left out where it cannot be: in a
            stage's first layer.
        temperature: Divides α before the softmax that weighs outputs and cost.
        layer_ops: Candidate ops of single layers in place of ``ops``. A key names stage and layer
            as state-dict keys do: ``{'6.0': ['k3_e6', 'k5_e6']}`` is for ``blocks.6.layers.0``.
        out_indices, output_stride, last_channels, norm_cfg, init_cfg: As in ``FNABackbone``. Where
            ``out_indices`` names ``'6.expand'``, the candidates of layer 6.0 must share one
            expansion: the map is the weighted sum of their expanded activations.

    Raises:
        InputError: The lists have unequal lengths, an op is unknown, a layer has no candidate, or
            what ``FNABackbone`` raises.
    """

    def __init__(
        self,
        fixed_stage: str | list,
        channels: Sequence[int],
        layers: Sequence[int],
        strides: Sequence[int],
        ops: Sequence[str],
        temperature: float = 1.0,
        layer_ops: Mapping[str, Sequence[str]] | None = None,
        out_indices: Sequence[int | str] = (2, 3, 5, 7),
        output_stride: int = 32,
        last_channels: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise InputError(f"search space: temperature {temperature!r}, expected more than 0")
        fixed = NetConfig.parse(fixed_stage).stages
        searched = _searched_stages(fixed, channels, layers, strides, ops, layer_ops or {})

        def build_layer(op, in_channels, out_channels, stride, dilation):
            if isinstance(op, str):
                return build_op(op, in_channels, out_channels, stride, dilation)
            return MixedLayer(op, in_channels, out_channels, stride, dilation, temperature)

        super().__init__(
            [*fixed, *searched],
            build_layer,
            out_indices,
            output_stride,
            last_channels,
            norm_cfg,
            init_cfg,
        )
        self.fixed_stages, self.searched_stages = fixed, searched
        self.mixed_layers = [m for m in self.modules() if isinstance(m, MixedLayer)]
        self._cost_tables: dict[tuple[int, int], list[Tensor]] = {}

    def alphas(self) -> list[nn.Parameter]:
        """The α of every searched layer, in the network's order."""
        return [layer.alpha for layer in self.mixed_layers]

    def probabilities(self) -> list[Tensor]:
        """softmax(α / temperature) of every searched layer."""
        return [layer.probabilities() for layer in self.mixed_layers]

    def set_path(self, path: Sequence[int] | None) -> None:
        """Choose one candidate for each searched layer, by its index, or all of them by None."""
        choices = [None] * len(self.mixed_layers) if path is None else path
        for layer, choice in zip(self.mixed_layers, choices, strict=True):
            layer.path = choice

    def sample_path(self, generator: torch.Generator, uniform: bool = False) -> list[int]:
        """Draw one candidate for each searched layer, by softmax(α) or uniformly.

        As in the released code, the temperature takes no part: it acts on outputs and cost only.

        Args:
            generator: A CPU generator. Ranks that hold equal generators and α draw equal paths.
        """
        chances = [
            torch.ones(len(layer.candidates)) if uniform else layer.alpha.detach().softmax(0).cpu()
            for layer in self.mixed_layers
        ]
        return [torch.multinomial(chance, 1, generator=generator).item() for chance in chances]

    def cost_table(self, input_size: tuple[int, int]) -> list[Tensor]:
        """MAdds of every candidate of every searched layer, for images of (height, width) pixels.

        Counted once for each size, on the meta device: no image is computed.
        """
        input_size = tuple(input_size)
        if input_size not in self._cost_tables:
            self._cost_tables[input_size] = _count_candidates(self, input_size)
        return self._cost_tables[input_size]

    def expected_madds(self, input_size: tuple[int, int]) -> Tensor:
        """Σ_layers Σ_o softmax(α)_o · MAdds(o): a scalar in double, differentiable in α."""
        terms = [
            probabilities.double() @ madds.to(probabilities.device)
            for probabilities, madds in zip(
                self.probabilities(), self.cost_table(input_size), strict=True
            )
        ]
        return torch.stack(terms).sum()

    def derive(self) -> NetConfig:
        """The architecture that α prefers, argmax per layer; NetConfig puts skips last."""
        choices = iter(layer.candidates[layer.alpha.argmax().item()] for layer in self.mixed_layers)
        stages = list(self.fixed_stages)
        for stage in self.searched_stages:
            ops = tuple(next(choices) for _ in stage.ops)
            stages.append(Stage(stage.in_channels, stage.out_channels, ops, stage.stride))
        return NetConfig(tuple(stages))


def _searched_stages(
    fixed: Sequence[Stage],
    channels: Sequence[int],
    layers: Sequence[int],
    strides: Sequence[int],
    ops: Sequence[str],
    layer_ops: Mapping[str, Sequence[str]],
) -> list[Stage]:
    """The searched stages; an entry of their ``ops`` is the tuple of a layer's candidates."""
    for name, numbers in dict(channels=channels, layers=layers, strides=strides).items():
        if not isinstance(numbers, Sequence) or not all(isinstance(n, int) for n in numbers):
            raise InputError(
                f"search space: {name} {numbers!r}, expected whole numbers, one a stage"
            )
    if not len(channels) == len(layers) == len(strides) >= 1:
        raise InputError(
            f"search space: channels {list(channels)}, layers {list(layers)} and strides "
            f"{list(strides)} have unequal lengths, expected one entry a stage in each"
        )
    if not isinstance(layer_ops, Mapping):
        raise InputError(
            f"search space: layer_ops {layer_ops!r}, expected a dict such as {{'6.0': ['k3_e6']}}"
        )
    layer_ops = dict(layer_ops)
    in_channels, stages = fixed[-1].out_channels, []
    numbered = enumerate(zip(channels, layers, strides, strict=True), 1 + len(fixed))
    for number, (out_channels, depth, stride) in numbered:
        if depth < 1 or out_channels < 1 or stride not in (1, 2):
            raise InputError(
                f"search space: stage of {depth} layers, {out_channels} channels and stride "
                f"{stride}; expected at least 1 layer, 1 channel, and stride 1 or 2"
            )
        candidates = []
        for layer in range(depth):
            name = f"{number}.{layer}"
            where, choice = "ops", ops
            if name in layer_ops:
                where, choice = f"layer_ops {name!r}", layer_ops.pop(name)
            candidates.append(_candidates(where, choice, first=layer == 0))
        stages.append(Stage(in_channels, out_channels, tuple(candidates), stride))
        in_channels = out_channels
    if layer_ops:
        raise InputError(
            f"search space: layer_ops: no searched layer {next(iter(layer_ops))!r}, expected a "
            f"stage and a layer in it such as '{1 + len(fixed)}.0'"
        )
    return stages


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


def _count_candidates(supernet: FNASuperNet, input_size: tuple[int, int]) -> list[Tensor]:
    """MAdds of every candidate, each counted alone at the input size its layer sees."""
    meta = _meta_without_norms(supernet)
    sizes = _layer_input_shapes(meta, input_size)
    return [
        torch.tensor(
            [float(count_madds(op, size, channels)) for op in layer.ops.values()],
            dtype=torch.double,
        )
        for layer, (channels, *size) in zip(meta.mixed_layers, sizes, strict=True)
    ]


def _meta_without_norms(supernet: FNASuperNet) -> FNASuperNet:
    """A copy to count on. BN counts nothing, and refuses 1×1 maps of one image."""
    meta = copy.deepcopy(supernet).to("meta")
    for module in list(meta.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm):
                setattr(module, name, nn.Identity())
    return meta


def _layer_input_shapes(meta: FNASuperNet, input_size: tuple[int, int]) -> list[torch.Size]:
    """C, H, W of what each searched layer gets, for images of ``input_size``."""
    shapes = []
    meta.set_path([0] * len(meta.mixed_layers))
    for layer in meta.mixed_layers:
        layer.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[1:]))
    with torch.no_grad():
        meta(torch.empty(1, 3, *input_size, device="meta"))
    return shapes
