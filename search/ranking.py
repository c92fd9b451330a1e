"""A search's optional last step: the architectures that α proposes, ranked by evaluation.

α is learned on mixtures of ops; what counts is how single paths do. So some architectures that α
finds likely are each evaluated, as one path of the super network, on the same held-out images.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from models import BudgetTerm, CostTerm, FNASuperNet, InputError, NetConfig
from models.inherit import find_path
from models.ops import SKIP

_MOST_DRAWS = 10_000


@dataclass(frozen=True)
class Ranking:
    """A config's ``ranking``.

    Args:
        candidates: How many architectures to evaluate, with the derived one among them.
        batches: Batches of the held-out half to evaluate each on, per process.

    Raises:
        InputError: A number is less than 1.
    """

    candidates: int
    batches: int

    def __post_init__(self):
        for name in ("candidates", "batches"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"train_cfg.ranking: {name} {value!r}, expected 1 or more")

    @classmethod
    def from_cfg(cls, cfg: dict | None) -> "Ranking | None":
        """The ranking of a config, None where it asks for none.

        Raises:
            InputError: A setting is missing or unknown.
        """
        try:
            return cfg and cls(**cfg)
        except TypeError:
            raise InputError(
                f"train_cfg.ranking: {dict(cfg)}, expected candidates and batches"
            ) from None


@dataclass
class Candidate:
    """One architecture that α proposes; ``score`` is Σ log softmax(α) of its ops, ``cost`` the
    backbone's, ``losses`` one task loss per batch."""

    path: list[int]
    net_config: NetConfig
    score: float
    cost: float
    losses: list[float] | None = None

    @property
    def loss(self) -> float:
        """The mean loss."""
        return sum(self.losses) / len(self.losses)


def propose(
    supernet: FNASuperNet,
    prices: Tensor,
    term: CostTerm | BudgetTerm,
    count: int,
    generator: torch.Generator,
) -> list[Candidate]:
    """The architecture that α prefers, and others drawn by softmax(α): different ones, each within
    the term's budget, if it has one. Fewer than ``count`` where α has decided.

    Of the paths of one architecture, which differ in where a stage skips, it is the one of the
    greatest score: the one that :class:`models.Inherit` takes."""
    candidates: dict[NetConfig, Candidate] = {}
    alphas, listed = supernet.alpha_values(), prices.tolist()
    space = supernet.search_space
    scores = [alpha.double().log_softmax(0).tolist() for alpha in alphas]
    by_layer = dict(zip(space.candidates, scores, strict=True))

    def consider(drawn: list[int]) -> None:
        net_config = space.net_config(drawn)
        if net_config in candidates:
            return
        ops = dict(find_path(net_config, space.candidates, by_layer).values())
        path = [names.index(ops.get(layer, SKIP)) for layer, names in space.candidates.items()]
        priced, score = (
            sum(layer[choice] for layer, choice in zip(numbers, path, strict=True))
            for numbers in (listed, scores)
        )
        if term.budget is None or priced <= term.budget:
            candidates[net_config] = Candidate(path, net_config, score, priced + term.fixed)

    consider(supernet.best_path(prices, term.budget))
    for _ in range(_MOST_DRAWS):
        if len(candidates) == count:
            break
        consider(supernet.sample_path(generator, alphas=alphas))
    return list(candidates.values())


def evaluate(
    candidates: Sequence[Candidate],
    batches: Sequence[object],
    loss_of: Callable[[list[int], int, object], Tensor],
    log: Callable[[str], None],
) -> list[Candidate]:
    """Each candidate's loss on the same batches, averaged over processes.

    Args:
        loss_of: (path, number of the batch, batch) → the task's loss, a scalar.
        log: Is told the progress.

    Returns:
        The candidates, the best first.
    """
    started = time.monotonic()
    for number, candidate in enumerate(candidates, 1):
        losses = torch.stack(
            [loss_of(candidate.path, index, batch).double() for index, batch in enumerate(batches)]
        )
        all_reduce(losses, op="mean")
        candidate.losses = losses.tolist()
        left = (time.monotonic() - started) / number * (len(candidates) - number)
        log(
            f"Ranking [{number}/{len(candidates)}]  eta: {left:.0f} s  loss {candidate.loss:.4f}"
            f"  score {candidate.score:.2f}"
        )
    return sorted(candidates, key=lambda candidate: candidate.loss)


def to_json(ranked: Sequence[Candidate], unit: float) -> str:
    """What ``candidates.json`` holds; ``cost`` in units. ``difference`` is of the loss to the best
    one's, with its standard error over the batches."""
    best = torch.tensor(ranked[0].losses, dtype=torch.double)
    rows = []
    for candidate in ranked:
        paired = torch.tensor(candidate.losses, dtype=torch.double) - best
        error = paired.std().item() / len(paired) ** 0.5 if len(paired) > 1 else None
        rows.append(
            dict(
                net_config=str(candidate.net_config),
                loss=candidate.loss,
                difference=paired.mean().item(),
                standard_error=error,
                score=candidate.score,
                cost=candidate.cost / unit,
            )
        )
    return json.dumps(rows, indent=2) + "\n"
