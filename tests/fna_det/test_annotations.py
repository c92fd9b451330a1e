"""COCO files with the mistakes that people make: each is told, and no figure is wrong."""

import copy
import json
import math
from random import Random

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.utils import register_all_modules
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fna_det import CheckedCocoDataset
from models import InputError

CLASSES = ("cat", "dog")
SIZE = (120, 80)
BOXES = [[10, 10, 30, 20], [60.5, 40, 20, 30], [90, 5, 25, 40], [5, 50, 40, 25]]


@pytest.fixture(autouse=True)
def scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        Image.new("RGB", SIZE, (number, 0, 0)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def content():
    """4 images with 4 boxes each, of two classes."""
    return dict(
        images=[dict(id=n, file_name=f"{n}.jpg", width=SIZE[0], height=SIZE[1]) for n in range(4)],
        annotations=[
            dict(
                id=4 * n + place + 1,
                image_id=n,
                category_id=place % 2 + 1,
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=0,
            )
            for n in range(4)
            for place, box in enumerate(BOXES)
        ],
        categories=[dict(id=1, name="cat"), dict(id=2, name="dog")],
    )


def load(content, folder, tmp_path, **changes):
    path = tmp_path / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    settings = dict(
        ann_file=str(path),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        pipeline=[],
    )
    return CheckedCocoDataset(**settings | changes)


def perfect(dataset):
    """The metrics of predictions that are the loader's own boxes."""
    metric = METRICS.build(dict(type="CheckedCocoMetric", proposal_nums=(1, 10, 100)))
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        kept = [i for i in info["instances"] if not i["ignore_flag"]]
        predicted = dict(
            bboxes=torch.tensor([i["bbox"] for i in kept]).reshape(-1, 4),
            labels=torch.tensor([i["bbox_label"] for i in kept], dtype=torch.long),
            scores=torch.ones(len(kept)),
        )
        shape = info["height"], info["width"]
        sample = dict(img_id=info["img_id"], ori_shape=shape, pred_instances=predicted)
        metric.process({}, [sample])
    return metric.compute_metrics(metric.results)


def each(key, value):
    def change(content):
        for annotation in content["annotations"]:
            annotation[key] = value(annotation) if callable(value) else value

    return change


def first(**values):
    return lambda content: content["annotations"][0].update(values)


def without(key):
    return lambda content: [a.pop(key) for a in content["annotations"]]


def number_from_zero(content):
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number


def add(**values):
    def change(content):
        annotation = dict(content["annotations"][0], id=99) | values
        content["annotations"].append(annotation)

    return change


def images(*keys, **values):
    def change(content):
        for image in content["images"]:
            for key in keys:
                image.pop(key)
            image.update(values)

    return change


def extra_category(**values):
    return lambda content: content["categories"].insert(0, dict(values))


def reorder(content):
    content["categories"].reverse()


MENDED = {
    "as it is": (lambda content: None, None),
    "ids from 0": (number_from_zero, "numbered from 1"),
    "no ids": (without("id"), "without id"),
    "ids of 1.0": (each("id", lambda a: float(a["id"])), None),
    "no area": (without("area"), "16 annotations without a valid area: computed"),
    "area 0": (each("area", 0), "16 annotations without a valid area"),
    "area too large": (each("area", 1e308), "16 annotations without a valid area"),
    "area NaN": (first(area=math.nan), "1 annotation without a valid area"),
    "no iscrowd": (without("iscrowd"), "16 annotations without iscrowd"),
    "iscrowd null": (first(iscrowd=None), "1 annotation without iscrowd"),
    "ignore": (first(ignore=1), "1 annotation to be ignored"),
    "no sizes": (images("width", "height"), "4 images without width and height"),
    "sizes null": (images(width=None), "4 images without width and height"),
    "zero width": (add(bbox=[10, 10, 0, 20]), "1 box of no area: left out (first annotation 99)"),
    "next to no width": (add(bbox=[10, 10, 1e-9, 20]), "1 box of no area: left out"),
    "outside": (add(bbox=[125, 10, 10, 20]), "1 box outside of the image: left out"),
    "left of the image": (add(bbox=[-30, 10, 30, 20]), "1 box outside of the image: left out"),
    "less than a pixel": (add(bbox=[50, 50, 0.5, 20]), "1 box narrower or lower than a pixel"),
    "reaching outside": (add(bbox=[100, 10, 30, 20]), "1 box reaching outside of the image"),
    "touching by rounding": (add(bbox=[100, 10, 20.4, 20]), None),
    "orphan": (add(image_id=77), "1 annotation of images that the file does not list"),
    "orphan of a strange category": (add(image_id=77, category_id=9), "1 annotation of images"),
    "categories in another order": (reorder, None),
    "unused parent category": (extra_category(id=0, name="animals"), None),
    "unused parent of the same name": (extra_category(id=0, name="cat"), "'cat' twice"),
    "image listed twice": (
        lambda c: c["images"].append(dict(c["images"][0], id=9)),
        "lists the image '0.jpg' more than once",
    ),
}


@pytest.mark.parametrize("case", MENDED)
def test_what_is_accepted_is_evaluated_rightly(case, content, folder, tmp_path):
    change, warning = MENDED[case]
    change(content)
    dataset = load(content, folder, tmp_path)
    metrics = perfect(dataset)
    assert metrics["bbox_mAP"] == metrics["bbox_mAP_50"] == 1
    assert metrics["bbox_mAP_s"] == 1
    if warning is None:
        assert dataset.warnings() == []
    else:
        (line,) = dataset.warnings()
        assert warning in line and dataset.ann_file in line and "\n" not in line
    train = load(content, folder, tmp_path, test_mode=False)
    for one, other in zip(train, dataset, strict=True):
        trained = [i for i in other["instances"] if i["bbox"] != [50, 50, 50.5, 70]]
        assert one["instances"] == trained


def corners(content):
    each("bbox", lambda a: a["bbox"][:2] + np.add(a["bbox"][:2], a["bbox"][2:]).tolist())(content)


def fractions(content):
    each("bbox", lambda a: (np.array(a["bbox"]) / (SIZE * 2)).tolist())(content)


def merge_twice(content):
    content["annotations"] += copy.deepcopy(content["annotations"])


REFUSED = {
    "corners": (corners, ["look like corners", "x, y, width, height"]),
    "fractions": (fractions, ["fractions of the image"]),
    "NaN": (first(bbox=[1, 2, math.nan, 4]), ["annotation 1 has bbox", "finite"]),
    "infinite": (first(bbox=[1, 2, math.inf, 4]), ["annotation 1 has bbox", "finite"]),
    "too large": (first(bbox=[1, 2, 10**400, 4]), ["too large"]),
    "negative": (first(bbox=[10, 10, -5, 4]), ["annotation 1 has bbox", "not negative in size"]),
    "three numbers": (first(bbox=[1, 2, 3]), ["annotation 1 has bbox [1, 2, 3]", "four numbers"]),
    "bbox null": (first(bbox=None), ["annotation 1 has no bbox"]),
    "bbox of text": (first(bbox=["1", "2", "3", "4"]), ["annotation 1", "with text in it"]),
    "nested bbox": (first(bbox=[[1, 2, 3, 4]]), ["annotation 1", "four numbers"]),
    "no area at all": (each("bbox", [5, 5, 0, 0]), ["16 of 16 boxes have no area"]),
    "all outside": (each("bbox", [500, 500, 9, 9]), ["16 of 16 boxes"]),
    "category of text": (
        each("category_id", lambda a: str(a["category_id"])),
        ["annotation 1 has category_id '1', which is text, expected a number (15 more"],
    ),
    "image id of text": (
        each("image_id", lambda a: str(a["image_id"])),
        ["has image_id '0', which is text"],
    ),
    "id of text": (first(id="1"), ["has id '1', which is text"]),
    "area of text": (first(area="600"), ["has area '600', which is text"]),
    "huge area": (first(area=10**400), ["an area is too large"]),
    "huge width": (images(width=10**400), ["has width 1000", "expected pixels"]),
    "iscrowd of text": (first(iscrowd="0"), ["has iscrowd '0', which is text"]),
    "iscrowd 2": (first(iscrowd=2), ["iscrowd 2, expected 0 or 1"]),
    "width of text": (images(width="120"), ["width '120', which is text"]),
    "category unknown": (first(category_id=9), ["category 9 (which the file does not list)"]),
    "category fractional": (first(category_id=1.5), ["category_id 1.5"]),
    "ids twice": (merge_twice, ["not unique: 1 (15 more"]),
    "image ids twice": (images(id=1), ["two images with the id 1"]),
    "categories twice": (extra_category(id=1, name="bird"), ["two categories with the id 1"]),
    "a name twice": (
        lambda c: c["categories"][1].update(name="cat"),
        ["'cat' twice, as 1 and 2"],
    ),
    "swapped sizes": (images(width=SIZE[1], height=SIZE[0]), ["120x80", "80x120", "swapped"]),
    "other sizes": (images(width=60, height=40), ["120x80 pixels", "60x40"]),
    "gone": (images(file_name="gone.jpg"), ["gone.jpg: no such file", "3 more like it of 4"]),
    "file_name null": (images(file_name=None), ["file_name is None"]),
    "no box": (lambda c: c.update(annotations=[]), ["no box to evaluate with"]),
    "no annotations": (lambda c: c.pop("annotations"), ["no box to evaluate with"]),
    "only orphans": (each("image_id", 77), ["no box to evaluate with (16 annotations of images"]),
    "no images": (lambda c: c.update(images=[]), ["holds no image"]),
    "no categories": (lambda c: c.pop("categories"), ["not in COCO format", "no 'categories'"]),
    "images are no list": (lambda c: c.update(images=dict(a=1)), ["'images' is no list"]),
    "annotations of numbers": (lambda c: c.update(annotations=[1]), ["something else than"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_give_wrong_figures_is_refused(case, content, folder, tmp_path):
    change, messages = REFUSED[case]
    change(content)
    with pytest.raises(InputError) as error:
        perfect(load(content, folder, tmp_path))
    assert all(message in str(error.value) for message in messages), error.value
    assert "annotations.json" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError):
        load(content, folder, tmp_path, test_mode=False)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 100_000, "nested too deeply"),
        ("{ not json", "not in COCO format: is not JSON"),
        ("[]", "is a list"),
        ("\ufeff{}", "has no 'images'"),
    ],
)
def test_what_is_no_coco_file(text, message, folder, tmp_path):
    with pytest.raises(InputError) as error:
        load(text, folder, tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "classes, message",
    [
        ("cat", "needs its comma: classes=('cat',)"),
        ((), "has no classes"),
        (("cat", "cat"), "lists the class 'cat' twice"),
        (("cat", 2), "expected a tuple of names"),
        (("dog", "bird"), "annotation 1 has category 1 (cat), expected one of"),
    ],
)
def test_classes(classes, message, content, folder, tmp_path):
    with pytest.raises(InputError) as error:
        load(content, folder, tmp_path, metainfo=dict(classes=classes))
    assert message in str(error.value)


