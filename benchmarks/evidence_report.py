"""The page and the picture of benchmarks/evidence.py, from the cells' results alone."""

import statistics
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from models.files import write_whole

from .evidence_grid import Grid
from .evidence_plan import NO_REMAPPING, digest, read
from .evidence_tables import Tables, deviation, minutes_of, text

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


def write_report(grid: Grid, stem: Path) -> list[Path]:
    """Write ``STEM.md`` and, where something can be drawn, ``STEM.png``."""
    tables, file, image = Tables(grid), stem.with_suffix(".md"), stem.with_suffix(".png")
    drawing = picture(tables)
    if drawing:
        write_whole(image, drawing)
    write_whole(file, page(tables, image.name if drawing else None).encode())
    return [file, image] if drawing else [file]


def page(tables: Tables, image: str | None) -> str:
    """The page's text.

    Args:
        image: Name of the picture's file, if there is one.
    """
    task = tables.grid.task
    parts = [
        f"# Evidence: {task.title}",
        "Written by `python -m benchmarks.evidence` from the files in the folder of this name; "
        "[README.md](README.md) says what the rows are. Mean ± standard deviation over the "
        "runs, which differ in the random seed of training and, where there is one, of the "
        "search; those of several random architectures differ in the architecture, too. Params "
        "and MAdds are the whole network's; search and training are in core-minutes of CPU "
        "time.",
        *_notes(tables),
    ]
    if tables.metrics:
        parts += [_markdown(tables.main())]
        parts += [f"![accuracy and latency]({image})"] if image else []
        parts += _section(
            "## What a search gains\n\nDifferences are of runs with the same random seed: the "
            "mean over random seeds ± standard deviation. The costs are the former's as shares "
            "of the latter's. A difference that is not larger than the latter's runs deviate "
            "says little.",
            tables.comparisons(),
        )
        parts += _section(
            "## What rankings are worth\n\nSpearman's rank correlation of the test "
            f"{tables.metrics[0]} with what was known before training: the super network's "
            "loss of the path on held-out images, α's score of it, multiply-adds. Over the "
            "architectures that were trained from the remapped seed, per random seed.",
            tables.correlations(),
        )
    parts += _section(
        "## How stable searches are\n\nWhat architectures found with other random seeds "
        "have in common, mean over the pairs: of the searched layers those with the same "
        "op, of the stages those with as many layers, and of the layers that neither skips "
        "those with the same kernel size and expansion.",
        tables.stability(),
    )
    if tables.metrics and task.ablation:
        parts += [
            "## The paper's ablation\n\nHow to remap (table 6), the published architecture.",
            _markdown(tables.ablation(_HOW, "initial weights")),
            "Where to remap (table 5), for what searches with separate candidates find, to the "
            "seed's MAdds.",
            _markdown(tables.ablation(_WHERE, "remapped in expansion | in parameter adaptation")),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(about: str, table: Sequence[Sequence[str]]) -> list[str]:
    """Parts of a page: nothing where a table has no row but its head."""
    return [about, _markdown(table)] if len(table) > 1 else []


def _notes(tables: Tables) -> Iterable[str]:
    """What a reader must know of the results."""
    cells = tables.grid.cells
    if missing := [name for name, cell in cells.items() if not tables.grid.is_done(cell)]:
        yield f"**Not done yet, {len(missing)} cells:** {', '.join(missing)}."
    about = [r for r in tables.found.values() if r["kind"] != "latency"]
    configs = {config: read(config) for config in {c.config for c in cells.values()}}
    others = [
        cell.name
        for cell in cells.values()
        if (result := tables.found.get(cell.name))
        and result["config_digest"] != digest(cell, configs[cell.config])
    ]
    if others:
        yield f"**Made with other settings than today's:** {', '.join(others)}."
    resumed = [r["cell"] for r in about if r["kind"] in _TIMED and minutes_of(r, r["kind"]) is None]
    if resumed:
        yield (
            f"Interrupted and resumed, so that their core-minutes are not counted: "
            f"{', '.join(resumed)}."
        )
    machines = sorted({f"{r['machine']}, torch {r['versions']['torch']}" for r in about})
    if latency := tables.found.get("latency"):
        how = latency["measurement"]
        machines.append(
            f"latency: {how['device']}, {how['backend']}, {how['threads']} thread, one image "
            f"of {'×'.join(map(str, how['input_size']))}, without NMS and resizing"
        )
    if machines:
        yield f"Made on: {'; '.join(machines)}."


def picture(tables: Tables) -> bytes | None:
    """A PNG: accuracy against latency, the rows by name; None where nothing has both."""
    lines = [line for line in tables.lines() if line.values(tables.latency("model"))]
    if not lines:
        return None
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, line in enumerate(lines):
        y, x = line.values(tables.accuracy()), line.values(tables.latency("model"))
        label, each = line.title, line.title.startswith("random ") and line.title[7].isdigit()
        remapped = not any(NO_REMAPPING in r["settings"] for r in line.results)
        if not remapped:  # far below: it would leave no room for the others
            label += f": {text(y, tables.form)}, not shown"
        axes.errorbar(
            statistics.mean(x), statistics.mean(y) if remapped else float("nan"),
            yerr=deviation(y), xerr=deviation(x), capsize=2, label=label,
            fmt="osD^v<>pP*X"[number % 11], markersize=4 if each else 8,
            color="0.6" if each else f"C{number % 10}", zorder=1 if each else 2,
        )  # fmt: skip
    axes.set_xlabel("latency of the whole network, one image, one thread (ms)")
    axes.set_ylabel(f"test {tables.metrics[0]}")
    axes.set_title(tables.grid.task.title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *others])
