"""Boxes of annotated images, and the COCO file of each split that is made of them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from models import InputError

from .source import Findings, Images

# pixels are split as finely as this
_DECIMALS = 3


@dataclass(frozen=True)
class Box:
    """An object: its class's name, its edges (x1, y1, x2, y2) in pixels, where it is written."""

    name: str
    edges: tuple[float, float, float, float]
    where: str
    crowd: bool = False


@dataclass
class Boxes:
    """The boxes of each annotated image, which may have none, and the classes where told."""

    of: dict[str, list[Box]] = field(default_factory=lambda: defaultdict(list))
    classes: Sequence[str] | None = None


def coco_files(
    boxes: Boxes,
    splits: dict[str, list[str]],
    classes: Sequence[str] | None,
    images: Images,
    findings: Findings,
) -> dict[str, dict]:
    """The content of each split's COCO file. Ids count from 1.

    Boxes without area and outside of their image are left out.

    Args:
        classes: The names that may occur; None: those that do, sorted.
    """
    every = [box for path in boxes.of for box in boxes.of[path]]
    names = classes or sorted({box.name for box in every})
    ids = {name: number for number, name in enumerate(names, 1)}
    findings.mistakes += [
        f"{box.where}: is of class {box.name!r}, expected one of {', '.join(names)}"
        for box in every
        if box.name not in ids
    ]
    findings.raise_mistakes()
    contents = {}
    for split, paths in splits.items():
        listed, annotations = [], []
        for path in paths:
            try:
                width, height = images.size(path)
            except InputError as error:
                findings.mistakes.append(str(error))
                continue
            listed.append(dict(id=len(listed) + 1, file_name=path, width=width, height=height))
            for box in boxes.of[path]:
                x1, y1, x2, y2 = map(_rounded, box.edges)
                if reason := _useless(x1, y1, x2, y2, width, height):
                    findings.left_out.append(f"{box.where}: box {reason}")
                    continue
                w, h = _rounded(x2 - x1), _rounded(y2 - y1)
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=len(listed),
                        category_id=ids[box.name],
                        bbox=[x1, y1, w, h],
                        area=_rounded(w * h),
                        iscrowd=int(box.crowd),
                    )
                )
        categories = [dict(id=number, name=name) for name, number in ids.items()]
        contents[split] = dict(images=listed, annotations=annotations, categories=categories)
    findings.raise_mistakes()
    return contents


def _useless(x1: float, y1: float, x2: float, y2: float, width: int, height: int) -> str | None:
    if x2 <= x1 or y2 <= y1:
        return f"has no area: {x2 - x1:g} x {y2 - y1:g} pixels"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return f"from {x1:g}, {y1:g} is outside of its image of {width}x{height} pixels"
    return None


def summary(content: dict) -> str:
    """Images and boxes of a split, those of each class."""
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    counts = Counter(entry["category_id"] for entry in content["annotations"])
    each = ", ".join(f"{name} {counts[id]}" for id, name in names.items())
    return f"{len(content['images'])} images, {len(content['annotations'])} boxes ({each})"


def _rounded(number: float) -> float | int:
    number = round(number, _DECIMALS)
    return int(number) if number == int(number) else number
