"""Draw docs/procedure.png, the figure of the README: ``python docs/draw_procedure.py``."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

OUT = Path(__file__).with_name("procedure.png")
WIDTH, HEIGHT, DPI = 1600, 740, 100  # pixels, which are the unit of all that follows

INK, QUIET, LINE = "#1f2933", "#5b6773", "#7b8794"
SEED, SEED_LIGHT = "#1f5fa8", "#dbe9f7"  # what comes from the seed
TASK, TASK_LIGHT = "#b35c00", "#fdf1e3"  # what the target task changes
PALE = "#f4f6f8"
KERNELS = {3: "#b9d6ee", 5: "#5b9fd3", 7: "#17508c"}  # the larger, the darker

BOX_TOP, BOX_WIDTH, BOX_HEIGHT = 124, 262, 206
BOX_LEFTS = (30, 456, 882, 1308)

# Stages of a small example, kernel sizes by layer; None is a skip.
SEED_NET = ((3, 3), (3, 3, 3), (3, 3))
TARGET_NET = ((5, 3, None), (7, 5, 5), (3, 7, None))
CANDIDATES = (3, 5, 7, None)


def main() -> None:
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(HEIGHT, 0)  # y grows downwards, as in an image
    axes.axis("off")
    draw_networks(axes)
    draw_steps(axes)
    draw_rules(axes)
    FigureCanvasAgg(figure).print_png(OUT, metadata={"Software": None})
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


def draw_networks(axes: Axes) -> None:
    """The four boxes: seed network, super network, target architecture, target network."""
    names = (
        ("Seed network", "MobileNetV2, ImageNet", SEED, SEED_LIGHT),
        ("Super network", "all candidate operations", LINE, PALE),
        ("Target architecture", "one operation a layer", LINE, PALE),
        ("Target network", "its weights, adapted", TASK, TASK_LIGHT),
    )
    for left, (name, about, edge, fill) in zip(BOX_LEFTS, names, strict=True):
        box(axes, left, BOX_TOP, BOX_WIDTH, BOX_HEIGHT, edge, fill)
        middle = left + BOX_WIDTH / 2
        write(axes, middle, BOX_TOP + 28, name, 15, weight="bold")
        write(axes, middle, BOX_TOP + 54, about, 12.5, color=QUIET)

    seed, super_net, architecture, target = BOX_LEFTS
    draw_layers(axes, seed, SEED_NET)
    draw_candidates(axes, super_net)
    draw_layers(axes, architecture, TARGET_NET, filled=False)
    draw_layers(axes, target, TARGET_NET)

    x, y = 1056, BOX_TOP + BOX_HEIGHT + 34
    write(axes, x, y, "kernel of a layer", 12, color=QUIET, ha="left")
    x += 156
    for kernel, colour in KERNELS.items():
        axes.add_patch(Rectangle((x, y - 9), 18, 18, facecolor=colour, edgecolor=INK, lw=0.8))
        write(axes, x + 26, y, f"{kernel}×{kernel}", 12, color=QUIET, ha="left")
        x += 88
    skip(axes, x, y - 9, 18, 18)
    write(axes, x + 26, y, "skip", 12, color=QUIET, ha="left")


def draw_layers(
    axes: Axes, left: float, stages: tuple[tuple[int | None, ...], ...], filled: bool = True
) -> None:
    """A network as a chain of bars, one a layer, stage by stage."""
    width, space, wide, height = 16, 7, 14, 72
    count = sum(map(len, stages))
    total = count * width + (count - len(stages)) * space + (len(stages) - 1) * wide
    x, top = left + (BOX_WIDTH - total) / 2, BOX_TOP + 98
    axes.plot([x - 12, x + total + 12], [top + height / 2] * 2, color=LINE, lw=1.5, zorder=1)
    for stage in stages:
        for kernel in stage:
            if kernel is None:
                skip(axes, x, top, width, height)
            else:
                colour = KERNELS[kernel]
                bar = Rectangle((x, top), width, height, zorder=2, lw=1, edgecolor=INK)
                if filled:
                    bar.set_facecolor(colour)
                else:  # an architecture has no weights yet
                    bar.set(facecolor="white", edgecolor=colour, lw=3)
                axes.add_patch(bar)
            x += width + space
        x += wide - space


def draw_candidates(axes: Axes, left: float) -> None:
    """The super network: in each layer, all candidates one above the other."""
    side, step, wide = 17, 24, 30
    total = 9 * step - (step - side) + 2 * (wide - step)
    x, top = left + (BOX_WIDTH - total) / 2, BOX_TOP + 84
    for stage in range(3):
        for layer in range(3):
            for row, kernel in enumerate(CANDIDATES):
                y = top + row * (side + 7)
                if kernel:
                    axes.add_patch(
                        Rectangle((x, y), side, side, facecolor=KERNELS[kernel], ec=INK, lw=0.8)
                    )
                elif layer:  # a stage's first layer changes channels or size
                    skip(axes, x, y, side, side)
            x += wide if layer == 2 and stage < 2 else step


def draw_steps(axes: Axes) -> None:
    """The arrows between the boxes, and the seed's weights above them."""
    steps = (
        ("network\nexpansion", "more layers,\nkernels, widths", INK),
        ("architecture\nadaptation", "search on the\ntarget task", TASK),
        ("parameter\nadaptation", "fine-tuning on\nthe target task", TASK),
    )
    middle = BOX_TOP + BOX_HEIGHT / 2
    for left, (name, about, colour) in zip(BOX_LEFTS, steps, strict=False):
        start = left + BOX_WIDTH
        end = start + BOX_LEFTS[1] - BOX_LEFTS[0] - BOX_WIDTH
        arrow(axes, (start + 6, middle), (end - 6, middle), colour)
        write(axes, (start + end) / 2, middle - 38, name, 14, color=colour, weight="bold")
        write(axes, (start + end) / 2, middle + 36, about, 12.5, color=QUIET)

    rail = 62
    seed, super_net, architecture = (left + BOX_WIDTH / 2 for left in BOX_LEFTS[:3])
    axes.plot(
        [seed, seed, architecture], [BOX_TOP - 2, rail, rail], color=SEED, lw=2.5, zorder=1,
        solid_joinstyle="round",
    )  # fmt: skip
    for x in (super_net, architecture):
        arrow(axes, (x, rail), (x, BOX_TOP - 4), SEED)
    for start, end, about in (
        (seed, super_net, "the seed's weights"),
        (super_net, architecture, "again the seed's weights"),
    ):
        middle = (start + end) / 2
        write(axes, middle, rail - 22, "parameter remapping", 14, color=SEED, weight="bold")
        write(axes, middle, rail + 21, about, 12.5, color=QUIET)


