import json
import shutil

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fna_det import CheckedCocoDataset
from models import InputError
from tests.conftest import REPO

CLASSES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "bus",
    "train",
    "truck",
    "traffic light",
    "stop sign",
)


@pytest.fixture
def root(toy_city, tmp_path):
    """A copy of the small data set that a test may spoil."""
    return shutil.copytree(toy_city, tmp_path / "toy_city")


def load(root, **changes):
    register_all_modules(init_default_scope=True)
    settings = dict(
        data_root=str(root),
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
    )
    return CheckedCocoDataset(**settings | changes)


def edit(root, change):
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_reads_what_the_file_says(root):
    dataset = load(root)
    content = json.loads((root / "annotations/instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    labels = [
        i["bbox_label"] for n in range(len(dataset)) for i in dataset.get_data_info(n)["instances"]
    ]
    assert sorted(CLASSES[label] for label in labels) == sorted(
        names[a["category_id"]] for a in content["annotations"]
    )


def test_all_80_classes_of_coco_read_it_too(root):
    dataset = load(root, metainfo={})
    assert len(dataset.metainfo["classes"]) == 80 and len(dataset) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["annotations"][0].update(category_id=99), "category 99"),
        (lambda c: c["annotations"][0].update(category_id=52), "category 52 (banana)"),
        (lambda c: c["images"][0].update(file_name="gone.jpg"), "gone.jpg: no such file"),
        (lambda c: c.update(images=[], annotations=[]), "holds no image"),
        (lambda c: c.pop("categories"), "not in COCO format"),
        (lambda c: c["annotations"][0].pop("bbox"), "has no bbox"),
    ],
)
def test_bad_annotations(root, change, message):
    edit(root, change)
    with pytest.raises(InputError) as error:
        load(root)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(root) in str(error.value)


def test_missing_and_broken_file(root):
    path = root / "annotations/instances_val2017.json"
    path.write_text("{ not json")
    with pytest.raises(InputError, match="not in COCO format"):
        load(root)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        load(root)


def test_filter_that_leaves_nothing(root):
    with pytest.raises(InputError, match="no image left"):
        load(root, filter_cfg=dict(min_size=10_000))


def test_metrics_are_cocos_own(root):
    """With more than 100 detections of an image, some of whose best by place are not in the 100.

    mmdet's own limits, 100 to 1000, would find those for AP50 to APl.
    """
    path = root / "annotations/instances_val2017.json"
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(REPO / "configs/fna_det/ssdlite_param_adapt_coco.py").val_evaluator
    metric = METRICS.build(cfg | dict(ann_file=str(path), classwise=True))
    metric.dataset_meta = dict(classes=CLASSES)

    coco, generator = COCO(path), torch.Generator().manual_seed(0)
    label_of = {coco.getCatIds(catNms=[name])[0]: label for label, name in enumerate(CLASSES)}
    samples, rows = [], []
    for image in coco.loadImgs(coco.getImgIds()):
        truth = coco.loadAnns(coco.getAnnIds(image["id"]))
        real = torch.tensor([[*a["bbox"][:2], *a["bbox"][2:]] for a in truth])
        labels = torch.tensor([label_of[a["category_id"]] for a in truth])
        # for each object, 150 boxes of its class elsewhere and one at its place, which is the best
        # or, in every other class, the worst by score
        noise = torch.rand(len(truth), 150, 4, generator=generator) * 30 + 1
        boxes = torch.cat([noise, real[:, None]], 1)
        scores = torch.rand(len(truth), 151, generator=generator) * 0.5 + 0.3
        scores[:, -1] = torch.where(labels % 2 == 0, 0.9, 0.1)
        boxes, scores = boxes.flatten(0, 1), scores.flatten()
        labels = labels.repeat_interleave(151)
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(image["height"], image["width"]),
                pred_instances=dict(bboxes=corners, scores=scores, labels=labels),
            )
        )
        ids = torch.tensor(list(label_of))[labels]
        rows.append(
            torch.cat(
                [torch.full((len(ids), 1), image["id"]), boxes, scores[:, None], ids[:, None]], 1
            )
        )
    metric.process({}, samples)
    found = metric.compute_metrics(metric.results)

    own = COCOeval(coco, coco.loadRes(torch.cat(rows).double().numpy()), "bbox")
    own.params.catIds = list(label_of)
    own.evaluate()
    own.accumulate()
    own.summarize()
    names = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
    assert own.stats[1] > 0.1
    for name, value in zip(names, own.stats, strict=False):
        if value == -1:  # no object is of that size
            assert name not in found
        else:
            assert found[name] == pytest.approx(value, abs=6e-4), name
    precision = own.eval["precision"][:, :, :, 0, -1]  # IoU, recall, category, of any size, at 100
    for label, name in enumerate(CLASSES):
        of_class = precision[:, :, label]
        if (of_class > -1).any():
            assert found[f"{name}_precision"] == pytest.approx(
                np.mean(of_class[of_class > -1]), abs=6e-4
            )
