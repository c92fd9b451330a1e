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
