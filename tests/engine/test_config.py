import argparse
import os
import sys

import pytest
import torch

from engine import launch
from engine.config import OneLineParser, add_arguments, load_config
from engine.summary import format_table, read_row
from models import InputError, NetConfig
from tests.conftest import ARCHITECTURES, REPO, net_config_file

TOY = "configs/fna_det/retinanet_fna_toy.py"


@pytest.fixture(autouse=True)
def stay_here(monkeypatch):
    """load_config changes the current folder and the environment; put both back."""
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setenv("LOCAL_RANK", "0")


def load(*arguments):
    parser = OneLineParser()
    add_arguments(parser)
    return load_config(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_net_config_as_file_and_as_text(name, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text(net_config_file(name).read_text())
    monkeypatch.chdir(tmp_path)
    expected = str(NetConfig.parse(net_config_file(name)))
    assert load(TOY, "--net-config", "mine.txt").model.backbone.net_config == expected
    assert load(TOY, "--net-config", expected).model.backbone.net_config == expected
    # a path of the repository, from another folder
    path = f"configs/net_configs/{name}.txt"
    assert load(TOY, "--net-config", path).model.backbone.net_config == expected


def test_data_root_moves_every_path(tmp_path):
    cfg = load("configs/fna_det/retinanet_fna_param_adapt.py", "--data-root", tmp_path)
    for split in ("train", "val", "test"):
        assert cfg[f"{split}_dataloader"].dataset.data_root == f"{tmp_path}/"
    for split in ("val", "test"):
        expected = f"{tmp_path}/annotations/instances_val2017.json"
        assert cfg[f"{split}_evaluator"].ann_file == expected


def test_work_dir_is_named_after_the_config_or_where_the_user_says(tmp_path, monkeypatch):
    assert load(TOY).work_dir == "work_dirs/retinanet_fna_toy"
    monkeypatch.chdir(tmp_path)
    assert load(TOY, "--work-dir", "out").work_dir == str(tmp_path / "out")


def test_options_override_the_config():
    cfg = load(TOY, "--cfg-options", "train_cfg.max_epochs=7", "model.backbone.init_cfg=None")
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize(
    "content, message",
    [
        ("_base_ = 'none.py'", "none.py"),
        ("model = dict(", "SyntaxError"),
        ("model = undefined", "undefined"),
    ],
)
def test_broken_configs_are_one_line(content, message, tmp_path):
    config = tmp_path / "broken.py"
    config.write_text(content)
    with pytest.raises(InputError) as error:
        load(config)
    assert message in str(error.value) and "broken.py" in str(error.value)


@pytest.mark.parametrize("config", sorted(p.name for p in (REPO / "configs/fna_det").glob("*.py")))
def test_every_config_loads(config):
    cfg = load(f"configs/fna_det/{config}")
    assert cfg.model.backbone.type in ("FNABackbone", "FNASuperNet")
    dataset = cfg.train_dataloader.dataset
    assert dataset.get("dataset", dataset).data_root == cfg.data_root


def launched(monkeypatch, *arguments, gpus=0):
    """What launch would start: (processes, arguments)."""
    started = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(launch, "start_processes", lambda n: started.append((n, sys.argv)))
    entry = argparse.Namespace(main=lambda: started.append((1, sys.argv)))
    monkeypatch.setattr(launch.importlib, "import_module", lambda name: entry)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(launch.os, "execv", lambda *_: started.append((0, sys.argv)))
    monkeypatch.setattr(sys, "argv", ["launch", "engine.train", "default.py", "8", *arguments])
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


def test_summary_of_a_tested_network(tmp_path):
    (tmp_path / "metrics.json").write_text(
        '{"params": 11732244, "madds": 133029704376, "coco/bbox_mAP": 0.339, '
        '"coco/bbox_mAP_50": 0.5}'
    )
    row = read_row("FNA", str(tmp_path))
    assert row == {
        "network": "FNA", "params": "11.73M", "MAdds": "133.03B", "AP": "0.339", "AP50": "0.500"
    }  # fmt: skip
    head, line = format_table([row]).splitlines()
    assert head.split() == list(row) and line.split() == list(row.values())
    assert len(head) == len(line)
    other = format_table([row, {"network": "x", "params": "1M", "mIoU": "0.5"}]).splitlines()
    assert other[2].split() == ["x", "1M", "-", "-", "-", "0.5"]
    with pytest.raises(InputError, match="no metrics there"):
        read_row("FNA", str(tmp_path / "none"))


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_number_of_processes_must_be_one(monkeypatch, value):
    monkeypatch.setenv("PROCESSES", value)
    with pytest.raises(InputError, match="PROCESSES"):
        launched(monkeypatch, "a.py", "0")


@pytest.mark.parametrize("option", ["foo", "train_pipeline.9.scale=3"])
def test_bad_options_are_one_mistake(option):
    with pytest.raises(InputError, match="--cfg-options") as error:
        load(TOY, "--cfg-options", option)
    assert "\n" not in str(error.value)
