"""Pictures of an architecture adaptation: what it derived, and how α came to prefer it.

Figures are objects of their own, without pyplot: drawing leaves no state behind and needs no
display.
"""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from models import NetConfig
from models.backbone import STEM_STRIDE
from models.ops import SKIP, Op, parse_op

_BLUES = ["#c6dbef", "#6baed6", "#2171b5", "#08306b"]  # of kernels 3, 5, 7 and larger
_INK, _FAINT = "#222222", "#9a9a9a"


def kernel_colour(kernel_size: int) -> str:
    """The larger the kernel, the darker."""
    return _BLUES[min(max(kernel_size // 2, 1), len(_BLUES)) - 1]


def draw_architectures(net_configs: Mapping[str, NetConfig]) -> Figure:
    """Architectures below each other, the first on top, stage under stage.

    A layer is a bar: colour is the kernel, height the expansion; skips are dashed outlines.
    """
    rows = list(net_configs.items())
    stages = max(len(net_config.stages) for _, net_config in rows)
    depths = [
        max(len(n.stages[s].ops) for _, n in rows if s < len(n.stages)) for s in range(stages)
    ]
    starts = [sum(depths[:s]) + 0.7 * s for s in range(stages)]
    ops = [parse_op(op) for _, n in rows for stage in n.stages for op in stage.ops]
    tallest = max(1, *(op.expansion for op in ops))

    width = 0.52 * (starts[-1] + depths[-1]) + 1.4
    figure = Figure(figsize=(width, 2.3 * len(rows) + 0.8), layout="constrained")
    for axes, (name, net_config) in zip(
        figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True
    ):
        stride = STEM_STRIDE
        for start, stage in zip(starts, net_config.stages, strict=False):
            stride *= stage.stride
            for layer, op in enumerate(stage.ops):
                _draw_layer(axes, start + layer, parse_op(op), tallest)
            axes.text(
                start, -0.12, f"{stage.out_channels} channels\nstride {stride}",
                va="top", fontsize=8, color=_INK,
            )  # fmt: skip
        real = sum(op != SKIP for stage in net_config.stages for op in stage.ops)
        axes.set_title(f"{name}: {real} layers", loc="left", fontsize=11, color=_INK)
        axes.set_xlim(-0.3, starts[-1] + depths[-1] + 0.9)
        axes.set_ylim(-0.5, 1.12)
        axes.axis("off")
    kernels = sorted({op.kernel_size for op in ops if op.kernel_size})
    legend = [Patch(facecolor=kernel_colour(k), edgecolor=_INK, label=f"{k}x{k}") for k in kernels]
    legend.append(Patch(facecolor="none", edgecolor=_FAINT, linestyle="--", label="skip"))
    figure.legend(
        handles=legend, loc="outside upper right", ncols=len(legend), frameon=False, fontsize=9
    )
    return figure


def _draw_layer(axes: Axes, left: float, op: Op, tallest: int) -> None:
    if op.name == SKIP:
        axes.add_patch(
            Rectangle((left, 0), 0.86, 0.16, facecolor="none", edgecolor=_FAINT, linestyle="--")
        )
        axes.text(left + 0.43, 0.08, "skip", ha="center", va="center", fontsize=7, color=_FAINT)
        return
    height = 0.25 + 0.75 * op.expansion / tallest
    colour = kernel_colour(op.kernel_size)
    axes.add_patch(Rectangle((left, 0), 0.86, height, facecolor=colour, edgecolor=_INK, lw=0.8))
    light = sum(to_rgb(colour)) / 3 > 0.55
    label = re.sub(r"^k(\d+)", r"\1x\1", op.name).replace("_", "\n")
    axes.text(
        left + 0.43, height / 2, label,
        ha="center", va="center", fontsize=8, color=_INK if light else "white",
    )  # fmt: skip


def draw_alpha(
    search_space: Mapping[str, Sequence[str]],
    probabilities: Sequence[Sequence[Sequence[float]]],
    arch_start_epoch: int,
) -> Figure:
    """softmax(α) over the epochs, one small heat map per layer, one row of them per stage.

    Args:
        search_space: Candidate ops of each layer, by its name ``S.L``.
        probabilities: [epoch][layer][candidate], after each epoch from the first.
        arch_start_epoch: Where α began to learn; a line marks it.
    """
    names = list(search_space)
    stages = list(dict.fromkeys(name.split(".")[0] for name in names))
    columns = max(int(name.split(".")[1]) for name in names) + 1
    epochs = len(probabilities)
    highest = max(p for layers in probabilities for layer in layers for p in layer)

    figure = Figure(figsize=(2.3 * columns + 1.6, 1.55 * len(stages) + 0.9), layout="constrained")
    grid = figure.subplots(len(stages), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, (name, candidates) in enumerate(search_space.items()):
        stage, layer = name.split(".")
        axes = grid[stages.index(stage), int(layer)]
        axes.axis("on")
        image = axes.imshow(
            [[layers[index][c] for layers in probabilities] for c in range(len(candidates))],
            cmap="viridis", vmin=0, vmax=highest, aspect="auto", interpolation="nearest",
            extent=(0.5, epochs + 0.5, len(candidates) - 0.5, -0.5),
        )  # fmt: skip
        last = probabilities[-1][index]
        best = max(range(len(candidates)), key=last.__getitem__)
        axes.set_title(
            f"stage {stage} layer {int(layer) + 1}: {candidates[best]} {last[best]:.2f}",
            fontsize=8, color=_INK,
        )  # fmt: skip
        axes.set_yticks(range(len(candidates)), candidates, fontsize=6.5)
        axes.get_yticklabels()[best].set_fontweight("bold")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        axes.tick_params(axis="x", labelsize=6.5)
        if 0 < arch_start_epoch < epochs:
            axes.axvline(arch_start_epoch + 0.5, color="white", linewidth=1, linestyle=":")
    bar = figure.colorbar(image, ax=grid, shrink=0.5, aspect=30, pad=0.01)
    bar.set_label("softmax(α)", fontsize=9)
    figure.supxlabel("epoch (dotted: α starts to learn)", fontsize=9)
    return figure


def draw_cost(
    costs: Sequence[tuple[float, float, float]], target: float | None, unit: str
) -> Figure:
    """The backbone's expected cost over the iterations, its target, and λ below.

    Args:
        costs: (iteration, expected cost, λ), in the order of time.
        target: The cost that was asked for, or None.
        unit: What costs are counted in.
    """
    iterations, expected, weights = zip(*costs, strict=True)
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    upper.plot(iterations, expected, color=_BLUES[2], label="expected")
    if target is not None:
        upper.axhline(target, color=_INK, linestyle="--", lw=1, label="target")
    upper.legend(frameon=False, fontsize=9)
    upper.set_ylabel(f"cost in {unit}", fontsize=9)
    lower.plot(iterations, weights, color=_BLUES[3])
    lower.set_ylabel("lambda", fontsize=9)
    lower.set_xlabel("iteration", fontsize=9)
    for axes in (upper, lower):
        _plain(axes)
    return figure


def draw_check(table: Sequence[float], measured: Sequence[float], title: str) -> Figure:
    """Networks' latencies in ms, by a table and measured, one point each; the line is where both
    are equal."""
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.subplots()
    ends = [0, 1.05 * max(*table, *measured)]
    axes.plot(ends, ends, color=_FAINT, lw=1, zorder=0)
    axes.scatter(table, measured, color=_BLUES[2], s=22)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.set_xlabel("by the table, ms", fontsize=9)
    axes.set_ylabel("measured, ms", fontsize=9)
    axes.set_title(title, fontsize=9, loc="left", wrap=True, color=_INK)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def draw_pareto(
    found: Sequence[tuple[float, float, float]],
    references: Mapping[str, tuple[float, float]],
    unit: str,
) -> Figure:
    """Loss against cost.

    Args:
        found: (cost, loss less the seed's in the same super network, standard error) per search.
        references: (cost, loss less the seed's) by name.
        unit: What costs are counted in.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    costs, losses, errors = zip(*sorted(found), strict=True)
    axes.axhline(0, color=_FAINT, lw=1, zorder=0)
    axes.errorbar(
        costs, losses, yerr=errors, color=_BLUES[2], marker="o", ms=6, capsize=3, label="found"
    )
    for (name, (cost, loss)), marker in zip(references.items(), "s^Dv", strict=False):
        axes.plot(cost, loss, marker, color=_BLUES[3], ms=8, mfc="none", label=name)
    axes.set_xlabel(f"cost of the backbone, {unit}", fontsize=9)
    axes.set_ylabel("held-out loss less the seed's,\nin the same super network", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    _plain(axes)
    return figure


def to_png(figure: Figure) -> bytes:
    """The content of a PNG file that shows a figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
