import os
import shutil
from argparse import Namespace

import pytest
import torch
from mmengine.hooks import Hook

from engine import checkpoints
from engine.checkpoints import (
    SetAsideOldRun,
    WholeCheckpointHook,
    newest_checkpoint,
    noting_how_to_resume,
    point_at_newest,
)
from engine.launch import latest_checkpoint
from models import InputError


@pytest.fixture
def work_dir(tmp_path):
    """Of a run by epochs, with three checkpoints."""
    for epoch in (2, 9, 10):
        torch.save(dict(meta=dict(epoch=epoch)), tmp_path / f"epoch_{epoch}.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_10.pth"))
    return tmp_path


def last(work_dir, content):
    path = work_dir / "last_checkpoint"
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode())


def as_folder(work_dir):
    (work_dir / "last_checkpoint").unlink()
    (work_dir / "last_checkpoint").mkdir()


def as_pipe(work_dir):
    (work_dir / "last_checkpoint").unlink()
    os.mkfifo(work_dir / "last_checkpoint")


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    "damage, expected, message",
    [
        (lambda d: None, 10, None),
        (lambda d: last(d, d / "epoch_9.pth"), 9, None),  # as its user wants
        (lambda d: last(d, "epoch_9.pth"), 9, None),
        (lambda d: last(d, ""), 10, "last_checkpoint: names no file"),
        (lambda d: last(d, f"{d}/epoch_1"), 10, "epoch_1: No such file"),
        (lambda d: last(d, b"\xff\xfe\x00"), 10, "last_checkpoint: cannot be read"),
        (lambda d: last(d, "a\nb\x1b"), 10, "last_checkpoint: names no file"),
        (as_folder, 10, "last_checkpoint: is no file"),
        (as_pipe, 10, "last_checkpoint: is no file"),
        (lambda d: truncate(d / "epoch_10.pth"), 9, "epoch_10.pth: truncated"),
        (lambda d: (d / "epoch_10.pth").unlink(), 9, "epoch_10.pth: No such file"),
        (lambda d: (d / "last_checkpoint").unlink(), 10, None),
    ],
)
def test_the_newest_that_can_be_read_is_found(damage, expected, message, work_dir):
    damage(work_dir)
    path, unusable = newest_checkpoint(work_dir)
    assert path == work_dir / f"epoch_{expected}.pth"
    assert message in unusable[0] if message else not unusable
    assert all("\n" not in line for line in unusable) and len(unusable) <= 1


def test_a_folder_without_checkpoints(tmp_path):
    assert newest_checkpoint(tmp_path) == (None, [])
    torch.save({}, tmp_path / "seed.pth")
    (tmp_path / "last_checkpoint").write_text("none.pth")
    path, unusable = newest_checkpoint(tmp_path)
    assert path is None and "none.pth" in unusable[0]


def test_last_checkpoint_is_put_right_for_mmengine(work_dir):
    truncate(work_dir / "epoch_10.pth")
    for write in (False, True):
        found, line = point_at_newest(work_dir, write=write)
        assert found and f"continues from {work_dir}/epoch_9.pth; " in line and "\n" not in line
        named = (work_dir / "last_checkpoint").read_text()
        assert named == str(work_dir / ("epoch_9.pth" if write else "epoch_10.pth"))
    (work_dir / "last_checkpoint").unlink()  # as where a run was killed before it wrote this
    assert point_at_newest(work_dir, write=True)[0]
    assert (work_dir / "last_checkpoint").read_text() == str(work_dir / "epoch_9.pth")
    assert point_at_newest(work_dir / "none", write=True) == (
        False,
        "--resume: no checkpoint, starts anew",
    )


def test_the_launcher_takes_the_same(work_dir, monkeypatch, capsys):
    monkeypatch.setattr("engine.launch.REPO", work_dir / "repo")
    shutil.copytree(work_dir, work_dir / "repo/work_dirs/some")
    last(work_dir / "repo/work_dirs/some", "")
    found = latest_checkpoint("configs/some.py")
    assert found == str(work_dir / "repo/work_dirs/some/epoch_10.pth")
    assert "names no file" in capsys.readouterr().err
    with pytest.raises(InputError, match="no checkpoint in .*other"):
        latest_checkpoint("configs/other.py")


class Hub(dict):
    """Of mmengine's message hub what the hooks use."""

    runtime_info = property(lambda self: self)
    update_info = dict.__setitem__
    get_info = dict.get


