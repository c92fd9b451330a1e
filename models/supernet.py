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
from .knapsack import best_within
from .net_config import NetConfig
from .ops import Norm, build_op
from .search_space import SearchSpace
from .searched_layer import SearchedLayer
from .shared_layer import SharedLayer


class MixedLayer(SearchedLayer):
    """A searched layer that holds its candidate ops one by one, as the paper's.

    ``with_cp``: see :class:`FNASuperNet`.
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
        super().__init__(candidates, in_channels, out_channels, stride, dilation, norm, temperature)
        self.with_cp = with_cp
        self.ops = nn.ModuleDict({name: self._build(name) for name in self.candidates})
        self.alpha = self._draw_alpha()

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
        share_weights: Whether a layer's candidates are slices of one op (:class:`SharedLayer`), not
            ops of their own. They compute at once, so ``with_cp`` changes nothing.
        out_indices, output_stride, last_channels, norm_cfg, init_cfg: As in ``FNABackbone``. Where
            ``out_indices`` names ``'6.expand'``, the candidates of layer 6.0 must share one
            expansion: the map is the weighted sum of their expanded activations.

    Raises:
        InputError: The lists have unequal lengths, an op is unknown, a layer has no candidate, or
            what ``FNABackbone`` raises; with ``share_weights``, a candidate is no slice.
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
        share_weights: bool = False,
        out_indices: Sequence[int | str] = (2, 3, 5, 7),
        output_stride: int = 32,
        last_channels: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise InputError(f"search space: temperature {temperature!r}, expected more than 0")
        space = SearchSpace.from_lists(fixed_stage, channels, layers, strides, ops, layer_ops)

        searched_layer = SharedLayer if share_weights else partial(MixedLayer, with_cp=with_cp)

        def build_layer(op: str | tuple[str, ...], *args) -> nn.Module:
            return (
                build_op(op, *args)
                if isinstance(op, str)
                else searched_layer(op, *args, temperature)
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
        self.mixed_layers = [m for m in self.modules() if isinstance(m, SearchedLayer)]
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
        return self.rows(self.probability_matrix())

    def rows(self, matrix: Tensor) -> list[Tensor]:
        """Layers × most candidates → for each searched layer a number per candidate."""
        return [row[:size] for row, size in zip(matrix, self._sizes, strict=True)]

    def set_temperature(self, temperature: float) -> None:
        """Set what divides α before the softmax, in every searched layer."""
        for layer in self.mixed_layers:
            layer.temperature = temperature

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

    def best_path(self, prices: Tensor | None = None, budget: float | None = None) -> list[int]:
        """The path that α prefers: argmax per layer or, with a budget, the path of the greatest
        Σ log softmax(α) among those whose prices sum to no more than it.

        Args:
            prices: As :func:`models.price_list` gives them.

        Raises:
            InputError: Every path costs more.
        """
        alphas = self.alpha_values()
        if budget is None:
            return [alpha.argmax().item() for alpha in alphas]
        scores = [alpha.double().log_softmax(0).tolist() for alpha in alphas]
        listed = [layer.tolist() for layer in self.rows(prices.cpu())]
        path = best_within(scores, listed, budget)
        if path is None:
            raise InputError(
                f"budget {budget:g}: every architecture of the search space costs more"
            )
        return path

    def derive(self, prices: Tensor | None = None, budget: float | None = None) -> NetConfig:
        """The architecture of :meth:`best_path`."""
        return self.search_space.net_config(self.best_path(prices, budget))
