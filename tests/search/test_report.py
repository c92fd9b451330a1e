import json
import math
import subprocess
import sys
from argparse import Namespace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import load_config
from models import CostTerm, FNABackbone, NetConfig, count_madds, count_params
from search.entropy import mean_entropy, undecided
from search.pictures import draw_alpha, draw_architectures, to_png
from search.report import ArchReport
from tests.conftest import REPO, net_config_file

from .tools import CANDIDATES, make_runner, skip_pictures


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished run."""
    visualizer = dict(type="Visualizer", vis_backends=[dict(type="TensorboardVisBackend")])
    runner = make_runner(tmp_path_factory.mktemp("searched"), visualizer=visualizer)
    runner.train()
    return runner


def folder(runner) -> Path:
    return Path(runner.work_dir)


def test_the_architecture_is_written_in_the_released_form(searched):
    text = (folder(searched) / "net_config.txt").read_text()
    derived = searched.model.backbone.derive()
    assert text == f"{derived}\n"
    assert NetConfig.parse(folder(searched) / "net_config.txt") == derived


def test_alpha_is_written_after_every_epoch(searched):
    record = json.loads((folder(searched) / "alpha.json").read_text())
    assert record["search_space"] == {
        "2.0": CANDIDATES[:2],
        "2.1": CANDIDATES,
        "3.0": CANDIDATES[:2],
        "3.1": CANDIDATES,
    }
    assert len(record["alpha"]) == 3
    first, _, last = record["alpha"]
    assert first != last
    for alpha, values in zip(searched.model.backbone.alphas(), last, strict=True):
        assert torch.equal(alpha.detach(), torch.tensor(values))
    assert record["undecided"] == undecided(searched.model.backbone)


def test_pictures_are_written(searched):
    for name in ("architecture.png", "alpha.png"):
        height, width, _ = imread(folder(searched) / name).shape
        assert height > 200 and width > 200
    assert not list(folder(searched).glob("*.tmp"))


def test_scalars_are_logged(searched):
    names = "loss task_loss cost cost_share".split()
    names = [f"arch_{name}" for name in names] + [
        "alpha_entropy",
        "alpha_undecided",
        "alpha_changed",
    ]
    log = (folder(searched) / searched.timestamp / f"{searched.timestamp}.log").read_text()
    events = EventAccumulator(str(folder(searched) / searched.timestamp / "vis_data"))
    events.Reload()
    for name in names:
        assert f"  {name}: " in log
        values = [event.value for event in events.Scalars(f"{name}")]
        assert len(values) == 4 and all(map(math.isfinite, values))  # two an epoch, of two epochs
    assert "arch_grad_norm" in log and "  grad_norm" in log
    assert log.count("lambda 0.1, tau 10, gamma 2, cost in 100000 MAdds at 16x16") == 1
    assert "Architecture after epoch 3: backbone " in log


def test_the_share_of_the_cost_in_the_loss(searched):
    hub = MessageHub.get_instance(searched.experiment_name)
    last = {
        name: hub.get_scalar(f"train/arch_{name}").current()
        for name in ("loss", "task_loss", "cost", "cost_share")
    }
    term = 0.1 * math.log10(2 * last["cost"])
    assert last["loss"] == pytest.approx(last["task_loss"] + term, abs=1e-6)
    assert last["cost_share"] == pytest.approx(term / last["loss"], rel=1e-4)


def test_the_mean_entropy(searched):
    backbone = make_runner(folder(searched) / "entropy").model.backbone
    with torch.no_grad():
        for alpha in backbone.alphas():
            alpha.zero_()
    assert mean_entropy(backbone) == pytest.approx((math.log(2) + math.log(3)) / 2)
    assert undecided(backbone) == pytest.approx(1)
    with torch.no_grad():
        for alpha in backbone.alphas()[::2]:  # the layers of two candidates
            alpha[0] = 1000
    assert undecided(backbone) == pytest.approx(math.log(3) / math.log(6))
    with torch.no_grad():
        for alpha in backbone.alphas():
            alpha[0] = 1000
    assert mean_entropy(backbone) == undecided(backbone) == 0
    with torch.no_grad():
        for alpha in backbone.alphas():
            alpha.zero_()
            alpha[0] = 1
    backbone.set_temperature(0.5)
    shares = [[math.exp(2), 1], [math.exp(2), 1, 1]]  # of e^(1 / 0.5) and e^0
    entropies = [-sum(s / sum(each) * math.log(s / sum(each)) for s in each) for each in shares]
    assert mean_entropy(backbone) == pytest.approx(sum(entropies) / 2)
    assert undecided(backbone) == pytest.approx(sum(entropies) / math.log(6))


def test_changes_are_counted_from_line_to_line(tmp_path):
    runner = make_runner(tmp_path)
    report = runner.train_loop.report
    report.arch_start_epoch = 0
    alphas = runner.model.backbone.alphas()
    counts = []
    for step, favourites in enumerate([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 2, 0, 0]]):
        with torch.no_grad():
            for alpha, favourite in zip(alphas, favourites, strict=True):
                alpha.zero_()
                alpha[favourite] = 1
        if step == 0:
            report.reported = report._choices()
        numbers, line = runner.log_processor.get_log_after_iter(runner, step, "train")
        counts.append(numbers["alpha_changed"])
        assert f"alpha_changed: {counts[-1]}" in line
    assert counts == [0, 1, 0, 2]


def test_changes_of_a_run_whose_epochs_are_lines(tmp_path, monkeypatch):
    """mmengine writes one line per epoch where its interval is longer."""
    skip_pictures(monkeypatch)
    runner = make_runner(tmp_path, default_hooks=dict(logger=dict(type="LoggerHook", interval=50)))
    runner.train()
    first, second, third = (
        [max(range(len(alpha)), key=alpha.__getitem__) for alpha in alphas]
        for alphas in runner.train_loop.report.history
    )
    changes = [
        sum(one != other for one, other in zip(before, after, strict=True))
        for before, after in ((first, second), (second, third))
    ]
    logged, _ = runner.message_hub.get_scalar("train/alpha_changed").data
    assert logged.tolist() == changes and sum(changes) > 0


def test_sizes_are_the_published_ones():
    """RetinaNet's rows of the paper's table, from a report on the super network."""
    init_default_scope("mmdet")
    cfg = Config.fromfile(REPO / "configs/fna_det/retinanet_arch_adapt_coco.py")
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    term = CostTerm.from_cfg(cfg.train_cfg.cost)
    report = ArchReport(model, term, [], net_config_file("mobilenetv2"), 8, {})
    text = report.compare(NetConfig.parse(net_config_file("retinanet")))
    derived, seed = text.split("; the seed's: ")
    assert "whole model 11.732M params 133.030B MAdds, at 800x1088" in derived
    assert "whole model 11.488M params 133.053B MAdds" in seed
    assert type(model.backbone).__name__ == "FNASuperNet"
    assert list(model.backbone.search_space.candidates)[:5] == ["2.0", "2.1", "2.2", "2.3", "3.0"]


def test_another_search_space_is_compared_with_the_seeds_backbone(searched):
    report = searched.train_loop.report
    text = report.compare(searched.model.backbone.derive())
    seed = FNABackbone(net_config_file("mobilenetv2"))
    cost = f"{count_params(seed) / 1e6:.3f}M params {count_madds(seed, (16, 16)) / 1e9:.3f}B MAdds"
    assert text.endswith(f", at 16x16; the seed's: backbone {cost}")


def test_pictures_of_any_architecture():
    published = NetConfig.parse(net_config_file("deeplabv3"))
    wide = NetConfig.parse("[[32, 16], ['k3_e1'], 1]|[[16, 24], ['k11_e4', 'skip'], 2]")
    figure = draw_architectures({"wide": wide, "published": published})
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for expected in ("11x11\ne4", "skip", "7x7\ne6", "24 channels\nstride 4"):
        assert expected in texts
    assert [axes.get_title("left") for axes in figure.axes] == [
        "wide: 2 layers",
        "published: 20 layers",
    ]
    assert imread(BytesIO(to_png(figure))).shape[2] == 4


def test_picture_of_one_epoch():
    figure = draw_alpha({"2.0": ["a", "b"], "3.0": ["a"]}, [[[0.3, 0.7], [1.0]]], 0)
    titles = {axes.get_title() for axes in figure.axes}
    assert {"stage 2 layer 1: b 0.70", "stage 3 layer 1: a 1.00"} <= titles
    to_png(figure)


CONFIG = """
_base_ = "{repo}/configs/fna_det/retinanet_arch_adapt_coco.py"
metainfo = dict(classes={classes})
data_root = "{data}/"
load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
resize = dict(type="Resize", scale=(128, 64), keep_ratio=True)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(
        metainfo=metainfo, data_root=data_root, filter_cfg=None,
        pipeline=[*load, resize, dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs")],
    ),
)
model = dict(
    backbone=dict(layers=[2, 2, 1, 1, 1, 1], ops=["k3_e3", "k5_e6", "skip"],
                  init_cfg=dict(seed="{seed}")),
    neck=dict(out_channels=16),
    bbox_head=dict(num_classes={count}, in_channels=16, feat_channels=16, stacked_convs=1),
)
train_cfg = dict(
    max_epochs=2, arch_start_epoch=1, arch_pipeline=[*load, resize, dict(type="PackDetInputs")],
    cost=dict(input_size=(64, 128)),
)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.mark.slow
def test_a_search_on_the_embedded_data_feeds_parameter_adaptation(toy_city, seed_file, tmp_path):
    annotations = json.loads((toy_city / "annotations/instances_train2017.json").read_text())
    classes = tuple(category["name"] for category in annotations["categories"])
    config, work_dir = tmp_path / "search.py", tmp_path / "results"
    settings = dict(repo=REPO, data=toy_city, seed=seed_file, classes=classes, count=len(classes))
    config.write_text(CONFIG.format(**settings))
    command = ["engine.launch", "engine.train", "unused", "8", str(config), "0"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--work-dir", str(work_dir), "--amp"],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "alpha_entropy" in done.stdout + done.stderr
    for name in ("net_config.txt", "alpha.json", "architecture.png", "alpha.png", "epoch_2.pth"):
        assert (work_dir / name).is_file()

    cfg = load_config(
        Namespace(
            config="configs/fna_det/retinanet_param_adapt_coco.py",
            net_config=str(work_dir / "net_config.txt"),
            work_dir=None, data_root=None, cfg_options=None, launcher="none", local_rank=0,
        )
    )  # fmt: skip
    cfg.model.backbone.init_cfg.seed = str(seed_file)
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    model.backbone.init_weights()
    assert str(model.backbone.net_config) == (work_dir / "net_config.txt").read_text().strip()
    assert count_madds(model, (64, 128)) > 0
