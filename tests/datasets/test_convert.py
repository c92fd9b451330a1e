"""The converters, against annotations written by hand."""

import itertools
import json
import math
import os
import random
import re
import subprocess

import numpy as np
import pytest
from mmdet.registry import DATASETS as DET_DATASETS
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS as SEG_DATASETS
from PIL import Image
from pycocotools.coco import COCO

from datasets.convert.__main__ import main
from datasets.convert.labels import ids_of_ids
from datasets.convert.source import Findings, Images, split_images
from models import InputError


def image(path, size=(64, 48), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path, exif=exif)


def convert(*arguments):
    return main([str(argument) for argument in arguments])


def boxes_in(root, split="train"):
    """(file name, category's name, bbox) of every annotation."""
    content = json.loads((root / f"annotations/instances_{split}.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in content["images"]}
    assert [entry["id"] for entry in content["images"]] == list(range(1, len(files) + 1))
    annotations = content["annotations"]
    assert [entry["id"] for entry in annotations] == list(range(1, len(annotations) + 1))
    for entry in annotations:
        assert entry["area"] == pytest.approx(entry["bbox"][2] * entry["bbox"][3], abs=0.01)
    return [
        (files[entry["image_id"]], names[entry["category_id"]], entry["bbox"])
        for entry in annotations
    ]


def voc(name, *objects, size=(64, 48)):
    """The text of a VOC file, an object per line from the third on."""
    items = "\n".join(
        f"<object><name>{cls}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        f"<bndbox><ymin>{y1}</ymin><xmin>{x1}</xmin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "</object>"
        for cls, x1, y1, x2, y2 in objects
    )
    return (
        f"<annotation>\n<filename>{name}</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></size>\n{items}\n</annotation>"
    )


def test_voc(tmp_path, capsys):
    """Floats, any ending, subfolders with equal names, a box without area, a turned photograph."""
    images, xml = tmp_path / "photos", tmp_path / "xml"
    image(images / "a/0.JPG", orientation=6)  # is 48 wide and 64 high once loaded
    image(images / "b/0.png")
    image(images / "b/not annotated.png")
    for folder in "ab":
        (xml / folder).mkdir(parents=True)
    (xml / "a/0.xml").write_text(voc("0.JPG", ("dog", 1, 11, 40, 60), size=(48, 64)))
    (xml / "b/0.xml").write_text(
        voc("0.png", ("cat", "10.0", "2.0", "20.5", "12.25"), ("dog", 5, 5, 5, 9))
    )
    out = tmp_path / "out"
    assert convert("voc", xml, "--images", images, "--out", out, "--split", "train") == 0
    assert boxes_in(out) == [
        ("a/0.JPG", "dog", [0, 10, 40, 50]),
        ("b/0.png", "cat", [9, 1, 11.5, 11.25]),
    ]
    content = json.loads((out / "annotations/instances_train.json").read_text())
    assert [(i["width"], i["height"]) for i in content["images"]] == [(48, 64), (64, 48)]
    assert content["categories"] == [dict(id=1, name="cat"), dict(id=2, name="dog")]
    printed = capsys.readouterr().out
    assert f"left out: {xml}/b/0.xml:4: box has no area: 0 x 4 pixels" in printed
    assert 'classes=("cat", "dog")' in printed and f'img="{images}/"' in printed
    assert {path.name for path in out.iterdir()} == {"annotations"}  # no image was copied

    edges = tmp_path / "edges"
    convert("voc", xml, "--images", images, "--out", edges, "--split", "train", "--first-pixel", 0)
    assert boxes_in(edges)[0] == ("a/0.JPG", "dog", [1, 11, 39, 49])


MISTAKES = {
    "number": (voc("0.png", ("cat", "x", 1, 9, 9)), ":3: has the xmin 'x', expected a number"),
    "infinite": (voc("0.png", ("cat", 1, 1, 9, "inf")), ":3: has the ymax 'inf'"),
    "class": (voc("0.png", ("cow", 1, 1, 9, 9)), ":3: is of class 'cow', expected one of cat, dog"),
    "no class": (voc("0.png", ("", 1, 1, 9, 9)), ":3: has no class name"),
    "image": (voc("1.png"), "image 1.png: no such file in"),
    "ending": (voc("0.jpg"), "no such file in .*, but there is 0.png"),
    "size": (voc("0.png", size=(48, 64)), "states 48x64 pixels, but the image 0.png has 64x48"),
    "xml": ("<annotation><filename>", "SAXParseException"),
    "damaged": (voc("damaged.png"), "damaged.png: cannot be read"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_and_nothing_is_written(name, tmp_path, capsys):
    content, message = MISTAKES[name]
    image(tmp_path / "0.png")
    image(tmp_path / "fine.png")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    (tmp_path / "wrong.xml").write_text(content)
    (tmp_path / "fine.xml").write_text(voc("fine.png", ("cat", 1, 1, 9, 9)))
    out = tmp_path / "out"
    arguments = ["voc", tmp_path, "--out", out, "--split", "train", "--classes", "cat,dog"]
    assert convert(*arguments) == 2
    first, line = capsys.readouterr().err.splitlines()
    assert first == "error: 1 mistake, nothing was written"
    assert re.search(message, line) and "Traceback" not in line
    assert not out.exists()


def test_a_second_run_says_what_is_there(tmp_path, capsys):
    for number in range(10):
        image(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.xml").write_text(voc(f"{number}.png", ("cat", 1, 1, 9, 9)))
    out = tmp_path / "out"
    arguments = ["voc", tmp_path, "--out", out, "--copy", "--split"]
    assert convert(*arguments, "0.6,0.2,0.2") == 0
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    capsys.readouterr()
    assert convert(*arguments, "0.8,0.2", "--seed", 1) == 2
    assert "instances_train.json: is there already; --overwrite" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*.json")}
    # the second conversion's mistake leaves the first one's files
    (tmp_path / "0.xml").write_text(voc("0.png", ("cat", "?", 1, 9, 9)))
    assert convert(*arguments, "0.8,0.2", "--overwrite") == 2
    assert before == {path: path.read_bytes() for path in out.rglob("*.json")}
    (tmp_path / "0.xml").write_text(voc("0.png"))
    assert convert(*arguments, "0.8,0.2", "--overwrite") == 0
    assert not (out / "annotations/instances_test.json").exists()  # of the first conversion
    assert len(boxes_in(out, "train")) + len(boxes_in(out, "val")) == 9
    assert {path.name for path in out.iterdir()} == {"annotations", "images"}


def test_two_images_of_one_name(tmp_path, capsys):
    for name in ("a.png", "a.bmp"):
        image(tmp_path / name)
        (tmp_path / name).with_suffix(f".{name[-3:]}.xml").write_text(voc(name))
    arguments = ["voc", tmp_path, "--split", "train", "--classes", "cat", "--out", tmp_path / "out"]
    assert convert(*arguments, "--jpeg", 90) == 2
    assert "--jpeg: 2 images would be a.jpg" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert convert(*arguments, "--copy") == 0


def test_mmdet_reads_what_was_converted(tmp_path):
    image(tmp_path / "in/sub/ä b.png", orientation=8)
    (tmp_path / "in/x.xml").write_text(voc("ä b.png", ("cat", 1, 1, 9, 21), size=(48, 64)))
    out = tmp_path / "out"
    assert convert("voc", tmp_path / "in", "--out", out, "--split", "val", "--jpeg", 95) == 0
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DET_DATASETS.build(
            dict(
                type="CheckedCocoDataset",
                data_root=str(out),
                ann_file="annotations/instances_val.json",
                data_prefix=dict(img="images/"),
                metainfo=dict(classes=("cat",)),
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations", with_bbox=True),
                ],
            )
        )
        (sample,) = dataset
    assert sample["img"].shape == (64, 48, 3) and sample["img_path"].endswith("sub/ä b.jpg")
    assert sample["gt_bboxes"].tensor.tolist() == [[0, 0, 9, 21]]


@pytest.mark.parametrize(
    "table, columns",
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,cat,2,3,12,23\n", None),
        ("Image;X;Y;W;H;Label\r\na.png;2;3;10;20;cat\r\n", None),
        ('a.png,2.0,3,12,23,"cat"\n\n', "image,xmin,ymin,xmax,ymax,class"),
    ],
)
def test_csv(table, columns, tmp_path, capsys):
    image(tmp_path / "train/a.png")
    image(tmp_path / "train/none.png")
    empty = ",".join if ";" not in table else ";".join
    file = tmp_path / "train/boxes.csv"
    file.write_text(f"{table}{empty(['none.png', '', '', '', '', '', '', ''])}\n", "utf-8-sig")
    out = tmp_path / "out"
    options = ["--columns", columns] if columns else []
    arguments = ["csv", tmp_path, "--out", out, "--split", "folders", *options]
    assert convert(*arguments) == 0
    assert boxes_in(out) == [("train/a.png", "cat", [2, 3, 10, 20])]
    assert "2 images, 1 boxes" in capsys.readouterr().out
    file.write_text(table + "a.png\n")
    assert convert(*arguments, "--overwrite") == 2
    line = file.read_text().count("\n")
    assert f"boxes.csv:{line}: has 1 columns" in capsys.readouterr().err
    if not columns:
        file.write_text("a,b\n1,2\n")
        assert convert(*arguments, "--overwrite") == 2
        assert (
            "boxes.csv:1: has the columns a, b, and none that is image" in capsys.readouterr().err
        )


def test_yolo(tmp_path, capsys):
    """Boxes and polygons in shares of the sides; an image without a file has no box."""
    for name in ("train/a.jpg", "train/none.jpg", "valid/b.jpg"):
        image(tmp_path / "images" / name, size=(100, 200))
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog, 2: unused}\n")
    label = tmp_path / "labels/train/a.txt"
    label.parent.mkdir(parents=True)
    label.write_text("1 0.5 0.5 0.2 0.1\n\n0 0.1 0.1 0.3 0.2 0.2 0.4\n")
    (tmp_path / "labels/valid").mkdir()
    (tmp_path / "labels/valid/b.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    out = tmp_path / "out"
    arguments = ["yolo", tmp_path, "--images", tmp_path / "images", "--out", out]
    assert convert(*arguments, "--split", "folders") == 0
    assert boxes_in(out) == [
        ("train/a.jpg", "dog", [40, 90, 20, 20]),
        ("train/a.jpg", "cat", [10, 20, 20, 60]),
    ]
    assert boxes_in(out, "val") == [("valid/b.jpg", "cat", [0, 0, 50, 100])]
    content = json.loads((out / "annotations/instances_train.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == ["cat", "dog", "unused"]
    assert len(content["images"]) == 2

    label.write_text("9 0.5 0.5 0.2 0.1\n0 50 50 20 10\n0 0.1 0.2 0.3\n0 0.5 0.5 0.2 0.1 0.9\n")
    assert convert(*arguments, "--split", "folders", "--overwrite") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: 4 mistakes, nothing was written"
    assert [line.split(": ")[0][-6:] for line in lines[1:]] == [f".txt:{n}" for n in (1, 2, 3, 4)]


def labelme(path, *shapes, size=(64, 48)):
    keys = ("label", "shape_type", "points", "group_id")
    content = dict(
        imagePath=path,
        imageWidth=size[0],
        imageHeight=size[1],
        shapes=[dict(zip(keys, (*shape, None), strict=False)) for shape in shapes],
    )
    return json.dumps(content)


def test_labelme(tmp_path):
    image(tmp_path / "photos/a.png")
    (tmp_path / "json").mkdir()
    (tmp_path / "json/a.json").write_text(
        labelme(
            "..\\photos\\a.png",
            ("cat", "rectangle", [[30, 40], [10, 5]]),
            ("dog", "polygon", [[1, 2], [11, 3], [6, 20]], 7),
            ("dog", "circle", [[30, 30], [33, 34]], 7),
            ("dog", "polygon", [[1, 2], [11, 3], [6, 20]]),
        )
    )
    out = tmp_path / "out"
    assert convert("labelme", tmp_path, "--out", out, "--split", "train") == 0
    assert boxes_in(out) == [
        ("photos/a.png", "cat", [10, 5, 20, 35]),
        ("photos/a.png", "dog", [1, 2, 34, 33]),  # both parts of object 7
        ("photos/a.png", "dog", [1, 2, 10, 18]),
    ]


def coco(images, annotations, names):
    return json.dumps(
        dict(
            images=[dict(id=id, file_name=name) for id, name in images.items()],
            annotations=annotations,
            categories=[dict(id=id, name=name) for id, name in names.items()],
        )
    )


def test_coco_is_split_anew(tmp_path, capsys):
    """As Label Studio exports it, with ids from 0, or Roboflow, with a category of no object."""
    for number in range(4):
        image(tmp_path / f"{number}.png")
    annotations = [
        dict(id=number, image_id=number, category_id=2 - number % 2, bbox=[1, 2, 3, 4.5])
        for number in range(4)
    ]
    file = tmp_path / "result.json"
    names = {0: "animals", 2: "zebra", 1: "ant"}
    paths = {number: f"images\\1\\{number}.png" for number in range(4)}
    file.write_text(coco(paths, annotations, names))
    out = tmp_path / "out"
    arguments = ["coco", file, "--images", tmp_path, "--out", out, "--split", "0.5,0.5"]
    assert convert(*arguments) == 0
    found = boxes_in(out, "train") + boxes_in(out, "val")
    expected = [(f"{n}.png", ("zebra", "ant")[n % 2], [1, 2, 3, 4.5]) for n in range(4)]
    assert sorted(found) == expected
    content = json.loads((out / "annotations/instances_val.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == [
        "zebra",
        "ant",
    ]  # the file's order
    file.write_text(coco(paths, [dict(id=5, image_id=9, category_id=1, bbox=[1, 1, 1, 1])], names))
    assert convert(*arguments, "--overwrite") == 2
    assert "annotation 1 (id 5): is of the image 9" in capsys.readouterr().err


def test_shares(tmp_path):
    for number in range(50):
        image(tmp_path / f"{number:02}.png", size=(2, 2))
    images = Images(tmp_path)

    def split(how, seed=0, annotated=images.paths):
        return split_images(how, images, annotated, seed, Findings())

    splits = split("0.7,0.2,0.1")
    assert [len(part) for part in splits.values()] == [35, 10, 5]
    assert sorted(itertools.chain(*splits.values())) == images.paths
    assert all(part == sorted(part) for part in splits.values())
    random.seed(5)
    assert split("0.7,0.2,0.1") == splits and split("0.7,0.2,0.1", seed=1) != splits
    assert [len(part) for part in split("0.8,0.1,0.1", annotated=images.paths[:4]).values()] == [
        2, 1, 1
    ]  # fmt: skip
    for how in ("0.8,0.1", "1", "a,b", "0.9,0.2,-0.1", "nowhere"):
        with pytest.raises(InputError, match="expected shares that add up to 1"):
            split(how)
    with pytest.raises(InputError, match="too few to split"):
        split("0.8,0.1,0.1", annotated=images.paths[:2])


def test_lists(tmp_path, capsys):
    """With and without endings and folders, and with the third column of Pascal VOC's."""
    for name in ("a.png", "b.png", "sub/c.png", "d.png"):
        image(tmp_path / name)
        (tmp_path / name).with_suffix(".xml").write_text(voc(name))
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a 1\nsub/c -1\n")
    (lists / "val.txt").write_text("./b.png\n\n")
    out = tmp_path / "out"
    arguments = ["voc", tmp_path, "--out", out, "--split", lists, "--classes", "cat"]
    assert convert(*arguments) == 0
    printed = capsys.readouterr().out
    assert "train: 2 images" in printed and "val: 1 images" in printed
    assert "left out: 1 images in no list, such as d.png" in printed
    (lists / "val.txt").write_text("b\nnone\na.png\n")
    assert convert(*arguments, "--overwrite") == 2
    lines = capsys.readouterr().err.splitlines()[1:]
    assert "val.txt:2: image none: no such file" in lines[0]
    assert "val.txt:3: image a.png is in train.txt:1, too" in lines[1]


def labels_in(root, name):
    with Image.open(root / "labels" / name) as label:
        assert label.mode == "L"
        return np.array(label)


def test_colours(tmp_path, capsys):
    """CamVid's own form: labels NAME_L.png, a table in which some names are no class."""
    table = tmp_path / "label_colors.txt"
    table.write_text("128 128 128\tSky\n0 0 0\tVoid\n128 64 128\tRoad\n128 64 129\tRoad\n")
    ids = np.random.default_rng(0).integers(0, 4, (48, 64))
    colours = np.array([[128, 128, 128], [0, 0, 0], [128, 64, 128], [128, 64, 129]], np.uint8)
    image(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    label = Image.fromarray(colours[ids])
    label.save(tmp_path / "labels/a_L.png")
    out = tmp_path / "out"
    arguments = [
        "colors", tmp_path / "labels", "--images", tmp_path / "images", "--label", "{stem}_L.png",
        "--table", table, "--ignore", "Void", "--out", out, "--split", "train", "--copy",
    ]  # fmt: skip
    assert convert(*arguments) == 0
    assert (labels_in(out, "a.png") == np.array([0, 255, 1, 1])[ids]).all()
    printed = capsys.readouterr().out
    assert 'classes=("Sky", "Road")' in printed
    assert "palette=[(128, 128, 128), (128, 64, 128)]" in printed
    assert (out / "train.txt").read_text() == "a\n" and (out / "images/a.png").is_file()
    # what it wrote is what mmseg reads
    with DefaultScope.overwrite_default_scope("mmseg"):
        (sample,) = SEG_DATASETS.build(
            dict(
                type="CheckedSegDataset",
                data_root=str(out),
                ann_file="train.txt",
                data_prefix=dict(img_path="images/", seg_map_path="labels/"),
                img_suffix=".png",
                metainfo=dict(classes=("Sky", "Road")),
                pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadCheckedAnnotations")],
            )
        )
    assert (sample["gt_seg_map"] == np.array([0, 255, 1, 1])[ids]).all()

    assert convert(*arguments) == 2
    assert "train.txt: is there already" in capsys.readouterr().err
    label.putpixel((5, 7), (1, 2, 3))
    label.save(tmp_path / "labels/a_L.png")
    assert convert(*arguments, "--overwrite") == 2
    assert "a_L.png: has the colour (1, 2, 3) (at x 5, y 7)" in capsys.readouterr().err
    table.write_text("1 2 Sky\n")
    assert convert(*arguments, "--overwrite") == 2
    assert "label_colors.txt:1: '1 2 Sky', expected R G B NAME" in capsys.readouterr().err


def test_table_of_cvat(tmp_path):
    """And a label with a palette, as Pascal VOC has them."""
    table = tmp_path / "labelmap.txt"
    table.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad sign:9,8,7::\n")
    image(tmp_path / "JPEGImages/a.jpg")
    label = Image.fromarray(np.eye(48, 64, dtype=np.uint8))
    label.putpalette([0, 0, 0, 9, 8, 7])
    (tmp_path / "SegmentationClass").mkdir()
    label.save(tmp_path / "SegmentationClass/a.png")
    assert convert(
        "colors", tmp_path, "--label", "SegmentationClass/{stem}.png", "--table", table,
        "--out", tmp_path / "out", "--split", "val",
    ) == 0  # fmt: skip
    assert (labels_in(tmp_path / "out", "JPEGImages/a.png") == np.eye(48, 64)).all()


def test_ids(tmp_path, capsys):
    """Zero and 300 are none, in labels of 16 bits; labels are in a folder beside each split's."""
    random_ids = np.random.default_rng(1).integers(0, 5, (2, 48, 64))
    for split, ids in zip(("train", "val"), random_ids, strict=True):
        image(tmp_path / split / "a.png")
        (tmp_path / f"{split}annot").mkdir()
        stored = np.array([0, 1, 2, 3, 300], np.uint16)[ids]
        Image.fromarray(stored).save(tmp_path / f"{split}annot/a.png")
    out = tmp_path / "out"
    arguments = [
        "ids", tmp_path, "--label", "{folder}annot/{stem}.png", "--split", "folders", "--out", out
    ]  # fmt: skip
    assert convert(*arguments, "--map", "300=255,0=255,1=0,2=1,3=2") == 0
    for split, ids in zip(("train", "val"), random_ids, strict=True):
        assert (labels_in(out, f"{split}/a.png") == np.array([255, 0, 1, 2, 255])[ids]).all()
        assert (out / f"{split}.txt").read_text() == f"{split}/a\n"
    assert convert(*arguments, "--overwrite") == 2
    assert "has the id 300, expected 0 to 255; --map it" in capsys.readouterr().err
    image(tmp_path / "train/b.jpg")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "trainannot/b.png")
    assert convert(*arguments, "--overwrite", "--map", "300=255") == 2
    assert "images end in .jpg and .png" in capsys.readouterr().err
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(tmp_path / "trainannot/b.png")
    assert convert(*arguments, "--overwrite", "--map", "300=255", "--jpeg", 90) == 2
    assert "b.png: states 60x48 pixels" in capsys.readouterr().err


def test_polygons_of_labelme(tmp_path, capsys):
    image(tmp_path / "a.png")
    shapes = [
        ("road", "polygon", [[-0.5, 19.5], [63.5, 19.5], [63.5, 48], [-0.5, 48]]),
        ("car", "rectangle", [[10, 15], [29, 34]]),  # the later shape is above
    ]
    file = tmp_path / "a.json"
    file.write_text(labelme("a.png", *shapes))
    expected = np.zeros((48, 64), int)
    expected[20:] = 2
    expected[15:35, 10:30] = 1
    arguments = ["polygons", tmp_path, "--split", "train", "--out"]
    assert convert(*arguments, tmp_path / "out") == 0
    found = labels_in(tmp_path / "out", "a.png")
    # at the polygon's edge rounding may differ by a pixel
    assert (found == expected)[np.arange(48) != 19].all()
    assert 'classes=("background", "car", "road")' in capsys.readouterr().out
    options = ["--classes", "road,car", "--background", "none"]
    assert convert(*arguments, tmp_path / "other", *options) == 0
    other = labels_in(tmp_path / "other", "a.png")
    assert (other == np.array([255, 1, 0])[found]).all()
    file.write_text(labelme("a.png", ("road", "polygon", [[1, 2], [3, 4]])))
    assert convert(*arguments, tmp_path / "third") == 2
    assert "a.json: shape 1: has 2 points, too few for a polygon" in capsys.readouterr().err
    file.write_text(labelme("a.png", (None, "polygon", [[1, 2], [3, 4], [5, 9]])))
    assert convert(*arguments, tmp_path / "third") == 2
    assert "a.json: shape 1: has no class name" in capsys.readouterr().err


def test_polygons_of_coco(tmp_path):
    """Polygons and run-length codes, the smaller above; pycocotools draws the truth."""
    image(tmp_path / "a.png")
    counts = [0, 48 * 5, 48 * 64 - 48 * 5]  # the first five columns
    annotations = [
        dict(id=0, category_id=3, segmentation=[[8, 8, 24, 8, 24, 24]], iscrowd=0, bbox=[0] * 4),
        dict(id=1, category_id=1, segmentation=[[2, 2, 60, 2, 60, 40, 2, 40]], bbox=[0] * 4),
        dict(id=2, category_id=3, iscrowd=1, bbox=[0] * 4,
             segmentation=dict(size=[48, 64], counts=counts)),
    ]  # fmt: skip
    annotations = [annotation | dict(image_id=0) for annotation in annotations]
    file = tmp_path / "annotations.json"
    file.write_text(coco({0: "a.png"}, annotations, {1: "wall", 3: "door"}))
    out = tmp_path / "out"
    assert convert("polygons", file, "--images", tmp_path, "--split", "train", "--out", out) == 0
    found = labels_in(out, "a.png")
    content = json.loads(file.read_text())
    content["images"][0] |= dict(width=64, height=48)
    truth = COCO()
    truth.dataset = content
    truth.createIndex()
    masks = [truth.annToMask(annotation) for annotation in content["annotations"]]
    expected = np.where(masks[0] | masks[2], 2, masks[1])
    assert (found == expected).all() and set(np.unique(found)) == {0, 1, 2}


def test_polygons_of_coco_with_mistakes(tmp_path, capsys):
    image(tmp_path / "a.png")
    triangle = dict(category_id=1, segmentation=[[8, 8, 24, 8, 24, 24]], bbox=[0] * 4)
    code = dict(size=[40, 40], counts=[0, 40 * 40])
    long = dict(size=[48, 64], counts=[10, 999999])
    packed = dict(size=[48, 64], counts="é")
    annotations = [
        triangle | dict(id=1, image_id=7),
        triangle | dict(id=2, image_id=0, category_id=9),
        triangle | dict(id=3, image_id=0, segmentation=code),
        triangle | dict(id=4, image_id=0, segmentation=[]),
        triangle | dict(id=5, image_id=2),  # of the image that is not there: told once
        triangle | dict(id=6),
        triangle | dict(id=7, image_id=0, segmentation=[[1, 1, float("nan"), 5, 3, 9]]),
        triangle | dict(id=8, image_id=0, segmentation=[[1, 1, 1e9, 5, 3, 9]]),
        triangle | dict(id=9, image_id=0, segmentation=long),
        triangle | dict(id=10, image_id=0, segmentation=packed),
    ]
    file = tmp_path / "annotations.json"
    file.write_text(coco({0: "a.png", 1: "a.png", 2: "b.png"}, annotations, {1: "wall"}))
    arguments = ["polygons", file, "--images", tmp_path, "--split", "train"]
    assert convert(*arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    for line in (
        "image a.png is listed twice",
        "image b.png: no such file",
        "annotation 1 (id 1): is of the image 7, which is not listed",
        "annotation 2 (id 2): is of the category 9, not listed",
        "annotation 3 (id 3): has no polygon (states 40x40 pixels, but its image has 64x48)",
        "annotation 4 (id 4): has no polygon (",
        "annotation 6 (id 6): is of the image None, which is not listed",
        "annotation 7 (id 7): has no polygon (has the number nan, expected a number)",
        "annotation 8 (id 8): has no polygon (has the coordinate 1e+09, but its image 64x48",
        "annotation 9 (id 9): has no polygon (has runs of 1000009 pixels in all, its image 3072)",
        "annotation 10 (id 10): has no polygon (",
    ):
        assert line in said
    assert "11 mistakes" in said and not (tmp_path / "out").exists()


def test_too_many_classes_for_labels(tmp_path, capsys):
    image(tmp_path / "a.png")
    triangle = [[1, 2], [3, 4], [5, 9]]
    shapes = [(f"class {number}", "polygon", triangle) for number in range(256)]
    (tmp_path / "a.json").write_text(labelme("a.png", *shapes))
    arguments = ["polygons", tmp_path, "--split", "train", "--background", "none"]
    assert convert(*arguments, "--out", tmp_path / "out") == 2
    assert "has 256 classes, expected 255 at most" in capsys.readouterr().err


def test_one_split_after_another(tmp_path, capsys):
    """The name of one split leaves the others; a conversion of all of them replaces all."""
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    box = dict(category_id=1, bbox=[1, 2, 3, 4.5])
    for split, name in (("train", "a.png"), ("val", "b.png")):
        content = coco({0: name}, [box | dict(id=1, image_id=0)], {1: "x"})
        (tmp_path / f"{split}.json").write_text(content)
    out = tmp_path / "out"

    def convert_split(split, *options):
        source = ["coco", tmp_path / f"{split}.json", "--images", tmp_path, "--out", out]
        return convert(*source, "--split", split, *options)

    annotations = {split: out / f"annotations/instances_{split}.json" for split in ("train", "val")}
    assert convert_split("train") == convert_split("val") == 0
    assert all(file.exists() for file in annotations.values())
    assert convert_split("val") == 2
    assert "instances_val.json: is there already" in capsys.readouterr().err
    assert convert_split("val", "--overwrite") == 0
    assert annotations["train"].exists()
    assert "removed" not in capsys.readouterr().out
    (tmp_path / "train.txt").write_text("a.png\n")
    arguments = ["coco", tmp_path / "train.json", "--images", tmp_path, "--out", out]
    arguments += ["--split", tmp_path]
    assert convert(*arguments) == 2
    assert convert(*arguments, "--overwrite") == 0
    assert not annotations["val"].exists()
    assert f"removed: {annotations['val']}" in capsys.readouterr().out


def test_polygons_of_another_split_need_the_same_classes(tmp_path, capsys):
    triangle = [[1, 2], [3, 4], [5, 9]]
    for name, label in (("a", "road"), ("b", "car")):
        image(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.json").write_text(labelme(f"{name}.png", (label, "polygon", triangle)))
    arguments = ["--images", tmp_path, "--out", tmp_path / "out", "--split"]
    assert convert("polygons", tmp_path / "a.json", *arguments, "train") == 0
    assert convert("polygons", tmp_path / "b.json", *arguments, "val") == 2
    assert "holds another split" in capsys.readouterr().err
    options = ["--classes", "car,road"]
    assert convert("polygons", tmp_path / "b.json", *arguments, "val", *options) == 0


@pytest.mark.parametrize(
    "form, files, options, expected",
    [
        ("coco", {"a.json": '{"images": [], "annotations": [], "categories": '
                            '[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}'}, [],
         "lists two categories with the id 1"),
        ("coco", {"a.json": '{"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": '
                            '"b.png"}], "annotations": [], "categories": []}'}, [],
         "lists two images with the id 1"),
        ("coco", {"a.json": '{"images": [{"id": 1, "file_name": "a.png", "width": "64"}], '
                            '"annotations": [], "categories": []}'}, [],
         "states '64' as a side of the image a.png"),
        ("yolo", {"data.yaml": "names: {1: cat, 2: dog}", "a.txt": "1 .5 .5 .1 .1"}, [],
         "data.yaml: names has the numbers 1, 2"),
        ("csv", {"a.csv": 'image,class,xmin,ymin,xmax,ymax\na.png,"x' + "y" * 200_000}, [],
         "a.csv:2: field larger"),
        ("labelme", {"a.json": labelme("a.png"), "lists/train.txt": "a".encode("utf-16")},
         ["--split", "lists"], "train.txt: cannot be read"),
        ("labelme", {"a.json": labelme("a.png")}, ["--classes", ",".join(map(str, range(99)))],
         None),
        ("ids", {"b.png": b""}, ["--label", "{stem.foo}.png"], "expected {folder} and {stem}"),
    ],
)  # fmt: skip
def test_mistakes_that_are_one_line(form, files, options, expected, tmp_path, capsys):
    image(tmp_path / "a.png")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(content)
    options = [tmp_path / o if o == "lists" else o for o in options]
    split = [] if "--split" in options else ["--split", "train"]
    status = convert(form, tmp_path, *split, "--out", tmp_path / "out", *options)
    assert status == (0 if expected is None else 2)
    assert expected is None or expected in capsys.readouterr().err


def test_an_empty_argument_is_no_folder(tmp_path, capsys):
    with pytest.raises(SystemExit):
        convert("voc", tmp_path, "--split", "train", "--out", "")
    assert "--out: is empty" in capsys.readouterr().err


def test_ids_trade_places():
    label = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    assert ids_of_ids(label, {0: 1, 1: 2, 2: 0}).tolist() == [[1, 2, 0, 3]]


def test_crowds_of_coco_stay_crowds(tmp_path):
    image(tmp_path / "a.png")
    box = dict(image_id=0, category_id=1, bbox=[1, 2, 30, 40])
    annotations = [box | dict(id=1, iscrowd=1), box | dict(id=2, iscrowd=0), box | dict(id=3)]
    file = tmp_path / "annotations.json"
    file.write_text(coco({0: "a.png"}, annotations, {1: "x"}))
    arguments = ["coco", file, "--images", tmp_path, "--split", "train", "--out", tmp_path / "out"]
    assert convert(*arguments) == 0
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [annotation["iscrowd"] for annotation in content["annotations"]] == [1, 0, 0]


def test_every_kind_of_labelmes_shapes_is_drawn(tmp_path):
    """As many pixels as geometry says, where the shape is."""
    image(tmp_path / "a.png")
    shapes = [
        ("circle", "circle", [[16, 16], [16, 24]]),  # centre, edge
        ("line", "line", [[40, 4], [40, 24]]),
        ("strip", "linestrip", [[50, 4], [50, 14], [60, 14]]),
        ("point", "point", [[20, 40]]),
    ]
    (tmp_path / "a.json").write_text(labelme("a.png", *shapes))
    names = [name for name, _, _ in shapes]
    options = ["--background", "none", "--classes", ",".join(names)]
    out = tmp_path / "out"
    assert convert("polygons", tmp_path, "--split", "train", "--out", out, *options) == 0
    label = labels_in(out, "a.png")
    area = dict(circle=math.pi * 8**2, line=10 * 20, strip=10 * 10 + 10 * 10, point=math.pi * 5**2)
    centre = dict(circle=(16, 16), line=(40, 14), strip=(50, 8), point=(20, 40))
    for id, name in enumerate(names):
        x, y = centre[name]
        assert label[y, x] == id
        assert (label == id).sum() == pytest.approx(area[name], rel=0.3)


def test_yolo_beside_the_images_with_a_list_of_classes(tmp_path, capsys):
    image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    out = tmp_path / "out"
    assert convert("yolo", tmp_path, "--split", "train", "--out", out) == 0
    assert boxes_in(out, "train") == [("a.png", "dog", [24, 12, 16, 24])]
    assert 'classes=("cat", "dog")' in capsys.readouterr().out


def test_other_names_of_split_folders(tmp_path):
    for folder in ("training", "validation", "testing"):
        image(tmp_path / folder / "a.png")
        (tmp_path / folder / "a.json").write_text(labelme("a.png"))
    out = tmp_path / "out"
    assert convert("labelme", tmp_path, "--split", "folders", "--out", out, "--classes", "x") == 0
    for split, folder in (("train", "training"), ("val", "validation"), ("test", "testing")):
        content = json.loads((out / f"annotations/instances_{split}.json").read_text())
        assert [entry["file_name"] for entry in content["images"]] == [f"{folder}/a.png"]


def test_what_a_killed_conversion_left_is_removed(tmp_path):
    image(tmp_path / "a.png")
    box = dict(id=1, image_id=0, category_id=1, bbox=[1, 2, 3, 4.5])
    (tmp_path / "boxes.json").write_text(coco({0: "a.png"}, [box], {1: "x"}))
    out = tmp_path / "out"
    killed = subprocess.Popen(["true"])
    killed.wait()
    (out / f".x.{killed.pid}.tmp/images").mkdir(parents=True)
    (out / f".x.{os.getpid()}.tmp").mkdir()  # of one that runs
    arguments = ["coco", tmp_path / "boxes.json", "--images", tmp_path, "--split", "train"]
    assert convert(*arguments, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"annotations", f".x.{os.getpid()}.tmp"}
