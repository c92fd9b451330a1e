"""The embedded data set: street scenes drawn on the spot, for tests and first steps offline.

It is written in the layouts of COCO 2017 and of Cityscapes, so that the readers and evaluators
of those data sets read it unchanged. Run `python -m datasets.toy_city --out data/toy_city`.
"""

import argparse
import json
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.toy_city_canvas import SUPERSAMPLE, Canvas
from datasets.toy_city_layout import draw_street

# Counts up whenever the same parameters would give other files than before.
VERSION = 1
PARAMETERS_FILE = "toy_city.json"
SMALLEST_SIDE = 64
# The seeds of the scenes: `seed * SEED_STRIDE` starts the training ones, half a stride later
# the validation ones start, so no two splits or data sets share a scene.
SEED_STRIDE = 1_000_000

MIN_VISIBLE_AREA = 30
MIN_VISIBLE_SHARE = 0.15

CITYSCAPES_TRAIN_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_FIRST_INSTANCE_LABEL = 24
IGNORED_TRAIN_ID = 255

# COCO's 80 categories in COCO's order; the ids skip those that COCO dropped.
COCO_CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
    14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep",
    21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack",
    28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass",
    47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote",
    76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink",
    82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear",
    89: "hair drier", 90: "toothbrush",
}  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """An object as COCO annotates it.

    `category` is a COCO category id, `label` the Cityscapes id of its pixels, `mask` its visible
    part as (H, W) bool and `bbox` the (x, y, width, height) of that part in pixels.
    """

    category: int
    label: int
    mask: np.ndarray
    bbox: tuple[int, int, int, int]

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    `image` is (H, W, 3) uint8 RGB, `labels` (H, W) uint8 Cityscapes ids, `instance_ids` (H, W)
    uint16 as in Cityscapes' instanceIds files: the label, or label * 1000 + n for objects.
    """

    image: np.ndarray
    labels: np.ndarray
    instance_ids: np.ndarray
    instances: list[Instance]


def draw_scene(seed: int, size: tuple[int, int] = (256, 512)) -> Scene:
    """Draw the street scene number `seed` (0 or more) with `size` (height, width) in pixels.

    Raises ValueError if a side is shorter than 64 pixels or the seed is negative.
    """
    if seed < 0 or min(size) < SMALLEST_SIDE:
        raise ValueError(
            f"a scene needs a seed of 0 or more and sides of at least {SMALLEST_SIDE} pixels, "
            f"not seed {seed} and size {size[0]}x{size[1]}"
        )
    rng = np.random.default_rng(seed)
    canvas = draw_street(size, rng)
    segments = np.ascontiguousarray(canvas.segments[::SUPERSAMPLE, ::SUPERSAMPLE])
    labels = np.array(canvas.labels, np.uint8)[segments]
    instance_ids = _number_instances(canvas)[segments]
    return Scene(_take_photo(canvas, size, rng), labels, instance_ids, _see(canvas, segments))


def _take_photo(canvas: Canvas, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """What a camera makes of the canvas: smooth edges, a little blur, exposure and noise."""
    image = cv2.resize(canvas.image, size[::-1], interpolation=cv2.INTER_AREA)
    # Surfaces are uneven: fine and coarse mottling breaks up the even fills.
    texture = cv2.resize(rng.standard_normal((size[0] // 2, size[1] // 2), dtype=np.float32),
                         size[::-1], interpolation=cv2.INTER_LINEAR)  # fmt: skip
    coarse = rng.standard_normal((size[0] // 16, size[1] // 16), dtype=np.float32)
    texture += 0.9 * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    gain = rng.uniform(0.9, 1.1) * (1.0 + 0.03 * texture)
    photo = image.astype(np.float32) * gain[..., None]
    photo = cv2.GaussianBlur(photo, (3, 3), rng.uniform(0.3, 0.7))
    grain = rng.standard_normal(size, dtype=np.float32) * np.float32(rng.uniform(1.0, 5.0))
    for channel, shift in enumerate((0, 37, 101)):
        # Shifted far enough one field of noise serves as three, which saves much of the time.
        photo[..., channel] += np.roll(grain, shift)
    return np.clip(photo, 0, 255).astype(np.uint8)


def _number_instances(canvas: Canvas) -> np.ndarray:
    # Cityscapes counts the instances of every label from 0.
    numbers = np.array(canvas.labels, np.uint16)
    counts: dict[int, int] = {}
    for segment, label in enumerate(canvas.labels):
        if label >= CITYSCAPES_FIRST_INSTANCE_LABEL:
            numbers[segment] = label * 1000 + counts.get(label, 0)
            counts[label] = counts.get(label, 0) + 1
    return numbers


def _see(canvas: Canvas, segments: np.ndarray) -> list[Instance]:
    # Objects of which too little shows to be told apart are left out, as annotators do.
    areas = np.bincount(segments.ravel(), minlength=len(canvas.labels))
    instances = []
    for segment, drawn in canvas.drawn_areas.items():
        visible = int(areas[segment])
        if visible < MIN_VISIBLE_AREA or visible < MIN_VISIBLE_SHARE * drawn:
            continue
        mask = segments == segment
        bbox = cv2.boundingRect(mask.view(np.uint8))
        category, label = canvas.categories[segment], canvas.labels[segment]
        instances.append(Instance(category, label, mask, tuple(bbox)))
    return instances


def to_train_ids(labels: np.ndarray) -> np.ndarray:
    """Map Cityscapes ids to the 19 train ids, 255 where a label is not evaluated; both uint8."""
    table = np.full(256, IGNORED_TRAIN_ID, np.uint8)
    table[list(CITYSCAPES_TRAIN_LABELS)] = np.arange(len(CITYSCAPES_TRAIN_LABELS))
    return table[labels]


def encode_mask(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length code of an (H, W) bool mask, column by column.

    As a list of counts it is plain JSON, and pycocotools reads it like a polygon.
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    borders = np.concatenate([[0], changes, [pixels.size]])
    counts = np.diff(borders).tolist()
    # The first count is of zeros, even if there are none.
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}


def write_dataset(
    root: str | Path,
    num_train: int = 160,
    num_val: int = 40,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
) -> None:
    """Write the data set under `root`, whole or not at all; does nothing if it is there already.

    Raises ValueError for parameters that make no data set, FileExistsError if `root` holds
    anything else and other OSErrors if it cannot be written.
    """
    root = Path(root)
    if seed < 0 or min(size) < SMALLEST_SIDE or not 0 < min(num_train, num_val):
        raise ValueError(
            f"a data set needs a seed of 0 or more, a scene or more per split and sides of at "
            f"least {SMALLEST_SIDE} pixels"
        )
    if max(num_train, num_val) > SEED_STRIDE // 2:
        raise ValueError(f"a split has at most {SEED_STRIDE // 2} scenes")
    parameters = {"version": VERSION, "train": num_train, "val": num_val, "height": size[0],
                  "width": size[1], "seed": seed}  # fmt: skip
    if _holds(root, parameters):
        print(f"toy city: already there, {root}")
        return
    print(f"toy city: drawing {num_train} + {num_val} scenes of {size[1]}x{size[0]} pixels")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.tmp")
    draft.mkdir()
    try:
        first = seed * SEED_STRIDE
        _write_split(draft, "train", range(first, first + num_train), size)
        first += SEED_STRIDE // 2
        _write_split(draft, "val", range(first, first + num_val), size)
        (draft / PARAMETERS_FILE).write_text(json.dumps(parameters) + "\n")
        _move_into_place(draft, root, parameters)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"toy city: written to {root}")


def _holds(root: Path, parameters: dict) -> bool:
    """Whether `root` holds this very data set; raises FileExistsError if it holds another thing."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        message = f"{root} exists and is not a toy city; choose another place"
        raise FileExistsError(message) from None
    if found != parameters:
        raise FileExistsError(
            f"{root} holds a toy city with other parameters ({json.dumps(found)}); "
            "choose another place or remove it"
        )
    return True


