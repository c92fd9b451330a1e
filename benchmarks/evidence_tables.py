"""The tables of benchmarks/evidence.py, from the cells' results alone."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import spearmanr

from models import NetConfig
from models.ops import SKIP, parse_op

from .evidence_grid import Grid
from .evidence_plan import DRAWN

# lines of the main table: rows, and the random architectures of a cost together
_MAIN = (
    *("seed", "seed_longer", "published", "published_random"),
    *("found_paper", "found_shared", "found_shared_inherited"),
    *("random_madds", *(f"random_madds_{n}" for n in DRAWN)),
    *("found_latency", "found_latency_inherited", "found_latency_longer"),
    *("random_latency", *(f"random_latency_{n}" for n in DRAWN), "random_latency_longer"),
)
_SEARCHES = ("search_paper", "search_shared", "search_latency")
# pairs of lines to compare: what was found, with random architectures of its cost or the seed's,
# trained alike, and with the seed's, trained for as long as a search and a training take
_AGAINST = (
    ("found_paper", "random_madds"),
    ("found_shared", "random_madds"),
    ("found_latency", "random_latency"),
    ("found_latency_longer", "random_latency_longer"),
    ("found_shared_inherited", "seed"),
    ("found_shared_inherited", "seed_longer"),
    ("found_latency", "seed"),
    ("found_latency_inherited", "seed"),
    ("found_latency_inherited", "seed_longer"),
    ("found_latency_longer", "seed_longer"),
)


@dataclass(frozen=True)
class Runs:
    """The trainings of a line of a table: random seeds, results."""

    title: str
    results: Sequence[dict]

    def values(self, figure: Callable[[dict], float | None]) -> list[float]:
        return [value for result in self.results if (value := figure(result)) is not None]

    def by_seed(self) -> dict[int, "Runs"]:
        """Those of each random seed."""
        seeds = dict.fromkeys(result["seed"] for result in self.results)
        return {
            seed: Runs(self.title, [r for r in self.results if r["seed"] == seed]) for seed in seeds
        }


class Tables:
    """What the cells of a grid have found, as tables: lists of rows of text, the first of which is
    the head."""

    def __init__(self, grid: Grid):
        self.grid = grid
        found = {name: grid.result(name) for name in grid.cells}
        self.found = {name: result for name, result in found.items() if result}
        trained = [r for r in self.found.values() if r["kind"] == "training"]
        self.latencies = self.found.get("latency", {}).get("networks", {})
        self.metrics = list(trained[0]["test"]) if trained else []
        accuracies = [value for result in trained for value in result["test"].values()]
        # a share has three digits, a percentage one
        self.form = "{:.1f}" if max(accuracies, default=0) > 1 else "{:.3f}"
        self.signed = self.form.replace(":", ":+")
        self.rows: dict[str, Runs] = {}
        for cell in grid.cells.values():
            if cell.kind == "training" and cell.row not in self.rows:
                results = [r for r in trained if r["row"] == cell.row]
                self.rows[cell.row] = Runs(cell.title, results)
        self.of_seed = {r["seed"]: r for r in self.rows["seed"].results}

    def line(self, name: str) -> Runs:
        """A row, or all random architectures of a cost."""
        if name in self.rows:
            return self.rows[name]
        cost = name.removeprefix("random_")
        rows = [self.rows[f"random_{cost}_{number}"] for number in DRAWN]
        what = {"madds": "the seed's MAdds", "latency": "half its latency"}[cost]
        return Runs(f"random architectures, {what}", [r for runs in rows for r in runs.results])

    def accuracy(self, split: str = "test", metric: int = 0) -> Callable[[dict], float]:
        return lambda result: result[split][self.metrics[metric]]

    def gain(self, result: dict) -> float | None:
        """Accuracy less that of the seed's row with the same random seed."""
        seed = self.of_seed.get(result["seed"])
        return self.accuracy()(result) - self.accuracy()(seed) if seed else None

    def latency(self, part: str) -> Callable[[dict], float | None]:
        def of(result: dict) -> float | None:
            timing = self.latencies.get(result["net_config"])
            return timing and timing[part]["median"]

        return of

    def search_minutes(self, result: dict) -> float | None:
        """Of the search that found what was trained."""
        cell = self.grid.cells[result["cell"]]
        search = self.found.get(cell.architecture, {})
        return minutes_of(search, "search")

    def minutes(self, result: dict) -> float | None:
        """Core-minutes of a training and of the search before it, if there was one."""
        search = self.grid.cells[result["cell"]].architecture
        searched = search.startswith("search_")
        parts = minutes_of(result, "training"), self.search_minutes(result) if searched else 0.0
        return None if None in parts else sum(parts)

    def lines(self) -> list[Runs]:
        """Of the main table, those of which anything has been run."""
        planned = Counter(c.row for c in self.grid.cells.values() if c.kind == "training")
        tries = [row for row, random_seeds in planned.items() if random_seeds == 1]
        return [line for line in map(self.line, [*_MAIN, *tries]) if line.results]

    def main(self) -> list[list[str]]:
        columns: dict[str, Callable[[Runs], str]] = {
            "row": lambda runs: runs.title,
            "runs": lambda runs: str(len(runs.results)),
        }
        for split, metric in (("validation", 0), *(("test", n) for n in range(len(self.metrics)))):
            figure = self.accuracy(split, metric)
            columns[f"{split} {self.metrics[metric]}"] = _column(figure, self.form)
        columns[f"test {self.metrics[0]} less the seed's"] = _column(self.gain, self.signed)
        columns["params, M"] = _column(lambda r: r["params"] / 1e6, "{:.2f}")
        columns["MAdds, B"] = _column(lambda r: r["madds"] / 1e9, "{:.3f}")
        for part, name in (("model", "whole network"), ("backbone", "backbone")):
            columns[f"{name}, ms"] = _column(self.latency(part), "{:.2f}")
        columns["search, min"] = _column(self.search_minutes, "{:.1f}")
        columns["training, min"] = _column(lambda r: minutes_of(r, "training"), "{:.1f}")
        return [
            list(columns),
            *([make(runs) for make in columns.values()] for runs in self.lines()),
        ]

    def comparisons(self) -> list[list[str]]:
        """What is found, less random architectures or the seed's: per random seed, and the mean."""
        metric = self.metrics[0]
        table = [
            ["found", "less", "random seeds", f"test {metric}", "deviation of the latter's runs"]
            + ["MAdds", "latency", "core-minutes, with the search"]
        ]
        for pair in _AGAINST:
            found, other = map(self.line, pair)
            ours, theirs = (runs.by_seed() for runs in (found, other))
            both = [seed for seed in ours if seed in theirs]
            if not both or len(other.results) < 2:
                continue
            pairs = [(ours[seed], theirs[seed]) for seed in both]

            def ratio(figure: Callable, pairs=pairs) -> str:
                means = [(_mean(a, figure), _mean(b, figure)) for a, b in pairs]
                ratios = [a / b for a, b in means if a and b]
                return f"× {statistics.mean(ratios):.2f}" if ratios else "–"

            accuracy = self.accuracy()
            gains = [_mean(a, accuracy) - _mean(b, accuracy) for a, b in pairs]
            table.append(
                [found.title, other.title, str(len(both)), text(gains, self.signed)]
                + [self.form.format(deviation(other.values(accuracy)))]
                + [ratio(lambda r: r["madds"]), ratio(self.latency("model")), ratio(self.minutes)]
            )
        return table

    def correlations(self) -> list[list[str]]:
        """Spearman's rank correlation of accuracy with what was known before training."""
        table = [["super network", "random seeds", "architectures", "−loss", "α's score", "MAdds"]]
        for kind, title in (("paper", "separate candidates"), ("shared", "shared weights")):
            found = [self._correlate(f"held_out_{kind}-{seed}", seed) for seed in self.of_seed]
            if found := [each for each in found if each]:
                counts = [count for count, _ in found]
                counts = sorted({min(counts), max(counts)})
                cells = [text([rhos[n] for _, rhos in found], "{:+.2f}") for n in range(3)]
                table.append([title, str(len(found)), " to ".join(map(str, counts)), *cells])
        return table

    def _correlate(self, held_out: str, seed: int) -> tuple[int, list[float]] | None:
        """Over the architectures that were trained with a random seed, all from the remapped
        seed: their number, and three correlations."""
        known = {
            each["net_config"]: each
            for each in self.found.get(held_out, {}).get("architectures", ())
        }
        accuracy, madds = {}, {}
        for result in (r for runs in self.lines() for r in runs.results):
            cell = self.grid.cells[result["cell"]]
            plain = not cell.inherits and not cell.settings  # remapped, and trained as the others
            if plain and result["seed"] == seed and result["net_config"] in known:
                accuracy[result["net_config"]] = self.accuracy()(result)
                madds[result["net_config"]] = result["madds"]
        if len(accuracy) < 3:
            return None
        told = (
            [-known[each]["loss"] for each in accuracy],
            [known[each]["score"] for each in accuracy],
            [madds[each] for each in accuracy],
        )
        return len(accuracy), [float(spearmanr(x, list(accuracy.values()))[0]) for x in told]

    def stability(self) -> list[list[str]]:
        """How decided searches are, and what those with other random seeds agree on."""
        shares = ["same op", "as many layers", "same kernel size", "same expansion"]
        table = [["search", "random seeds", "entropy of α, of uniform", *shares]]
        for row in _SEARCHES:
            found = [r for r in self.found.values() if r["row"] == row]
            if len(found) < 2:
                continue
            networks = [NetConfig.parse(r["net_config"]) for r in found]
            agreed = [_agreement(*pair) for pair in combinations(networks, 2)]
            means = [statistics.mean(of_pairs) for of_pairs in zip(*agreed, strict=True)]
            undecided = text([r["undecided"] for r in found], "{:.2f}")
            title = self.grid.cells[found[0]["cell"]].title
            table.append([title, str(len(found)), undecided, *(f"{100 * m:.0f} %" for m in means)])
        return table

    def ablation(self, rows: Mapping[str, tuple[str, str]], head: str) -> list[list[str]]:
        names = [f"{head} | runs | validation {self.metrics[0]}", f"test {self.metrics[0]}"]
        table = [[*names, f"the paper's {self.metrics[0]}"]]
        for row, (title, paper) in rows.items():
            runs = self.rows[row]
            figures = [
                _column(self.accuracy(split), self.form)(runs) for split in ("validation", "test")
            ]
            table.append([f"{title} | {len(runs.results)} | {figures[0]}", figures[1], paper])
        return table


