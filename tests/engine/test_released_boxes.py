"""Boxes of a released SSDLite file, decoded end to end, against mmdet 0.x's rules written out."""

import math

import pytest
import torch
from mmdet.structures import DetDataSample
from torchvision.ops import box_iou

from engine.compat.safe_load import install_safe_loading
from tests.conftest import REPO
from tests.engine.compat.test_mmcv_ops import slow_nms

from .test_released import CLASSES, load, ssdlite_file, ssdlite_outputs

SIZES = [30, 60, 114, 168, 222, 276, 330]  # each map's, up to the next
STRIDES = [16, 32, 64, 107, 160, 320]
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]


@pytest.fixture(autouse=True)
def in_repo(monkeypatch):
    monkeypatch.chdir(REPO)
    install_safe_loading()


def anchors(level, rows, columns):
    """Row by row, as x1, y1, x2, y2 of pixels: widths are x2 - x1 + 1 before rounding."""
    size, larger = SIZES[level], math.sqrt(SIZES[level] * SIZES[level + 1])
    shapes = [(size, size), (larger, larger)]
    for ratio in RATIOS[level]:
        root = math.sqrt(ratio)
        shapes += [(size * root, size / root), (size / root, size * root)]
    stride, boxes = STRIDES[level], []
    centre = (stride - 1) / 2
    base = [
        [round(centre - (w - 1) / 2), round(centre - (h - 1) / 2),
         round(centre + (w - 1) / 2), round(centre + (h - 1) / 2)]
        for w, h in shapes
    ]  # fmt: skip
    for row in range(rows):
        for column in range(columns):
            shift = [column * stride, row * stride] * 2
            boxes += [[b + s for b, s in zip(box, shift, strict=True)] for box in base]
    return torch.tensor(boxes, dtype=torch.double)


def decode(anchor, delta):
    """The paper's standard deviations; clipped to an image of 320x320, as mmdet 0.x does."""
    size = anchor[:, 2:] - anchor[:, :2] + 1
    centre = (anchor[:, :2] + anchor[:, 2:]) / 2 + size * delta[:, :2] * 0.1
    size = size * (delta[:, 2:] * 0.2).clamp(-math.log(1000 / 16), math.log(1000 / 16)).exp()
    return torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 319)


def test_boxes_of_a_released_file(tmp_path):
    content = ssdlite_file()
    state = content["state_dict"]
    for key, tensor in state.items():  # few and moderate boxes; classes far from each other
        if ".reg_convs." in key and key.endswith((".4.weight", ".4.bias")):
            tensor *= 0.1
        if ".cls_convs." in key and key.endswith(".4.weight"):
            tensor *= 2
    model = load(content, "fna_det/ssdlite_param_adapt_coco_legacy", tmp_path)
    image = torch.randn(1, 3, 320, 320, generator=torch.Generator().manual_seed(1))
    meta = dict(img_shape=(320, 320), ori_shape=(320, 320), scale_factor=(1.0, 1.0))
    with torch.no_grad():
        (result,) = model.predict(image, [DetDataSample(metainfo=meta)], rescale=True)
        outputs = ssdlite_outputs(state, image)
    found = result.pred_instances

    scores, boxes = [], []
    for level, (score, delta) in enumerate(zip(*outputs, strict=True)):
        rows, columns = score.shape[2:]
        score = score[0].permute(1, 2, 0).reshape(-1, CLASSES + 1).double()
        delta = delta[0].permute(1, 2, 0).reshape(-1, 4).double()
        scores.append(score.softmax(1)[:, 1:])  # there the background comes first
        boxes.append(decode(anchors(level, rows, columns), delta))
    scores, boxes = torch.cat(scores), torch.cat(boxes)
    kept = []
    for label in range(CLASSES):
        rows = (scores[:, label] > 0.02).nonzero()[:, 0]
        for row in rows[slow_nms(boxes[rows], scores[rows, label], 0.6, offset=1)].tolist():
            kept.append((scores[row, label].item(), label, row))
    kept = sorted(kept, reverse=True)[:200]

    assert len(kept) == 200 == len(found)
    torch.testing.assert_close(
        found.scores.double(), torch.tensor([score for score, _, _ in kept]).double(),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    for score, label, row in kept[:150]:  # what is near the limit may differ by rounding
        same = (found.labels == label) & ((found.scores - score).abs() < 1e-3)
        assert box_iou(found.bboxes[same].double(), boxes[row, None]).max() > 0.999


def test_anchors_are_the_files(tmp_path):
    model = load(ssdlite_file(), "fna_det/ssdlite_param_adapt_coco_legacy", tmp_path)
    cells = [20, 10, 5, 3, 2, 1]
    levels = model.bbox_head.prior_generator.grid_priors([(n, n) for n in cells], device="cpu")
    for level, (ours, count) in enumerate(zip(levels, cells, strict=True)):
        torch.testing.assert_close(ours.double(), anchors(level, count, count))
