"""Segmentation run as users run it, on small data: search, adaptation, evaluation."""

import json
import pickle
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from engine.compat.safe_load import load_checkpoint_file
from models import NetConfig
from tests.conftest import REPO
from tests.processes import run_script

pytestmark = pytest.mark.slow  # each test starts whole runs
TOY = "configs/fna_seg/deeplabv3_param_adapt_toy.py"
SEARCH = "configs/fna_seg/deeplabv3_arch_adapt_toy.py"
LOADER = ["num_workers=0", "persistent_workers=False"]
SMALL = [
    "train_dataloader.batch_size=2",
    *(f"train_dataloader.{option}" for option in LOADER),
    "default_hooks.logger.interval=1",
    "randomness.seed=0",
]
ADAPT = [
    *SMALL,
    *(f"test_dataloader.{option}" for option in LOADER),
    "train_cfg.max_iters=4",
    "default_hooks.checkpoint.interval=2",
    "custom_hooks.2.iterations=2",
]


def arguments(config, toy_city, work_dir, *more):
    return [config, 0, "--data-root", toy_city, "--work-dir", work_dir, *more]


def run_adaptation(toy_city, seed_file, work_dir, *more, config=TOY, options=(), **environment):
    options = [*ADAPT, f"model.backbone.init_cfg.seed={seed_file}", *options]
    return run_script(
        "param_adapt", *arguments(config, toy_city, work_dir, *more), "--cfg-options", *options,
        **environment,
    )  # fmt: skip


def adapt(*args, **kwargs):
    process = run_adaptation(*args, **kwargs)
    assert process.returncode == 0, process.stderr
    return process


@pytest.fixture(scope="module")
def trained(toy_city, seed_file, tmp_path_factory):
    """A finished run of four iterations: its work dir and its output."""
    work_dir = tmp_path_factory.mktemp("trained") / "run"
    return work_dir, adapt(toy_city, seed_file, work_dir, new=True)


def test_training_logs_and_leaves_checkpoints(trained):
    work_dir, process = trained
    assert (work_dir / "iter_4.pth").is_file()
    assert "360 tensors from the seed" in process.stdout
    assert "BN statistics before training: [2/2]" in process.stdout
    assert "eta:" in process.stdout and f"are in {work_dir}" in process.stdout
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout


