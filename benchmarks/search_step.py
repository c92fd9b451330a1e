"""What a step of architecture adaptation costs, compared with one of the network that it derives.

``python -m benchmarks.search_step [--size 800 1088] [--device cuda] [--precision bf16] …``

Only the backbone is measured (neck and head cost the same in every row), training, on random images
and with a mean as the loss; optimizers are left out. The rows take turns, so that other work on
the machine affects all alike; times are medians. Memory is the peak of a step beyond the weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from mmengine.config import Config
from torch import Tensor, nn

from engine.compat import mmcv_ops
from engine.config import REPO, OneLineParser
from engine.run import run
from models import FNASuperNet, InputError, MAdds, expected_cost, price_list
from search.derived import derived_backbone

from .memory import LiveBytes

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Row:
    """A kind of step, and what was measured of it: seconds of each repetition, bytes."""

    name: str
    prepare: Callable[[], None]
    network: nn.Module
    extra_loss: Callable[[], Tensor | float] = float
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    memory: int = 0


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="benchmarks.search_step", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--config", default=str(REPO / "configs/fna_det/retinanet_arch_adapt_coco.py")
    )
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1088), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--channels-last", action="store_true", help="the faster order on CPUs")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the path, weights and images")
    return parser.parse_args()


def make_rows(config: str, size: tuple[int, int], device: str, seed: int) -> list[Row]:
    """The derived network; for both kinds of super network a weight step on its path and an
    architecture step."""
    with mmcv_ops.quiet_imports():
        cfg = dict(Config.fromfile(config).model.backbone, init_cfg=None, share_weights=False)
    cfg.pop("type")
    separate = FNASuperNet(**cfg).to(device)
    shared = FNASuperNet(**cfg | dict(share_weights=True)).to(device)
    generator = torch.Generator().manual_seed(seed)
    path = separate.sample_path(generator, uniform=True)
    derived = derived_backbone(separate, separate.search_space.net_config(path)).to(device)
    prices = price_list(separate, MAdds(), size)

    def choose(supernet: FNASuperNet, path: list[int] | None, with_cp: bool) -> None:
        supernet.set_path(path)
        for layer in supernet.mixed_layers:
            layer.with_cp = with_cp
        alphas = {id(alpha) for alpha in supernet.alphas()}
        for parameter in supernet.parameters():
            parameter.requires_grad_((path is None) == (id(parameter) in alphas))

    def row(
        name: str, supernet: FNASuperNet, path: list[int] | None = None, with_cp: bool = False
    ) -> Row:
        def cost() -> Tensor | float:
            return 0.0 if path else expected_cost(supernet, prices).log().float()

        return Row(name, partial(choose, supernet, path, with_cp), supernet, cost)

    return [
        Row("derived network", lambda: None, derived),
        row("separate candidates: weight step, its path", separate, path),
        row("separate candidates: architecture step", separate),
        row("the same, `with_cp`", separate, with_cp=True),
        row("shared weights: weight step, its path", shared, path),
        row("shared weights: architecture step", shared),
    ]


def step(row: Row, images: Tensor, precision: torch.dtype | None) -> tuple[float, float]:
    """Seconds of one forward and one backward pass."""
    device = images.device
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    row.prepare()
    synchronize()
    start = time.perf_counter()
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        loss = sum(feature.mean() for feature in row.network(images))
    loss = loss.float() + row.extra_loss()
    synchronize()
    middle = time.perf_counter()
    loss.backward()
    synchronize()
    end = time.perf_counter()
    row.network.zero_grad()
    return middle - start, end - middle


def measure_memory(row: Row, images: Tensor, precision: torch.dtype | None) -> int:
    """Bytes that one step needs beyond the weights and the images, at its peak."""
    if images.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(row, images, precision)
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as live:
        step(row, images, precision)
    return live.peak


def main() -> None:
    args = parse_args()
    if args.repeats < 1:
        raise InputError(f"--repeats {args.repeats}: expected 1 or more")
    size, precision = tuple(args.size), PRECISIONS[args.precision]
    torch.manual_seed(args.seed)
    rows = make_rows(args.config, size, args.device, args.seed)
    order = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(args.batch, 3, *size, device=args.device).to(memory_format=order)
    for row in rows:  # the first pass, which also warms up
        row.network.to(memory_format=order).train()
        step(row, images, precision)
        row.memory = measure_memory(row, images, precision)
    for _ in range(args.repeats):
        for row in rows:
            forward, backward = step(row, images, precision)
            row.forward.append(forward)
            row.backward.append(backward)
    print_table(rows, args)


def print_table(rows: list[Row], args: argparse.Namespace) -> None:
    cuda = torch.device(args.device).type == "cuda"
    where = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    height, width = args.size
    print(
        f"Backbone, {args.batch} image(s) of {height}x{width}, {args.precision}, {where}, torch "
        f"{torch.__version__}{', channels-last' if args.channels_last else ''}; median of "
        f"{args.repeats}; memory: peak beyond the weights"
    )
    print("\n| step | forward ms | backward ms | both | memory MiB | memory |")
    print("|---|---|---|---|---|---|")
    times = [[statistics.median(values) for values in (r.forward, r.backward)] for r in rows]
    for row, (forward, backward) in zip(rows, times, strict=True):
        ratio, share = (forward + backward) / sum(times[0]), row.memory / rows[0].memory
        print(
            f"| {row.name} | {1e3 * forward:.1f} | {1e3 * backward:.1f} | {ratio:.2f}x "
            f"| {row.memory / 2**20:.1f} | {share:.2f}x |"
        )


if __name__ == "__main__":
    run(main)
