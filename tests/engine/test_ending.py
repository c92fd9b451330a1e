"""How runs end whose reason is outside, each in a process of its own."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.utils.data import DataLoader

from engine import ending
from engine.launch import status_of
from engine.run import run
from models.files import write_whole


def terminate(folder):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


def interrupt(folder):
    try:
        signal.raise_signal(signal.SIGINT)
    except:  # noqa: E722  (as mmengine has it)
        raise ValueError("of something else") from None


def terminate_where_interrupts_are_ignored(folder):
    """As a shell starts what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGINT)
    terminate(folder)


def fill_the_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    write_whole(folder / "epoch_1.pth", bytes(1000))


class Waits:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(index)
        return index


def kill_a_loader(folder):
    batches = iter(DataLoader(Waits(), num_workers=1))
    next(batches)
    worker = multiprocessing.active_children()[-1]
    threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL)).start()
    list(batches)


def with_a_note(folder):
    error = KeyboardInterrupt()
    error.add_note("--resume continues.")
    raise error


def process(function, folder, environment):
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr.flush()
    with (folder / "err").open("w", buffering=1) as file, redirect_stderr(file):
        run(lambda: function(folder))


ENDS = {
    terminate: (143, "Terminated."),
    terminate_where_interrupts_are_ignored: (143, "Terminated."),
    interrupt: (130, "Interrupted."),
    fill_the_disk: (1, "error: {}/epoch_1.pth: File too large."),
    kill_a_loader: (1, "error: DataLoader worker (pid"),
    with_a_note: (130, "Interrupted. --resume continues."),
}


def end_of(function, folder, **environment):
    """The exit status and what was printed."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=process, args=(function, folder, environment))
    child.start()
    child.join(60)
    return child.exitcode, (folder / "err").read_text().strip()


@pytest.mark.parametrize("function", ENDS)
def test_ends_in_one_line(function, tmp_path):
    status, line = ENDS[function]
    assert end_of(function, tmp_path)[0] == status
    (printed,) = (tmp_path / "err").read_text().strip().splitlines()
    assert printed.startswith(line.format(tmp_path))
    assert not list(tmp_path.glob("*.pth")) and not list(tmp_path.glob(".*"))


def test_of_several_processes_the_launcher_says_that_they_were_terminated(tmp_path):
    assert end_of(terminate, tmp_path, TORCHELASTIC_RUN_ID="x", LOCAL_RANK="0") == (143, "")
    assert end_of(with_a_note, tmp_path, TORCHELASTIC_RUN_ID="x", LOCAL_RANK="1") == (130, "")
    status, line = end_of(with_a_note, tmp_path, TORCHELASTIC_RUN_ID="x", LOCAL_RANK="0")
    assert status == 130 and line == "Interrupted. --resume continues."


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 100_000])  # fewer and more than Python keeps back
def test_a_reader_that_leaves_hears_no_more(lines):
    code = f"from engine.run import run; run(lambda: print('line\\n' * {lines}))"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_errors_of_the_disk(number):
    error = OSError(number, os.strerror(number), "file.pth")
    assert ending.explain(error) == (f"error: file.pth: {os.strerror(number)}.", 1)


@pytest.mark.parametrize("error", [OSError(2, "No such file"), RuntimeError("x"), KeyError("x")])
def test_other_errors_are_not_explained(error):
    assert ending.explain(error) is None


@pytest.mark.parametrize(
    "codes, status, line",
    [
        ({0: 2}, 2, ""),
        ({0: 1, 1: -9}, 137, "error: process 1 was killed (signal 9). Training continues"),
        ({1: 143}, 143, "error: process 1 was killed (signal 15). Training continues"),
    ],
)
def test_a_process_that_was_killed_is_named(codes, status, line, capsys):
    failures = {
        rank: ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")
        for rank, code in codes.items()
    }
    assert status_of(failures) == status
    printed = capsys.readouterr().err
    assert printed.startswith(line) and printed.count("\n") == bool(line)