def minutes_of(result: dict, label: str) -> float | None:
    """What a command took; None where interruptions have spoilt the count."""
    spoilt = result.get("starts", {}).get(label, 0) != 1
    return None if spoilt else result["core_minutes"][label]


def _agreement(one: NetConfig, other: NetConfig) -> list[float]:
    """Shares of the layers with equal ops, the stages of equal depth, and, of the layers that
    neither skips, those of equal kernel size and of equal expansion; the first stage has no choice.
    """
    stages = list(zip(one.stages[1:], other.stages[1:], strict=True))
    layers = [pair for a, b in stages for pair in zip(a.ops, b.ops, strict=True)]
    depths = [a.ops.count(SKIP) == b.ops.count(SKIP) for a, b in stages]
    both = [[parse_op(op) for op in pair] for pair in layers if SKIP not in pair]
    kernels, expansions = (
        [getattr(a, size) == getattr(b, size) for a, b in both]
        for size in ("kernel_size", "expansion")
    )
    same = [a == b for a, b in layers]
    return [sum(each) / len(each) for each in (same, depths, kernels, expansions)]


def _column(figure: Callable[[dict], float | None], form: str) -> Callable[[Runs], str]:
    return lambda runs: text(runs.values(figure), form)


def _mean(runs: Runs, figure: Callable[[dict], float | None]) -> float | None:
    values = runs.values(figure)
    return statistics.mean(values) if values else None


def text(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation; the mean alone where nothing deviates, a dash where there is no
    value."""
    if not values:
        return "–"
    mean, spread = form.format(statistics.mean(values)), deviation(values)
    return f"{mean} ± {form.replace('+', '').format(spread)}" if spread else mean


def deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
