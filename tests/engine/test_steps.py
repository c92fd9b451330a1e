"""Work in steps: what is done, what failed, and whose folder it is."""

import errno
import fcntl
import os
import time

import pytest
import torch

from engine import steps
from engine.steps import Command, Step, Steps
from models import InputError

# What a step's process runs in these tests: a module whose main does as its arguments say.
STEP = """
import os, signal, sys

def main():
    print("said to the log")
    match sys.argv[1:]:
        case ["fail"]:
            raise RuntimeError("broken")
        case ["mistake"]:
            print("error: the loss is not finite", file=sys.stderr)
            return 2
        case ["killed"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["full disk"]:
            import resource
            size = os.stat(1).st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            print("no room for this")
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Makes steps with a folder of the test's; what they say is in the file ``screen``."""
    (tmp_path / "step_of_test.py").write_text(STEP)
    monkeypatch.syspath_prepend(tmp_path)
    with open(tmp_path / "screen", "w") as screen:
        yield lambda: Steps(tmp_path / "results", 7, screen)


def shown(tmp_path) -> list[str]:
    return (tmp_path / "screen").read_text().splitlines()


def call(run: Steps, *arguments: str) -> str:
    """Run the test's module as a step's process, and return the log."""
    run.call("x", Command("step_of_test", arguments, ["sh", "scripts/x.sh", "a file"]))
    return (run.folder / "x.log").read_text()


def test_a_steps_output_is_its_log(start, capfd, tmp_path):
    run = start()
    run.claim("stamp")
    assert call(run) == "$ sh scripts/x.sh 'a file'\nsaid to the log\n"
    assert call(run).count("said to the log") == 2  # of both attempts
    assert capfd.readouterr() == ("", "") and shown(tmp_path) == []


@pytest.mark.parametrize(
    "how, why",
    [
        ("fail", "ended with status 1"),
        ("mistake", "the loss is not finite"),
        ("killed", "was killed by signal 9"),
        ("full disk", "ended with status 1"),
    ],
)
def test_a_failed_step_is_not_done(how, why, start, tmp_path):
    run = start()
    run.claim("stamp")
    product = run.folder / "x" / "product"
    product.parent.mkdir()
    product.write_text("of an earlier attempt")
    with pytest.raises(InputError, match=f"^x: {why}.* in {run.folder}/x.log") as error:
        run.do(Step("x", "the step", lambda line: call(run, how), [product]))
    assert "\n" not in str(error.value)
    assert shown(tmp_path) == ["1/7  the step  ...", "1/7  the step  stopped"]

    again = start()
    again.do(Step("x", "the step", lambda line: call(again), [product], lambda: "well"))
    assert shown(tmp_path)[-1] == "1/7  the step  done in 0:00  well"
    third = start()
    third.do(Step("x", "the step", lambda line: call(third, "fail"), [product], lambda: "well"))
    assert shown(tmp_path)[-1] == "1/7  the step  already there: well"


def test_a_step_is_done_with_all_its_products(start, tmp_path, monkeypatch):
    run, calls = start(), []
    products = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "results/x").mkdir(parents=True)

    def work(line):
        calls.append(line)
        products[len(calls) - 1].write_text("there")

    with pytest.raises(InputError, match=f"the step: {products[1]} is missing after it"):
        run.do(Step("x", "the step", work, products))
    monkeypatch.setattr(steps, "write_whole", no_room)
    with pytest.raises(OSError, match="No space"):
        run.do(Step("x", "the step", work, products))
    monkeypatch.undo()
    run.do(Step("x", "the step", calls.append, products))
    run.do(Step("x", "the step", calls.append, products))  # done
    products[0].unlink()
    with pytest.raises(InputError, match="is missing"):
        run.do(Step("x", "the step", calls.append, products))
    assert len(calls) == 4


def no_room(path, content):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_another_run_is_refused(start, tmp_path):
    (tmp_path / "results").mkdir()
    with open(tmp_path / "results/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="results: another run is using it"):
            start().claim("stamp")
    start().claim("stamp")


def test_another_stamp_starts_anew(start, tmp_path):
    start().claim("one")
    old = tmp_path / "results" / "x" / "done"
    old.parent.mkdir()
    old.write_text("done")
    start().claim("one")
    assert old.is_file() and shown(tmp_path) == []
    start().claim("two")
    assert not old.parent.exists() and "starting anew" in shown(tmp_path)[0]


@pytest.mark.parametrize("stamp", [None, b"of a letter", b"\xff"])
def test_what_is_of_no_steps_stays(stamp, start, tmp_path):
    mine = tmp_path / "results" / "mine"
    mine.mkdir(parents=True)
    if stamp:
        (tmp_path / "results" / "stamp").write_bytes(stamp)
    with pytest.raises(InputError, match="holds other things"):
        start().claim("one")
    assert mine.is_dir()


def meeting(folder, name, other):
    """Work that ends only if another step's is under way at the same time."""

    def work(line):
        (folder / name).write_text("here")
        until = time.monotonic() + 20
        while not (folder / other).exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert (folder / other).exists()
        (folder / f"{name}_threads").write_text(str(torch.get_num_threads()))

    return work


def test_steps_together(start, tmp_path):
    run = start()
    run.claim("stamp")
    steps = []
    for name, other in ("ab", "ba"):
        (run.folder / name).mkdir()
        work = meeting(tmp_path, name, other)
        steps.append(Step(name, f"step {name}", work, [tmp_path / f"{name}_threads"]))
    run.do_together(steps)
    share = str(max(1, torch.get_num_threads() // 2))
    assert [(tmp_path / f"{name}_threads").read_text() for name in "ab"] == [share, share]
    assert sorted(shown(tmp_path)) == [
        *("1/7  step a  ...", "1/7  step a  done in 0:00"),
        *("2/7  step b  ...", "2/7  step b  done in 0:00"),
    ]
    for name in "ab":  # were they done again, they would miss each other
        (tmp_path / name).unlink()
    again = start()
    (run.folder / "b/done").unlink()
    with pytest.raises(InputError, match="step b: ended with status 1; the same command"):
        again.do_together([steps[0], Step("b", "step b", lambda line: 1 / 0, [tmp_path / "c"])])
    assert shown(tmp_path)[-3:] == [
        *("1/7  step a  already there: ", "2/7  step b  ...", "2/7  step b  stopped"),
    ]


@pytest.mark.slow
def test_a_failure_stops_the_step_next_to_it(start, tmp_path, capfd):
    run = start()
    run.claim("stamp")

    def fail(line):
        while not (tmp_path / "there").exists():
            time.sleep(0.01)
        raise InputError("the seed is missing")

    def long(line):
        (tmp_path / "there").write_text(str(os.getpid()))
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(InputError, match="^the seed is missing$"):
        run.do_together([Step("a", "step a", fail), Step("b", "step b", long)])
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "there").read_text()), 0)
    assert capfd.readouterr() == ("", "")
