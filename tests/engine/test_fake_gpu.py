"""Steps on a GPU that is not there: fake tensors have shapes and devices, but no numbers.

An operation that mixes devices fails, as it would on a GPU. Only forward passes can run so, because
backward asks the driver. Left out is what depends on numbers: mmdet's assigners, SSD's choice of
hard negatives, mmseg's accuracy.
"""

from unittest import mock

import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import task_loss
from engine.model import build_model
from models import CostTerm, FNASuperNet, expected_cost

SEARCHES = [
    "configs/fna_det/retinanet_arch_adapt_coco.py",
    "configs/fna_det/ssdlite_arch_adapt_coco.py",
    "configs/fna_seg/deeplabv3_arch_adapt_cityscapes.py",
]
ADAPTATIONS = [
    "configs/fna_det/retinanet_param_adapt_coco.py",
    "configs/fna_det/ssdlite_param_adapt_coco.py",
    "configs/fna_seg/deeplabv3_param_adapt_cityscapes.py",
    "configs/fna_seg/deeplabv3plus_os16_param_adapt_cityscapes.py",
    "configs/fna_seg/deeplabv3plus_os8_param_adapt_cityscapes.py",
]


@pytest.fixture
def fake():
    with FakeTensorMode():
        yield


def on_gpu(path: str):
    """The model of a config on the GPU, as `.to` would bring it there, and the config.

    What is no parameter and no buffer stays on the CPU. (`.to` itself refuses fake tensors.)
    """
    model, cfg = build_model(path, "cpu")
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().to("cuda")))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to("cuda"))
    return model.train(), cfg


def images() -> Tensor:
    return torch.empty(2, 3, 64, 96, device="cuda")


def prices_of(backbone: FNASuperNet) -> Tensor:
    """Of a price list's shape; test_supernet sees to its device."""
    sizes = [len(alpha) for alpha in backbone.alphas()]
    return torch.empty(len(sizes), max(sizes), dtype=torch.double, device="cuda")


def step(model: nn.Module, cfg, path: list[int] | None) -> Tensor:
    """What a step computes before backward; an architecture step has no path."""
    model.backbone.set_path(path)
    loss = task_loss(model, images())
    if path is None:
        cost = CostTerm.from_cfg(cfg.train_cfg.cost)
        loss = loss + cost(expected_cost(model.backbone, prices_of(model.backbone))).to(loss)
    return loss


@pytest.mark.slow
@pytest.mark.parametrize("path", SEARCHES)
def test_both_steps_of_a_search_stay_on_the_gpu(fake, path):
    model, cfg = on_gpu(path)
    layers = len(model.backbone.mixed_layers)
    for choice in (None, [0] * layers):
        loss = step(model, cfg, choice)
        assert loss.device.type == "cuda" and loss.shape == () and loss.requires_grad
    for layer in model.backbone.mixed_layers:
        layer.with_cp = True
    assert step(model, cfg, None).device.type == "cuda"


def stray_alpha(model: nn.Module) -> None:
    layer = model.backbone.mixed_layers[3]
    layer.alpha = nn.Parameter(torch.empty(len(layer.candidates)))


def stray_weight(model: nn.Module) -> None:
    conv = model.backbone.mixed_layers[0].ops["k3_e3"].project[0]
    conv.weight = nn.Parameter(torch.empty(conv.weight.shape))


def stray_buffer(model: nn.Module) -> None:
    model.backbone._places = torch.empty(model.backbone._places.shape, dtype=torch.long)


@pytest.mark.parametrize("leave", [stray_alpha, stray_weight, stray_buffer])
def test_what_is_left_on_the_cpu_fails(fake, leave):
    model, cfg = on_gpu(SEARCHES[0])
    leave(model)
    with pytest.raises(RuntimeError, match="device"):
        step(model, cfg, None)


def test_prices_on_the_cpu_fail(fake):
    model, _ = on_gpu(SEARCHES[0])
    with pytest.raises(RuntimeError, match="device"):
        expected_cost(model.backbone, prices_of(model.backbone).cpu())


def test_the_heads_of_ssdlite_stay_on_the_gpu(fake):
    model, _ = on_gpu(ADAPTATIONS[1])
    assert task_loss(model, images()).device.type == "cuda"


def test_the_loss_of_retinanet_takes_the_fast_focal_loss(fake):
    """mmdet's own loss, of targets that stand for the assigner's."""
    model, _ = on_gpu(ADAPTATIONS[0])
    scores, deltas = model.bbox_head(model.extract_feat(images()))
    anchors = [score[0].numel() // 80 for score in scores]
    targets = [
        [torch.empty(2, n, *shape, dtype=dtype, device="cuda") for n in anchors]
        for shape, dtype in (
            ((), torch.long), ((), torch.float), ((4,), torch.float), ((4,), torch.float)
        )
    ]  # fmt: skip
    metas = [dict(img_shape=(64, 96), pad_shape=(64, 96), batch_input_shape=(64, 96))] * 2
    boxes = [InstanceData(bboxes=torch.empty(3, 4, device="cuda"))] * 2
    with (
        mock.patch.object(model.bbox_head, "get_targets", lambda *_, **__: (*targets, 5)),
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch, "any", lambda *_: True),  # mmdet's own look at the GPU's numbers
        mock.patch(
            "mmdet.models.losses.focal_loss.py_sigmoid_focal_loss",
            side_effect=AssertionError("the slow one"),
        ),
    ):
        losses = model.bbox_head.loss_by_feat(scores, deltas, boxes, metas)
    for parts in losses.values():
        assert all(part.device.type == "cuda" and part.shape == () for part in parts)


@pytest.mark.parametrize("path", [SEARCHES[2], *ADAPTATIONS[2:]])
def test_the_loss_of_segmentation_stays_on_the_gpu(fake, path):
    model, _ = on_gpu(path)
    labels = torch.empty(1, 64, 96, dtype=torch.long, device="cuda")
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels))] * 2
    head = model.decode_head
    head.loss_decode.avg_non_ignore = False  # which would count labels, and wait for the GPU
    with mock.patch("mmseg.models.decode_heads.decode_head.accuracy"):
        losses = head.loss(model.extract_feat(images()), samples, model.train_cfg)
    assert losses["loss_ce"].device.type == "cuda"
