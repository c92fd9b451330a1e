"""A search's optional last step: the architectures that α proposes, ranked by evaluation.

α is learned on mixtures of ops; what counts is how single paths do. So some architectures that α
finds likely are each evaluated, as one path of the super network, on the same held-out images.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
        references: Architectures to evaluate beside them, which are not chosen: net_config files by
            names for people.

    Raises:
        InputError: A number is less than 1, or ``references`` is no such mapping.
    """

    candidates: int
    batches: int
    references: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.references, Mapping):
            raise InputError(
                f"train_cfg.ranking: references {self.references!r}, expected names and files"
            )
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
    alphas = supernet.alpha_values()

    def consider(drawn: list[int]) -> None:
        net_config = supernet.search_space.net_config(drawn)
        if net_config in candidates:
            return
        path = likeliest_path(supernet, net_config, alphas)
        if term.budget is None or _priced(prices, path) <= term.budget:
            candidates[net_config] = _describe(supernet, prices, term, alphas, path)

    consider(supernet.best_path(prices, term.budget))
    for _ in range(_MOST_DRAWS):
        if len(candidates) == count:
            break
        consider(supernet.sample_path(generator, alphas=alphas))
    return list(candidates.values())


def find_references(
    supernet: FNASuperNet,
    prices: Tensor,
    term: CostTerm | BudgetTerm,
    references: Mapping[str, str],
) -> dict[str, Candidate]:
    """The architectures of a ranking's ``references``, as paths of the super network.

    Raises:
        InputError: A file cannot be read, or its architecture is not in the search space.
    """
    found, alphas = {}, supernet.alpha_values()
    for name, file in references.items():
        try:
            path = likeliest_path(supernet, NetConfig.parse(Path(file)), alphas)
        except InputError as error:
            raise InputError(f"train_cfg.ranking: reference {name!r}: {error}") from None
        found[name] = _describe(supernet, prices, term, alphas, path)
    return found


def likeliest_path(
    supernet: FNASuperNet, net_config: NetConfig, alphas: Sequence[Tensor] | None = None
) -> list[int]:
    """The path of an architecture that α prefers, among those that differ in where a stage skips.

    Args:
        alphas: What ``supernet.alpha_values()`` gives; without them any of the paths.

    Raises:
        InputError: The search space does not hold the architecture.
    """
    space = supernet.search_space
    if len(net_config.stages) != len(space.fixed) + len(space.searched):
        raise InputError("net_config: its stages are not those of the search space")
    scores = [alpha.double().log_softmax(0).tolist() for alpha in alphas or ()]
    by_layer = dict(zip(space.candidates, scores, strict=True)) if scores else None
    ops = dict(find_path(net_config, space.candidates, by_layer).values())
    path = [names.index(ops.get(layer, SKIP)) for layer, names in space.candidates.items()]
    if space.net_config(path).without_skips() != net_config.without_skips():
        raise InputError("net_config: its stages are not those of the search space")
    return path


def _describe(
    supernet: FNASuperNet,
    prices: Tensor,
    term: CostTerm | BudgetTerm,
    alphas: Sequence[Tensor],
    path: list[int],
) -> Candidate:
    score = sum(
        alpha.log_softmax(0)[choice].item() for alpha, choice in zip(alphas, path, strict=True)
    )
    net_config = supernet.search_space.net_config(path)
    return Candidate(path, net_config, score, _priced(prices, path) + term.fixed)


def _priced(prices: Tensor, path: Sequence[int]) -> float:
    return sum(layer[choice].item() for layer, choice in zip(prices, path, strict=True))


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
        The candidates whose loss is finite, the best first.

    Raises:
        InputError: No loss is finite.
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
    finite = [candidate for candidate in candidates if math.isfinite(candidate.loss)]
    if candidates and not finite:
        raise InputError("ranking: no loss is finite; the weights of the search are of no use")
    return sorted(finite, key=lambda candidate: candidate.loss)


def to_json(ranked: Sequence[Candidate], unit: float) -> str:
    """What ``candidates.json`` holds; ``cost`` in units. ``difference`` is of the loss to the best
    one's, with its standard error over the batches."""
    rows = [_row(candidate, ranked[0], unit) for candidate in ranked]
    return json.dumps(rows, indent=2) + "\n"


def references_to_json(references: Mapping[str, Candidate], best: Candidate, unit: float) -> str:
    """What ``references.json`` holds: by name, the same; ``difference`` is to the best candidate's
    loss."""
    rows = {name: _row(each, best, unit) for name, each in references.items()}
    return json.dumps(rows, indent=2) + "\n"


def _row(candidate: Candidate, best: Candidate, unit: float) -> dict:
    paired = torch.tensor(candidate.losses, dtype=torch.double)
    paired = paired - torch.tensor(best.losses, dtype=torch.double)
    error = paired.std().item() / len(paired) ** 0.5 if len(paired) > 1 else None
    return dict(
        net_config=str(candidate.net_config),
        loss=candidate.loss,
        difference=paired.mean().item(),
        standard_error=error,
        score=candidate.score,
        cost=candidate.cost / unit,
    )
