"""Random architectures of a given cost: the baseline that a search must beat.

``python -m search.random_architectures --config C --target T --count N --seed S [--out DIR]``
writes ``DIR/random_1.txt`` …: net_configs drawn from C's search space, within 2 % of the cost.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import torch
from torch import Tensor

from engine.config import OneLineParser, add_options_argument, given
from engine.run import run
from engine.work_dir import make_work_dir
from models import FNASuperNet, InputError, MAdds, NetConfig, cost_term, price_list
from models.files import write_whole
from models.ops import SKIP

from .config import load_search_model

_TOLERANCE = 0.02  # of the backbone's cost
_MOST_DRAWS = 100_000
SEED = "configs/net_configs/mobilenetv2.txt"


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(
        prog="search.random_architectures",
        description="Draw architectures of a cost from a config's search space",
    )
    parser.add_argument("--config", required=True, help="config of an architecture adaptation")
    parser.add_argument(
        "--target",
        required=True,
        help="the backbone's cost, in units of the config's cost or times the seed's: '0.9 seed'",
    )
    parser.add_argument("--count", type=int, default=1, help="how many (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument(
        "--out",
        type=given,
        default="work_dirs/random_architectures",
        help="folder to write them to",
    )
    add_options_argument(parser)
    return parser.parse_args()


def draw_within(
    supernet: FNASuperNet,
    prices: Tensor,
    budget: float,
    slack: float,
    generator: torch.Generator,
) -> Iterator[NetConfig]:
    """Different architectures whose prices sum to ``budget`` ± ``slack``.

    Drawn uniformly, hardly any would have the cost. So cheap (or dear) candidates are drawn more
    often, by exp(−θ · price) with the θ at which the expected cost is the budget: architectures of
    equal cost stay equally likely. Of paths that differ in where a stage's skips are, which is one
    architecture, only that with the skips last counts.

    Raises:
        InputError: There are no more of them.
    """
    rows = supernet.rows(prices)
    chances = _chances(rows, budget)
    candidates = list(supernet.search_space.candidates.items())
    seen = set()
    for _ in range(_MOST_DRAWS):
        path = [torch.multinomial(chance, 1, generator=generator).item() for chance in chances]
        cost = sum(layer[choice].item() for layer, choice in zip(rows, path, strict=True))
        names = [
            (layer, ops[choice]) for (layer, ops), choice in zip(candidates, path, strict=True)
        ]
        if abs(cost - budget) > slack or not _skips_last(names):
            continue
        net_config = supernet.search_space.net_config(path)
        if net_config not in seen:
            seen.add(net_config)
            yield net_config
    raise InputError(
        f"--count: {_MOST_DRAWS} draws gave {len(seen)} different architectures of that cost"
    )


def draw_over_costs(
    supernet: FNASuperNet, input_size: tuple[int, int], count: int, generator: torch.Generator
) -> list[NetConfig]:
    """Random architectures of all sizes: their expected multiply-adds are spread evenly from the
    cheapest architecture's to the dearest's."""
    rows = supernet.rows(price_list(supernet, MAdds(), input_size).cpu())
    least, greatest = (sum(choose(layer).item() for layer in rows) for choose in (min, max))
    drawn = []
    for number in range(count):
        chances = _chances(rows, least + (greatest - least) * (number + 0.5) / count)
        path = [torch.multinomial(chance, 1, generator=generator).item() for chance in chances]
        drawn.append(supernet.search_space.net_config(path))
    return drawn


def _chances(prices: Sequence[Tensor], budget: float) -> list[Tensor]:
    """Of each layer's candidates, so that the expected cost is the budget."""
    theta = _find_tilt(prices, budget)
    return [torch.softmax(-theta * layer, dim=0) for layer in prices]


def _skips_last(layers: Sequence[tuple[str, str]]) -> bool:
    """Whether no stage has a real op after a skip; layers are (``'S.L'``, op)."""
    return not any(
        before[1] == SKIP != op and before[0].split(".")[0] == name.split(".")[0]
        for before, (name, op) in pairwise(layers)
    )


def _find_tilt(prices: Sequence[Tensor], budget: float) -> float:
    """θ at which Σ_layers Σ_o softmax(−θ · price)_o · price(o) is the budget."""
    largest = max(layer.max().item() for layer in prices)

    def expected(theta: float) -> float:
        return sum((torch.softmax(-theta * layer, 0) @ layer).item() for layer in prices)

    low, high = -1e3 / largest, 1e3 / largest  # expected() falls from the dearest to the cheapest
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) > budget else (low, middle)
    return (low + high) / 2


def main() -> None:
    args = parse_args()
    if args.count < 1:
        raise InputError(f"--count {args.count}: expected at least 1")
    out = Path(args.out).expanduser().absolute()
    model, cfg = load_search_model(args)
    supernet, cost = model.backbone, cfg.train_cfg.cost
    seed = cfg.train_cfg.get("seed_net_config", SEED)
    target = args.target if "seed" in args.target else _number(args.target)
    term = cost_term(dict(cost, target=target), supernet, seed)
    prices = price_list(supernet, term.cost, term.input_size)
    generator = torch.Generator().manual_seed(args.seed)
    slack = _TOLERANCE * term.target
    drawn = list(islice(draw_within(supernet, prices, term.budget, slack, generator), args.count))
    make_work_dir(out)
    for number, net_config in enumerate(drawn, 1):
        path = out / f"random_{number}.txt"
        write_whole(path, f"{net_config}\n".encode())
        print(path)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--target {text}: expected a number, or as in '0.9 seed'") from None


if __name__ == "__main__":
    run(main)
