"""DeepLabv3 and v3+ as the real configs build them: the paper's numbers, shapes, settings."""

import argparse
import re

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional

from engine.config import add_arguments
from engine.model import build_model
from models import CostTerm, FNABackbone, FNASuperNet, count_madds, count_params
from tests.conftest import REPO, SEEDS_OWN

PAPER = [  # params in millions, MAdds in billions at 1024x2048 (paper, table 1)
    ("deeplabv3_param_adapt_cityscapes", None, 2.47, 24.17),
    ("deeplabv3_param_adapt_cityscapes", SEEDS_OWN, 2.57, 24.52),
    ("deeplabv3plus_os16_param_adapt_cityscapes", None, 5.71, 210.11),
    ("deeplabv3plus_os8_param_adapt_cityscapes", None, 5.71, 313.87),
]


@pytest.fixture(autouse=True)
def in_repo(monkeypatch):
    monkeypatch.chdir(REPO)


@pytest.mark.parametrize(("name", "options", "params", "madds"), PAPER)
def test_cost_is_the_papers_to_the_last_digit(name, options, params, madds):
    model, cfg = build_model(f"configs/fna_seg/{name}.py", options=options)
    assert f"{count_params(model) / 1e6:.2f}" == f"{params:.2f}"
    assert tuple(cfg.input_size) == (1024, 2048)
    assert f"{count_madds(model, cfg.input_size) / 1e9:.2f}" == f"{madds:.2f}"


