"""RetinaNet as the real configs build it: the paper's numbers, shapes, box codings."""

import pytest
import torch

from engine.model import build_model
from models import count_madds, count_params
from tests.conftest import REPO, SEEDS_OWN

PAPER = [  # params in millions, MAdds in billions at 800x1088 (paper, table 3)
    ("retinanet_param_adapt_coco", None, 11.73, 133.03),
    ("retinanet_param_adapt_coco_legacy", None, 11.73, 133.03),
    ("retinanet_param_adapt_coco", SEEDS_OWN, 11.49, 133.05),
]


@pytest.mark.parametrize(("name", "options", "params", "madds"), PAPER)
def test_cost_is_the_papers_to_the_last_digit(name, options, params, madds, monkeypatch):
    monkeypatch.chdir(REPO)
    model, cfg = build_model(f"configs/fna_det/{name}.py", options=options)
    assert f"{count_params(model) / 1e6:.2f}" == f"{params:.2f}"
    assert tuple(cfg.input_size) == (800, 1088)
    assert f"{count_madds(model, cfg.input_size) / 1e9:.2f}" == f"{madds:.2f}"


def test_settings_of_the_paper(monkeypatch):
    """What the paper's schedule says, read back from the config of the real run."""
    monkeypatch.chdir(REPO)
    _, cfg = build_model("configs/fna_det/retinanet_param_adapt_coco.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", 0.05, 0.9)
    assert optimizer.weight_decay == 5e-5
    assert cfg.optim_wrapper.clip_grad.max_norm == 35
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 4 * 8
    assert cfg.train_cfg.max_epochs == 12 and cfg.sync_bn == "torch"
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1 / 3, 500, False)
    assert (steps.milestones, steps.gamma) == ([8, 11], 0.1)


def test_settings_of_architecture_adaptation(monkeypatch):
    monkeypatch.chdir(REPO)
    model, cfg = build_model("configs/fna_det/retinanet_arch_adapt_coco.py")
    weights, arch = cfg.optim_wrapper.weights, cfg.optim_wrapper.arch
    assert weights.optimizer == dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4)
    assert arch.optimizer == dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    assert weights.clip_grad.max_norm == arch.clip_grad.max_norm == 35
    loop = cfg.train_cfg
    assert (loop.max_epochs, loop.arch_start_epoch) == (14, 8)
    assert (loop.arch_steps, loop.weight_steps, loop.split.ratio) == (1, 1, 0.5)
    assert loop.cost == dict(type="MAdds", weight=0.02, base=10, scale=1, input_size=(800, 1088))
    assert [step.type for step in loop.arch_pipeline] == [
        "LoadImageFromFile", "LoadAnnotations", "Resize", "PackDetInputs"
    ]  # fmt: skip
    assert cfg.train_dataloader.batch_size == 1 and cfg.auto_scale_lr.base_batch_size == 8
    assert "sync_bn" not in cfg
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1 / 3, 500, False)
    assert (steps.milestones, steps.gamma) == ([8, 11], 0.1)
    layers = model.backbone.mixed_layers
    assert [len(layer.candidates) for layer in layers] == [6, 7, 7, 7] * 5 + [6]
    assert all(layer.temperature == 1 for layer in layers)


@pytest.mark.parametrize("name", ["param_adapt", "arch_adapt"])
def test_settings_of_the_model_and_the_data(name, monkeypatch):
    monkeypatch.chdir(REPO)
    _, cfg = build_model(f"configs/fna_det/retinanet_{name}_coco.py")
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.bgr_to_rgb
    assert preprocessor.std == [58.395, 57.12, 57.375] and preprocessor.pad_size_divisor == 32
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps["Resize"].scale == (1333, 800) and steps["Resize"].keep_ratio
    assert steps["RandomFlip"].prob == 0.5
    head, train, test = (cfg.model[key] for key in ("bbox_head", "train_cfg", "test_cfg"))
    anchors = head.anchor_generator
    assert (anchors.octave_base_scale, anchors.scales_per_octave) == (4, 3)
    assert anchors.ratios == [0.5, 1, 2] and head.stacked_convs == 4
    assert (head.loss_cls.gamma, head.loss_cls.alpha, head.loss_bbox.beta) == (2, 0.25, 0.11)
    assigner = train.assigner
    assert (assigner.pos_iou_thr, assigner.neg_iou_thr, assigner.min_pos_iou) == (0.5, 0.4, 0)
    assert (test.score_thr, test.nms_pre, test.max_per_img) == (0.05, 1000, 100)
    assert test.nms.iou_threshold == 0.5


def test_pyramid_starts_at_stride_8_and_extends_from_the_input(monkeypatch):
    monkeypatch.chdir(REPO)
    model, _ = build_model("configs/fna_det/retinanet_param_adapt_coco.py")
    levels = model.extract_feat(torch.empty(1, 3, 256, 320, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (256, 32, 40), (256, 16, 20), (256, 8, 10), (256, 4, 5), (256, 2, 3)
    ]  # fmt: skip
    # on_input: the first extra conv reads the backbone's 320 channels
    assert model.neck.fpn_convs[3].conv.in_channels == 320


def test_legacy_coding_counts_widths_one_more(monkeypatch):
    monkeypatch.chdir(REPO)
    model, _ = build_model("configs/fna_det/retinanet_param_adapt_coco_legacy.py", device="cpu")
    coder = model.bbox_head.bbox_coder
    anchor = torch.tensor([[10.0, 20.0, 29.0, 59.0]])  # 20 wide and 40 high when counted so
    double = torch.tensor([[0.0, 20.0, 39.0, 59.0]])  # 40 wide
    expected = torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    expected[:, 2:] = expected[:, 2:].log()
    torch.testing.assert_close(coder.encode(anchor, double), expected)
    # decoding, mmdet's keeps the +1 in the width: half a pixel outside on every side
    torch.testing.assert_close(
        coder.decode(anchor, torch.zeros(1, 4)), anchor + torch.tensor([-0.5, -0.5, 0.5, 0.5])
    )
    anchors = model.bbox_head.prior_generator.gen_base_anchors()[0]
    # mmdet 0.x centred anchors of stride 8 at (8 - 1) / 2, corners rounded to whole pixels
    assert ((anchors[:, :2] + anchors[:, 2:]) / 2 == 3.5).all()
