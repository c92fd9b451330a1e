import math

import pytest
import torch

from models import (
    CostTerm,
    FNABackbone,
    FNASuperNet,
    InputError,
    cost_term,
    count_madds,
    expected_cost,
    price_list,
)
from models.cost import fixed_cost
from tests.models.test_supernet import EXPANDED, SMALL, random_path, set_alphas

SIZE = (64, 96)
SEED = [
    [[8, 8], ["k3_e1"], 1],
    [[8, 8], ["k3_e3", "k3_e3"], 2],
    [[8, 12], ["k3_e3"], 2],
    [[12, 16], ["k3_e6", "k3_e3"], 2],
    [[16, 16], ["k3_e6"], 2],
]
MADDS = dict(type="MAdds", unit=1e6, input_size=SIZE)


def build(share_weights: bool = False, **changes) -> FNASuperNet:
    return FNASuperNet(**{**SMALL, **changes}, share_weights=share_weights)


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("space", [{}, EXPANDED, dict(output_stride=16)])
def test_prices_and_what_is_fixed_are_the_derived_networks_cost(space, share_weights):
    supernet = build(share_weights, **space)
    path = random_path(supernet, 1)
    term = cost_term(dict(MADDS, target=2.0), supernet, SEED)
    prices = price_list(supernet, term.cost, SIZE)
    cost = term.fixed + sum(layer[choice] for layer, choice in zip(prices, path, strict=True))
    network = FNABackbone(
        supernet.search_space.net_config(path), (0,), supernet.output_stride, supernet.last_channels
    )
    assert cost == count_madds(network, SIZE) == fixed_cost(network, term.cost, SIZE)


@pytest.mark.parametrize("share", [0.9, 1.25])
def test_a_target_in_seeds_is_times_the_seeds_own_cost(share):
    seed = count_madds(FNABackbone(SEED, (0,), output_stride=16), SIZE)
    term = cost_term(dict(MADDS, target=f"{share} seed"), build(output_stride=16), SEED)
    assert term.target == pytest.approx(share * seed)
    assert cost_term(dict(MADDS, target=2), build(), SEED).target == 2e6


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_derived_is_within_the_budget(seed, share_weights):
    supernet = build(share_weights)
    torch.manual_seed(seed)
    set_alphas(supernet, [torch.randn(len(a)) for a in supernet.alphas()])
    argmax = count_madds(FNABackbone(supernet.derive(), (0,)), SIZE)
    term = cost_term(dict(MADDS, target=0.8 * argmax / 1e6), supernet, SEED)
    derived = supernet.derive(price_list(supernet, term.cost, SIZE), term.budget)
    assert count_madds(FNABackbone(derived, (0,)), SIZE) <= term.target < argmax


def test_a_given_lambda_stays_the_papers():
    term = cost_term(dict(MADDS, weight=0.02, base=10, scale=1), build(), SEED)
    assert isinstance(term, CostTerm) and term.budget is None and term.fixed == 0
    # back to it, where a config that is inherited has a target
    settings = dict(MADDS, weight=0.02, base=10, scale=1, target=None, rate=0.05, negative=True)
    again = cost_term(settings, build(), SEED)
    assert isinstance(again, CostTerm) and again.weight == term.weight


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("share", [0.9, 1.3])
def test_lambda_reaches_the_target(share, negative):
    """α follows a task that prefers dear ops, or cheap ones, and a term whose λ learns."""
    supernet = build()
    likes_dear = share < 1
    term = cost_term(dict(MADDS, target=f"{share} seed", negative=negative), supernet, SEED)
    prices = price_list(supernet, term.cost, SIZE)
    wishes = [
        (layer / layer.max() * (1 if likes_dear else -1)).float() for layer in supernet.rows(prices)
    ]
    optimizer = torch.optim.Adam(supernet.alphas(), lr=0.03)
    for _ in range(400):
        expected = expected_cost(supernet, prices)
        likes = sum(p @ w for p, w in zip(supernet.probabilities(), wishes, strict=True))
        loss = -0.1 * likes + term(expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        term.learn(expected.item())
    reached = (expected_cost(supernet, prices).item() + term.fixed) / term.target
    if likes_dear or negative:
        assert reached == pytest.approx(1, abs=0.03)
        assert (term.weight > 0) == likes_dear
    else:  # nothing pulls a cheap network up
        assert reached < 0.9 and term.weight == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(target=900),
            "target 900, but backbones of this search space cost .* to .* 1e.06 MAd",
        ),
        (dict(target="0.01 seed"), "target 0.0.*, but backbones of this search space cost"),
        (dict(target="0.9 of the seed"), "expected a number in 1e.06 MAdds, or times the seed's"),
        (dict(target=True), "target True, expected a number"),
        (dict(target=-1), "target -1, expected a number"),
        (dict(target=2, rate=0), "rate 0, expected a number above 0"),
        (dict(target=2, rate=math.inf), "rate inf, expected a number above 0"),
        (dict(target=2, negative="no"), "negative 'no', expected True or False"),
        (dict(target=2, unit=0), "unit 0, expected a number above 0"),
        (dict(target=2, input_size=None), "input_size is missing"),
        (dict(target=2, input_size=320), "input_size 320, expected .height, width."),
        (dict(target=2, input_size=[0, 320]), r"input_size \[0, 320\], expected"),
        (dict(target=2, lamda=1), "lamda"),
    ],
)
def test_a_wrong_setting_is_told(changes, message):
    with pytest.raises(InputError, match=message):
        cost_term(MADDS | changes, build(), SEED)