def test_a_class_that_a_split_lacks_may_be_detected(content, folder, tmp_path):
    """mmdet's evaluator would end in an IndexError, or number labels otherwise."""
    dataset = load(content, folder, tmp_path, metainfo=dict(classes=("bird", *CLASSES)))
    assert "no category of the name 'bird'" in dataset.warnings()[0]
    assert perfect(dataset)["bbox_mAP"] == 1
    metric = METRICS.build(dict(type="CheckedCocoMetric"))
    metric.dataset_meta = dataset.metainfo
    box = dict(bboxes=torch.ones(1, 4), labels=torch.tensor([0]), scores=torch.ones(1))
    metric.process({}, [dict(img_id=1, ori_shape=(80, 120), pred_instances=box)])
    assert metric.compute_metrics(metric.results)["bbox_mAP"] == 0


def test_order_of_the_classes_is_free(content, folder, tmp_path):
    dataset = load(content, folder, tmp_path, metainfo=dict(classes=CLASSES[::-1]))
    labels = [instance["bbox_label"] for instance in dataset.get_data_info(0)["instances"]]
    assert labels == [1, 0, 1, 0]
    assert perfect(dataset)["bbox_mAP"] == 1


def test_photograph_on_its_side(content, tmp_path):
    """Written by its pixels in the file, 120x80, but loaded upright, 80x120."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(4):
        Image.new("RGB", SIZE).save(tmp_path / f"{number}.jpg", exif=exif)
    with pytest.raises(InputError, match="80x120 pixels, but the annotations say 120x80 .*EXIF"):
        load(content, tmp_path, tmp_path)
    images(width=SIZE[1], height=SIZE[0])(content)
    each("bbox", [10, 10, 30, 40])(content)
    assert len(load(content, tmp_path, tmp_path)) == 4


def test_nothing_detected_is_ap_0(content, folder, tmp_path):
    metric = METRICS.build(dict(type="CheckedCocoMetric"))
    metric.dataset_meta = load(content, folder, tmp_path).metainfo
    none = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0), scores=torch.zeros(0))
    metric.process({}, [dict(img_id=n, ori_shape=SIZE, pred_instances=none) for n in range(4)])
    metrics = metric.compute_metrics(metric.results)
    assert metrics["bbox_mAP"] == metrics["bbox_mAP_50"] == 0
    assert "bbox_mAP_l" not in metrics  # no object is that large: COCO gives -1


def test_evaluator_takes_the_loaders_annotations(content, folder, tmp_path):
    dataset = load(content, folder, tmp_path)

    def metric(**settings):
        metric = METRICS.build(dict(type="CheckedCocoMetric", **settings))
        metric.dataset_meta = dataset.metainfo

    metric()
    metric(ann_file=str(tmp_path / "." / "annotations.json"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match="other.json, but the data loader reads .*annotations.json"
    ):
        metric(ann_file=str(other))
    with pytest.raises(InputError, match="other.json.*but the data loader"):
        other.unlink()
        metric(ann_file=str(other))
    dataset = load(content, folder, tmp_path, test_mode=False)
    with pytest.raises(InputError, match="no annotations; expected"):
        metric()


def test_figures_of_an_unlike_file_are_pycocotools_own(content, folder, tmp_path):
    """Crowds, areas of masks and boxes over the edge, as COCO has them: nothing is changed."""
    random = np.random.default_rng(0)
    for annotation in content["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3] * 0.6
        annotation["iscrowd"] = int(random.random() < 0.2)
        annotation["segmentation"] = [[1, 1, 5, 1, 5, 5]]
    add(bbox=[115, 10, 5.3, 20])(content)
    dataset = load(content, folder, tmp_path)
    coco = COCO(dataset.ann_file)
    metric = METRICS.build(dict(type="CheckedCocoMetric", proposal_nums=(1, 10, 100)))
    metric.dataset_meta = dataset.metainfo
    results = []
    for image in range(4):
        boxes = np.array([a["bbox"] for a in content["annotations"] if a["image_id"] == image])
        boxes = np.concatenate([boxes, boxes]) + random.normal(0, 3, (2 * len(boxes), 4))
        boxes = boxes.astype(np.float32)
        scores = random.random(len(boxes)).astype(np.float32)
        labels = random.integers(0, 2, len(boxes))
        xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        predicted = dict(bboxes=xyxy, scores=scores, labels=labels)
        predicted = {key: torch.from_numpy(value) for key, value in predicted.items()}
        metric.process({}, [dict(img_id=image, ori_shape=(80, 120), pred_instances=predicted)])
        results += [
            dict(image_id=image, category_id=int(label) + 1, bbox=box.tolist(), score=float(score))
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
    found = metric.compute_metrics(metric.results)
    own = COCOeval(coco, coco.loadRes(results), "bbox")
    own.evaluate()
    own.accumulate()
    own.summarize()
    names = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
    assert 0 < own.stats[0] < 1
    for name, value in zip(names, own.stats, strict=False):
        # -1, of sizes that there are not, is left out
        assert found.get(name, -1) == pytest.approx(value, abs=6e-4), name


def test_summary(content, folder, tmp_path):
    content["images"].append(dict(id=9, file_name="0.jpg", width=120, height=80))
    dataset = load(
        content, folder, tmp_path, test_mode=False, filter_cfg=dict(filter_empty_gt=True)
    )
    assert dataset.summary() == (
        "5 images, 16 boxes (cat 8, dog 8); left out: 1 images without a box"
    )
    assert len(dataset) == 4
    assert dataset.metainfo == dict(classes=CLASSES, palette=dataset.metainfo["palette"])


VALUES = [
    None, True, False, 0, 1, -1, 2, 3.0, 1.5, 10**30, 1e308, math.nan, math.inf, "", "1", "cat",
    [], [1], [1, 2, 3, 4], [1, 2, 3, "4"], [[1, 2], [3, 4]], {}, {"a": 1}, "x" * 5000, [None] * 4,
    [0] * 4, [1e308] * 4, [5, 5, 1e-9, 1e-9], [-1e9, -1e9, 3e9, 3e9],
]  # fmt: skip


def spoil(content, random):
    """Change a file at one to three places, at each in one item or in all."""
    for _ in range(random.choice([1, 1, 2, 3])):
        part = random.choice(["images", "annotations", "annotations", "categories"])
        items = content.get(part)
        if random.random() < 0.05 or not isinstance(items, list) or not items:
            content[part] = random.choice(VALUES)
            continue
        place = random.randrange(len(items))
        kind = random.random()
        if kind < 0.1:
            items[place] = random.choice(VALUES)
        elif kind < 0.2:
            items.append(copy.deepcopy(items[place]))
        elif kind < 0.3:
            items.pop(place)
        elif isinstance(items[place], dict) and items[place]:
            key, value = random.choice([*items[place], "bbox"]), random.choice(VALUES)
            for item in items if random.random() < 0.3 else [items[place]]:
                if isinstance(item, dict):
                    item[key] = value


def test_random_mistakes(content, folder, tmp_path):
    """Each is refused in one line, or what is accepted is evaluated rightly."""
    outcomes = []
    for seed in range(200):
        spoiled = copy.deepcopy(content)
        spoil(spoiled, Random(seed))
        try:
            outcomes.append(perfect(load(spoiled, folder, tmp_path))["bbox_mAP"])
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            outcomes.append(None)
    assert set(outcomes) == {None, 1.0}
