"""The line that shows how far a run is."""

import os
import pty
import termios

import pytest

from engine import progress
from engine.progress import ShowProgress, StatusLine, clock
from tests.search.tools import make_runner, skip_pictures


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_minutes_and_seconds():
    assert [clock(s) for s in (0, 9.4, 59.6, 61, 3600)] == ["0:00", "0:09", "1:00", "1:01", "60:00"]


def test_a_terminal_has_one_line_that_is_rewritten(time):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 30))
    with open(slave, "w") as terminal:
        line = StatusLine(terminal, "1/2  x")
        line.begin()
        line.update("too early to see")
        time.now += 1
        line.update("training 3/4  a line that is too long for it")
        time.now += 1
        line.update("4/4")
        line.end("done: and this is all, however long")
        shown = ""
        while not shown.endswith("\n"):  # a terminal gives what has arrived
            shown += os.read(master, 10_000).decode()
    os.close(master)
    begun, long, short, last = shown.split("\r")[1:5]
    assert begun == "1/2  x  ...".ljust(29)
    assert long == "1/2  x  training 3/4  a line "  # no more than fits, and no line break
    assert short == "1/2  x  4/4".ljust(29)  # nothing of the longer one stays
    assert last == "1/2  x  done: and this is all, however long"
    assert shown.count("\n") == 1 and shown.endswith("\r\n")


def test_a_file_gets_a_line_now_and_then(time, tmp_path):
    with open(tmp_path / "log", "w") as file:
        line = StatusLine(file, "1/2  x", seconds=30)
        line.begin()
        for second in range(70):
            time.now += 1
            line.update(f"{second}")
            # whoever follows the file need not wait
            assert (tmp_path / "log").read_text().startswith("1/2  x  ...\n")
        line.end("done")
    assert (tmp_path / "log").read_text().splitlines() == [
        f"1/2  x  {text}" for text in ("...", "29", "59", "done")
    ]


def test_a_search_shows_where_it_is(tmp_path, monkeypatch):
    skip_pictures(monkeypatch)
    runner, line = make_runner(tmp_path), Collected()
    scalars = {"train/loss": "loss {:.3f}", "train/alpha_undecided": "alpha {:.0%}", "none": "{}"}
    runner.register_hook(ShowProgress(line, scalars))
    runner.train()
    assert [text.split("  ")[0] for text in line.texts] == [
        f"training {i}/12" for i in range(1, 13)
    ]
    assert all(text.split("  ")[1].startswith("eta 0:0") for text in line.texts)
    loss = runner.message_hub.get_scalar("train/loss").current()
    assert line.texts[-1].split("  ")[2] == f"loss {loss:.3f}"
    assert "alpha" not in line.texts[3]  # it learns from the second epoch on
    assert line.texts[-1].split("  ")[3].startswith("alpha 9")
    assert line.texts[-1].split("  ")[1] == "eta 0:00"


class Collected:
    def __init__(self):
        self.texts = []

    def update(self, text: str) -> None:
        self.texts.append(text)
