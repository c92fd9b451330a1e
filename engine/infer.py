"""Entry point of inference: what a trained network sees in images.

``python -m engine.infer detect|segment CONFIG CHECKPOINT IMAGE|FOLDER ... [options]``

It writes a picture of each image and one ``results.json``, whose form docs/usage.md describes.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.utils import ProgressBar
from torch import nn
from torchvision.datasets.folder import IMG_EXTENSIONS

from datasets.images import LoadCheckedImage
from models import InputError, SampleError
from models.files import write_whole

from .config import (
    OneLineParser,
    add_model_arguments,
    asked_net_config,
    given,
    load_model_config,
    user_path,
)
from .model import load_model
from .run import run
from .work_dir import make_work_dir

# A function of an image's array, height x width x 3 (blue, green, red), its name, and the file of
# the picture to draw. It returns what results.json says of the image.
Describe = Callable[[np.ndarray, str, Path], dict]


def parse_args() -> argparse.Namespace:
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task not in TASKS:
        raise InputError(f"task {task!r}, expected {' or '.join(TASKS)}")
    parser = OneLineParser(prog=f"{task}.sh", description=f"{task.capitalize()} what images show")
    add_model_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    folder = TASKS[task].folder
    parser.add_argument(
        "--out", type=given, default=folder, help=f"folder of the results (default {folder})"
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    if task == "detect":
        parser.add_argument(
            "--score", type=float, default=0.3, help="least score of a box (default 0.3)"
        )
    return parser.parse_args(sys.argv[2:], argparse.Namespace(task=task))


def main() -> None:
    args = parse_args()
    out = Path(args.out).expanduser().absolute()
    pictures = out / "pictures"
    folder, images = find_images(args.images, without=(pictures, out / "labels"))
    checkpoint, device = user_path(args.checkpoint), usable_device(args.device)
    cfg = load_model_config(args)
    task = TASKS[args.task]
    if cfg.get("default_scope") != task.scope:
        raise InputError(f"config {args.config}: its models do not {args.task}")
    model = load_model(cfg, checkpoint, device, asked_net_config(args))
    make_work_dir(out)

    results, unread = describe_images(images, task.describer(model, out, args), pictures)
    path = out / "results.json"
    about = {
        "config": user_path(args.config),
        "checkpoint": checkpoint,
        "classes": list(model.dataset_meta["classes"]),
        "folder": folder,
        "unread": unread,
    }
    write_whole(path, as_json(about, results))
    print(f"Done. Results are in {path}, pictures in {pictures}")
    if unread:
        raise InputError(f"{len(unread)} of {len(images)} images cannot be read; the rest is done")


def as_json(about: dict, images: Collection[dict]) -> bytes:
    """One object of both, with a line for each image."""
    start = json.dumps(about, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(image, ensure_ascii=False) for image in images)
    # a name that is not UTF-8 becomes an escape, which is one in JSON too
    return f'{start},\n "images": [\n  {lines}\n ]\n}}\n'.encode(errors="backslashreplace")


def usable_device(name: str | None) -> torch.device | None:
    """The device of that name, if it can be used.

    Raises:
        InputError: It cannot.
    """
    try:
        return name and torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: cannot be used: {reason}") from None


def find_images(paths: Collection[str], without: Collection[Path]) -> tuple[str, dict[str, Path]]:
    """The folder that has all images that paths lead to, and the images by their names there.

    A file that is named is taken whatever its suffix.

    Args:
        without: Folders that are left out, because they have the pictures of an earlier call.

    Raises:
        InputError: One of them does not exist, or there is no image.
    """
    found: list[Path] = []
    roots = []
    for named in map(Path, paths):
        path = named.expanduser().absolute()
        if not path.exists():
            raise InputError(f"image {named}: no such file or folder")
        roots.append(path if path.is_dir() else path.parent)
        found += _images_in(path, without) if path.is_dir() else [path]
    if not found:
        raise InputError(f"{', '.join(paths)}: no image there, expected {' '.join(IMG_EXTENSIONS)}")
    base = os.path.commonpath(roots)
    return base, {os.path.relpath(path, base): path for path in found}


def _images_in(folder: Path, without: Collection[Path]) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS
        and path.is_file()
        and not set(without) & set(path.parents)
    )


def describe_images(
    images: dict[str, Path], describe: Describe, pictures: Path
) -> tuple[list[dict], list[str]]:
    """What ``describe`` says of each image, and the names of those that cannot be read."""
    load = LoadCheckedImage()
    results, unread = [], []
    names = picture_names(images)
    progress = ProgressBar(len(images))
    try:
        for name, path in images.items():
            try:
                image = load(dict(img_path=str(path)))["img"]
            except SampleError as error:
                print(f"\nerror: {error}", file=sys.stderr)
                unread.append(name)
            else:
                height, width = image.shape[:2]
                size = {"file": name, "width": width, "height": height}
                results.append(size | describe(image, name, pictures / names[name]))
            progress.update()
    except KeyboardInterrupt as error:
        error.add_note(
            f"{len(results)} of {len(images)} images are done, their pictures are in {pictures}; "
            "results.json would have come last, so the same command starts anew."
        )
        raise
    finally:
        print()  # the progress bar leaves its line open
    return results, unread


def picture_names(images: Iterable[str]) -> dict[str, str]:
    """A picture's name for each image: its own, with .png after one that holds no colours."""
    taken = {name for name in images if not _needs_suffix(name)}
    names = {name: name for name in taken}
    for name in filter(_needs_suffix, images):
        picture = name + ".png"
        while picture in taken:
            picture += ".png"
        taken.add(picture)
        names[name] = picture
    return names


