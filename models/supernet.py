"""The super network: every architecture of a search space at once, as a backbone.

Paper, section 3.3. Each searched layer holds all its candidate ops and one vector of architecture
parameters α. With all ops active a layer's output is Σ_o softmax(α / temperature)_o · o(x); with
one path active only the chosen op computes, and its weight is 1.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbone import StagedBackbone
from .errors import InputError
from .net_config import NetConfig
from .ops import Norm, build_op
from .search_space import SearchSpace

_ALPHA_STD = 1e-3  # softmax(α) starts nearly uniform


class MixedLayer(nn.Module):
    """A searched layer: its candidate ops and their α.

    ``path`` is the index of the one active op, or None for all. A candidate's norm has no affine
    terms and no running statistics, because it sees all paths' inputs. ``with_cp``: see
    :class:`FNASuperNet`.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        norm: Norm = nn.BatchNorm2d,
        temperature: float = 1.0,
        with_cp: bool = False,
    ):
        super().__init__()
        self.candidates = tuple(candidates)
        self.temperature = temperature
        self.with_cp = with_cp
        norm = partial(norm, affine=False, track_running_stats=False)
        self.ops = nn.ModuleDict(
            {
                name: build_op(name, in_channels, out_channels, stride, dilation, norm)
                for name in self.candidates
            }
        )
        self.alpha = nn.Parameter(_ALPHA_STD * torch.randn(len(self.candidates)))
        self.path: int | None = None

    def probabilities(self) -> Tensor:
        """softmax(α / temperature), one number per candidate."""
        return torch.softmax(self.alpha / self.temperature, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        if self.path is not None:
            return self.ops[self.candidates[self.path]](x)
        return self._weighted_sum(self._kept_small(op, x) for op in self.ops.values())

    def forward_expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and the weighted sum of the candidates' expanded activations.

        The candidates must share one expansion E > 1: N×(E·C_in)×H×W.
        """
        if self.path is not None:
            return self.ops[self.candidates[self.path]].forward_expanded(x)
        both = (self._kept_small(op.forward_expanded, x) for op in self.ops.values())
        outputs, expanded = zip(*both, strict=True)
        return self._weighted_sum(outputs), self._weighted_sum(expanded)

    def _kept_small(self, compute: Callable, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``compute(x)``; with ``with_cp``, backward finds x and computes anew what is between."""
        if not self.with_cp:
            return compute(x)
        # a candidate draws no random numbers whose state would have to be put back
        return checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False)

    def _weighted_sum(self, maps: Iterable[Tensor]) -> Tensor:
        products = (w * m for w, m in zip(self.probabilities(), maps, strict=True))
        return reduce(operator.add, products)


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
        with_cp: With all ops active, keep of each candidate its input and output only, and compute
            the rest anew in backward: an eighth of the memory or less, for one more forward pass.
            Gradients stay the same, bit for bit on CPU. A candidate may then draw no random
            numbers, as dropout would, and hold no buffers that a forward pass changes.
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
        with_cp: bool = False,
        out_indices: Sequence[int | str] = (2, 3, 5, 7),
        output_stride: int = 32,
        last_channels: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise InputError(f"search space: temperature {temperature!r}, expected more than 0")
        space = SearchSpace.from_lists(fixed_stage, channels, layers, strides, ops, layer_ops)

        def build_layer(op: str | tuple[str, ...], *args) -> nn.Module:
            return (
                build_op(op, *args)
                if isinstance(op, str)
                else MixedLayer(op, *args, temperature, with_cp)
            )

        super().__init__(
            [*space.fixed, *space.searched],
            build_layer,
            out_indices,
            output_stride,
            last_channels,
            norm_cfg,
            init_cfg,
        )
        self.search_space = space
        self.mixed_layers = [m for m in self.modules() if isinstance(m, MixedLayer)]
        self._sizes = [len(layer.candidates) for layer in self.mixed_layers]
        width = max(self._sizes)
        places = [row * width + i for row, size in enumerate(self._sizes) for i in range(size)]
        # of α in a matrix of one row per layer; a buffer, so that no step copies it to a GPU
        self.register_buffer("_places", torch.tensor(places), persistent=False)

    def alphas(self) -> list[nn.Parameter]:
        """The α of every searched layer, in the network's order."""
        return [layer.alpha for layer in self.mixed_layers]

    def alpha_values(self) -> list[Tensor]:
        """α of every searched layer, detached and on the CPU: one copy from a GPU, not one each."""
        return list(torch.cat([alpha.detach() for alpha in self.alphas()]).cpu().split(self._sizes))

    def probability_matrix(self) -> Tensor:
        """softmax(α / temperature): layers × most candidates, 0 where a layer has fewer.

        A few operations for all layers, which on a GPU take as long as for one.
        """
        alphas = torch.cat(self.alphas())
        matrix = alphas.new_full((len(self._sizes) * max(self._sizes),), -math.inf)
        matrix = matrix.scatter(0, self._places, alphas).view(len(self._sizes), -1)
        return torch.softmax(matrix / self.mixed_layers[0].temperature, dim=1)

    def probabilities(self) -> list[Tensor]:
        """softmax(α / temperature) of every searched layer."""
        rows = self.probability_matrix()
        return [row[:size] for row, size in zip(rows, self._sizes, strict=True)]

    def set_path(self, path: Sequence[int] | None) -> None:
        """Choose one candidate for each searched layer, by its index, or all of them by None."""
        choices = [None] * len(self.mixed_layers) if path is None else path
        for layer, choice in zip(self.mixed_layers, choices, strict=True):
            layer.path = choice

    def sample_path(
        self,
        generator: torch.Generator,
        uniform: bool = False,
        alphas: Sequence[Tensor] | None = None,
    ) -> list[int]:
        """Draw one candidate for each searched layer, by softmax(α) or uniformly.

        As in the released code, the temperature takes no part: it acts on outputs and cost only.

        Args:
            generator: A CPU generator. Ranks that hold equal generators and α draw equal paths.
            alphas: What :meth:`alpha_values` gives, if it is at hand.
        """
        if uniform:
            chances = [torch.ones(size) for size in self._sizes]
        else:
            chances = [alpha.softmax(0) for alpha in alphas or self.alpha_values()]
        return [torch.multinomial(chance, 1, generator=generator).item() for chance in chances]

    def derive(self) -> NetConfig:
        """The architecture that α prefers: argmax per layer."""
        return self.search_space.net_config(a.argmax().item() for a in self.alpha_values())
