"""The latency table of a search space, and a check of what it predicts.

``scripts/measure_latency.sh CONFIG [GPUS] --out FILE`` times every candidate of every searched
layer at the shape that it gets, and what is not searched. The sum over a network's layers is to be
its latency: random architectures are measured whole, in turns with the ops, and compared.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import nn

from engine.config import OneLineParser, add_model_arguments, given
from engine.latency import (
    NOISY,
    Backend,
    GivenMaps,
    InContext,
    Job,
    RawOutputs,
    Timing,
    about,
    make_backend,
    measure,
)
from engine.progress import StatusLine
from engine.run import run
from engine.work_dir import check_output_file
from models import FNASuperNet, InputError, NetConfig
from models.backbone import LastConv
from models.cost import fixed_cost, layers_with_inputs
from models.files import write_whole
from models.latency import Latency, LatencyTable, OpRow, signature
from models.ops import SKIP
from models.searched_layer import SearchedLayer

from .config import load_search_model
from .derived import derived_backbone, with_backbone
from .pictures import draw_check, to_png
from .random_architectures import draw_over_costs

LEAST_SPEARMAN, MOST_ERROR = 0.98, 0.05
_CALIBRATES = slice(1, None, 4)  # of the random architectures

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Op:
    """A layer that was found in the search space, for C×H×W; ``searched`` if it is a candidate."""

    name: str
    module: nn.Module
    shape: Shape
    searched: bool


@dataclass(frozen=True)
class Check:
    """How well a table predicts: for each network its latency by the table and measured, in ms.

    ``factor`` is what calibration by other networks has multiplied the table with.
    """

    networks: list[NetConfig]
    table: list[float]
    measured: list[Timing]
    factor: float = 1.0

    @property
    def medians(self) -> list[float]:
        """As measured."""
        return [timing.median for timing in self.measured]

    @property
    def spearman(self) -> float:
        """Spearman's rank correlation."""
        return float(spearmanr(self.table, self.medians)[0])

    @property
    def errors(self) -> list[float]:
        """By the table / measured − 1."""
        pairs = zip(self.table, self.medians, strict=True)
        return [table / median - 1 for table, median in pairs]

    @property
    def mean_absolute_error(self) -> float:
        """A share."""
        return statistics.mean(map(abs, self.errors))

    @property
    def bias(self) -> float:
        """The mean error, a share: above 0 the table says too much."""
        return statistics.mean(self.errors)

    @property
    def good(self) -> bool:
        """Whether the table can be relied on."""
        return self.spearman >= LEAST_SPEARMAN and self.mean_absolute_error <= MOST_ERROR

    def __str__(self) -> str:
        low, high = min(self.medians), max(self.medians)
        return (
            f"{len(self.medians)} random architectures of {low:.2f} to {high:.2f} ms: "
            f"Spearman {self.spearman:.3f}, mean absolute error "
            f"{100 * self.mean_absolute_error:.1f} %, bias {100 * self.bias:+.1f} %"
        )

    def to_json(self) -> dict:
        """What the table's file holds of it."""
        rows = [
            dict(net_config=str(network), table=table, measured=asdict(timing))
            for network, table, timing in zip(self.networks, self.table, self.measured, strict=True)
        ]
        return dict(
            factor=self.factor,
            spearman=self.spearman,
            mean_absolute_error=self.mean_absolute_error,
            bias=self.bias,
            networks=rows,
        )


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(
        prog="scripts/measure_latency.sh", description="Measure the latency table of a search space"
    )
    add_model_arguments(parser)
    parser.add_argument("--out", type=given, required=True, help="file to write, FILE.json")
    parser.add_argument(
        "--backend",
        choices=("onnxruntime", "torch"),
        help="what runs the networks (default onnxruntime on CPU, torch on a GPU)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default 1)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of all (default 20)")
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images (default: the config's input_size)",
    )
    parser.add_argument(
        "--networks",
        type=int,
        default=32,
        help="random architectures; every 4th one calibrates, the others check (default 32)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of these (default 0)")
    parser.add_argument("--picture", type=given, help="draw the check into this file (.png)")
    return parser.parse_args()