def _needs_suffix(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix not in IMG_EXTENSIONS or suffix == ".pgm"


def _drawer(model: nn.Module) -> Callable[..., None]:
    """The model's visualizer: a function that draws a prediction into a file."""
    visualizer = VISUALIZERS.build(dict(model.cfg.visualizer, name="infer", vis_backends=None))
    visualizer.dataset_meta = model.dataset_meta
    # boxes may end at the border, and names beyond it
    warnings.filterwarnings("ignore", "Warning: The (bbox|polygon|text) is out of bounds")

    def draw(name: str, image: np.ndarray, sample: BaseDataElement, file: Path, **options) -> None:
        rgb = mmcv.bgr2rgb(image)
        visualizer.add_datasample(name, rgb, sample, draw_gt=False, out_file=str(file), **options)

    return draw


def detector(model: nn.Module, out: Path, args: argparse.Namespace) -> Describe:
    """Boxes (x1, y1, x2, y2, in pixels of the image), with scores and names of classes."""
    from mmdet.apis import inference_detector

    test_cfg = model.bbox_head.test_cfg
    test_cfg.score_thr = min(test_cfg.score_thr, args.score)
    draw, classes = _drawer(model), model.dataset_meta["classes"]

    def describe(image: np.ndarray, name: str, picture: Path) -> dict:
        sample = inference_detector(model, image).cpu()
        found = sample.pred_instances
        sample.pred_instances = found = found[found.scores >= args.score]
        draw(name, image, sample, picture, pred_score_thr=-1)
        return {
            "boxes": [[round(x, 2) for x in box] for box in found.bboxes.tolist()],
            "scores": [round(score, 4) for score in found.scores.tolist()],
            "labels": [classes[label] for label in found.labels.tolist()],
        }

    return describe


def segmentor(model: nn.Module, out: Path, args: argparse.Namespace) -> Describe:
    """A PNG of every pixel's class, as its place in ``classes``, and the classes' shares."""
    from mmseg.apis import inference_model

    draw, classes = _drawer(model), model.dataset_meta["classes"]

    def describe(image: np.ndarray, name: str, picture: Path) -> dict:
        sample = inference_model(model, image).cpu()
        ids = sample.pred_sem_seg.data[0].numpy().astype(np.uint8)
        label_map = f"labels/{name}.png"
        mmcv.imwrite(ids, str(out / label_map))
        draw(name, image, sample, picture)
        shares = np.bincount(ids.ravel(), minlength=len(classes)) / ids.size
        present = {classes[i]: round(float(shares[i]), 4) for i in np.flatnonzero(shares)}
        return {"label_map": label_map, "shares": present}

    return describe


@dataclass(frozen=True)
class Task:
    """The scope of its configs, the default folder of its results, and what makes its function."""

    scope: str
    folder: str
    describer: Callable[[nn.Module, Path, argparse.Namespace], Describe]


TASKS = {
    "detect": Task("mmdet", "detections", detector),
    "segment": Task("mmseg", "segmentations", segmentor),
}

if __name__ == "__main__":
    run(main)
