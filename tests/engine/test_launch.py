"""How many processes the scripts start, and with which arguments."""

import argparse
import os
import sys

import pytest
import torch
import torch.distributed.run

from engine import launch
from models import InputError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A copy, because launch writes into it for the processes that it starts."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


def launched(monkeypatch, *arguments, gpus=0, module="engine.train"):
    """What launch would start: (processes, arguments)."""
    started = []
    # as where NVML counts, which honours the environment of the moment
    monkeypatch.setattr(
        torch.cuda,
        "device_count",
        lambda: 0 if os.environ["CUDA_VISIBLE_DEVICES"] == "-1" else gpus,
    )
    monkeypatch.setattr(launch, "start_processes", lambda n: started.append((n, sys.argv)))
    entry = argparse.Namespace(main=lambda: started.append((1, sys.argv)))
    monkeypatch.setattr(launch.importlib, "import_module", lambda name: entry)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch.cuda.device_count() > 0)
    monkeypatch.setattr(launch.os, "execv", lambda *_: started.append((0, sys.argv)))
    monkeypatch.setattr(sys, "argv", ["launch", module, "default.py", "8", *arguments])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch.main()
    return started[0]


def test_launch_reads_config_gpus_and_options(monkeypatch):
    default = ["engine.train", "default.py"]
    assert launched(monkeypatch, gpus=8) == (8, default)
    assert launched(monkeypatch, "--amp", gpus=8) == (8, [*default, "--amp"])
    assert launched(monkeypatch, "a.py", gpus=9) == (8, ["engine.train", "a.py"])
    started = launched(monkeypatch, "a.py", "4", "--work-dir", "7", gpus=4)
    assert started == (4, ["engine.train", "a.py", "--work-dir", "7"])
    assert launched(monkeypatch, "a.py", "1", gpus=0) == (1, ["engine.train", "a.py"])
    # a new process, which sees no GPU from its start
    assert launched(monkeypatch, "a.py", "0", gpus=4) == (0, ["engine.train", "a.py"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    monkeypatch.setenv("PROCESSES", "2")
    assert launched(monkeypatch, "a.py", "0", gpus=4) == (2, ["engine.train", "a.py"])


@pytest.mark.parametrize("asked, there", [("8", 0), ("8", 4), ("2", 0), ("2", 1)])
def test_launch_stops_where_gpus_are_missing(monkeypatch, asked, there):
    with pytest.raises(InputError, match=f"{asked} GPUs asked for, this machine has {there}"):
        launched(monkeypatch, "a.py", asked, gpus=there)


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_number_of_processes_must_be_one(monkeypatch, value):
    monkeypatch.setenv("PROCESSES", value)
    with pytest.raises(InputError, match="PROCESSES"):
        launched(monkeypatch, "a.py", "0")


@pytest.mark.parametrize("gpus", [1, 4])
def test_one_machine_of_several(gpus, monkeypatch):
    """Also where each has one GPU, torchrun starts the processes, which know of the others."""
    for name, value in dict(NNODES=2, NODE_RANK=1, MASTER_ADDR="a", PORT=5).items():
        monkeypatch.setenv(name, str(value))
    started, start = [], launch.start_processes
    monkeypatch.setattr(torch.distributed.run, "main", started.append)
    monkeypatch.setattr(launch.logging, "disable", lambda level: None)
    processes, arguments = launched(monkeypatch, "a.py", str(gpus), gpus=gpus)
    assert processes == gpus
    monkeypatch.setattr(sys, "argv", arguments)
    start(processes)
    where, what = started[0][:-6], started[0][-6:]
    assert where == ["--nnodes=2", "--node-rank=1", "--master-addr=a", "--master-port=5"]
    assert what[0] == f"--nproc-per-node={gpus}"
    assert what[1:] == ["-m", "engine.train", "a.py", "--launcher", "pytorch"]


def test_a_test_takes_the_last_checkpoint(monkeypatch, tmp_path):
    config = "configs/fna_det/retinanet_param_adapt_toy.py"
    folder = tmp_path / "work_dirs/retinanet_param_adapt_toy"
    folder.mkdir(parents=True)
    monkeypatch.setattr(launch, "REPO", tmp_path)
    with pytest.raises(InputError, match="config configs/typo.py: no such file"):
        launched(monkeypatch, "configs/typo.py", "0", module="engine.test")
    with pytest.raises(InputError, match="no checkpoint in .*_adapt_toy; give one after"):
        launched(monkeypatch, config, "0", module="engine.test")
    for number in (1, 2):
        torch.save(dict(state_dict={}, meta=dict(epoch=number)), folder / f"epoch_{number}.pth")
    _, arguments = launched(monkeypatch, config, "0", module="engine.test")
    assert arguments == ["engine.test", config, str(folder / "epoch_2.pth")]
    _, arguments = launched(monkeypatch, config, "b.pth", "0", module="engine.test")
    assert arguments == ["engine.test", config, "b.pth"]


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_memory_of_a_gpu_grows_in_place_unless_the_user_says_otherwise(monkeypatch, name):
    for variable in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(variable, raising=False)
    launched(monkeypatch, "a.py", "0", gpus=1)
    assert "PYTORCH_ALLOC_CONF" not in os.environ
    monkeypatch.setenv(name, "max_split_size_mb:64")
    launched(monkeypatch, "a.py", "1", gpus=1)
    assert os.environ[name] == "max_split_size_mb:64"
    monkeypatch.delenv(name)
    launched(monkeypatch, "a.py", "1", gpus=1)
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ


@pytest.mark.parametrize(
    "name, value", [("NODE_RANK", "x"), ("NODE_RANK", "2"), ("PORT", "0"), ("PORT", "65536")]
)
def test_where_machines_meet_must_be_a_place(name, value, monkeypatch):
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch.logging, "disable", lambda level: None)
    with pytest.raises(InputError, match=f"environment variable {name} is '{value}', expected"):
        launch.start_processes(1)


def test_a_file_that_an_option_names_is_no_config(monkeypatch, tmp_path):
    (tmp_path / "table.json").touch()
    options = ["--batch", "1", "--out", str(tmp_path / "table.json")]
    module = "search.measure_latency"
    assert launched(monkeypatch, "a.py", "0", *options, module=module)[1][1:] == ["a.py", *options]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--amp", "configs/fna_det/retinanet_param_adapt_toy.py", "1"],
        ["--latency", "configs/fna_det/retinanet_param_adapt_toy.py", "1"],
        ["--work-dir", "out", "configs/fna_det/retinanet_param_adapt_toy.py", "1"],
        ["--auto-scale-lr", "1"],
        ["configs/fna_det/retinanet_param_adapt_toy.py", "--amp", "1"],
    ],
)
def test_options_come_last(arguments, monkeypatch):
    with pytest.raises(InputError, match="stands after an option; .* options last"):
        launched(monkeypatch, *arguments)
