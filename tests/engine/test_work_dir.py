"""Who holds a folder of results."""

import multiprocessing
import os
import signal
import time

import pytest

from engine.work_dir import hold
from models import InputError

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