def test_evaluation_gives_every_class_and_pictures(trained, toy_city, tmp_path):
    work_dir, _ = trained
    process = run_script(
        "test", *arguments(TOY, toy_city, tmp_path)[:1], work_dir / "iter_4.pth",
        *arguments(TOY, toy_city, tmp_path)[2:], "--show-dir", tmp_path / "pictures",
        "--out", tmp_path / "p.pkl",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    classes = [metrics[key] for key in metrics if key.startswith("IoU.")]
    assert metrics["headline"] == {"mIoU": metrics["mIoU"]}
    assert "IoU.road" in metrics and metrics["mIoU"] == pytest.approx(
        sum(classes) / len(classes), abs=0.01
    )
    assert re.search(r"\|\s+road\s+\|", process.stdout) and "mIoU: " in process.stdout
    assert metrics["input_size"] == [129, 257] and 0.3e9 < metrics["madds"] < 0.4e9
    pictures = list((tmp_path / "pictures/toy").glob("*.png"))  # the images' subfolder
    assert len(pictures) == 4
    assert Image.open(pictures[0]).size == (2 * 128, 64)  # the labels' next to the prediction's

    predictions = pickle.loads((tmp_path / "p.pkl").read_bytes())
    right, labelled = 0, 0
    for sample in predictions:
        assert not {"seg_logits", "gt_sem_seg"} & set(sample)
        predicted = sample["pred_sem_seg"]["data"][0].numpy()
        labels = np.array(Image.open(sample["seg_map_path"]))
        assert sample["ori_shape"] == predicted.shape == labels.shape == (64, 128)
        right += (predicted == labels).sum()
        labelled += (labels != 255).sum()
    assert len(predictions) == 4
    assert metrics["aAcc"] == pytest.approx(100 * right / labelled, abs=0.01)


def test_an_interrupted_run_goes_on_exactly(trained, toy_city, seed_file, tmp_path):
    """From the second of four iterations on, with crops, scales, flips and dropout as they were."""
    uninterrupted, _ = trained
    shutil.copy(uninterrupted / "iter_2.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    process = adapt(toy_city, seed_file, tmp_path, "--resume")
    assert "Iter(train) [2/4]" not in process.stdout and "BN statistics" not in process.stdout
    resumed = load_checkpoint_file(tmp_path / "iter_4.pth")["state_dict"]
    expected = load_checkpoint_file(uninterrupted / "iter_4.pth")["state_dict"]
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_two_processes_hold_equal_parameters(toy_city, seed_file, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(REPO / TOY)!r}\n"
        "imports = [*_base_.custom_imports.imports, 'tests.engine.save_ranks']\n"
        "custom_imports = dict(imports=imports)\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='SaveRanks')]\n"
    )
    process = adapt(toy_city, seed_file, tmp_path / "run", config=config, PROCESSES="2")
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    ranks = [torch.load(tmp_path / f"run/rank_{rank}.pth") for rank in (0, 1)]
    initial = torch.load(tmp_path / "run/initial.pth")
    first_epoch = [set(rank["seen"][:4]) for rank in ranks]
    assert len(first_epoch[0] | first_epoch[1]) == 8
    for key, tensor in ranks[0]["state_dict"].items():
        assert torch.equal(tensor, ranks[1]["state_dict"][key]), key
    changed = [k for k, t in ranks[0]["state_dict"].items() if not torch.equal(t, initial[k])]
    assert any(key.startswith("backbone") for key in changed)


def spoil_one_label(root):
    path = root / "gtFine/train/toy/toy_000000_000005_gtFine_labelTrainIds.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[-8:] = 33  # large enough to survive any crop
    cv2.imwrite(str(path), pixels)


def spoil_one_image(root):
    path = root / "leftImg8bit/train/toy/toy_000000_000005_leftImg8bit.png"
    path.write_bytes(b"no image")


def drop_one_label(root):
    (root / "gtFine/train/toy/toy_000000_000005_gtFine_labelTrainIds.png").unlink()
    (root / "gtFine/train/toy/toy_000000_000005_gtFine_labelIds.png").unlink()


MISTAKES = {
    "id of no class": (spoil_one_label, [], "000005_gtFine_labelTrainIds.png: holds the id 33"),
    "image that is none": (
        spoil_one_image,
        ["train_dataloader.num_workers=1"],
        "000005_leftImg8bit.png: cannot be read",
    ),
    "label that is missing": (drop_one_label, [], "000005_gtFine_labelTrainIds.png: no such file"),
    "head with too few classes": (
        None,
        ["model.decode_head.num_classes=18"],
        "model.decode_head.num_classes is 18, but the data set has 19 classes",
    ),
    "weights of too few classes": (
        None,
        ["model.decode_head.loss_decode.class_weight=[1,2]"],
        "model.decode_head.loss_decode.class_weight has 2 numbers, expected one for each of the 19",
    ),
    "head of other channels": (
        None,
        ["model.decode_head.in_channels=160"],
        "model.decode_head.in_channels is 160, but the backbone gives 320",
    ),
}


@pytest.mark.parametrize(
    ("case", "processes"), [*((case, 1) for case in MISTAKES), ("id of no class", 2)]
)
def test_mistakes_end_in_one_line(case, processes, toy_city, seed_file, tmp_path):
    """Of two processes, too, where only the one that loads the label can know."""
    spoil, options, message = MISTAKES[case]
    root = shutil.copytree(toy_city, tmp_path / "toy_city")
    if spoil:
        spoil(root)
    environment = {} if processes == 1 else dict(PROCESSES=str(processes))
    process = run_adaptation(root, seed_file, tmp_path / "run", options=options, **environment)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines


def test_what_a_search_finds_is_adapted_and_evaluated(toy_city, seed_file, tmp_path):
    search, found = tmp_path / "search", tmp_path / "found"
    process = run_script(
        "arch_adapt", *arguments(SEARCH, toy_city, search), "--cfg-options", *SMALL,
        f"model.backbone.init_cfg.seed={seed_file}", "train_cfg.max_epochs=2",
        "train_cfg.ranking.candidates=3", "train_cfg.ranking.batches=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Architecture after epoch 2: backbone" in process.stdout
    net_config = search / "net_config.txt"
    depths = [len(stage.ops) for stage in NetConfig.parse(net_config).stages]
    assert depths == [1, 4, 4, 6, 6, 4, 1]
    adapt(toy_city, seed_file, found, "--net-config", net_config)
    process = run_script(
        "test", TOY, found / "iter_4.pth", *arguments(TOY, toy_city, found)[2:],
        "--net-config", net_config,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "mIoU" in json.loads((found / "metrics.json").read_text())
    dumped = Config.fromfile(found / "deeplabv3_param_adapt_toy.py")
    assert NetConfig.parse(dumped.model.backbone.net_config) == NetConfig.parse(net_config)
