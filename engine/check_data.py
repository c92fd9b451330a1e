"""Check of a config's data before training: every image and annotation of every split is read.

``python -m engine.check_data CONFIG [--show-dir FOLDER] [...]`` exits with 2 if something is wrong.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from mmengine.runner import set_random_seed
from mmengine.utils import track_iter_progress
from torch.utils.data import Dataset

from models import DataError, InputError, SampleError
from models.errors import printable

from .building import building
from .config import OneLineParser, add_arguments, given, load_config
from .data import no_batch, sources
from .ending import end_silently
from .run import run
from .work_dir import make_work_dir

SPLITS = ("train", "val", "test")
# augmented training images that are drawn
SHOWN = 20


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="engine.check_data", description="Check the data of a config")
    add_arguments(parser)
    parser.add_argument(
        "--show-dir",
        type=given,
        help=f"draw {SHOWN} augmented training images with labels into this folder",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    show_dir = args.show_dir and str(Path(args.show_dir).absolute())
    cfg = load_config(args)
    if show_dir:
        make_work_dir(show_dir)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
        found = {split: check_split(cfg, split) for split in SPLITS}
        if show_dir and not found["train"]:
            drawn = draw_training(cfg, show_dir)
            print(f"{drawn} augmented training images are in {show_dir}")
    if wrong := sum(found.values()):
        print(f"Found {wrong} error{'s' if wrong > 1 else ''}")
        sys.exit(2)
    print("No error found")


def check_split(cfg: Config, split: str) -> int:
    """Print what is wrong with a split and what is in it; returns the number of errors."""
    loader = cfg.get(f"{split}_dataloader")
    if not loader:
        return 0
    val = cfg.get("val_dataloader") or {}
    if split == "test" and loader.dataset == val.get("dataset"):
        print("test: the same as val")
        return 0
    errors: list[str] = []
    try:
        with building(cfg):
            dataset = DATASETS.build(loader.dataset)
    except InputError as error:
        return say(split, error.reasons if isinstance(error, DataError) else [str(error)])
    try:
        if evaluator := cfg.get(f"{split}_evaluator"):
            with building(cfg):
                Evaluator(evaluator).dataset_meta = dataset.metainfo
    except InputError as error:
        errors.append(str(error))
    if split == "train" and loader.get("drop_last") and len(dataset) < loader.batch_size:
        errors.append(no_batch("train_dataloader", len(dataset), loader.batch_size))
    wrong = say(split, errors)
    checked = list(sources(dataset))
    if not checked:
        print(f"{split}: {len(dataset)} samples, not checked: of the kind {type(dataset).__name__}")
    return wrong + sum(check_samples(source, split, cfg.model) for source in checked)


def check_samples(source: Dataset, split: str, model: Mapping) -> int:
    """Read all images of a data set, print what is in it; returns the number of errors."""
    print(f"{split}: {source.summary()}")
    for warning in source.warnings():
        print(f"{split}: warning: {printable(warning)}")
    samples = [source.get_data_info(index) for index in range(len(source))]
    found = read_samples(samples, source)
    wrong = say(split, [error for error, _ in found if error])
    right = [
        (sample, inspected)
        for sample, (error, inspected) in zip(samples, found, strict=True)
        if not error
    ]
    if right:
        for line in source.details(*zip(*right, strict=True), model):
            print(f"    {line}")
    return wrong


def say(split: str, errors: Sequence[str]) -> int:
    """Print errors, and count them."""
    for error in errors:
        print(f"{split}: error: {printable(error)}")
    return len(errors)


def read_samples(samples: Sequence[Mapping], source: Dataset) -> list[tuple[str | None, object]]:
    """Load all samples in parallel; for each, what is wrong, and what the data set made of it."""
    steps = [
        step
        for step in source.pipeline.transforms
        if isinstance(step, LoadImageFromFile | LoadAnnotations)
    ]
    processes = min(len(os.sched_getaffinity(0)), len(samples))
    read = partial(read_sample, steps=steps, inspect=type(source).inspect)
    print(f"reading {len(samples)} images in {processes} processes", file=sys.stderr)
    # Forked, whatever Python's default is (3.14's is not): a new process would import mmdet for
    # seconds, and this one has no threads of its own yet.
    with multiprocessing.get_context("fork").Pool(processes, be_quiet) as pool:
        found = pool.imap(read, samples)
        found = list(track_iter_progress((found, len(samples)), file=sys.stderr))
        # They end by themselves: on leaving, SIGTERM is sent, and Python loses a signal that comes
        # while a process changes what it does on it, as a late one is just doing.
        pool.close()
        pool.join()
    return found


def be_quiet() -> None:
    """Prepare a process that reads: the main one answers Ctrl-C, and says what is damaged."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_silently()
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_sample(sample: Mapping, steps: Sequence, inspect) -> tuple[str | None, object]:
    """Load a sample by the first steps of its pipeline."""
    results = dict(sample)
    try:
        for step in steps:
            results = step(results)
    except SampleError as error:
        return str(error), None
    return inspect(results)


def draw_training(cfg: Config, folder: str) -> int:
    """Draw training samples as the network gets them, with their boxes or labels; how many."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, name="check_data", vis_backends=[]))
    visualizer.dataset_meta = dataset.metainfo
    # of boxes that an augmentation has moved over the edge
    warnings.filterwarnings("ignore", "Warning: The (bbox|polygon) is out of bounds", UserWarning)
    set_random_seed(cfg.get("randomness", {}).get("seed") or 0)
    count = min(SHOWN, len(dataset))
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    for number, index in enumerate(indices.tolist()):
        sample = dataset[index]
        image = sample["inputs"].permute(1, 2, 0).numpy()[..., ::-1]  # to red, green, blue
        labels = sample["data_samples"]
        if "gt_instances" in labels and hasattr(labels.gt_instances.bboxes, "tensor"):
            labels.gt_instances.bboxes = labels.gt_instances.bboxes.tensor
        name = f"{number:02d}_{Path(labels.img_path).stem}.jpg"
        visualizer.add_datasample(
            name,
            np.ascontiguousarray(image.clip(0, 255).astype(np.uint8)),
            labels,
            draw_pred=False,
            out_file=str(Path(folder, name)),
        )
    return count


if __name__ == "__main__":
    run(main)
