"""The quickstart: its steps, what it takes for done, and whole runs of it."""

import errno
import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from engine import quickstart
from engine.quickstart import TASKS, Command, Quickstart
from models import InputError
from tests.conftest import REPO

from .test_train import run_script

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
    """Makes a quickstart in a folder of the test's."""
    (tmp_path / "step_of_test.py").write_text(STEP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(REPO)
    with open(tmp_path / "screen", "w") as screen:
        yield lambda *settings, data_root=None: Quickstart(
            TASKS["det"], tmp_path / "results", data_root, settings, screen
        )


def shown(tmp_path) -> list[str]:
    return (tmp_path / "screen").read_text().splitlines()


def call(run: Quickstart, *arguments: str) -> str:
    """Run the test's module as a step's process, and return the log."""
    run._call("x", Command("step_of_test", arguments, ["sh", "scripts/x.sh", "a file"]))
    return (run.results / "x.log").read_text()


def test_a_steps_output_is_its_log(start, capfd, tmp_path):
    run = start()
    run.claim()
    assert call(run) == "$ sh scripts/x.sh 'a file'\nsaid to the log\n"
    assert call(run).count("said to the log") == 2  # of both attempts
    assert capfd.readouterr() == ("", "") and shown(tmp_path) == []


@pytest.mark.parametrize(
    "how, why",
    [
        ("fail", "process ended with status 1"),
        ("mistake", "the loss is not finite"),
        ("killed", "process ended with status -9"),
        ("full disk", "process ended with status 1"),
    ],
)
def test_a_failed_step_is_not_done(how, why, start, tmp_path):
    run = start()
    run.claim()
    product = run.results / "x" / "product"
    product.parent.mkdir()
    product.write_text("of an earlier attempt")
    with pytest.raises(InputError, match=f"^x: {why}.* log is {run.results}/x.log") as error:
        run._step("x", "the step", lambda line: call(run, how), [product])
    assert "\n" not in str(error.value)
    assert shown(tmp_path) == ["1/7  the step  ...", "1/7  the step  stopped"]

    again = start()
    again._step("x", "the step", lambda line: call(again), [product], lambda: "well")
    assert shown(tmp_path)[-1] == "1/7  the step  done in 0:00  well"
    third = start()
    third._step("x", "the step", lambda line: call(third, "fail"), [product], lambda: "well")
    assert shown(tmp_path)[-1] == "1/7  the step  already there: well"


def test_a_step_is_done_with_all_its_products(start, tmp_path, monkeypatch):
    run, calls = start(), []
    products = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "results/x").mkdir(parents=True)

    def work(line):
        calls.append(line)
        products[len(calls) - 1].write_text("there")

    with pytest.raises(InputError, match=f"the step: {products[1]} is missing after it"):
        run._step("x", "the step", work, products)
    monkeypatch.setattr(quickstart, "write_whole", no_room)
    with pytest.raises(OSError, match="No space"):
        run._step("x", "the step", work, products)
    monkeypatch.undo()
    run._step("x", "the step", calls.append, products)
    run._step("x", "the step", calls.append, products)  # done
    products[0].unlink()
    with pytest.raises(InputError, match="is missing"):
        run._step("x", "the step", calls.append, products)
    assert len(calls) == 4


