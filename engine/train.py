"""Entry point of both adaptations: train what a config says, on mmengine's Runner."""

import argparse
from collections.abc import Sequence

from mmengine.hooks import Hook

from models import InputError

from .config import (
    OneLineParser,
    add_arguments,
    load_config,
    use_amp,
    user_path,
)
from .hooks import MatchCheckpoint
from .preface import Preface
from .run import build_runner, run
from .work_dir import make_work_dir


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="engine.train", description="Adapt a network as a config says")
    add_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="train with mixed precision")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate by the batch size"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, from the latest in the work dir",
    )
    return parser.parse_args()


def main(hooks: Sequence[Hook] = ()) -> None:
    """What the command line says, with these hooks besides the config's."""
    args = parse_args()
    resume = user_path(args.resume) if args.resume not in (None, "auto") else args.resume
    cfg = load_config(args)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise InputError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size")
        cfg.auto_scale_lr.enable = True
    if resume:
        cfg.resume, cfg.load_from = True, None if resume == "auto" else resume
    make_work_dir(cfg.work_dir)

    runner = build_runner(cfg)
    if cfg.resume:
        runner.register_hook(MatchCheckpoint())
    runner.register_hook(Preface())
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    runner.logger.info(f"Done. Checkpoints and logs are in {runner.work_dir}")


if __name__ == "__main__":
    run(main)
