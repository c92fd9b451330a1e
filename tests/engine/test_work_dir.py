import multiprocessing
import os
import signal
import time

import pytest

from engine.work_dir import hold, make_work_dir, writes_results
from models import InputError
from models.files import remove_unfinished


def hold_and_wait(work_dir, held, fork):
    hold(work_dir)
    if fork and os.fork() == 0:  # as a loader's process, which may outlive its parent
        time.sleep(10)
        os._exit(0)
    held.set()
    signal.pause()


@pytest.mark.parametrize("fork", [False, True])
def test_a_work_dir_is_held_until_its_process_has_ended(fork, tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold_and_wait, args=(tmp_path, held, fork))
    process.start()
    assert held.wait(30)
    with pytest.raises(InputError, match="another run is using it"):
        hold(tmp_path)
    process.kill()
    process.join()
    hold(tmp_path)
    hold(tmp_path / "." / "..")  # another one
    hold(tmp_path)  # again, by the same process


def test_a_place_that_cannot_be_written_to(tmp_path):
    make_work_dir(tmp_path / "a/b")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write there"):
        make_work_dir(tmp_path / "file/b")


def test_the_first_process_of_all_writes(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert writes_results("none") and writes_results("slurm")
    assert not writes_results("pytorch")


def test_drafts_of_dead_processes_are_removed(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=int)
    process.start()
    process.join()
    dead, alive = tmp_path / f".a.pth.{process.pid}.tmp", tmp_path / f".a.pth.{os.getpid()}.tmp"
    other = tmp_path / ".mine.tmp"
    for path in (dead, alive, other):
        path.touch()
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, other}
