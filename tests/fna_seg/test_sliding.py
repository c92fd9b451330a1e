"""Sliding windows against a slow loop, at any size of image."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from fna_seg.sliding import window_starts
from tests.conftest import randomize

CLASSES, WINDOW, STRIDE = 5, (33, 49), (22, 32)


@pytest.fixture(scope="module")
def model():
    head = dict(
        type="SeparableASPPHead",
        in_channels=24,
        channels=8,
        num_classes=CLASSES,
        norm_cfg=dict(type="BN"),
        align_corners=True,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    )
    backbone = dict(
        type="FNABackbone",
        net_config="[[16, 16], ['k3_e1'], 1]|[[16, 24], ['k5_e3', 'skip'], 2]",
        out_indices=(2,),
        output_stride=4,
    )
    model = dict(type="SlidingEncoderDecoder", backbone=backbone, decode_head=head)
    test_cfg = dict(mode="slide", crop_size=WINDOW, stride=STRIDE)
    with DefaultScope.overwrite_default_scope("mmseg"):  # another test's may be in force
        return randomize(MODELS.build(dict(model, test_cfg=test_cfg))).eval()


def slow_scores(model, image):
    """Sums of softmax scores, 1xCxHxW, one window at a time."""

    def starts(length, window, stride):
        start, found = 0, []
        while start + window < length:
            found.append(start)
            start += stride
        return [*found, max(length - window, 0)]

    height, width = image.shape[2:]
    total = torch.zeros(1, CLASSES, height, width)
    for top in starts(height, WINDOW[0], STRIDE[0]):
        for left in starts(width, WINDOW[1], STRIDE[1]):
            bottom, right = min(top + WINDOW[0], height), min(left + WINDOW[1], width)
            crop = image[:, :, top:bottom, left:right]
            logits = model.decode_head(model.backbone(crop))
            logits = F.interpolate(logits, crop.shape[2:], mode="bilinear", align_corners=True)
            total[:, :, top:bottom, left:right] += logits.exp() / logits.exp().sum(1, keepdim=True)
    return total


@pytest.mark.parametrize(
    "size",
    [(33, 49), (34, 50), (55, 81), (70, 130), (17, 49), (20, 30), (20, 100), (90, 31)],
    ids=str,
)
@pytest.mark.parametrize("windows_per_batch", [1, 3, 100])
@torch.no_grad()
def test_agrees_with_a_slow_loop(model, size, windows_per_batch):
    model.test_cfg = ConfigDict(model.test_cfg, windows_per_batch=windows_per_batch)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    metas = [dict(ori_shape=size, img_shape=size)] * 2
    scores = model.inference(images, metas)
    expected = torch.cat([slow_scores(model, image[None]) for image in images])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    # every window adds 1 to each of its pixels, and every pixel is in one
    covered = scores.sum(dim=1)
    torch.testing.assert_close(covered, covered.round(), rtol=0, atol=1e-4)
    assert covered.min() > 0.5


@torch.no_grad()
def test_windows_are_computed_in_batches(model):
    model.test_cfg = ConfigDict(model.test_cfg, windows_per_batch=4)
    batches = []
    hook = model.backbone.register_forward_pre_hook(
        lambda module, inputs: batches.append(tuple(inputs[0].shape))
    )
    size = (55, 81)  # 2 x 2 windows
    model.inference(torch.zeros(3, 3, *size), [dict(ori_shape=size)] * 3)
    hook.remove()
    assert batches == [(4, 3, *WINDOW)] * 3


@pytest.mark.parametrize("length", range(33, 120))
def test_starts_cover_and_stay_inside(length):
    starts = window_starts(length, 33, 22)
    assert starts[0] == 0 and starts[-1] + 33 == length
    assert all(0 < later - earlier <= 22 for earlier, later in pairwise(starts))
    assert len(starts) == -(-(length - 33) // 22) + 1  # not one window too many