def draw_rules(axes: Axes) -> None:
    """The panel of the three remapping rules."""
    top, height = 394, 334
    box(axes, 30, top, 1540, height, LINE, "white", lw=1)
    write(axes, 54, top + 30, "Parameter remapping", 15.5, weight="bold", ha="left", color=SEED)
    write(axes, 336, top + 30, "takes each layer's weights from the seed by three rules",
          13, ha="left", color=QUIET)  # fmt: skip
    draw_depth_rule(axes, 54, top + 68)
    draw_width_rule(axes, 570, top + 68)
    draw_kernel_rule(axes, 1086, top + 68)
    for x in (546, 1062):
        axes.plot([x, x], [top + 72, top + height - 24], color="#d5dade", lw=1)


def rule_text(axes: Axes, x: float, y: float, name: str, text: str) -> None:
    write(axes, x, y + 12, name, 14.5, weight="bold", ha="left")
    write(axes, x, y + 226, text, 12.5, ha="left", color=QUIET)


def draw_depth_rule(axes: Axes, x: float, y: float) -> None:
    """A stage of three layers onto one of five."""
    rule_text(axes, x, y, "Depth", "layer by layer; layers that the seed lacks\ncopy its last one")
    side, step, start = 48, 70, x + 96
    above, below = y + 44, y + 142
    shades = ("#dbe9f7", "#9cc3ea", "#5b9fd3")
    write(axes, x, above + side / 2, "seed", 12.5, ha="left")
    write(axes, x, below + side / 2, "new\nstage", 12.5, ha="left")
    for layer in range(5):
        source = min(layer, 2)
        left = start + layer * step
        if layer < 3:
            cell(axes, left, above, side, shades[layer], str(layer + 1), SEED)
        cell(axes, left, below, side, shades[source], str(source + 1), SEED)
        arrow(
            axes, (start + source * step + side / 2, above + side + 3),
            (left + side / 2, below - 3), SEED, lw=1.6, head=14,
        )  # fmt: skip


