"""The picture of ground truth above predictions."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import Dataset

from engine.contact_sheet import ContactSheet, draw_boxes

CLASSES, PALETTE = ("road", "sky"), [[200, 0, 0], [0, 0, 200]]
# where the pixels of the first image are: images are drawn twice as large, below a line of text
TRUTH, PREDICTED = np.array((34, 8)), np.array((34 + 320 + 34, 8))


@pytest.fixture
def photo(tmp_path):
    return save_photo(tmp_path / "photo.png", 100)


def save_photo(path: Path, grey: int) -> str:
    """An image of 320x160."""
    Image.new("RGB", (320, 160), (grey, grey, grey)).save(path)
    return str(path)


class Samples(Dataset):
    metainfo = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, samples: list):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)


def draw_sheet(path: Path, samples: list, batch_size: int = 1, images: int = 6) -> np.ndarray:
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=Samples(samples)))
    sheet = ContactSheet(path, images)
    sheet.before_test(runner)
    for first in range(0, len(samples), batch_size):
        sheet.after_test_iter(runner, first, outputs=samples[first : first + batch_size])
    sheet.after_test(runner)
    return np.asarray(Image.open(path)).astype(int)


def detections(boxes: list, labels: list, **more) -> InstanceData:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long), **more)


def test_boxes(photo, tmp_path):
    sample = DetDataSample(metainfo=dict(img_path=photo))
    sample.gt_instances = detections([[100, 60, 200, 120]], [0])
    sample.pred_instances = detections(
        [[50, 60, 150, 120], [210, 60, 310, 120]], [1, 0], scores=torch.tensor([0.41, 0.39])
    )
    sheet = draw_sheet(tmp_path / "sheet.png", [sample])

    def row(corner: np.ndarray) -> np.ndarray:
        """The pixels of the image's row in the middle of the boxes; x in its own pixels."""
        return sheet[corner[0] + 2 * 90, corner[1] : corner[1] + 640 : 2]

    truth, predicted = row(TRUTH), row(PREDICTED)
    grey = np.array([100] * 3)
    assert [(truth[x] == grey).all() for x in (50, 100, 150, 210)] == [True, False, True, True]
    assert [(predicted[x] == grey).all() for x in (50, 100, 149, 210)] == [
        False, True, False, True,
    ]  # fmt: skip
    assert (truth[100] != predicted[50]).any()  # each class has its colour


def test_labels_stay_in_the_image_and_off_each_other(photo):
    image = Image.open(photo)
    corners = detections(
        [[0, 0, 9, 9], [311, 0, 320, 9], [0, 151, 9, 160], [311, 151, 320, 160]], [0] * 4
    )
    assert draw_boxes(image, corners, CLASSES).size == (640, 320)
    blank = draw_boxes(image, detections([], []), CLASSES)
    assert (np.asarray(blank) == 100).all()

    def white(count: int) -> int:
        drawn = draw_boxes(image, detections([[100, 60, 200, 120]] * count, [0] * count), CLASSES)
        return (np.asarray(drawn) == 255).all(2).sum()

    assert white(2) == 2 * white(1) and white(9) == white(4) == 4 * white(1)


def test_classes(photo, tmp_path):
    left = torch.zeros(1, 160, 320, dtype=torch.long)
    left[..., 160:] = 1
    ignored = left.clone()
    ignored[:, 80:] = 255
    sample = SegDataSample(metainfo=dict(img_path=photo))
    sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=ignored), PixelData(data=1 - left)
    sheet = draw_sheet(tmp_path / "sheet.png", [sample])
    road, sky, none = (0.35 * 100 + 0.65 * np.array(colour) for colour in (*PALETTE, (0, 0, 0)))
    for corner, y, expected in (
        (TRUTH, 40, (road, sky)),
        (TRUTH, 120, (none, none)),
        (PREDICTED, 40, (sky, road)),
        (PREDICTED, 120, (sky, road)),
    ):
        for x, colour in zip((80, 240), expected, strict=True):
            assert np.abs(sheet[tuple(corner + (2 * y, 2 * x))] - colour).max() <= 1
    legend = sheet[PREDICTED[0] + 320 :].reshape(-1, 3)
    assert all((legend == colour).all(1).sum() > 500 for colour in PALETTE)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_images_are_spread_over_the_test_set(batch_size, tmp_path):
    samples = []
    for number in range(13):
        path = save_photo(tmp_path / f"{number}.png", 10 * number)
        sample = DetDataSample(metainfo=dict(img_path=path))
        sample.gt_instances = detections([], [])
        sample.pred_instances = detections([], [], scores=torch.zeros(0))
        samples.append(sample)
    sheet = draw_sheet(tmp_path / "sheet.png", samples, batch_size)
    second = 2 * (320 + 34)
    shown = [sheet[y + 100, 100 + 648 * x, 0] for y in (34, 34 + second) for x in range(3)]
    assert shown == [0, 20, 40, 60, 80, 100]
    few = draw_sheet(tmp_path / "few.png", samples[:2], batch_size)
    assert [few[100, 100], few[100, 748]] == pytest.approx(np.array([[0] * 3, [10] * 3]))