def main() -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("latency is that of one device; expected GPUS 1 or 0")
    args = parse_args()
    for name, least in (("batch", 1), ("repeats", 2), ("networks", 4)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} {getattr(args, name)}: expected at least {least}")
    if min(args.input_size or [1]) < 1:
        raise InputError(f"--input-size {args.input_size}: expected at least 1 1")
    out, picture = (
        path and Path(path).expanduser().absolute() for path in (args.out, args.picture)
    )
    check_output_file(out, "--out")
    if picture:
        check_output_file(picture, "--picture")
    backend = make_backend(args.backend, args.threads)
    torch.manual_seed(args.seed)
    model, cfg = load_search_model(args, "cpu")
    size = tuple(args.input_size or cfg.get("input_size") or ())
    if not size:
        raise InputError(f"config {args.config}: has no input_size; expected --input-size")
    generator = torch.Generator().manual_seed(args.seed)
    networks = draw_over_costs(model.backbone, size, args.networks, generator)

    line = StatusLine(sys.stdout, "Latency")
    line.begin()
    content, check = measure_table(backend, model, size, args.batch, args.repeats, networks, line)
    content = dict(content, config=Path(args.config).name)
    line.end(f"{len(content['ops'])} ops and {len(networks)} networks measured")
    write_whole(out, (json.dumps(content, indent=1) + "\n").encode())
    if picture:
        write_whole(picture, to_png(draw_check(check.table, check.medians, str(check))))
    print("\n".join(summary(content, check)))
    print(f"Done. The table is in {out}" + (f", the picture in {picture}" if picture else ""))


def summary(content: dict, check: Check) -> list[str]:
    """What to say of a table that was measured."""
    fixed, noise = content["fixed"], content["noise"]
    lines = [
        LatencyTable.from_json(content).conditions,
        f"Not searched: {fixed['backbone']['median']:.3f} ms of the backbone, "
        f"{fixed['rest']['median']:.3f} ms neck and head",
        f"Spread of the rounds: {100 * noise['median']:.1f} % (median), networks' at most "
        f"{100 * noise['networks']:.1f} %",
    ]
    if noise["noisy"]:
        lines.append(
            f"The machine was too noisy: more than {100 * NOISY:.0f} % of spread. Close what else "
            "runs and measure again, or with more --repeats."
        )
    lines += [
        f"Calibrated by other architectures: times {check.factor:.3f}",
        f"Check: {check}",
    ]
    if not check.good:
        lines.append(
            f"The table predicts badly: expected a Spearman of {LEAST_SPEARMAN} or more, and an "
            f"error of at most {100 * MOST_ERROR:.0f} %. Measure again on a quiet machine."
        )
    return lines


def find_ops(supernet: FNASuperNet, input_size: tuple[int, int]) -> dict[tuple[str, Shape], Op]:
    """Every op of a search space and every layer that is not searched, by signature and input.

    Equal ops at equal inputs are one. Skips are none: a network does without them.

    Raises:
        InputError: Two ops of different names look alike.
    """
    found: dict[tuple[str, Shape], Op] = {}
    for number, (layer, shape) in enumerate(layers_with_inputs(supernet, input_size)):
        if isinstance(layer, SearchedLayer):
            names = [name for name in layer.candidates if name != SKIP]
            ops = [Op(name, layer.build_derived(name), shape, True) for name in names]
        else:
            last = "last conv" if isinstance(layer, LastConv) else "fixed layer"
            ops = [Op(last if number else "stem", layer, shape, False)]
        for op in ops:
            other = found.setdefault((signature(op.module), shape), op)
            if op.searched and other.searched and other.name != op.name:
                raise InputError(
                    f"ops {other.name} and {op.name} look alike as text; give them an extra_repr "
                    "that tells them apart"
                )
    return found


def measure_table(
    backend: Backend,
    model: nn.Module,
    input_size: tuple[int, int],
    batch: int,
    repeats: int,
    net_configs: Sequence[NetConfig],
    line: StatusLine | None = None,
) -> tuple[dict, Check]:
    """Time ops and whole networks in turns.

    Args:
        model: Its backbone is a super network.
        net_configs: Random architectures: every fourth one calibrates, the others check.

    Returns:
        What the table's file holds, and the check.
    """
    supernet: FNASuperNet = model.backbone
    ops = find_ops(supernet, input_size)
    parts: dict[Hashable, Job] = {}
    for key, op in ops.items():
        parts |= _jobs(key, op, batch)
    image = torch.randn(batch, 3, *input_size)
    networks = [derived_backbone(supernet, net_config) for net_config in net_configs]
    with torch.no_grad():
        maps = networks[0].eval()(image)
    whole: dict[Hashable, Job] = {n: (network, [image]) for n, network in enumerate(networks)}
    rest = RawOutputs(with_backbone(model, GivenMaps())), maps
    times = measure(backend, whole, repeats, line, {**parts, "rest": rest})

    about_it = dict(about(backend), batch=batch, input_size=input_size)
    measured = [Timing.of(times[number]) for number in range(len(networks))]
    rounds = {key: _of_op(times, key, op.shape) for key, op in ops.items()}
    check, table = _calibrate(ops, rounds, about_it, supernet, net_configs, measured)
    fixed = [rounds[key] for key, op in ops.items() if not op.searched]
    fixed = Timing.of([check.factor * sum(each) for each in zip(*fixed, strict=True)])
    return dict(
        table.to_json(),
        **about(backend),
        repeats=repeats,
        fixed=dict(backbone=asdict(fixed), rest=asdict(Timing.of(times["rest"]))),
        noise=_noise([Timing.of(each) for each in times.values()], measured),
        check=check.to_json(),
    ), check


def _jobs(key: Hashable, op: Op, batch: int) -> dict[Hashable, Job]:
    """What has to be timed for an op: it in its context, and the context alone."""
    channels, *size = op.shape
    module = InContext(op.module.eval(), op.shape)
    if channels == 3:  # what a run takes at all counts with the stem
        return {key: (module, [torch.randn(batch, channels, *size)])}
    x = [torch.randn(batch, InContext.channels, *size)]
    return {key: (module, x), ("context", op.shape): (InContext(nn.Identity(), op.shape), x)}


def _of_op(times: Mapping[Hashable, list[float]], key: Hashable, shape: Shape) -> list[float]:
    """An op's time per round; of one that is lost in the clock's noise 0."""
    context = times.get(("context", shape), [0.0] * len(times[key]))
    return [max(whole - rest, 0.0) for whole, rest in zip(times[key], context, strict=True)]


def _calibrate(
    ops: Mapping[tuple[str, Shape], Op],
    rounds: Mapping[tuple[str, Shape], list[float]],
    about_it: Mapping,
    supernet: FNASuperNet,
    net_configs: Sequence[NetConfig],
    measured: Sequence[Timing],
) -> tuple[Check, LatencyTable]:
    """The table whose sums are on average what every fourth network takes, and its check.

    A network's ops overlap and share caches otherwise than one between its neighbours' stand-ins:
    one factor for all makes up for that.
    """

    def table(factor: float) -> LatencyTable:
        rows = []
        for (text, shape), op in ops.items():
            timing = Timing.of([factor * each for each in rounds[text, shape]])
            rows.append(OpRow(op.name, shape, text, **asdict(timing)))
        return LatencyTable(
            **{key: value for key, value in about_it.items() if key != "versions"},
            ops=tuple(rows),
        )

    cost = Latency(table(1.0))
    sums = [
        fixed_cost(derived_backbone(supernet, net_config), cost, cost.input_size)
        for net_config in net_configs
    ]
    ratios = [timing.median / total for timing, total in zip(measured, sums, strict=True)]
    factor = statistics.median(ratios[_CALIBRATES])
    rest = [n for n in range(len(sums)) if n not in range(len(sums))[_CALIBRATES]]
    check = Check(
        [net_configs[n] for n in rest],
        [factor * sums[n] for n in rest],
        [measured[n] for n in rest],
        factor,
    )
    return check, table(factor)


def _noise(all_timings: Sequence[Timing], networks: Sequence[Timing]) -> dict:
    """How much the rounds differed, as shares: of everything, and of the noisiest network."""
    median = statistics.median(timing.spread for timing in all_timings)
    largest = max(timing.spread for timing in networks)
    noisy = median > NOISY or largest > NOISY
    return dict(median=median, networks=largest, limit=NOISY, noisy=noisy)


if __name__ == "__main__":
    run(main)
