"""Entry point of evaluation: test a checkpoint as a config says, on mmengine's Runner."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from models import InputError, count_madds, count_params
from models.files import write_whole

from .architecture import take_net_config
from .compat.safe_load import load_checkpoint_file
from .config import OneLineParser, add_arguments, asked_net_config, given, load_config, user_path
from .hooks import MatchCheckpoint
from .latency import RawOutputs, Timing, about, make_backend, measure
from .model import unwrapped
from .predictions import DumpPredictions
from .progress import StatusLine
from .run import build_runner, run
from .work_dir import check_output_file, make_work_dir

_ROUNDS = 20  # of measuring latency


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="engine.test", description="Evaluate a checkpoint as a config says")
    add_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--show-dir",
        type=given,
        help="draw ground truth and predictions side by side into this folder",
    )
    parser.add_argument("--out", type=given, help="write the predictions to this file (.pkl)")
    parser.add_argument(
        "--latency", action="store_true", help="measure how long the network takes for one image"
    )
    return parser.parse_args()


def main(hooks: Sequence[Hook] = ()) -> None:
    """What the command line says, with these hooks besides the config's."""
    args = parse_args()
    checkpoint = user_path(args.checkpoint)
    if not os.path.isfile(checkpoint):
        raise InputError(f"checkpoint {args.checkpoint}: no such file")
    if args.latency and os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("--latency: is that of one device; expected GPUS 1 or 0")
    if args.out and not args.out.endswith((".pkl", ".pickle")):
        raise InputError(f"--out {args.out}: expected a name that ends in .pkl")
    show_dir, out = (path and str(Path(path).absolute()) for path in (args.show_dir, args.out))
    if out:
        check_output_file(Path(out), "--out")
    cfg = load_config(args)
    cfg.load_from = checkpoint
    cfg.resume = False  # that of a training whose config this is
    where = f"checkpoint {checkpoint}"
    another = take_net_config(cfg, load_checkpoint_file(checkpoint), where, asked_net_config(args))
    make_work_dir(cfg.work_dir)
    without_tensorboard(cfg)
    if show_dir:
        make_work_dir(show_dir)
        draw_predictions(cfg, show_dir)

    runner = build_runner(cfg)
    for hook in (MatchCheckpoint(), *hooks):
        runner.register_hook(hook)
    if out:
        runner.test_evaluator.metrics.append(DumpPredictions(out_file_path=out))
    if another:
        runner.logger.info("The architecture is the checkpoint's, which is not the config's")
    metrics = count_cost(runner.model, cfg) | runner.test()
    headline = cfg.get("headline", {})
    # COCO's metric has no figures where nothing was detected
    metrics["headline"] = {name: metrics.get(key) for key, name in headline.items()}
    if args.latency:
        metrics["latency"] = measure_latency(unwrapped(runner.model), cfg)
        runner.logger.info(describe_latency(metrics["latency"]))
    if runner.rank == 0:
        path = Path(cfg.work_dir) / "metrics.json"
        write_whole(path, (json.dumps(metrics, indent=2) + "\n").encode())
        runner.logger.info(f"Done. Metrics are in {path}")


def without_tensorboard(cfg: Config) -> None:
    """Keep TensorBoard from listing a test, which has no curve, beside the training."""
    visualizer = cfg.get("visualizer") or {}
    visualizer["vis_backends"] = [
        backend
        for backend in visualizer.get("vis_backends") or []
        if backend["type"] != "TensorboardVisBackend"
    ]


def draw_predictions(cfg: Config, folder: str) -> None:
    """Make the config's visualization hook draw every test image into ``folder``."""
    hook = cfg.default_hooks.get("visualization")
    if hook is None:
        raise InputError("--show-dir: the config has no default_hooks.visualization to draw with")
    hook.draw = True
    hook.test_out_dir = folder


def count_cost(model: nn.Module, cfg: Config) -> dict[str, int | list[int]]:
    """Parameters of the model, and MAdds at the ``input_size`` (height, width) of the config."""
    model = unwrapped(model)
    cost = {"params": count_params(model)}
    if size := cfg.get("input_size"):
        cost |= {"madds": count_madds(model, size), "input_size": list(size)}
    return cost


def measure_latency(model: nn.Module, cfg: Config) -> dict[str, object]:
    """The latency of a model up to its raw outputs, and of its backbone, for one image of the
    config's ``input_size``.

    Raises:
        InputError: The config has no ``input_size``.
    """
    if not (size := cfg.get("input_size")):
        raise InputError("--latency: the config has no input_size")
    backend = make_backend("torch", 1)
    image = [torch.randn(1, 3, *size)]
    networks = {"model": (RawOutputs(model), image), "backbone": (model.backbone, image)}
    line = StatusLine(sys.stdout, "Latency")
    times = measure(backend, networks, _ROUNDS, line)
    line.end(f"measured in {_ROUNDS} rounds")
    timings = {name: asdict(Timing.of(rounds)) for name, rounds in times.items()}
    return dict(unit="ms", **about(backend), batch=1, input_size=list(size), **timings)


def describe_latency(latency: Mapping) -> str:
    """The line of a latency, as :func:`measure_latency` gives it."""
    height, width = latency["input_size"]
    timings = ", ".join(
        f"{name} {latency[part]['median']:.2f} ms (spread {100 * latency[part]['spread']:.1f} %)"
        for part, name in (("model", "whole model"), ("backbone", "backbone"))
    )
    return (
        f"Latency: {timings}; {latency['backend']} on {latency['device']}, "
        f"{latency['threads']} thread, batch 1, {height}x{width}, BN folded, without NMS"
    )


if __name__ == "__main__":
    run(main)
