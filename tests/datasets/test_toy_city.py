import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from datasets import toy_city
from datasets.toy_city import draw_scene, encode_mask, main, to_train_ids, write_dataset

# pycocotools has yet to follow numpy 2's __array__ protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SIZE = (128, 256)
SMALL = {"num_train": 3, "num_val": 2, "size": SIZE, "seed": 7}

# Copied from the label table of cityscapesscripts, id -> trainId, not from the code under test.
TRAIN_ID_OF_ID = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
# COCO category id -> the Cityscapes ids its pixels may have; a rider is a person to COCO.
LABELS_OF_CATEGORY = {
    1: {24, 25}, 2: {33}, 3: {26}, 4: {32}, 6: {28}, 7: {31}, 8: {27}, 10: {19}, 13: {20},
}  # fmt: skip
COCO_NAMES = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 6: "bus", 7: "train",
              8: "truck", 10: "traffic light", 13: "stop sign", 90: "toothbrush"}  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(seed, SIZE) for seed in range(60)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "city"
    write_dataset(root, **SMALL)
    return root


def load_coco(root: Path, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / "annotations" / f"instances_{split}2017.json"))


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_shapes_and_types():
    scene = draw_scene(3, (96, 160))
    assert scene.image.shape == (96, 160, 3) and scene.image.dtype == np.uint8
    assert scene.labels.shape == (96, 160) and scene.labels.dtype == np.uint8
    assert scene.instance_ids.shape == (96, 160) and scene.instance_ids.dtype == np.uint16


def test_same_seed_same_scene(scenes):
    again = draw_scene(5, SIZE)
    np.testing.assert_array_equal(again.image, scenes[5].image)
    np.testing.assert_array_equal(again.labels, scenes[5].labels)
    assert [i.bbox for i in again.instances] == [i.bbox for i in scenes[5].instances]


def test_other_seed_other_scene(scenes):
    pairs = zip(scenes[:-1], scenes[1:], strict=True)
    assert all(np.any(a.labels != b.labels) for a, b in pairs)


def test_pictures_are_neither_flat_nor_burnt_out(scenes):
    for scene in scenes:
        assert 30 < scene.image.mean() < 225
        assert scene.image.std() > 20


@pytest.mark.parametrize("size, seed", [((32, 512), 0), ((256, 512), -1)])
def test_impossible_scenes_are_refused(size, seed):
    with pytest.raises(ValueError, match="64 pixels"):
        draw_scene(seed, size)


def test_labels_are_the_19_classes_and_all_occur(scenes):
    found = set(np.unique(np.stack([s.labels for s in scenes])).tolist())
    assert found == set(TRAIN_ID_OF_ID)


def test_every_category_occurs(scenes):
    assert {i.category for s in scenes for i in s.instances} == set(LABELS_OF_CATEGORY)


def test_boxes_and_areas_are_those_of_the_visible_masks(scenes):
    for instance in (i for s in scenes for i in s.instances):
        rows, columns = np.nonzero(instance.mask)
        x, y = columns.min(), rows.min()
        assert instance.bbox == (x, y, columns.max() - x + 1, rows.max() - y + 1)
        assert instance.area == instance.mask.sum() >= 30


def test_masks_lie_on_their_labels_and_apart(scenes):
    for scene in scenes:
        covered = np.zeros(SIZE, int)
        for instance in scene.instances:
            covered += instance.mask
            assert set(scene.labels[instance.mask].tolist()) == {instance.label}
            assert instance.label in LABELS_OF_CATEGORY[instance.category]
        assert covered.max() <= 1


def test_instance_ids_are_as_in_cityscapes(scenes):
    for scene in scenes:
        counted = scene.labels >= 24
        np.testing.assert_array_equal(scene.instance_ids[~counted], scene.labels[~counted])
        np.testing.assert_array_equal(scene.instance_ids[counted] // 1000, scene.labels[counted])
        for instance in scene.instances:
            assert len(np.unique(scene.instance_ids[instance.mask])) == 1


def test_a_person_behind_a_bus_is_painted_first():
    from datasets.toy_city_layout import painting_order

    def box(x0, x1, z0, z1):
        return np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], float)

    bus, person, before = box(2, 4.5, 10, 22), box(6, 6.4, 11, 11.3), box(2.5, 3, 8, 8.3)
    order = painting_order(np.stack([before, bus, person]), camera_x=0.0)
    assert order == [2, 1, 0]


def test_train_ids(scenes):
    every_id = np.arange(256, dtype=np.uint8)
    expected = [TRAIN_ID_OF_ID.get(i, 255) for i in range(256)]
    assert to_train_ids(every_id).dtype == np.uint8
    assert to_train_ids(every_id).tolist() == expected


@pytest.mark.parametrize("mask", [np.ones((2, 3), bool), np.zeros((2, 3), bool), np.eye(3) > 0])
def test_encode_mask(mask):
    code = encode_mask(mask)
    bits = np.repeat(np.arange(len(code["counts"])) % 2, code["counts"])
    np.testing.assert_array_equal(bits.reshape(mask.shape, order="F"), mask)
    assert code["size"] == list(mask.shape)


