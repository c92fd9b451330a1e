"""The embedded data set: street scenes drawn on the spot, for tests and first steps offline.

It is written in the layouts of COCO 2017 and of Cityscapes, so that the readers and evaluators
of those data sets read it unchanged. Run `python -m datasets.toy_city --out data/toy_city`.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from datasets.toy_city_scene import Scene

VERSION = 3  # counts up whenever the same parameters would give other files than before
PARAMETERS_FILE = "toy_city.json"
ENTRIES = {PARAMETERS_FILE, "annotations", "gtFine", "leftImg8bit", "train2017", "val2017"}
SEED_STRIDE = 1_000_000  # of data sets; their validation scenes begin half a stride later
MIN_VISIBLE_AREA = 30  # objects of which less shows are left out, as annotators do

TRAIN_LABELS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def write_dataset(
    root: str | Path, num_train=240, num_val=60, size=(192, 384), seed: int = 0, processes: int = 1
) -> None:
    """Write the data set under `root`, whole or not at all; does nothing if it is there already.

    `size` is (height, width) in pixels. The files do not depend on the number of processes, of
    which more than one import the main module anew. What :func:`is_outdated` is replaced.

    Raises ValueError for parameters that make no data set, FileExistsError if `root` holds
    anything else and other OSErrors if it cannot be written.
    """
    if min(size) < 64 or seed < 0 or not 0 < min(num_train, num_val) or processes < 1:
        raise ValueError("expected sides of 64 pixels or more, a seed of 0 or more, scenes")
    parameters = {"version": VERSION, "train": num_train, "val": num_val, "height": size[0],
                  "width": size[1], "seed": seed}  # fmt: skip
    root = Path(root)
    if is_outdated(root, seed):
        print(f"toy city: {root} was drawn by another version, is drawn anew")
    elif _holds(root, parameters):
        print(f"toy city: already there, {root}")
        return
    print(f"toy city: drawing {num_train} + {num_val} scenes of {size[1]}x{size[0]} pixels")
    draft = _new_draft(root)
    old = draft.with_name(f".{root.name}.old.{os.getpid()}.tmp")
    try:
        # Not forked: the caller may have threads, which a fork does not survive. Ctrl-C reaches all
        # processes; the first one ends the others.
        ignore = (signal.SIGINT, signal.SIG_IGN)
        spawn = partial(multiprocessing.get_context("spawn").Pool, processes, signal.signal, ignore)
        with spawn() if processes > 1 else ThreadPool(1) as pool:
            for split, first in (("train", 0), ("val", SEED_STRIDE // 2)):
                seeds = seed * SEED_STRIDE + first + np.arange(parameters[split])
                _write_split(draft, split, seeds, size, pool.imap)
        (draft / PARAMETERS_FILE).write_text(json.dumps(parameters) + "\n")
        if is_outdated(root, seed):
            root.rename(old)
        if not _holds(root, parameters):  # unless another process was quicker
            draft.rename(root)
    finally:
        for folder in (draft, old):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"toy city: written to {root}")


def is_outdated(root: str | Path, seed: int = 0) -> bool:
    """Whether `root` holds nothing but a data set of this seed that another version of this module
    drew, so that drawing it anew loses nothing."""
    root, found = Path(root), _found(Path(root))
    return (
        isinstance(found, dict)
        and type(found.get("version")) is int
        and found["version"] != VERSION
        and found.get("seed") == seed
        and not root.is_symlink()
        and {path.name for path in root.iterdir()} <= ENTRIES
    )


def _found(root: Path) -> object:
    """The parameters of the data set that `root` holds."""
    try:
        return json.loads((root / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        return "is no toy city"


def _holds(root: Path, parameters: dict) -> bool:
    """Whether `root` holds this very data set; raises FileExistsError if it holds another thing."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    found = _found(root)
    if found != parameters:
        raise FileExistsError(f"{root} {found}, expected {parameters}; remove it or take another")
    return True


def _new_draft(root: Path) -> Path:
    """A folder next to `root`; those of processes that were killed are removed."""
    # imported here, because drawing needs no torch
    from models.files import remove_unfinished

    remove_unfinished(root.parent, root.name)
    draft = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that had this one's number
    (draft / "annotations").mkdir(parents=True)
    return draft


def _write_split(root: Path, split: str, seeds: range, size: tuple[int, int], run: Callable):
    # imported here, because drawing needs no torch
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    for folder in (f"{split}2017", f"leftImg8bit/{split}/toy", f"gtFine/{split}/toy"):
        (root / folder).mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": size[0], "width": size[1]}
              for i in range(len(seeds))]  # fmt: skip
    found = run(partial(_write_scene, root, split, size), enumerate(seeds))
    # ids from 1: COCO's evaluation takes 0 for "no match"
    annotations = [a | {"id": i} for i, a in enumerate(chain.from_iterable(found), 1)]
    names = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    categories = [{"id": i, "name": n} for i, n in enumerate(names) if i and n != "N/A"]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco))


def _write_scene(root: Path, split: str, size: tuple[int, int], job: tuple[int, int]) -> list[dict]:
    """Write a scene, its number and seed given; returns COCO's annotations, without their ids."""
    index, scene = job[0], Scene(job[1], size)
    labels = np.array(scene.labels, np.uint8)
    train_ids = np.full(256, 255, np.uint8)
    train_ids[TRAIN_LABELS] = np.arange(len(TRAIN_LABELS))
    counted = labels * np.uint16(1000) + np.arange(len(labels), dtype=np.uint16)
    instance_ids = np.where(labels < 24, labels, counted)  # from persons on Cityscapes counts
    name = f"toy/toy_000000_{index:06d}"
    maps = {"labelIds": labels, "labelTrainIds": train_ids[labels], "instanceIds": instance_ids}
    for kind, values in maps.items():
        pixels = Image.fromarray(values[scene.segments])
        pixels.save(root / f"gtFine/{split}/{name}_gtFine_{kind}.png", compress_level=1)
    image = Image.fromarray(scene.image)
    image.save(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", compress_level=1)
    image.save(root / f"{split}2017/{index:012d}.jpg", quality=95)
    objects = [number for number, category in enumerate(scene.categories) if category]
    masks = scene.segments[..., None] == np.array(objects, np.int16)
    codes = coco_mask.encode(np.asfortranarray(masks, np.uint8))
    boxes, areas = coco_mask.toBbox(codes).tolist(), coco_mask.area(codes).tolist()
    return [
        {"image_id": index, "category_id": scene.categories[number], "bbox": box, "area": area,
         "iscrowd": 0, "segmentation": code | {"counts": code["counts"].decode()}}
        for number, code, box, area in zip(objects, codes, boxes, areas, strict=True)
        if area >= MIN_VISIBLE_AREA
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Write the data set as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m datasets.toy_city", description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other scenes")
    args = parser.parse_args(arguments)
    try:
        write_dataset(args.out, seed=args.seed, processes=min(8, os.cpu_count() or 1))
    except (OSError, ValueError) as error:
        print(f"error: toy city: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
