import json
import shutil

import pytest
from mmdet.utils import register_all_modules

from fna_det import CheckedCocoDataset
from models import InputError

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
        (lambda c: c["annotations"][0].pop("bbox"), "not in COCO format"),
        (lambda c: c["categories"].reverse(), "in the order of the file"),
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