@pytest.mark.parametrize(
    ("name", "options", "map_stride", "score_stride"),
    [
        ("deeplabv3_param_adapt_cityscapes", None, 16, 16),
        ("deeplabv3_param_adapt_cityscapes", SEEDS_OWN, 16, 16),
        ("deeplabv3plus_os16_param_adapt_cityscapes", None, 16, 4),
        ("deeplabv3plus_os8_param_adapt_cityscapes", None, 8, 4),
    ],
)
def test_maps_have_the_stride_asked_for(name, options, map_stride, score_stride):
    model, _ = build_model(f"configs/fna_seg/{name}.py", options=options)
    images = torch.empty(2, 3, 769, 385, device="meta")
    maps = model.backbone(images)
    # n * stride + 1 pixels, with which align_corners keeps corners in place
    assert maps[-1].shape == (2, 320, 768 // map_stride + 1, 384 // map_stride + 1)
    scores = model.decode_head(maps)
    assert scores.shape == (2, 19, 768 // score_stride + 1, 384 // score_stride + 1)


@pytest.mark.parametrize(("name", "factor"), [("os16", 1), ("os8", 2)])
def test_aspp_reaches_equally_far_at_either_stride(name, factor):
    model, _ = build_model(f"configs/fna_seg/deeplabv3plus_{name}_param_adapt_cityscapes.py")
    dilations = [branch.conv.dilation[0] for branch in model.decode_head.aspp_modules]
    assert dilations == [1, 6 * factor, 12 * factor, 18 * factor]
    assert model.backbone.output_stride * factor == 16


def test_settings_of_parameter_adaptation():
    """What the paper's schedule says, read back from the config of the real run."""
    _, cfg = build_model("configs/fna_seg/deeplabv3_param_adapt_cityscapes.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", 0.01, 0.9)
    assert optimizer.weight_decay == 5e-4 and cfg.sync_bn == "torch"
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 4 * 4
    assert cfg.train_cfg.max_iters == 100_000
    warmup, poly = cfg.param_scheduler
    assert warmup.start_factor * optimizer.lr == pytest.approx(1e-4)
    assert (warmup.begin, warmup.end, warmup.by_epoch) == (0, 5000, False)
    assert (poly.type, poly.power, poly.eta_min) == ("PolyLR", 0.9, 0)
    assert (poly.begin, poly.end, poly.by_epoch) == (5000, 100_000, False)
    assert any(
        hook.type == "UpdateBNStatistics" and hook.iterations == 2000 for hook in cfg.custom_hooks
    )
    assert cfg.test_dataloader.batch_size == 1
    model_test = cfg.model.test_cfg
    assert model_test.mode == "slide" and model_test.crop_size == (769, 769)
    assert model_test.stride[0] == round(769 * 2 / 3)


def test_settings_of_architecture_adaptation():
    model, cfg = build_model("configs/fna_seg/deeplabv3_arch_adapt_cityscapes.py")
    weights, arch = cfg.optim_wrapper.weights, cfg.optim_wrapper.arch
    optimizer = weights.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", 0.02, 0.9)
    assert optimizer.weight_decay == 5e-4
    assert (arch.optimizer.type, arch.optimizer.lr) == ("Adam", 1e-3)
    assert arch.optimizer.weight_decay == 4e-5 and "clip_grad" not in arch
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 16
    train = cfg.train_cfg
    assert (train.max_epochs, train.arch_start_epoch) == (80, 30)
    assert (train.arch_steps, train.weight_steps, train.split.ratio) == (1, 1, 0.2)
    assert (train.cost.weight, train.cost.base, train.cost.scale) == (9e-3, 45, 10)
    assert CostTerm.from_cfg(dict(train.cost)).cost.unit == 1e9
    assert tuple(train.cost.input_size) == (321, 321)
    warmup, cosine = cfg.param_scheduler
    assert warmup.start_factor * optimizer.lr == pytest.approx(1e-4) and warmup.end == 5
    assert (cosine.type, cosine.begin, cosine.end) == ("CosineAnnealingLR", 5, 80)
    assert cosine.eta_min == 1e-3
    backbone = model.backbone
    depths = [len(stage.ops) for stage in backbone.search_space.searched]
    assert depths == [4, 4, 6, 6, 4, 1] and backbone.output_stride == 16
    steps = [step.type for step in train.arch_pipeline]
    assert "RandomFlip" not in steps and "RandomCrop" in steps


@pytest.mark.parametrize("stage", ["arch_adapt", "param_adapt"])
@pytest.mark.parametrize(
    ("option", "init_cfg"),
    [
        ("init_cfg=None", None),
        ("init_cfg.width=bn", dict(width="bn")),
        ("init_cfg.width=std", dict(width="std")),
        ("init_cfg.width=l1", dict(width="l1")),
        ("init_cfg.kernel=dilate", dict(kernel="dilate")),
    ],
)
def test_ablation_changes_the_initial_weights_only(stage, option, init_cfg):
    """The command lines of docs/ablation.md."""
    config = f"configs/fna_seg/deeplabv3_{stage}_cityscapes.py"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([config, "--cfg-options", f"model.backbone.{option}"])
    _, expected = build_model(config)
    model, cfg = build_model(config, options=args.cfg_options)
    if init_cfg is not None:
        init_cfg = expected.model.backbone.init_cfg | init_cfg
    expected.model.backbone.init_cfg = init_cfg
    assert cfg.to_dict() == expected.to_dict()
    assert isinstance(model.backbone, FNASuperNet if stage == "arch_adapt" else FNABackbone)


def test_super_network_dilates_its_candidates_and_its_cost_table():
    """At stride 16 the last stages compute 4 times as many outputs as at 32, each op alike."""
    model, _ = build_model("configs/fna_seg/deeplabv3_arch_adapt_cityscapes.py")
    supernet = model.backbone
    assert supernet(torch.empty(1, 3, 321, 321, device="meta"))[0].shape == (1, 320, 21, 21)
    for stage, dilation in (("5", 1), ("6", 2), ("7", 2)):
        depthwise = [
            module
            for name, module in supernet.named_modules()
            if name.startswith(f"blocks.{stage}.") and getattr(module, "groups", 1) > 1
        ]
        assert depthwise and all(conv.dilation == (dilation, dilation) for conv in depthwise)
        assert all(conv.stride == (1, 1) for conv in depthwise)


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus_os16"])
def test_head_learns_at_ten_times_the_rate_where_asked(name, tmp_path):
    """The page's config: learning rate and decay of each parameter, by its module's kind."""
    page = (REPO / "docs/new_dataset_segmentation.md").read_text()
    (text,) = re.findall(r"^```python\n(_base_ [^`]*head_paramwise[^`]*)^```$", page, re.MULTILINE)
    text = text.replace('"deeplabv3_param', f'"{REPO}/configs/fna_seg/{name}_param')
    path = tmp_path / "config.py"
    path.write_text(text.replace('"../_base_', f'"{REPO}/configs/_base_'))
    model, cfg = build_model(str(path))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    kinds = set()
    for where, module in model.named_modules():
        for which, parameter in module.named_parameters(recurse=False):
            in_head = where.startswith("decode_head")
            decays = not isinstance(module, nn.BatchNorm2d) and which != "bias"
            expected = (0.1 if in_head else 0.01, 5e-4 if decays else 0.0)
            assert found.pop(id(parameter)) == pytest.approx(expected), f"{where}.{which}"
            kinds.add((in_head, type(module), which))
    assert not found and len(kinds) == 7  # head: conv with bias, BN with both; backbone: no bias


def test_a_loss_with_weights_of_classes_leaves_ignored_pixels_out():
    """Against PyTorch's own mean, which is over labelled pixels."""
    weights = [0.5, 2.0, 1.0]
    loss = {"num_classes": 3, "loss_decode.class_weight": weights}
    options = {f"model.decode_head.{key}": value for key, value in loss.items()}
    model, _ = build_model("configs/fna_seg/deeplabv3_param_adapt_cityscapes.py", "cpu", options)
    scores, labels = torch.randn(2, 3, 5, 5), torch.randint(3, (2, 1, 5, 5))
    labels[:, :, :2] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=each)) for each in labels]
    found = model.decode_head.loss_by_feat(scores, samples)["loss_ce"]
    expected = functional.cross_entropy(
        scores, labels[:, 0], torch.tensor(weights), ignore_index=255
    )
    torch.testing.assert_close(found, expected)
