"""Entry point of the export: a trained network as a file that ONNX Runtime runs alone.

``python -m engine.export CONFIG CHECKPOINT [options]``; docs/export.md describes the file.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement

from models import FNASuperNet, InputError
from models.files import remove_unfinished, write_whole

from .building import building
from .config import (
    OneLineParser,
    add_model_arguments,
    asked_net_config,
    given,
    load_model_config,
    set_data_root,
    user_path,
)
from .deployed import Deployed, deployed, exceeds, windows
from .infer import find_images
from .model import load_model
from .onnx_check import Pair, compare, expected, median_ms, predict, session_of
from .onnx_file import Sizing, describe, program, sizing_of, to_onnx
from .run import run
from .work_dir import check_output_file

CHECKED = 8  # images
SECOND_SIZE = 0.7  # of the first, for files that take any

# pixels as they are given to the file, and what the test pipeline says of the image
Sized = tuple[np.ndarray, BaseDataElement]


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="export.sh", description="Export a trained network to ONNX")
    add_model_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", type=given, help="file to write (default: CHECKPOINT's name.onnx)")
    parser.add_argument("--raw", action="store_true", help="end with the head's outputs")
    parser.add_argument("--dynamic", action="store_true", help="for images of any size")
    parser.add_argument(
        "--data-root", type=given, help="folder of the data set, in place of the config's"
    )
    parser.add_argument(
        "--images", nargs="+", help="images or folders to check with, not the config's test images"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    checkpoint = Path(user_path(args.checkpoint))
    if not checkpoint.is_file():
        raise InputError(f"checkpoint {args.checkpoint}: no such file")
    out = Path(args.out).expanduser().absolute() if args.out else checkpoint.with_suffix(".onnx")
    _check_writable(out)
    images = args.images and list(find_images(args.images, without=())[1].values())
    data_root = args.data_root and user_path(args.data_root)
    cfg = load_model_config(args)
    if data_root:
        set_data_root(cfg, data_root)
    if cfg.model.get("backbone", {}).get("type") == FNASuperNet.__name__:
        raise InputError(f"config {args.config}: is a search's; expected that of a training")
    # mmseg's advice on sizes of images, which are what the data set gives
    warnings.filterwarnings("ignore", "When align_corners=True", UserWarning)
    images = _spread(images or _test_images(cfg))
    model = load_model(cfg, checkpoint, "cpu", asked_net_config(args))

    sizing = sizing_of(model, args.dynamic)
    module = deployed(model, sizing.size, args.raw)
    size = "x".join(map(str, sizing.size)) if sizing.size else "any size"
    print(f"Exporting {type(model).__name__} for images of {size} ...", flush=True)
    graph = to_onnx(module, sizing.size)
    describe(graph, model, module, sizing)
    content = graph.SerializeToString()
    for line in check(content, model, module, sizing, images):
        print(line, flush=True)
    write_whole(out, content)
    print(f"Done. The network is in {out} ({len(content) / 1e6:.1f} MB). To run it:\n")
    print("\n".join(program(out, images[0], sizing, module)))


def _check_writable(out: Path) -> None:
    """Raise InputError where a file cannot be written, before a minute is spent on it."""
    if out.suffix != ".onnx":
        raise InputError(f"--out {out}: expected a name that ends in .onnx")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    check_output_file(out, "--out")
    remove_unfinished(out.parent)


def _test_images(cfg: Config) -> list[Path]:
    """The images of the config's test set, in its order."""
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope), building(cfg):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
            return [Path(dataset.get_data_info(i)["img_path"]) for i in range(len(dataset))]
    except InputError as error:
        hint = "the export is checked on the test images: --data-root FOLDER, or --images FILE ..."
        raise InputError(f"{error} ({hint})") from None


def _spread(images: Sequence[Path]) -> list[Path]:
    """A few of the images, evenly spread."""
    chosen = np.linspace(0, len(images) - 1, min(CHECKED, len(images))).round().astype(int)
    return [images[index].absolute() for index in chosen]


def check(
    content: bytes, model: BaseModel, module: Deployed, sizing: Sizing, images: Sequence[Path]
) -> Iterator[str]:
    """Compare a file with its model on images; in lines what is done and found.

    Raises:
        InputError: They do not find the same, an image cannot be read, or the test pipeline does
            more than resizing.
    """
    yield f"Checking it on {len(images)} images, first {images[0]} ..."
    sized, others = as_tested(model.cfg, sizing, images)
    if others:
        yield f"{others} of them are of another shape: brought to it, unlike in the config's test"
    if sizing.size is None:
        sized += [(smaller(image), sample) for image, sample in sized]
        yield from see_whole(model, sized)
    session = session_of(content)
    pairs: list[Pair] = [
        (session.run(None, {"image": image}), expected(model, module, image, sample))
        for image, sample in sized
    ]
    try:
        yield compare(module, pairs)
    except InputError as error:
        raise InputError(f"not exported: {error}") from None
    torch.set_num_threads(1)
    image, sample = sized[0]
    torch_ms, onnx_ms = median_ms(
        [
            lambda: expected(model, module, image, sample),
            lambda: session.run(None, {"image": image}),
        ]
    )
    yield f"One thread, median: PyTorch {torch_ms:.1f} ms, ONNX Runtime {onnx_ms:.1f} ms"


def as_tested(cfg: Config, sizing: Sizing, images: Sequence[Path]) -> tuple[list[Sized], int]:
    """Images as the printed lines size them, with what the test pipeline says of each.

    Also the number of those that the test pipeline makes of another size than the file's.

    Raises:
        InputError: It makes something else of an image, or cannot read one.
    """
    with building(cfg):
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    sized, others = [], 0
    for path in images:
        packed = pipeline(dict(img_path=str(path), img_id=0))
        tested = packed["inputs"].numpy()[::-1].transpose(1, 2, 0)
        image = sizing.apply(path)
        if sizing.size and image.shape != tested.shape:
            others += 1
        elif not np.array_equal(image, tested):
            raise InputError(
                f"image {path}: the config's test pipeline does more than to resize it bilinearly, "
                "which the user of an exported file would have to do"
            )
        sized.append((image, packed["data_samples"]))
    return sized, others


def smaller(image: np.ndarray) -> np.ndarray:
    """The image in a second size."""
    return cv2.resize(image, [int(SECOND_SIZE * side) for side in image.shape[1::-1]])


def see_whole(model: BaseModel, sized: Sequence[Sized]) -> Iterator[str]:
    """Let a model take each image as one, as a file for any size does, and say what that changes.

    That is, of a segmentor whose test slides windows over images.
    """
    window = windows(model)
    if not window:
        return
    larger = [(image, sample) for image, sample in sized if exceeds(image.shape, window)]
    parts = [predict(model, *each)[0].pred_sem_seg.data for each in larger]
    model.test_cfg.mode = "whole"
    if larger:
        whole = [predict(model, *each)[0].pred_sem_seg.data for each in larger]
        same = sum((one == other).sum() for one, other in zip(parts, whole, strict=True))
        share = 100 * same / sum(ids.numel() for ids in whole)
        yield (
            f"The file takes images whole, where the config's test slides windows of "
            f"{window[0]}x{window[1]}: the same classes on {share:.1f} % of the pixels of "
            f"{len(larger)} images"
        )


if __name__ == "__main__":
    run(main)