@pytest.mark.parametrize("split, count", [("train", 3), ("val", 2)])
def test_coco_layout(root, split, count):
    coco = load_coco(root, split)
    assert len(coco.imgs) == count and len(coco.anns) > 0
    ids = [c["id"] for c in coco.dataset["categories"]]
    names = {c["id"]: c["name"] for c in coco.dataset["categories"]}
    assert len(ids) == 80 and ids == sorted(ids)
    assert {i: names[i] for i in COCO_NAMES} == COCO_NAMES
    assert min(coco.anns) == 1
    for image in coco.imgs.values():
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        picture = cv2.imread(str(root / f"{split}2017" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3) == (*SIZE, 3)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_masks_agree_with_areas_boxes_and_labels(root, split):
    coco = load_coco(root, split)
    folder = root / "gtFine" / split / "toy"
    for note in coco.anns.values():
        mask = coco.annToMask(note).astype(bool)
        rows, columns = np.nonzero(mask)
        assert note["area"] == mask.sum() and note["iscrowd"] == 0
        x, y = columns.min(), rows.min()
        assert note["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
        path = folder / f"toy_000000_{note['image_id']:06d}_gtFine_labelIds.png"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert set(labels[mask].tolist()) <= LABELS_OF_CATEGORY[note["category_id"]]


@pytest.mark.parametrize("split, count", [("train", 3), ("val", 2)])
def test_cityscapes_layout(root, split, count):
    images = sorted((root / "leftImg8bit" / split / "toy").iterdir())
    expected = [f"toy_000000_{i:06d}_leftImg8bit.png" for i in range(count)]
    assert [p.name for p in images] == expected
    for path in images:
        stem = path.name.removesuffix("_leftImg8bit.png")

        def read(kind, stem=stem):
            path = root / "gtFine" / split / "toy" / f"{stem}_gtFine_{kind}.png"
            return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

        labels, train_ids, instances = map(read, ("labelIds", "labelTrainIds", "instanceIds"))
        assert labels.shape == train_ids.shape == instances.shape == SIZE
        assert labels.dtype == train_ids.dtype == np.uint8 and instances.dtype == np.uint16
        mapped = np.vectorize(lambda i: TRAIN_ID_OF_ID.get(i, 255))(labels)
        np.testing.assert_array_equal(train_ids, mapped)
        assert cv2.imread(str(path)).shape == (*SIZE, 3)


def test_written_colours_are_not_swapped(root):
    scene = draw_scene(SMALL["seed"] * toy_city.SEED_STRIDE, SIZE)
    path = root / "leftImg8bit" / "train" / "toy" / "toy_000000_000000_leftImg8bit.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], scene.image)


def test_train_and_val_are_disjoint(root, monkeypatch, tmp_path):
    seeds = []

    def spy(seed, size):
        seeds.append(seed)
        return draw_scene(seed, size)

    monkeypatch.setattr(toy_city, "draw_scene", spy)
    write_dataset(tmp_path / "a", **SMALL)
    write_dataset(tmp_path / "b", **SMALL | {"seed": 8})
    assert len(seeds) == len(set(seeds)) == 10
    pictures = files_below(root / "leftImg8bit").values()
    assert len(set(pictures)) == len(pictures) == 5


def test_same_parameters_same_bytes(root, tmp_path):
    write_dataset(tmp_path / "again", **SMALL)
    assert files_below(tmp_path / "again") == files_below(root)


def test_all_or_nothing(monkeypatch, tmp_path):
    calls = []

    def fail_late(seed, size):
        calls.append(seed)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return draw_scene(seed, size)

    monkeypatch.setattr(toy_city, "draw_scene", fail_late)
    with pytest.raises(RuntimeError, match="power cut"):
        write_dataset(tmp_path / "city", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_second_call_reuses(root, monkeypatch, capsys):
    monkeypatch.setattr(toy_city, "draw_scene", None)
    write_dataset(root, **SMALL)
    assert "already there" in capsys.readouterr().out


def test_another_process_finishing_first_is_no_failure(monkeypatch, tmp_path):
    target = tmp_path / "city"
    real = toy_city._move_into_place

    def be_late(draft, root, parameters):
        real(draft, root, parameters)
        draft.mkdir()
        real(draft, root, parameters)

    monkeypatch.setattr(toy_city, "_move_into_place", be_late)
    write_dataset(target, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["city"]


def test_other_parameters_are_refused(root):
    before = files_below(root)
    with pytest.raises(FileExistsError, match="other parameters"):
        write_dataset(root, **SMALL | {"num_val": 1})
    assert files_below(root) == before


@pytest.mark.parametrize("content", [None, "[]", "{", "{}"])
def test_unrelated_folder_is_refused(tmp_path, capsys, content):
    (tmp_path / "letter.txt").write_text("dear diary")
    if content is not None:
        (tmp_path / toy_city.PARAMETERS_FILE).write_text(content)
    before = files_below(tmp_path)
    assert main(["--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert str(tmp_path) in captured.err and captured.err.count("\n") == 1
    assert files_below(tmp_path) == before


def test_command_line(tmp_path, capsys):
    out = tmp_path / "deep" / "city"
    options = ["--train", "1", "--val", "1", "--height", "64", "--width", "128", "--seed", "2"]
    assert main(["--out", str(out), *options]) == 0
    assert str(out) in capsys.readouterr().out
    stored = json.loads((out / toy_city.PARAMETERS_FILE).read_text())
    expected = {"train": 1, "val": 1, "height": 64, "width": 128, "seed": 2}
    assert stored == expected | {"version": toy_city.VERSION}


def test_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "city")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize("option", [["--train", "0"], ["--height", "8"], ["--seed", "-1"]])
def test_bad_parameters(tmp_path, capsys, option):
    assert main(["--out", str(tmp_path / "city"), *option]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "city").exists()
