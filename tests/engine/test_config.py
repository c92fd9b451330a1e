import os
import sys

import pytest
import torch

from engine import train
from engine.config import OneLineParser, add_arguments, load_config
from models import InputError, NetConfig
from tests.conftest import ARCHITECTURES, REPO, net_config_file

TOY = "configs/fna_det/retinanet_param_adapt_toy.py"


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
    cfg = load("configs/fna_det/retinanet_param_adapt_coco.py", "--data-root", tmp_path)
    for split in ("train", "val", "test"):
        assert cfg[f"{split}_dataloader"].dataset.data_root == f"{tmp_path}/"
    stated = "val_evaluator.ann_file=data/coco/annotations/instances_val2017.json"
    cfg = load(
        "configs/fna_det/retinanet_param_adapt_coco.py",
        "--data-root", tmp_path, "--cfg-options", stated,
    )  # fmt: skip
    assert cfg.val_evaluator.ann_file == f"{tmp_path}/annotations/instances_val2017.json"


def test_work_dir_is_named_after_the_config_or_where_the_user_says(tmp_path, monkeypatch):
    assert load(TOY).work_dir == "work_dirs/retinanet_param_adapt_toy"
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


@pytest.mark.parametrize(
    "config", sorted(str(p.relative_to(REPO)) for p in REPO.glob("configs/fna_*/*.py"))
)
def test_every_config_loads(config):
    cfg = load(config)
    assert cfg.model.backbone.type in ("FNABackbone", "FNASuperNet")
    dataset = cfg.train_dataloader.dataset
    assert dataset.get("dataset", dataset).data_root == cfg.data_root


@pytest.mark.parametrize("option", ["foo", "train_pipeline.9.scale=3"])
def test_bad_options_are_one_mistake(option):
    with pytest.raises(InputError, match="--cfg-options") as error:
        load(TOY, "--cfg-options", option)
    assert "\n" not in str(error.value)


ADAPTATIONS = sorted((REPO / "configs").glob("fna_*/*_param_adapt_*.py"))


@pytest.mark.parametrize("path", ADAPTATIONS, ids=lambda path: path.stem)
def test_the_best_checkpoint_is_kept_by_the_tasks_figure(path):
    cfg = load(path)
    assert cfg.default_hooks.checkpoint.save_best == next(iter(cfg.headline))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("options", [[], ["--amp"], ["--auto-scale-lr"]])
def test_options_of_training_reach_the_runner(options, gpu, tmp_path, monkeypatch):
    built = []

    def build(cfg):
        built.append(cfg)
        raise Stopped

    monkeypatch.setattr(train, "build_runner", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    arguments = ["configs/fna_det/retinanet_param_adapt_coco.py", "--work-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["engine.train", *arguments, *options])
    with pytest.raises(Stopped):
        train.main()
    (cfg,) = built
    mixed = "AmpOptimWrapper" if gpu else "CPUAmpOptimWrapper"
    assert cfg.optim_wrapper.type == (mixed if options == ["--amp"] else "OptimWrapper")
    assert cfg.optim_wrapper.get("loss_scale") == (
        "dynamic" if gpu and "--amp" in options else None
    )
    assert cfg.auto_scale_lr.enable is (options == ["--auto-scale-lr"])


def test_a_learning_rate_that_cannot_be_scaled(tmp_path, monkeypatch):
    arguments = [TOY, "--work-dir", str(tmp_path / "run"), "--auto-scale-lr"]
    arguments += ["--cfg-options", "auto_scale_lr._delete_=True", "auto_scale_lr.enable=False"]
    monkeypatch.setattr(sys, "argv", ["engine.train", *arguments])
    with pytest.raises(InputError, match="has no auto_scale_lr.base_batch_size"):
        train.main()
    assert not (tmp_path / "run").exists()
