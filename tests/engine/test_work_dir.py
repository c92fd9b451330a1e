"""Who holds a folder of results, and what is left there by the dead."""

import multiprocessing
import os
import signal
import time

import pytest

from engine.work_dir import check_output_file, hold, make_work_dir, writes_results
from models import InputError
from models.files import remove_unfinished

FORK = multiprocessing.get_context("fork")


def hold_with_a_child(folder, pipe):
    """Hold the folder, with a child as a loader's process is one, until told to end."""
    hold(folder)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    pipe.send(child)
    pipe.recv()


@pytest.mark.parametrize("how", ["end", "kill"])
def test_a_folder_is_held_as_long_as_its_process_lives(how, tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold_with_a_child, args=(tmp_path, there))
    process.start()
    child = here.recv()
    with pytest.raises(InputError, match="another run is using it"):
        hold(tmp_path)
    if how == "kill":
        process.kill()
    else:
        here.send("end")
    process.join()
    try:
        hold(tmp_path)  # the child lives, and does not
        hold(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_place_that_cannot_be_written_to(tmp_path):
    make_work_dir(tmp_path / "a/b")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write there"):
        make_work_dir(tmp_path / "file/b")
    (tmp_path / "a/.lock").mkdir()
    with pytest.raises(InputError, match="cannot open .*/a/.lock"):
        hold(tmp_path / "a")


def test_a_file_that_cannot_be_written(tmp_path):
    check_output_file(tmp_path / "new/table.json", "--out")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "new", "--out .*/new: is a folder, expected a file"),
        (tmp_path / "file/table.json", "--out .*/file/table.json: cannot write there"),
    ):
        with pytest.raises(InputError, match=message):
            check_output_file(path, "--out")


def test_the_first_process_of_all_writes(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert writes_results("none") and writes_results("slurm")
    assert not writes_results("pytorch")


def test_drafts_of_dead_processes_are_removed(tmp_path):
    process = FORK.Process(target=int)
    process.start()
    process.join()
    dead, alive = tmp_path / f".a.pth.{process.pid}.tmp", tmp_path / f".a.pth.{os.getpid()}.tmp"
    other = tmp_path / ".mine.tmp"
    for path in (dead, alive, other):
        path.touch()
    folder = tmp_path / f".folder.{process.pid}.tmp"
    folder.mkdir()
    (folder / "file").touch()
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, other}