def _move_into_place(draft: Path, root: Path, parameters: dict) -> None:
    try:
        draft.rename(root)
    except OSError:
        # Another process may have finished the same data set in the meantime.
        if not _holds(root, parameters):
            raise


def _write_split(root: Path, split: str, seeds: range, size: tuple[int, int]) -> None:
    coco_folder = root / f"{split}2017"
    image_folder = root / "leftImg8bit" / split / "toy"
    label_folder = root / "gtFine" / split / "toy"
    for folder in (coco_folder, image_folder, label_folder, root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index, seed in enumerate(seeds):
        scene = draw_scene(seed, size)
        name, stem = f"{index:012d}.jpg", f"toy_000000_{index:06d}"
        _write_image(coco_folder / name, scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        _write_image(image_folder / f"{stem}_leftImg8bit.png", scene.image)
        maps = {"labelIds": scene.labels, "labelTrainIds": to_train_ids(scene.labels),
                "instanceIds": scene.instance_ids}  # fmt: skip
        for kind, pixels in maps.items():
            _write_image(label_folder / f"{stem}_gtFine_{kind}.png", pixels)
        images.append({"id": index, "file_name": name, "height": size[0], "width": size[1]})
        annotations += _annotate(scene, index, len(annotations) + 1)
    categories = [{"id": i, "name": n} for i, n in COCO_CATEGORIES.items()]
    coco = {"info": {"description": "toy city"}, "licenses": [], "images": images,
            "annotations": annotations, "categories": categories}  # fmt: skip
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco))


def _annotate(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    # Ids start at 1: COCO's evaluation takes the id 0 for "no match".
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": instance.category,
            "bbox": list(instance.bbox),
            "area": instance.area,
            "iscrowd": 0,
            "segmentation": encode_mask(instance.mask),
        }
        for i, instance in enumerate(scene.instances)
    ]


def _write_image(path: Path, pixels: np.ndarray, options: list[int] | None = None) -> None:
    # Quick compression: noise hardly shrinks any further.
    options = options or [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(path.suffix, pixels, options)
    if not done:
        raise OSError(f"cannot encode {path}")
    path.write_bytes(encoded.tobytes())


def main(arguments: list[str] | None = None) -> int:
    """Write the data set as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m datasets.toy_city", description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--train", type=int, default=160, help="training scenes")
    parser.add_argument("--val", type=int, default=40, help="validation scenes")
    parser.add_argument("--height", type=int, default=256, help="pixels")
    parser.add_argument("--width", type=int, default=512, help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other scenes")
    args = parser.parse_args(arguments)
    try:
        write_dataset(args.out, args.train, args.val, (args.height, args.width), args.seed)
    except (OSError, ValueError) as error:
        print(f"toy city: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
