import itertools

import numpy as np
import pytest

from models.knapsack import best_within


def total(numbers: list, choices: list[int]) -> float:
    return sum(layer[choice] for layer, choice in zip(numbers, choices, strict=True))


@pytest.mark.parametrize("whole", [False, True])  # whole numbers have ties
@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_best_of_all_choices(seed, whole):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 5, size=generator.integers(1, 6))
    scores = [generator.normal(size=n) for n in sizes]
    prices = [generator.random(n) * generator.integers(1, 9) for n in sizes]
    if whole:
        scores, prices = [s.round() for s in scores], [p.round() for p in prices]
    budget = generator.random() * sum(p.max() for p in prices)
    within = [c for c in itertools.product(*map(range, sizes)) if total(prices, c) <= budget]
    found = best_within(scores, prices, budget)
    if not within:
        assert found is None
        return
    assert total(prices, found) <= budget
    assert total(scores, found) == pytest.approx(max(total(scores, c) for c in within))


def test_without_pressure_it_is_the_argmax():
    generator = np.random.default_rng(0)
    scores, prices = generator.normal(size=(21, 7)), generator.random((21, 7))
    assert best_within(scores, prices, 21.0) == scores.argmax(1).tolist()
