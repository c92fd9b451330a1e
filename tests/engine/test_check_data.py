"""scripts/check_data.sh: mistakes in a copy of the small data set, told split by split."""

import json
import multiprocessing
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from engine import check_data
from engine.config import import_scope
from tests.conftest import REPO

RETINANET = "configs/fna_det/retinanet_param_adapt_toy.py"
DEEPLAB = "configs/fna_seg/deeplabv3_param_adapt_toy.py"
TRAIN = "annotations/instances_train2017.json"


@pytest.fixture
def root(toy_city, tmp_path):
    return shutil.copytree(toy_city, tmp_path / "toy_city")


def check(monkeypatch, capsys, config, root, *options):
    """Exit status, lines of standard output, standard error."""
    monkeypatch.setattr("sys.argv", ["check_data", config, "--data-root", str(root), *options])
    monkeypatch.chdir(REPO)
    status = 0
    try:
        check_data.main()
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def edit(root, change, file=TRAIN):
    content = json.loads((root / file).read_text())
    change(content)
    (root / file).write_text(json.dumps(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:500])
    return path


def test_images_are_read_in_forks_whatever_the_default(toy_city, monkeypatch):
    """As of Python 3.14, where a process that starts anew would import mmdet for seconds."""
    source = SimpleNamespace(pipeline=SimpleNamespace(transforms=[]))
    kind = type("Source", (), vars(source) | dict(inspect=staticmethod(who_reads)))
    monkeypatch.setitem(globals(), "PARENT", os.getpid())
    multiprocessing.set_start_method("spawn", force=True)
    try:
        (found,) = check_data.read_samples([{}], kind())
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert found == (os.getpid(), os.getpid())


PARENT = None


def who_reads(results):
    return PARENT, os.getppid()


def test_detection(root, monkeypatch, capsys, tmp_path):
    content = json.loads((root / TRAIN).read_text())
    boxes = len([a for a in content["annotations"] if not a["iscrowd"]])
    edit(root, lambda c: [a.pop("area") for a in c["annotations"]])
    folder = tmp_path / "shown"
    status, lines, err = check(monkeypatch, capsys, RETINANET, root, "--show-dir", str(folder))
    assert status == 0 and lines[-1] == "No error found"
    assert lines[0].startswith(f"train: 8 images, {boxes} boxes (person ")
    assert "without a valid area: computed from the box" in lines[1] and "warning: " in lines[1]
    assert any(line.startswith("val: 4 images, ") for line in lines)
    assert "test: the same as val" in lines
    row = next(line for line in lines if "| all " in line)
    assert f"| {boxes:5d} |" in row and row.strip().endswith("% |")
    assert "ETA" in err
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 8
    shown, name = cv2.imread(str(pictures[0])), pictures[0].name.partition("_")[2]
    assert shown.shape == (128, 256, 3)  # as resized
    original = cv2.resize(cv2.imread(str(root / "train2017" / name)), (256, 128))
    order = {
        colours: min(
            np.abs(shown - image.astype(float)).mean() for image in (turned, turned[:, ::-1])
        )
        for colours, turned in (("ours", original), ("swapped", original[..., ::-1]))
    }  # it may be flipped
    assert order["ours"] < 0.8 * order["swapped"]


def test_every_damaged_image_is_listed(root, monkeypatch, capsys):
    damaged = [cut(root / f"train2017/{number:012d}.jpg") for number in (1, 4)]
    edit(root, lambda c: c["annotations"].clear(), "annotations/instances_val2017.json")
    status, lines, _ = check(monkeypatch, capsys, RETINANET, root)
    assert status == 2 and lines[-1] == "Found 3 errors"
    for path in damaged:
        (line,) = [line for line in lines if str(path) in line]
        assert line.startswith(f"train: error: image {path}: cannot be read")
    assert any("val: error: " in line and "holds no box" in line for line in lines)


def test_all_errors_of_a_file(root, monkeypatch, capsys):
    def spoil(content):
        content["annotations"][0]["bbox"] = [1, 2, 3]
        content["annotations"][1]["category_id"] = "1"
        content["annotations"][2]["iscrowd"] = "no"

    edit(root, spoil)
    status, lines, _ = check(monkeypatch, capsys, RETINANET, root)
    errors = [line for line in lines if line.startswith("train: error: annotation file ")]
    assert status == 2 and len(errors) == 3 and lines[-1] == "Found 3 errors"
    assert any("four numbers" in e for e in errors) and any("which is text" in e for e in errors)


def test_sizes_of_all_images_are_compared(root, monkeypatch, capsys):
    """A run compares a few only."""
    monkeypatch.setattr("fna_det.annotations._COMPARED_IMAGES", 1)

    def swap(content):
        image = content["images"][3]
        image["width"], image["height"] = image["height"], image["width"]

    edit(root, swap)
    status, lines, _ = check(monkeypatch, capsys, RETINANET, root)
    (error,) = [line for line in lines if ": error: " in line]
    assert status == 2 and "128x64 pixels, but the annotations say 64x128 (swapped" in error


