"""How undecided a search is: the entropy of softmax(α)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models import FNASuperNet


def alpha_shares(backbone: FNASuperNet, alphas: Sequence[Tensor] | None = None) -> list[Tensor]:
    """softmax(α / temperature) of every searched layer, on the CPU."""
    return [
        torch.softmax(alpha / layer.temperature, dim=0)
        for alpha, layer in zip(
            alphas or backbone.alpha_values(), backbone.mixed_layers, strict=True
        )
    ]


def mean_entropy(backbone: FNASuperNet, alphas: Sequence[Tensor] | None = None) -> float:
    """Entropy of softmax(α / temperature) in nats, averaged over the searched layers.

    Args:
        alphas: What ``backbone.alpha_values()`` gives, if it is at hand.
    """
    entropies = [torch.special.entr(share).sum() for share in alpha_shares(backbone, alphas)]
    return torch.stack(entropies).mean().item()


def undecided(backbone: FNASuperNet, alphas: Sequence[Tensor] | None = None) -> float:
    """:func:`share_of_uniform` of all searched layers; ``alphas`` as in :func:`mean_entropy`."""
    return share_of_uniform(alpha_shares(backbone, alphas))


def share_of_uniform(shares: Sequence[Tensor]) -> float:
    """The mean entropy of layers' softmax(α) as a share of what it is where all candidates are
    equal: 1 to 0."""
    uniform = sum(math.log(len(share)) for share in shares)
    entropy = sum(torch.special.entr(share.detach()).sum().item() for share in shares)
    return entropy / uniform if uniform else 0.0
