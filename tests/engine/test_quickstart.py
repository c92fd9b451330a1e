"""The quickstart, and a whole run of it."""

import json
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

from datasets.toy_city import PARAMETERS_FILE, write_dataset
from engine import quickstart
from engine.quickstart import TASKS, Quickstart
from engine.steps import Steps
from models import InputError
from tests.conftest import REPO
from tests.processes import run_script


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Makes a quickstart in a folder of the test's; what it says is in the file ``screen``."""
    monkeypatch.chdir(REPO)
    with open(tmp_path / "screen", "w") as screen:
        yield lambda *settings, data_root=None: Quickstart(
            TASKS["det"], tmp_path / "results", data_root, settings, screen
        )


def test_results_of_other_settings_go(start, tmp_path):
    start().claim()
    old = tmp_path / "results" / "fna" / "metrics.json"
    old.parent.mkdir()
    old.write_text("{}")
    start().claim()
    assert old.is_file() and (tmp_path / "screen").read_text() == ""
    start("randomness.seed=1").claim()
    assert not old.parent.exists() and "starting anew" in (tmp_path / "screen").read_text()
    start("randomness.seed=1").claim()
    start("randomness.seed=1", data_root="elsewhere").claim()
    assert (tmp_path / "screen").read_text().count("\n") == 2


def test_scenes_of_another_version_are_drawn_anew_in_one_line(start, tmp_path, monkeypatch):
    root = tmp_path / "city"
    write_dataset(root, num_train=1, num_val=1, size=(64, 64))
    file = root / PARAMETERS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 1}))

    def call(steps, name, command):  # test_toy_city draws
        if name != "data":
            raise InputError("enough")

    monkeypatch.setattr(quickstart, "_TOY_CITY", str(root))
    monkeypatch.setattr(Steps, "call", call)
    with pytest.raises(InputError, match="enough"):
        start().run()
    _, begun, ended, *_ = (tmp_path / "screen").read_text().splitlines()
    assert begun == "1/7  data set  ..."
    assert ended == f"1/7  data set  done in 0:00  drawn anew: {root} was of another version"


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


def children(process: int | str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def is_zombie(process: str) -> bool:
    try:
        return "Z" in Path(f"/proc/{process}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):  # it is gone
        return True


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
    steps = children(process.pid)
    steps += [each for step in steps for each in children(step)]
    assert len(steps) >= 2  # a step's process and that of its command
    process.kill()
    process.wait()
    os.close(master)
    assert re.search(
        r"3/7  search \(architecture adaptation\)  done in \d:\d\d  alpha at", terminal
    )
    assert re.search(r"training \d/\d+  eta 0:\d\d  loss \d.\d\d  alpha \d+% of uniform", terminal)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{step}").exists() and not is_zombie(step) for step in steps):
        assert time.monotonic() < deadline, "a step outlives its parent"

    done = run_script("quickstart", "det", *arguments, new=True)
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