class FakeRunner(Namespace):
    """Saves a small file for a checkpoint, by mmengine's function."""

    def save_checkpoint(self, out_dir, name, meta, backend_args, **settings):
        from mmengine.runner import save_checkpoint

        save_checkpoint(dict(meta=meta), os.path.join(out_dir, name), backend_args=backend_args)


def runner_in(work_dir, **settings):
    logger = Namespace(lines=[])
    logger.info = logger.lines.append
    common = dict(work_dir=str(work_dir), message_hub=Hub(), logger=logger, hooks=[], cfg={})
    return FakeRunner(**common | dict(epoch=0, iter=0, timestamp="now") | settings)


@pytest.mark.parametrize("keep", [1, 2, -1])
def test_whenever_saving_fails_a_whole_checkpoint_remains(keep, tmp_path, monkeypatch):
    hook, runner = WholeCheckpointHook(max_keep_ckpts=keep), runner_in(tmp_path)
    hook.before_train(runner)
    for epoch in range(4):
        runner.epoch = epoch
        hook._save_checkpoint(runner)
        kept = [f"epoch_{n}.pth" for n in range(1, epoch + 2)][-keep if keep > 0 else 0 :]
        assert sorted(path.name for path in tmp_path.glob("*.pth")) == kept
        path, unusable = newest_checkpoint(tmp_path)
        assert path.name == f"epoch_{epoch + 1}.pth" and not unusable
    assert runner.message_hub.get("keep_ckpt_ids") == {1: [4], 2: [3, 4]}.get(keep)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    runner.epoch = 4
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError) as caught:
        hook._save_checkpoint(runner)
    assert caught.value.filename == str(tmp_path / "epoch_5.pth")
    assert newest_checkpoint(tmp_path) == (tmp_path / "epoch_4.pth", [])
    assert not list(tmp_path.glob(".*"))


def test_a_new_run_sets_the_old_one_aside(work_dir):
    class Report(Hook):
        results = ("net_config.txt", "none.txt")

    others = ("mine.pth", "config.py", "notes.txt")
    for name in ("net_config.txt", "best_AP_epoch_9.pth", "metrics.json", *others):
        (work_dir / name).write_text(name)
    runner = runner_in(work_dir, hooks=[Report()])
    SetAsideOldRun().before_train(runner)
    assert sorted(path.name for path in work_dir.iterdir()) == sorted([*others, "before_now"])
    moved = {path.name for path in (work_dir / "before_now").iterdir()}
    assert moved == {
        *(f"epoch_{n}.pth" for n in (2, 9, 10)),
        *("last_checkpoint", "net_config.txt", "best_AP_epoch_9.pth", "metrics.json"),
    }
    (line,) = runner.logger.lines
    assert "moved 7 files of an earlier one to" in line and str(work_dir / "before_now") in line
    assert newest_checkpoint(work_dir) == (None, [])
    SetAsideOldRun().before_train(runner)  # nothing is left, and nothing is said
    assert len(runner.logger.lines) == 1


def test_setting_aside_is_killed_halfway(work_dir, monkeypatch):
    """Then the old run is still found as it was, or none is."""
    replace, moves = os.replace, []

    def killed(source, target):
        if len(moves) == stop:
            raise KeyboardInterrupt
        moves.append(source)
        replace(source, target)

    for stop in range(4):
        copy = shutil.copytree(work_dir, work_dir.parent / f"copy_{stop}")
        last(copy, copy / "epoch_10.pth")
        moves.clear()
        monkeypatch.setattr(checkpoints.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            SetAsideOldRun().before_train(runner_in(copy))
        monkeypatch.setattr(checkpoints.os, "replace", replace)
        path, _ = newest_checkpoint(copy)
        assert path == (copy / "epoch_10.pth" if stop < 3 else None)


@pytest.mark.parametrize(
    "hub, resume, written, promises",
    [
        ({}, False, True, False),  # an older run's: it would be continued
        ({"last_ckpt": "epoch_1.pth"}, False, False, False),  # the first was being written
        ({"last_ckpt": "epoch_2.pth"}, False, True, True),
        ({}, True, True, True),
    ],
)
def test_only_what_can_be_resumed_is_promised(hub, resume, written, promises, tmp_path):
    if written:
        (tmp_path / "last_checkpoint").touch()
    runner = runner_in(tmp_path, message_hub=Hub(hub), cfg=dict(resume=resume))
    with pytest.raises(KeyboardInterrupt) as caught, noting_how_to_resume(runner):
        raise KeyboardInterrupt
    (note,) = caught.value.__notes__
    assert ("--resume continues" in note) == promises
    assert ("starts anew" in note) != promises
