from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from engine.pictures import DrawPredictions, picture_name

ALPHA = 0.6
PALETTE = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]])  # red-green-blue


@pytest.fixture
def sample(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "street.png"
    assert cv2.imwrite(str(path), rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    labels, prediction = np.zeros((2, 90, 120), np.int64)
    labels[:, 60:], prediction[:, 40:], prediction[:30] = 1, 1, 2
    labels[80:] = 255
    return SegDataSample(
        gt_sem_seg=PixelData(data=torch.from_numpy(labels)[None]),
        pred_sem_seg=PixelData(data=torch.from_numpy(prediction)[None]),
        metainfo=dict(img_path=str(path)),
    )


def draw(sample, folder, draw=True):
    visualizer = SegLocalVisualizer(alpha=ALPHA)
    visualizer.dataset_meta = dict(classes=("road", "car", "sky"), palette=PALETTE.tolist())
    hook = DrawPredictions(draw=draw, test_out_dir=str(folder))
    hook.after_test_iter(SimpleNamespace(visualizer=visualizer), 0, {}, [sample])


def test_labels_on_the_left_prediction_on_the_right(sample, tmp_path):
    draw(sample, tmp_path / "out")
    picture = cv2.imread(str(tmp_path / "out/street.png"))[..., ::-1]
    image = cv2.imread(sample.img_path)[..., ::-1]
    assert picture.shape == (90, 240, 3)
    halves = np.split(picture, 2, axis=1)
    for half, pixels in zip(halves, (sample.gt_sem_seg, sample.pred_sem_seg), strict=True):
        ids = pixels.data[0].numpy()
        colours = np.where(ids[..., None] < 3, PALETTE[np.minimum(ids, 2)], 0)
        expected = (1 - ALPHA) * image + ALPHA * colours
        as_expected = (np.abs(half - expected) <= 1).all(-1)
        assert as_expected.mean() > 0.85  # the rest is under the classes' names
        assert all(as_expected[ids == id].mean() > 0.6 for id in np.unique(ids))


def test_only_when_asked(sample, tmp_path):
    draw(sample, tmp_path / "out", draw=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "image, folders, name",
    [
        ("data/val/cam0/0.jpg", ["data/val"], "cam0/0.jpg"),
        ("data/val/cam1/0.jpg", ["data/val/"], "cam1/0.jpg"),
        ("b/val/0.jpg", ["a/val", "b/val"], "0.jpg"),
        ("/elsewhere/0.jpg", ["data/val"], "0.jpg"),
        ("data/val/../0.jpg", ["data/val"], "0.jpg"),
        ("val/0.xyz", ["val"], "0.xyz.png"),
    ],
)
def test_names_keep_subfolders(image, folders, name):
    assert picture_name(Path(image), list(map(Path, folders))) == Path(name)


@pytest.mark.parametrize("key", ["img", "img_path"])
def test_equal_names_in_two_folders_are_two_pictures(key, sample, tmp_path):
    drawn = []
    visualizer = SimpleNamespace(add_datasample=lambda *_, out_file: drawn.append(out_file))
    source = SimpleNamespace(summary=None, data_prefix={key: str(tmp_path / "val")})
    loader = SimpleNamespace(dataset=SimpleNamespace(dataset=source))
    runner = SimpleNamespace(visualizer=visualizer, test_dataloader=loader)
    hook = DrawPredictions(draw=True, test_out_dir="out")
    hook.before_test(runner)
    image = Path(sample.img_path).read_bytes()
    for camera in ("cam0", "cam1"):
        path = tmp_path / "val" / camera / "0.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(image)
        sample.set_metainfo(dict(img_path=str(path)))
        hook.after_test_iter(runner, 0, {}, [sample])
    assert drawn == ["out/cam0/0.png", "out/cam1/0.png"]
