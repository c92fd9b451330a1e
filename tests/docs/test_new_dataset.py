"""The pages on your own data: their scripts run as they stand there."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules
from PIL import Image

from tests.conftest import REPO


def page(name):
    return (REPO / f"docs/{name}.md").read_text()


def run_script_of(name, *arguments):
    """The page's program: of its Python blocks the one that begins with a docstring."""
    (script,) = re.findall(r'^```python\n(""".*?)^```$', page(name), re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True, timeout=60)


def test_script_of_detection(tmp_path):
    voc, target = tmp_path / "BCCD", tmp_path / "bccd"
    for folder in ("JPEGImages", "ImageSets/Main", "Annotations"):
        (voc / folder).mkdir(parents=True)
    boxes = [("RBC", 1, 1, 10, 20), ("Platelets", 5, 6, 7, 8), ("WBC", 9, 9, 9, 12)]
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    for split in ("train", "val", "test"):
        (voc / f"ImageSets/Main/{split}.txt").write_text(f"{split}_0\n")
        (voc / f"JPEGImages/{split}_0.jpg").write_bytes(b"")
        (voc / f"Annotations/{split}_0.xml").write_text(
            f"<a><size><width>64</width><height>48</height></size>{objects}</a>"
        )
    run_script_of("new_dataset_detection", voc, target)
    content = json.loads((target / "annotations/instances_val.json").read_text())
    assert content["images"] == [dict(id=1, file_name="val_0.jpg", width=64, height=48)]
    found = [(a["category_id"], *a["bbox"]) for a in content["annotations"]]
    assert found == [(1, 0, 0, 10, 20), (3, 4, 5, 3, 3)]  # the one without area is left out
    assert (target / "images/val_0.jpg").is_file()


def test_script_of_segmentation(tmp_path):
    """What it writes is what the example's config reads."""
    tutorial, target = tmp_path / "CamVid", tmp_path / "camvid"
    random = np.random.default_rng(0)
    ids = random.integers(0, 12, (3, 36, 48), dtype=np.uint8)
    for split, label in zip(("train", "val", "test"), ids, strict=True):
        for folder in (split, f"{split}annot"):
            (tutorial / folder).mkdir(parents=True)
        Image.fromarray(np.full((36, 48, 3), (200, 100, 50), np.uint8)).save(
            tutorial / split / "frame_0.png"
        )
        Image.fromarray(label).save(tutorial / f"{split}annot/frame_0.png")
    run_script_of("new_dataset_segmentation", tutorial, target)

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(REPO / "configs/fna_seg/deeplabv3_param_adapt_camvid.py")
    for split, label in zip(("train", "val", "test"), ids, strict=True):
        settings = cfg[f"{split}_dataloader"].dataset | dict(data_root=str(target))
        settings["pipeline"] = cfg.test_dataloader.dataset.pipeline
        with DefaultScope.overwrite_default_scope("mmseg"):
            (sample,) = DATASETS.build(settings)
        expected = np.where(label == 11, 255, label)
        assert (sample["data_samples"].gt_sem_seg.data.numpy() == expected).all()
        colour = sample["inputs"].float().mean((1, 2))
        assert colour.tolist() == pytest.approx([50, 100, 200], abs=3)  # blue first


# what a user changes in the template of the data file, one kind of data each
FILLED_IN = {
    "detection": {
        'classes=("cat", "dog")': 'classes=("ant", "bee", "crab", "dove", "eel")',
        '"data/own/"': '"data/animals/"',
        "image_scale = (640, 480)": "image_scale = (512, 384)",
        "octave_base_scale=4": "octave_base_scale=3",
    },
    "segmentation": {
        'classes=("background", "road")': 'classes=("floor", "wall", "door", "lamp", "sofa")',
        "palette=[[0, 0, 0], [128, 64, 128]],": "",
        '"data/own/"': '"data/rooms/"',
        "image_scale = (640, 480)": "image_scale = (512, 384)",
    },
}


@pytest.mark.parametrize("stage", ["param_adapt", "arch_adapt"])
@pytest.mark.parametrize(
    "framework, task, example",
    [
        ("fna_det/retinanet", "detection", "bccd"),
        ("fna_det/ssdlite", "detection", "bccd"),
        ("fna_seg/deeplabv3", "segmentation", "camvid"),
    ],
)
def test_own_data_are_stated_once(framework, task, example, stage, tmp_path):
    """A copy of the template, filled in, and a copy of the example's config that names it."""
    template = (REPO / f"configs/_base_/data/own_{task}.py").read_text()
    for old, new in FILLED_IN[task].items():
        assert template.count(old) == 1
        template = template.replace(old, new)
    (tmp_path / "mine.py").write_text(template)
    folder = REPO / "configs" / framework.partition("/")[0]
    content = (REPO / f"configs/{framework}_{stage}_{example}.py").read_text()
    before = f'"../_base_/data/{example}.py"'
    assert content.count(before) == 1 and content.count(f"data/{example}") == 1
    content = content.replace(before, repr(str(tmp_path / "mine.py")))
    (tmp_path / "config.py").write_text(
        re.sub(r'"((?:\.\./_base_/)?\w+\.py)"', rf'"{folder}/\1"', content)
    )
    cfg = Config.fromfile(tmp_path / "config.py")

    head = cfg.model.bbox_head if task == "detection" else cfg.model.decode_head
    assert head.num_classes == 5
    root = "data/animals/" if task == "detection" else "data/rooms/"
    assert cfg.data_root == root
    for split in ("train",) if stage == "arch_adapt" else ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        dataset = dataset.get("dataset", dataset)
        assert dataset.data_root == root and len(dataset.metainfo.classes) == 5
        if task == "detection":
            assert dataset.ann_file == f"annotations/instances_{split}.json"
            assert dataset.data_prefix.img == "images/"
        else:
            assert dataset.type == "CheckedSegDataset"
            assert dataset.ann_file == f"{split}.txt"
            assert dataset.data_prefix == dict(img_path="images/", seg_map_path="labels/")
    for part in ("dataloader", "evaluator"):
        for split in ("train", "val", "test"):
            used = str(cfg.get(f"{split}_{part}")).lower()
            assert not re.search(r"data/(coco|bccd|cityscapes|camvid)|2017|rbc|pedestrian", used)
    if framework == "fna_det/retinanet":
        assert head.anchor_generator.octave_base_scale == 3 and head.in_channels == 256
        assert cfg.input_size == (384, 512)
        assert "'scale': (512, 384)" in str(cfg.train_dataloader.dataset.pipeline)
        if stage == "arch_adapt":
            assert "'scale': (512, 384)" in str(cfg.train_cfg.arch_pipeline)
            assert cfg.train_cfg.cost.input_size == (384, 512)