def no_room(path, content):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_another_run_is_refused(start, tmp_path):
    (tmp_path / "results").mkdir()
    with open(tmp_path / "results/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="results: another run is using it"):
            start().claim()
    start().claim()


def test_results_of_other_settings_go(start, tmp_path):
    start().claim()
    old = tmp_path / "results" / "fna" / "metrics.json"
    old.parent.mkdir()
    old.write_text("{}")
    start().claim()
    assert old.is_file() and shown(tmp_path) == []
    start("randomness.seed=1").claim()
    assert not old.parent.exists() and "starting anew" in shown(tmp_path)[0]
    start("randomness.seed=1").claim()
    start("randomness.seed=1", data_root="elsewhere").claim()
    assert len(shown(tmp_path)) == 2


def test_what_is_no_quickstarts_stays(start, tmp_path):
    mine = tmp_path / "results" / "mine"
    mine.mkdir(parents=True)
    with pytest.raises(InputError, match="holds other things"):
        start().claim()
    assert mine.is_dir()


def test_settings_of_a_step_come_last(start):
    run = start("randomness.seed=1", "model.backbone.init_cfg.seed=x", data_root="d")
    assert run._options("model.backbone.init_cfg=None") == [
        "--data-root", "d", "--cfg-options",
        "randomness.seed=1", "model.backbone.init_cfg.seed=x", "model.backbone.init_cfg=None",
    ]  # fmt: skip
    assert start()._options() == []


@pytest.mark.parametrize(
    "arguments, mistake",
    [
        (["retinanet"], "retinanet"),
        (["det", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["all", "--work-dir", "x"], "cannot share a folder"),
    ],
)
def test_mistakes(arguments, mistake, monkeypatch):
    monkeypatch.setattr("sys.argv", ["quickstart", *arguments])
    with pytest.raises(InputError, match=mistake):
        quickstart.main()


def test_another_random_seed_has_its_own_folder():
    assert [str(quickstart.default_work_dir(*each)) for each in (("det", 0), ("seg", 2))] == [
        "work_dirs/quickstart",
        "work_dirs/quickstart_seg_seed2",
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_continues(toy_city, seed_file, tmp_path):
    results = tmp_path / "results"
    arguments = ["--data-root", str(toy_city), "--work-dir", str(results), "--cfg-options"]
    search = Config.fromfile(REPO / "configs/fna_det/retinanet_arch_adapt_toy.py")
    arguments += [f"model.backbone.init_cfg.seed={seed_file}"]
    arguments += [f"train_cfg.max_epochs={search.train_cfg.arch_start_epoch + 1}"]

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    command = [sys.executable, "-m", "engine.quickstart", "det", *arguments]
    process = subprocess.Popen(command, cwd=REPO, stdout=slave, stderr=slave)
    os.close(slave)
    terminal = ""
    while "4/7" not in terminal or "training" not in terminal.rpartition("4/7")[2]:
        terminal += os.read(master, 10_000).decode()
    (step,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    os.close(master)
    assert re.search(
        r"3/7  search \(architecture adaptation\)  done in \d:\d\d  alpha at", terminal
    )
    assert re.search(r"training \d/\d+  eta 0:\d\d  loss \d.\d\d  alpha \d+% of uniform", terminal)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{step}").exists() and "Z" not in Path(f"/proc/{step}/stat").read_text():
        assert time.monotonic() < deadline, "the step outlives its parent"

    done = run_script("quickstart", "det", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[5].startswith("3/7  search (architecture adaptation)  already there: alpha at")
    names = ["MobileNetV2, remapped", "FNA, remapped", "found, remapped", "FNA, random weights"]
    for number, name in enumerate(names, 4):
        begun, ended = (line for line in lines if line.startswith(f"{number}/7"))
        assert begun == f"{number}/7  {name}: parameter adaptation  ..."
        assert re.fullmatch(rf"{re.escape(begun[:-3])}done in \d:\d\d  AP \S+, AP50 \S+", ended)
    table = done.stdout.partition("\nnetwork ")[2].splitlines()[1:5]
    assert [
        line.split("  ")[0].partition(" ")[0] for line in table
    ] == "MobileNetV2 FNA found FNA".split()
    assert "search undecided" in table[2]  # after so few steps
    assert "the published one's" in done.stdout
    for picture in ("predictions.png", "architecture.png"):
        assert f"{results}/{picture}" in done.stdout
        assert Image.open(results / picture).width > 800
    for log, script in (("search", "arch_adapt"), ("fna_random", "param_adapt")):
        typed, *_ = (results / f"{log}.log").read_text().splitlines()
        assert typed.startswith(
            f"$ sh scripts/{script}.sh configs/fna_det/retinanet_{script}_toy.py 1 "
        )
