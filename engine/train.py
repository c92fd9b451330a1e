"""Entry point of both adaptations: train what a config says, on mmengine's Runner."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.hooks import Hook
from torch import nn

from models import InputError
from models.files import remove_unfinished

from .checkpoints import SetAsideOldRun, noting_how_to_resume, point_at_newest
from .config import (
    OneLineParser,
    add_arguments,
    asked_net_config,
    given,
    load_config,
    use_amp,
    user_path,
)
from .hooks import MatchCheckpoint
from .inherit import inherit_from
from .model import unwrapped
from .preface import Preface
from .run import build_runner, run
from .run_state import CheckRunState
from .work_dir import hold, make_work_dir, writes_results


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="engine.train", description="Adapt a network as a config says")
    add_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="train with mixed precision")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate by the batch size"
    )
    parser.add_argument(
        "--inherit",
        type=given,
        metavar="SEARCH",
        help="start from the architecture and the weights of this search: its work dir, or one of "
        "its checkpoints",
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
    search = args.inherit and user_path(args.inherit)
    cfg = load_config(args)
    if search:
        inherit_from(cfg, search, asked_net_config(args))
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise InputError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size")
        cfg.auto_scale_lr.enable = True
    make_work_dir(cfg.work_dir)
    if writes_results(cfg.launcher):
        hold(cfg.work_dir)
        remove_unfinished(Path(cfg.work_dir))
    line = resume_from(cfg, args.resume)

    runner = build_runner(cfg)
    if cfg.get("resume"):
        leave_weights(unwrapped(runner.model))
    own = (MatchCheckpoint(), CheckRunState()) if cfg.get("resume") else (SetAsideOldRun(),)
    for hook in (*own, Preface(), *hooks):
        runner.register_hook(hook)
    if line:
        runner.logger.info(line)
    with noting_how_to_resume(runner):
        barrier()  # last_checkpoint is what it should be
        runner.train()
    runner.logger.info(f"Done. Checkpoints and logs are in {runner.work_dir}")


def leave_weights(model: nn.Module) -> None:
    """Let a model that is about to be resumed read no seed and no search: its checkpoint has all
    weights, and what they began from may be gone."""
    for module in (model, model.backbone) if hasattr(model, "backbone") else (model,):
        module.init_cfg = None


def resume_from(cfg: Config, path: str | None) -> str | None:
    """Set what a config resumes from: a checkpoint, or for ``'auto'`` the work dir's newest.

    Where there is none yet, the run starts anew. Returns what to log.
    """
    if path is None and cfg.get("resume") and not cfg.get("load_from"):
        path = "auto"
    if path is None:
        return None
    if path != "auto":
        cfg.resume, cfg.load_from = True, user_path(path)
        return None
    found, line = point_at_newest(cfg.work_dir, write=writes_results(cfg.launcher))
    cfg.resume = found
    if found:
        cfg.load_from = None  # mmengine then takes the work dir's last
    return line


if __name__ == "__main__":
    run(main)
