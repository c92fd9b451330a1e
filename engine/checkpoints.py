"""A run's checkpoints: written whole, found again, and kept apart from those of an older run."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from models import InputError
from models.errors import printable
from models.files import write_whole

from .compat.safe_load import load_checkpoint_file

_LAST = "last_checkpoint"  # holds the path of the last one; mmengine reads it when it resumes
_NUMBERED = re.compile(r"(epoch|iter)_(\d+)\.pth")
_BEST = re.compile(r"best_.*\.pth")
_MAX_NAME = 10_000  # characters that are read of a path


class WholeFiles(LocalBackend):
    """mmengine's files of this machine, each written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(filepath), obj)


register_backend("WholeFiles", WholeFiles, force=True)  # of that name only; others stay


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's, but whenever the run is killed there is a whole checkpoint to resume from.

    Each file is the old one or the new one, and the last checkpoint stays until the next is
    written; mmengine's own hook removes it before, where it is to keep one only. A resumed run
    also updates the last checkpoint when an evaluation has found it to be the best.

    Args: As mmengine's.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs):
        backend_args = backend_args or dict(backend="WholeFiles")
        super().__init__(*args, backend_args=backend_args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if runner.iter:  # resumed: what an uninterrupted run knows between two steps
            self.last_ckpt = runner.message_hub.get_info("last_ckpt")
            runner.message_hub.update_info("iter", runner.iter - 1)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # the method that writes last_checkpoint; mmengine has no public one
        outdated = self._enlist(runner, step)
        others_remain = self.max_keep_ckpts > 1
        if others_remain:
            self._remove(outdated)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_whole(Path(runner.work_dir) / _LAST, self.last_ckpt.encode())
        if not others_remain:
            self._remove(outdated)

    def _enlist(self, runner: Runner, step: int) -> list[int]:
        """Add a step to those that are kept, and return those that are no longer."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        full = len(self.keep_ckpt_ids) == self.max_keep_ckpts
        outdated = [self.keep_ckpt_ids.popleft()] if full else []
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        return outdated

    def _remove(self, steps: list[int]) -> None:
        for step in steps if is_main_process() else ():
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to continue a run from, and what of its folder cannot be used.

    That is the one which ``last_checkpoint`` names or, where that is damaged or missing, the last
    in the folder that can be read.

    Returns:
        The file, or none where there is none; and messages, of a line each.
    """
    work_dir, unusable = Path(work_dir), []
    for path in _candidates(work_dir, unusable):
        try:
            load_checkpoint_file(path)
            return path, unusable
        except InputError as error:
            unusable.append(printable(str(error)))
    return None, unusable


def _candidates(work_dir: Path, unusable: list[str]) -> Iterator[Path]:
    """The checkpoint that is named, then the others, the last one first."""
    named = None
    try:
        named = _named(work_dir / _LAST)
    except InputError as error:
        unusable.append(str(error))
    if named:
        yield named
    yield from (path for path in reversed(_numbered(work_dir)) if path != named)


def _named(file: Path) -> Path | None:
    """What a ``last_checkpoint`` names; InputError where that is no path."""
    if not os.path.lexists(file):
        return None
    if not file.is_file():
        raise InputError(f"{file}: is no file")
    try:
        with file.open(encoding="utf-8") as opened:
            name = opened.read(_MAX_NAME).strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: cannot be read") from None
    if not name or not name.isprintable():
        raise InputError(f"{file}: names no file")
    return file.parent / name


def _numbered(work_dir: Path) -> list[Path]:
    """The checkpoints of a work dir, the last one last."""
    matches = [_NUMBERED.fullmatch(path.name) for path in work_dir.glob("*.pth")]
    numbered = sorted((match[1], int(match[2]), match[0]) for match in matches if match)
    return [work_dir / name for _, _, name in numbered]


def point_at_newest(work_dir: str | Path, write: bool) -> tuple[bool, str]:
    """Let ``last_checkpoint`` name the checkpoint to continue from: mmengine resumes from that.

    Args:
        write: Whether this process is the one that does so.

    Returns:
        Whether there is one; and a line that says which, and what cannot be used.
    """
    path, unusable = newest_checkpoint(work_dir)
    line = f"--resume: continues from {path}" if path else "--resume: no checkpoint, starts anew"
    if write and path:  # that name may be damaged, or missing
        write_whole(Path(work_dir) / _LAST, str(path).encode())
    return path is not None, "; ".join([line, *unusable])


class SetAsideOldRun(Hook):
    """Moves what an older run left in the work dir into a folder there.

    A new run is about to train. Killed before its first checkpoint, it must not resume from one of
    the older run. Files of the run's own that a hook writes are in the hook's ``results``.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        work_dir = Path(runner.work_dir)
        names = ["metrics.json", *(name for hook in runner.hooks for name in _results(hook))]
        files = [work_dir / name for name in names]
        files += [path for path in work_dir.glob("*.pth") if _BEST.fullmatch(path.name)]
        # The last ones last: if this is killed, the older run is still whole, or none is found.
        files += [*_numbered(work_dir), work_dir / _LAST]
        files = [path for path in files if os.path.lexists(path)]
        if not files:
            return
        folder = work_dir / f"before_{runner.timestamp}"
        folder.mkdir(exist_ok=True)
        for path in files:
            os.replace(path, folder / path.name)
        runner.logger.info(
            f"A new run: moved {len(files)} files of an earlier one to {folder} "
            "(--resume would have continued it)"
        )


def _results(hook: Hook) -> tuple[str, ...]:
    return getattr(hook, "results", ())


@contextmanager
def noting_how_to_resume(runner: Runner) -> Iterator[None]:
    """Add to what ends the training inside a note that says whether it can be continued."""
    try:
        yield
    except BaseException as error:
        # the first is set by a run that saves; the other may still be an older run's
        saved = (
            runner.message_hub.get_info("last_ckpt") and (Path(runner.work_dir) / _LAST).exists()
        )
        error.add_note(
            "The same command with --resume continues."
            if saved or runner.cfg.get("resume")
            else "No checkpoint was written yet: the same command starts anew."
        )
        raise
