"""Training in channels-last order compared with the usual one.

``python -m benchmarks.channels_last [--config FILE] [--size H W] [--device cuda] …``

The whole network of a config, forward and backward on random images with a mean as the loss. The
two orders take turns, so that other work on the machine affects both alike; times are medians.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from engine.config import OneLineParser
from engine.model import build_model
from engine.run import run
from models import InputError


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="benchmarks.channels_last", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/fna_seg/deeplabv3_param_adapt_cityscapes.py")
    parser.add_argument("--size", type=int, nargs=2, default=(193, 193), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--repeats", type=int, default=10)
    return parser.parse_args()


def step(network: nn.Module, images: torch.Tensor, bf16: bool) -> float:
    """Seconds of one forward and one backward pass."""
    synchronize = torch.cuda.synchronize if images.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        outputs = network(images)
    mean_of_outputs(outputs).backward()
    synchronize()
    network.zero_grad()
    return time.perf_counter() - start


def mean_of_outputs(outputs: torch.Tensor | tuple | list) -> torch.Tensor:
    """Of a map, or of the nested lists of maps that a detector's head gives."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float().mean()
    return sum(mean_of_outputs(part) for part in outputs)


def main() -> None:
    args = parse_args()
    if args.repeats < 1:
        raise InputError(f"--repeats {args.repeats}: expected 1 or more")
    network = build_model(args.config, args.device)[0].train()
    images = torch.randn(args.batch, 3, *args.size, device=args.device)
    orders = {"usual": torch.contiguous_format, "channels last": torch.channels_last}
    seconds = {name: [] for name in orders}
    for repeat in range(args.repeats + 1):
        for name, order in orders.items():
            network.to(memory_format=order)
            spent = step(network, images, args.bf16)
            if repeat:  # the first warms up
                seconds[name].append(spent)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{args.config}, {args.batch} images of {args.size[0]}x{args.size[1]}, {args.device}")
    for name, median in medians.items():
        print(f"{name:14} {median * 1e3:8.0f} ms  {median / medians['usual']:.2f} of the usual")


if __name__ == "__main__":
    run(main)
