"""What a step of architecture adaptation costs, compared with one of the network that it derives.

``python -m benchmarks.search_step [--size 800 1088] [--device cuda] [--precision bf16] …``

Only the backbone is measured (neck and head cost the same in every row), training, on random images
and with a mean as the loss; optimizers are left out. The rows take turns, so that other work on
the machine affects all alike; times are medians. Memory is what a step needs beyond the weights: on
a GPU the peak that torch allocated; on CPU the bytes kept for backward, each storage counted once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from torch import Tensor, nn

from engine.compat import mmcv_ops
from engine.config import REPO
from models import FNASuperNet, MAdds, expected_cost, price_list
from search.report import derived_backbone

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Row:
    """A kind of step, and what was measured of it: seconds of each repetition, bytes."""

    name: str
    prepare: Callable[[], None]
    network: nn.Module
    extra_loss: Callable[[], Tensor | float] = lambda: 0.0
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    memory: int = 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--config", default=str(REPO / "configs/fna_det/retinanet_arch_adapt_coco.py")
    )
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1088), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the path, weights and images")
    return parser.parse_args()


def make_rows(config: str, size: tuple[int, int], device: str, seed: int) -> list[Row]:
    """The derived network, a weight step on its path and on random ones, an architecture step."""
    with mmcv_ops.quiet_imports():
        cfg = dict(Config.fromfile(config).model.backbone, init_cfg=None)
    cfg.pop("type")
    supernet = FNASuperNet(**cfg)
    generator = torch.Generator().manual_seed(seed)
    path = supernet.sample_path(generator, uniform=True)
    with torch.no_grad():
        for alpha, choice in zip(supernet.alphas(), path, strict=True):
            alpha[choice] += 0.1  # so that this path is what is derived
    derived = derived_backbone(supernet, supernet.derive()).to(device)
    supernet.to(device)
    alphas = {id(alpha) for alpha in supernet.alphas()}
    weights = [p for p in supernet.parameters() if id(p) not in alphas]
    prices = price_list(supernet, MAdds(), size)

    def choose(path: list[int] | None) -> None:
        supernet.set_path(path)
        for weight in weights:
            weight.requires_grad_(path is not None)

    return [
        Row("derived network", lambda: None, derived),
        Row("weight step, its path", lambda: choose(path), supernet),
        Row(
            "weight step, any path",
            lambda: choose(supernet.sample_path(generator, uniform=True)),
            supernet,
        ),
        Row(
            "architecture step",
            lambda: choose(None),
            supernet,
            lambda: expected_cost(supernet, prices).log().float(),
        ),
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
    """Bytes that one step needs beyond the weights and the images."""
    if images.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(row, images, precision)
        return torch.cuda.max_memory_allocated() - before
    held = {p.untyped_storage().data_ptr() for p in row.network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(row, images, precision)
    return sum(kept.values())


def main() -> None:
    args = parse_args()
    size, precision = tuple(args.size), PRECISIONS[args.precision]
    torch.manual_seed(args.seed)
    rows = make_rows(args.config, size, args.device, args.seed)
    images = torch.randn(args.batch, 3, *size, device=args.device)
    for row in rows:  # the first pass, which also warms up
        row.network.train()
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
        f"{torch.__version__}; median of {args.repeats}; memory: "
        + ("peak allocated beyond the weights" if cuda else "bytes kept for backward")
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
    main()