def draw_width_rule(axes: Axes, x: float, y: float) -> None:
    """A conv weight, output × input channels, onto a narrower and a wider one."""
    rule_text(
        axes, x, y, "Width",
        "the first channels; in a wider layer the others\nstart near 0 (BN's as initialized)",
    )  # fmt: skip
    side = 25
    seed, centre = (4, 3), y + 126
    grids = ((x + 12, seed), (x + 182, (2, 2)), (x + 316, (5, 5)))
    for number, (left, (rows, columns)) in enumerate(grids):
        top = centre - rows * side / 2
        for row in range(rows):
            for column in range(columns):
                old = row < seed[0] and column < seed[1]
                fill = KERNELS[3] if old else "white"
                cell(axes, left + column * side, top + row * side, side, fill, "" if old else "≈0")
        name = ("seed", "narrower", "wider")[number]
        write(axes, left + columns * side / 2, y + 42, name, 12.5)
    arrow(axes, (x + 100, centre), (x + 168, centre), SEED, lw=2)
    write(axes, x + 274, centre, "or", 12.5, color=QUIET)


def draw_kernel_rule(axes: Axes, x: float, y: float) -> None:
    """A 3×3 kernel in the middle of a 5×5 and of a 7×7 one."""
    rule_text(
        axes,
        x,
        y,
        "Kernel",
        "the seed's in the centre, zeros around it;\na smaller one takes the seed's centre",
    )
    side, centre = 19, y + 128
    for left, size in ((x + 4, 3), (x + 130, 5), (x + 300, 7)):
        top, border = centre - size * side / 2, (size - 3) // 2
        for row in range(size):
            for column in range(size):
                old = border <= row < size - border and border <= column < size - border
                fill = KERNELS[3] if old else "white"
                cell(
                    axes, left + column * side, top + row * side, side, fill, "" if old else "0",
                    size=9.5,
                )  # fmt: skip
        write(axes, left + size * side / 2, y + 42, f"{size}×{size}", 12.5)
    arrow(axes, (x + 72, centre), (x + 124, centre), SEED, lw=2)
    write(axes, x + 265, centre, "or", 12.5, color=QUIET)


def box(
    axes: Axes, x: float, y: float, width: float, height: float, edge: str, fill: str, lw: float = 2
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=12",
            edgecolor=edge,
            facecolor=fill,
            linewidth=lw,
        )  # fmt: skip
    )


def cell(
    axes: Axes, x: float, y: float, side: float, fill: str, text: str,
    color: str = LINE, size: float = 11,
) -> None:  # fmt: skip
    axes.add_patch(Rectangle((x, y), side, side, facecolor=fill, edgecolor=color, linewidth=1))
    if text:
        digit = INK if color == SEED else LINE
        write(axes, x + side / 2, y + side / 2, text, 14 if color == SEED else size, color=digit)


def skip(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    axes.add_patch(
        Rectangle(
            (x, y),
            width,
            height,
            facecolor="white",
            edgecolor=LINE,
            linestyle=(0, (2.5, 2)),
            linewidth=1.2,
            zorder=2,
        )  # fmt: skip
    )


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str,
    lw: float = 2.5, head: float = 22,
) -> None:  # fmt: skip
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=head,
            shrinkA=0,
            shrinkB=0,
            color=color,
            linewidth=lw,
            zorder=3,
            joinstyle="miter",
        )  # fmt: skip
    )


def write(
    axes: Axes, x: float, y: float, text: str, size: float,
    color: str = INK, weight: str = "normal", ha: str = "center",
) -> None:  # fmt: skip
    axes.text(
        x, y, text, fontsize=size, color=color, weight=weight, ha=ha,
        va="center" if "\n" in text else "center_baseline",
        family="DejaVu Sans", linespacing=1.25,
    )  # fmt: skip


if __name__ == "__main__":
    main()
