"""The best choice within a budget: a multiple-choice knapsack, solved exactly.

HardCoRe-NAS (Nayman et al., 2021) derives its architecture so.
"""

from collections.abc import Sequence

import numpy as np


def best_within(
    scores: Sequence[Sequence[float]], prices: Sequence[Sequence[float]], budget: float
) -> list[int] | None:
    """One choice per layer, of the greatest sum of scores among all whose prices sum to at most
    ``budget``.

    Layer by layer it keeps the choices that no other beats in both sums (Nemhauser and Ullmann,
    1969); nothing is rounded. Among equals the cheapest is taken.

    Args:
        scores, prices: For each layer, a number per candidate; prices are not negative.

    Returns:
        The choices, or None if even the cheapest cost more.
    """
    cheapest_rest = np.cumsum([min(layer) for layer in reversed(prices)])[::-1].tolist()[1:] + [0.0]
    costs, totals = np.zeros(1), np.zeros(1)
    steps: list[tuple[np.ndarray, np.ndarray]] = []  # of each kept sum: its parent, its choice
    for layer_scores, layer_prices, rest in zip(scores, prices, cheapest_rest, strict=True):
        layer_prices = np.asarray(layer_prices, float)
        new_costs = (costs[:, None] + layer_prices).ravel()
        new_totals = (totals[:, None] + np.asarray(layer_scores, float)).ravel()
        order = np.lexsort((-new_totals, new_costs))  # by cost, the best first among equals
        order = order[new_costs[order] + rest <= budget]
        if not len(order):
            return None
        best_before = np.maximum.accumulate(new_totals[order])
        kept = order[np.concatenate([[True], best_before[1:] > best_before[:-1]])]
        steps.append(np.divmod(kept, len(layer_prices)))
        costs, totals = new_costs[kept], new_totals[kept]
    choices, place = [], len(costs) - 1  # the last is the best and the dearest
    for parents, chosen in reversed(steps):
        choices.append(int(chosen[place]))
        place = parents[place]
    return choices[::-1]
