import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from datasets import toy_city
from datasets.toy_city import main, write_dataset
from datasets.toy_city_scene import Scene

# pycocotools has yet to follow numpy 2's __array__ protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SIZE = (96, 192)
SMALL = {"num_train": 12, "num_val": 6, "size": SIZE, "seed": 7}
# Copied from the label table of cityscapesscripts, id -> trainId, not from the code under test.
TRAIN_ID_OF_ID = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10,
                  24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
# COCO category id -> the Cityscapes ids its pixels may have; a rider is a person to COCO.
LABELS_OF_CATEGORY = {1: {24, 25}, 2: {33}, 3: {26}, 4: {32}, 6: {28}, 7: {31}, 8: {27},
                      10: {19}, 13: {20}}  # fmt: skip
COCO_NAMES = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 6: "bus", 7: "train",
              8: "truck", 10: "traffic light", 13: "stop sign", 90: "toothbrush"}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "city"
    write_dataset(root, **SMALL)
    return root


def read(path):
    return np.asarray(Image.open(path))


def files_below(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_class_and_category_is_frequent():
    scenes = [Scene(seed, SIZE) for seed in range(60)]
    shown = [np.bincount(np.array(s.labels)[s.segments].ravel(), minlength=34) for s in scenes]
    assert set(np.flatnonzero(np.sum(shown, axis=0))) == set(TRAIN_ID_OF_ID)
    assert np.mean(np.array(shown)[:, list(TRAIN_ID_OF_ID)] > 40, axis=0).min() > 0.15
    counts = np.bincount([c for s in scenes for c in s.categories if c], minlength=91)
    assert set(np.flatnonzero(counts)) == set(LABELS_OF_CATEGORY)
    assert counts[counts > 0].min() > 12
    for image in (scene.image for scene in scenes):
        assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
        assert 30 < image.mean() < 225 and image.std() > 20  # neither flat nor burnt out


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_layout_agrees_with_cityscapes_layout(root, split):
    coco = COCO(str(root / f"annotations/instances_{split}2017.json"))
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    assert len(names) == 80 and list(names) == sorted(names)
    assert {i: names[i] for i in COCO_NAMES} == COCO_NAMES
    assert len(coco.imgs) == SMALL[f"num_{split}"] and min(coco.anns) == 1
    heights = np.array([note["bbox"][3] for note in coco.anns.values()])
    assert 2 < len(heights) / len(coco.imgs) < 6 and np.mean(heights > 0.15 * SIZE[0]) > 0.9
    for image_id, image in coco.imgs.items():
        name = f"{split}/toy/toy_000000_{image_id:06d}"
        picture = read(root / f"leftImg8bit/{name}_leftImg8bit.png")
        assert picture.shape == (image["height"], image["width"], 3) == (*SIZE, 3)
        same = read(root / f"{split}2017" / image["file_name"])
        assert np.abs(same.astype(int) - picture).mean() < 10  # it is a JPEG
        kinds = ("labelIds", "labelTrainIds", "instanceIds")
        paths = [root / f"gtFine/{name}_gtFine_{kind}.png" for kind in kinds]
        labels, train_ids, instances = map(read, paths)
        assert labels.dtype == train_ids.dtype == np.uint8 and instances.dtype == np.uint16
        np.testing.assert_array_equal(train_ids, np.vectorize(TRAIN_ID_OF_ID.get)(labels))
        without_number = np.where(labels >= 24, instances // 1000, instances)
        np.testing.assert_array_equal(without_number, labels)
        covered = np.zeros(SIZE, int)
        for note in coco.imgToAnns[image_id]:
            mask = coco.annToMask(note).astype(bool)
            covered += mask
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            assert note["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
            assert note["area"] == mask.sum() >= 30 and note["iscrowd"] == 0
            assert set(labels[mask]) <= LABELS_OF_CATEGORY[note["category_id"]]
            assert len(set(instances[mask])) == 1
        assert covered.max() == 1


def test_same_parameters_same_bytes_with_any_number_of_processes(root, tmp_path):
    write_dataset(tmp_path / "again", **SMALL, processes=2)
    assert files_below(tmp_path / "again") == files_below(root)


def test_no_two_pictures_are_alike(root, tmp_path):
    write_dataset(tmp_path, **SMALL | {"seed": 8})
    pictures = [*files_below(root).items(), *files_below(tmp_path).items()]
    assert len({file for name, file in pictures if name.endswith("leftImg8bit.png")}) == 36


def test_all_or_nothing(monkeypatch, tmp_path):
    def fail_late(seed, size):
        if seed % 10 == 3:
            raise RuntimeError("power cut")
        return Scene(seed, size)

    monkeypatch.setattr(toy_city, "Scene", fail_late)
    with pytest.raises(RuntimeError, match="power cut"):
        write_dataset(tmp_path / "city", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for owner in (dead.pid, os.getpid(), os.getppid(), "notes"):
        (tmp_path / f".city.{owner}.tmp" / "train2017").mkdir(parents=True)
    write_dataset(tmp_path / "city", **SMALL | {"num_train": 1, "num_val": 1})
    kept = {f".city.{os.getppid()}.tmp", ".city.notes.tmp", "city"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_second_call_reuses_and_other_parameters_are_refused(root, monkeypatch, capsys):
    monkeypatch.setattr(toy_city, "Scene", None)
    before = files_below(root)
    write_dataset(root, **SMALL)
    assert "already there" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="expected .*'val': 1,"):
        write_dataset(root, **SMALL | {"num_val": 1})
    assert files_below(root) == before


def test_scenes_of_another_version_are_drawn_anew_and_nothing_else_is_lost(root, tmp_path, capsys):
    """Kept: what has a letter in it, another seed, or lies behind a link."""
    few = SMALL | {"num_train": 1, "num_val": 1}
    write_dataset(tmp_path / "new", **few)
    for name, changes in {"old": {}, "letter": {}, "seed": {"seed": 8}, "disk": {}}.items():
        shutil.copytree(root, tmp_path / name)
        file = tmp_path / name / toy_city.PARAMETERS_FILE
        file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 1} | changes))
    (tmp_path / "letter" / "letter.txt").write_text("dear diary")
    (tmp_path / "link").symlink_to("disk")
    capsys.readouterr()
    for name in ("letter", "seed", "link"):
        before = files_below(tmp_path / name)
        with pytest.raises(FileExistsError, match="'version': 1"):
            write_dataset(tmp_path / name, **few)
        assert files_below(tmp_path / name) == before
    assert capsys.readouterr().out == ""
    write_dataset(tmp_path / "old", **few)
    said = f"toy city: {tmp_path}/old was drawn by another version, is drawn anew"
    assert capsys.readouterr().out.splitlines()[0] == said
    assert files_below(tmp_path / "old") == files_below(tmp_path / "new")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [None, "[]", "{", "{}"])
def test_unrelated_folder_is_refused_in_one_line(tmp_path, capsys, content):
    (tmp_path / "letter.txt").write_text("dear diary")
    if content is not None:
        (tmp_path / toy_city.PARAMETERS_FILE).write_text(content)
    before = files_below(tmp_path)
    for place in (tmp_path, tmp_path / "letter.txt" / "city"):
        assert main(["--out", str(place)]) == 2
        error = capsys.readouterr().err
        assert str(tmp_path) in error and error.count("\n") == 1
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"size": (63, 96)}, {"seed": -1}])
def test_impossible_parameters_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected sides of 64 pixels"):
        write_dataset(tmp_path / "city", **SMALL | wrong)