def test_evaluator_of_another_file(root, monkeypatch, capsys):
    option = f"val_evaluator.ann_file={root / TRAIN}"
    status, lines, _ = check(monkeypatch, capsys, RETINANET, root, "--cfg-options", option)
    (error,) = [line for line in lines if ": error: " in line]
    assert status == 2 and error.startswith("val: error: evaluator: ann_file is ")


def test_too_few_images_for_a_batch(root, monkeypatch, capsys):
    option = "train_dataloader.batch_size=9"
    status, lines, _ = check(monkeypatch, capsys, DEEPLAB, root, "--cfg-options", option)
    assert status == 2 and "8 images do not fill one batch of 9" in lines[0]


def test_what_cannot_be_built(root, monkeypatch, capsys):
    option = "train_dataloader.dataset.data_perfix=5"
    status, lines, _ = check(monkeypatch, capsys, DEEPLAB, root, "--cfg-options", option)
    assert status == 2 and lines[0].startswith(
        "train: error: config deeplabv3_param_adapt_toy.py: "
    )
    assert "data_perfix" in lines[0] and any(line.startswith("val: 4 images") for line in lines)


def test_segmentation(root, monkeypatch, capsys, tmp_path):
    label = root / "gtFine/val/toy/toy_000000_000001_gtFine_labelTrainIds.png"
    ids = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    ids[:2] = 77
    cv2.imwrite(str(label), ids)
    small = root / "gtFine/val/toy/toy_000000_000002_gtFine_labelTrainIds.png"
    cv2.imwrite(str(small), cv2.imread(str(small), cv2.IMREAD_UNCHANGED)[:10])
    image = root / "leftImg8bit/train/toy/toy_000000_000000_leftImg8bit.png"
    image.unlink()
    status, lines, _ = check(monkeypatch, capsys, DEEPLAB, root)
    assert status == 2 and lines[-1] == "Found 2 errors"
    assert lines[0].startswith("train: 7 images with labels, 19 classes: road, ")
    assert lines[1].startswith("train: warning: 1 labels without an image, first ")
    errors = [line for line in lines if ": error: " in line]
    assert str(label) in errors[0] and "holds the id 77" in errors[0]
    assert str(small) in errors[1] and "128x10 pixels" in errors[1]

    labels = sorted((root / "gtFine/train/toy").glob("*_labelTrainIds.png"))[1:]
    pixels = np.concatenate([cv2.imread(str(path), -1).ravel() for path in labels])
    share = 100 * (pixels == 0).sum() / (pixels != 255).sum()
    row = next(line for line in lines if "| road " in line)
    assert row.split("|")[3].strip() == f"{share:.2f} %"


def test_coverage_is_that_of_all_anchors_written_out(root):
    """Against mmdet's grids and IoU, for both detectors' anchors."""
    import torch
    from mmdet.registry import TASK_UTILS
    from mmdet.structures.bbox import bbox_overlaps

    from fna_det.objects import best_overlaps

    import_scope("mmdet")
    random = np.random.default_rng(0)
    corner, size = random.random((2, 60, 2)) * (300, 180)
    boxes = np.concatenate([corner, corner + size / 2 + 3], 1)
    for name, image in (("retinanet", (320, 192)), ("ssdlite", (320, 320))):
        cfg = Config.fromfile(REPO / f"configs/fna_det/{name}_param_adapt_coco.py")
        with DefaultScope.overwrite_default_scope("mmdet"):
            generator = TASK_UTILS.build(cfg.model.bbox_head.anchor_generator)
        maps = [(-(-image[1] // h), -(-image[0] // w)) for w, h in generator.strides]
        anchors = torch.cat(generator.grid_priors(maps, device="cpu"))
        expected = bbox_overlaps(torch.tensor(boxes).float(), anchors).max(1).values
        found = best_overlaps(boxes, np.tile(np.array(image, float), (60, 1)), generator)
        assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_table_of_objects():
    """Boxes of a 100x50 image that is resized to 200x100; anchors are squares of 32 pixels."""
    from fna_det.objects import describe_objects

    def instance(*box, label=0, ignored=0):
        return dict(bbox=list(box), bbox_label=label, ignore_flag=ignored)

    # sides after resizing: 32, exactly the anchor at 40; 8, which none covers
    found = [instance(12, 12, 28, 28), instance(50, 30, 54, 34), instance(0, 0, 9, 9, ignored=1)]
    sample = dict(width=100, height=50, instances=found)
    generator = dict(
        type="AnchorGenerator", strides=[16], ratios=[1.0], scales=[2], center_offset=0.5
    )
    model = dict(bbox_head=dict(anchor_generator=generator))
    import_scope("mmdet")
    with DefaultScope.overwrite_default_scope("mmdet"):
        resize = TRANSFORMS.build(dict(type="Resize", scale=(200, 100), keep_ratio=True))
        lines = describe_objects([sample], ("cell", "other"), [resize], model)
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    rows = {row[0]: row[1:] for row in cells if row}
    # between 8 and 32: 8 + 24 * 0.1, 0.5, 0.9
    assert rows["cell"] == rows["all"] == ["2", "10", "20", "30", "50 %"]
    assert rows["other"] == ["0", "-", "-", "-", "-"]
