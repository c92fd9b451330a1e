"""Segmentation through the two entry points, run as users run them, on small data."""

import json
import shutil

import cv2
import pytest

from tests.engine.test_train import run_script

TOY = "configs/fna_seg/deeplabv3_fna_toy.py"
CLASSES = ["road", "sidewalk", "building", "vegetation", "sky", "car"]  # each scene has them


def adapt(root, seed_file, work_dir, *options, gpus=0, **environment):
    """A run of 2 iterations after 3 for BN, with a loader's process."""
    return run_script(
        "param_adapt", TOY, gpus, "--data-root", root, "--work-dir", work_dir, "--cfg-options",
        "train_cfg.max_iters=2", "custom_hooks.2.iterations=3", "train_dataloader.batch_size=2",
        "default_hooks.checkpoint.interval=2", "default_hooks.logger.interval=1",
        f"model.backbone.init_cfg.seed={seed_file}", *options, **environment,
    )  # fmt: skip


def test_adapted_then_evaluated_and_drawn(toy_city, seed_file, tmp_path):
    process = adapt(toy_city, seed_file, tmp_path)
    assert process.returncode == 0, process.stderr
    assert "BN statistics before training: [3/3]" in process.stdout
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    process = run_script(
        "test", TOY, tmp_path / "iter_2.pth", 0, "--data-root", toy_city, "--work-dir", tmp_path,
        "--show-dir", tmp_path / "pictures",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    ious = {key: value for key, value in metrics.items() if key.startswith("IoU.")}
    assert {f"IoU.{name}" for name in CLASSES} <= set(ious)
    assert metrics["mIoU"] == pytest.approx(sum(ious.values()) / len(ious), abs=0.01)
    assert 0 < metrics["mIoU"] < 100 and metrics["params"] > 1e6 and metrics["madds"] > 1e8
    for name in CLASSES:  # the table
        assert any(name in line and "|" in line for line in process.stdout.splitlines())
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 4
    assert cv2.imread(str(pictures[0])).shape == (64, 256, 3)


def spoil_one_label(root):
    path = root / "gtFine/train/toy/toy_000000_000005_gtFine_labelTrainIds.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[-8:] = 33  # large enough to survive any crop
    cv2.imwrite(str(path), pixels)


def drop_one_label(root):
    (root / "gtFine/train/toy/toy_000000_000005_gtFine_labelTrainIds.png").unlink()
    (root / "gtFine/train/toy/toy_000000_000005_gtFine_labelIds.png").unlink()


MISTAKES = {
    "id of no class": (spoil_one_label, [], "000005_gtFine_labelTrainIds.png: holds the id 33"),
    "label that is missing": (drop_one_label, [], "000005_gtFine_labelTrainIds.png: no such file"),
    "head with too few classes": (
        None,
        ["model.decode_head.num_classes=18"],
        "model.decode_head.num_classes is 18, but the data set has 19 classes",
    ),
    "head of other channels": (
        None,
        ["model.decode_head.in_channels=160"],
        "model.decode_head.in_channels is 160, but the backbone gives 320",
    ),
}


@pytest.mark.parametrize(
    "case, processes", [*((case, 1) for case in MISTAKES), ("id of no class", 2)]
)
def test_mistakes_end_in_one_line(case, processes, toy_city, seed_file, tmp_path):
    """Of two processes, too, where only the one that loads the label can know."""
    spoil, options, message = MISTAKES[case]
    root = shutil.copytree(toy_city, tmp_path / "toy_city")
    if spoil:
        spoil(root)
    process = adapt(root, seed_file, tmp_path / "run", *options, PROCESSES=str(processes))
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines
