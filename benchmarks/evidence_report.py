"""What came out of benchmarks/evidence.py: a page and a picture, from the cells' results alone."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path

from matplotlib.figure import Figure
from scipy.stats import spearmanr

from models import NetConfig
from models.files import write_whole
from models.ops import SKIP, parse_op

from .evidence_grid import Grid
from .evidence_plan import DRAWN, NO_REMAPPING, digest, read

# lines of the main table: rows, and the random architectures of a cost together
_MAIN = (
    *("seed", "seed_longer", "published", "published_random"),
    *("found_paper", "found_shared", "found_shared_inherited"),
    *("random_madds", *(f"random_madds_{n}" for n in DRAWN)),
    *("found_latency", "found_latency_inherited", "found_latency_longer"),
    *("random_latency", *(f"random_latency_{n}" for n in DRAWN), "random_latency_longer"),
)
# rows of the paper's tables 6 and 5, their titles and its mIoU
_HOW = {
    "width_bn": ('`width="bn"`', "75.8"),
    "width_std": ('`width="std"`', "75.8"),
    "width_l1": ('`width="l1"`', "75.3"),
    "kernel_dilate": ('`kernel="dilate"`', "75.6"),
    "published": ("`first`, `center`: the paper's method", "76.6"),
    "published_random": ("random weights", ""),
}
_WHERE = {
    "found_blind_random": ("no | no", "72.4"),
    "found_paper_random": ("yes | no", "73.0"),
    "found_blind": ("no | yes", "76.0"),
    "found_paper": ("yes | yes", "76.6"),
}
_TIMED = ("search", "training")  # kinds of cells whose core-minutes are shown
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


class Report:
    """What the cells of a grid have found."""

    def __init__(self, grid: Grid):
        self.grid = grid
        found = {name: grid.result(name) for name in grid.cells}
        self.missing = [name for name, cell in grid.cells.items() if not grid.is_done(cell)]
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
        return _minutes(search, "search")

    def minutes(self, result: dict) -> float | None:
        """Core-minutes of a training and of the search before it, if there was one."""
        search = self.grid.cells[result["cell"]].architecture
        searched = search.startswith("search_")
        parts = _minutes(result, "training"), self.search_minutes(result) if searched else 0.0
        return None if None in parts else sum(parts)

    def lines(self) -> list[Runs]:
        """Of the main table, those of which anything has been run."""
        names = [*_MAIN, *(f"found_{name}" for name, *_ in self.grid.task.tries)]
        return [line for line in map(self.line, names) if line.results]

    def main_table(self) -> list[list[str]]:
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
        columns["training, min"] = _column(lambda r: _minutes(r, "training"), "{:.1f}")
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
                [found.title, other.title, str(len(both)), _text(gains, self.signed)]
                + [self.form.format(_deviation(other.values(accuracy)))]
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
                cells = [_text([rhos[n] for _, rhos in found], "{:+.2f}") for n in range(3)]
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
            undecided = _text([r["undecided"] for r in found], "{:.2f}")
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

    def page(self, picture: str | None) -> str:
        task = self.grid.task
        about = [r for r in self.found.values() if r["kind"] != "latency"]
        parts = [
            f"# Evidence: {task.title}",
            "Written by `python -m benchmarks.evidence` from the files in the folder of this name; "
            "[README.md](README.md) says what the rows are. Mean ± standard deviation over the "
            "runs, which differ in the random seed of training and, where there is one, of the "
            "search; those of several random architectures differ in the architecture, too. Params "
            "and MAdds are the whole network's; search and training are in core-minutes of CPU "
            "time.",
            *self._notes(about),
        ]
        if self.metrics:
            parts += [_markdown(self.main_table())]
            parts += [f"![accuracy and latency]({picture})"] if picture else []
        comparisons = self.comparisons() if self.metrics else []
        if len(comparisons) > 1:
            parts += [
                "## What a search gains\n\nDifferences are of runs with the same random seed: the "
                "mean over random seeds ± standard deviation. The costs are the former's as shares "
                "of the latter's. A difference that is not larger than the latter's runs deviate "
                "says little.",
                _markdown(comparisons),
            ]
        correlations = self.correlations()
        if len(correlations) > 1:
            parts += [
                "## What rankings are worth\n\nSpearman's rank correlation of the test "
                f"{self.metrics[0]} with what was known before training: the super network's "
                "loss of the path on held-out images, α's score of it, multiply-adds. Over the "
                "architectures that were trained from the remapped seed, per random seed.",
                _markdown(correlations),
            ]
        stability = self.stability()
        if len(stability) > 1:
            parts += [
                "## How stable searches are\n\nWhat architectures found with other random seeds "
                "have in common, mean over the pairs: of the searched layers those with the same "
                "op, of the stages those with as many layers, and of the layers that neither skips "
                "those with the same kernel size and expansion.",
                _markdown(stability),
            ]
        if self.metrics and task.ablation:
            parts += [
                "## The paper's ablation\n\nHow to remap (table 6), the published architecture.",
                _markdown(self.ablation(_HOW, "initial weights")),
                "Where to remap (table 5), for what searches with separate candidates find, to the "
                "seed's MAdds.",
                _markdown(self.ablation(_WHERE, "remapped in expansion | in parameter adaptation")),
            ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _notes(self, about: Sequence[dict]) -> Iterable[str]:
        if self.missing:
            yield f"**Not done yet, {len(self.missing)} cells:** {', '.join(self.missing)}."
        configs = {config: read(config) for config in {c.config for c in self.grid.cells.values()}}
        others = [
            cell.name
            for cell in self.grid.cells.values()
            if (result := self.found.get(cell.name))
            and result["config_digest"] != digest(cell, configs[cell.config])
        ]
        if others:
            yield f"**Made with other settings than today's:** {', '.join(others)}."
        resumed = [
            r["cell"] for r in about if r["kind"] in _TIMED and _minutes(r, r["kind"]) is None
        ]
        if resumed:
            yield (
                f"Interrupted and resumed, so that their core-minutes are not counted: "
                f"{', '.join(resumed)}."
            )
        machines = sorted({f"{r['machine']}, torch {r['versions']['torch']}" for r in about})
        if latency := self.found.get("latency"):
            how = latency["measurement"]
            machines.append(
                f"latency: {how['device']}, {how['backend']}, {how['threads']} thread, one image "
                f"of {'×'.join(map(str, how['input_size']))}, without NMS and resizing"
            )
        if machines:
            yield f"Made on: {'; '.join(machines)}."

    def picture(self) -> bytes | None:
        """Accuracy against latency, the rows by name; None where nothing has both."""
        lines = [line for line in self.lines() if line.values(self.latency("model"))]
        if not lines:
            return None
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            y, x = line.values(self.accuracy()), line.values(self.latency("model"))
            label, each = line.title, line.title.startswith("random ") and line.title[7].isdigit()
            remapped = not any(NO_REMAPPING in r["settings"] for r in line.results)
            if not remapped:  # far below: it would leave no room for the others
                label += f": {_text(y, self.form)}, not shown"
            axes.errorbar(
                statistics.mean(x), statistics.mean(y) if remapped else float("nan"),
                yerr=_deviation(y), xerr=_deviation(x), capsize=2, label=label,
                fmt="osD^v<>pP*X"[number % 11], markersize=4 if each else 8,
                color="0.6" if each else f"C{number % 10}", zorder=1 if each else 2,
            )  # fmt: skip
        axes.set_xlabel("latency of the whole network, one image, one thread (ms)")
        axes.set_ylabel(f"test {self.metrics[0]}")
        axes.set_title(self.grid.task.title)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize=8)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def write_report(grid: Grid, stem: Path) -> list[Path]:
    """Write ``STEM.md`` and, where something can be drawn, ``STEM.png``."""
    report, page, picture = Report(grid), stem.with_suffix(".md"), stem.with_suffix(".png")
    drawing = report.picture()
    if drawing:
        write_whole(picture, drawing)
    write_whole(page, report.page(picture.name if drawing else None).encode())
    return [page, picture] if drawing else [page]


def _minutes(result: dict, label: str) -> float | None:
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
    return lambda runs: _text(runs.values(figure), form)


def _mean(runs: Runs, figure: Callable[[dict], float | None]) -> float | None:
    values = runs.values(figure)
    return statistics.mean(values) if values else None


def _text(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation; the mean alone where nothing deviates, a dash where there is no
    value."""
    if not values:
        return "–"
    deviation = _deviation(values)
    spread = f" ± {form.replace('+', '').format(deviation)}" if deviation else ""
    return form.format(statistics.mean(values)) + spread


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *others])
