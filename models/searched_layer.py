"""What every searched layer has: candidate ops, one architecture parameter α each, and a path."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .ops import Norm, build_op

_ALPHA_STD = 1e-3  # softmax(α) starts nearly uniform


class SearchedLayer(nn.Module):
    """A layer that chooses among candidate ops.

    ``path`` is the index of the one active op, or None for all, weighed by softmax(α /
    temperature). A candidate's norm has no affine terms and no running statistics, because it sees
    all paths' inputs.
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
    ):
        super().__init__()
        self.candidates = tuple(candidates)
        self.temperature = temperature
        norm = partial(norm, affine=False, track_running_stats=False)
        self._settings = in_channels, out_channels, stride, dilation, norm
        self.path: int | None = None

    def _build(self, name: str) -> nn.Module:
        """An op of this layer's channels, stride, dilation and norm."""
        return build_op(name, *self._settings)

    def build_derived(self, name: str) -> nn.Module:
        """A candidate as a derived network has it: with a norm of its own statistics."""
        return build_op(name, *self._settings[:-1])

    def _draw_alpha(self) -> nn.Parameter:
        return nn.Parameter(_ALPHA_STD * torch.randn(len(self.candidates)))

    def describe_candidates(self) -> Iterator[tuple[str, nn.Module]]:
        """Each candidate's name and a module of it alone, on the meta device: to be counted."""
        for name in self.candidates:
            with torch.device("meta"):
                module = self._build(name)
            yield name, module

    def probabilities(self) -> Tensor:
        """softmax(α / temperature), one number per candidate."""
        return torch.softmax(self.alpha / self.temperature, dim=0)
