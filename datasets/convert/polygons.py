"""Labels drawn from polygons in labelme's or COCO's JSON files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask
from pycocotools.coco import COCO

from models import InputError

from .coco import coco_file
from .fields import annotation_files, class_name, one_line, read_json, root_of, to_number
from .labelme import labelme_points, labelme_shapes
from .labels import IGNORED_ID
from .source import Findings, Images

# labelme's kinds, and the points that each has at least
_DRAWN = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1}
# times the longer side of an image
_FAR = 10
# labelme draws the shapes that enclose nothing so wide
_LINE_WIDTH, _POINT_SIZE = 10, 5


@dataclass(frozen=True)
class Outlines:
    """What polygons say: for each image a function that draws its label, and the classes."""

    drawers: dict[str, Callable[[], np.ndarray]]
    classes: tuple[str, ...]


def read_polygons(
    source: Path,
    images: Images,
    findings: Findings,
    classes: Sequence[str] | None = None,
    background: str | None = "background",
) -> Outlines:
    """Polygons in labelme's or COCO's JSON files.

    Where shapes overlap, labelme's later ones are above, and COCO's smaller ones.

    Args:
        classes: The names that may occur; None: COCO's order, or sorted.
        background: The class of pixels in no polygon, which has id 0; None: they are 255.
    """
    shapes: dict[str, list[tuple[str, Callable[[np.ndarray, int], None], str]]] = {}
    named: list[str] = []
    for file in annotation_files(source, ".json"):
        try:
            content = read_json(file)
            is_coco = isinstance(content, dict) and "annotations" in content
            read = _coco_shapes if is_coco else _labelme_shapes
            for path, found, names in read(file, content, images, root_of(source), findings):
                if path in shapes:
                    raise InputError(f"image {path} has another annotation, too")
                shapes[path] = found
                named += [name for name in names if name not in named]
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
        except (KeyError, TypeError, AttributeError) as error:
            findings.mistakes.append(f"{file}: neither labelme's nor COCO's ({one_line(error)})")
    occur = {name for found in shapes.values() for name, _, _ in found}
    names = list(classes or [name for name in named if name in occur])
    if background and background in names:
        names.remove(background)
    names = [*([background] if background else []), *names]
    if len(names) > IGNORED_ID:
        raise InputError(f"{source}: has {len(names)} classes, expected {IGNORED_ID} at most")
    ids = {name: id for id, name in enumerate(names)}
    findings.mistakes += [
        f"{where}: is of class {name!r}, expected one of {', '.join(names)}"
        for found in shapes.values()
        for name, _, where in found
        if name not in ids
    ]
    findings.raise_mistakes()

    def drawer(path: str) -> Callable[[], np.ndarray]:
        def draw() -> np.ndarray:
            width, height = images.size(path)
            label = np.full((height, width), 0 if background else IGNORED_ID, np.uint8)
            for name, fill, _ in shapes[path]:
                fill(label, ids[name])
            return label

        return draw

    return Outlines({path: drawer(path) for path in sorted(shapes)}, tuple(names))


def _labelme_shapes(file: Path, content: object, images: Images, root: Path, findings: Findings):
    path, shapes = labelme_shapes(file, content, images, root)
    found = []
    for number, shape in enumerate(shapes, 1):
        where = f"{file}: shape {number}"
        try:
            name, points = class_name(shape.get("label")), labelme_points(shape)
            kind = shape.get("shape_type") or "polygon"
            if kind not in _DRAWN:
                raise InputError(f"is a {kind}, which has no pixels; expected a polygon")
            if len(points) < _DRAWN[kind]:
                raise InputError(f"has {len(points)} points, too few for a {kind}")
            _refuse_far([value for point in points for value in point], images.size(path))
        except InputError as error:
            findings.mistakes.append(f"{where}: {error}")
            continue
        found.append((name, _LabelmeShape(kind, points), where))
    yield path, found, sorted({name for name, _, _ in found})


@dataclass(frozen=True)
class _LabelmeShape:
    """Draws a shape as labelme itself makes masks of shapes (its utils.shape_to_mask)."""

    kind: str
    points: list[tuple[float, float]]

    def __call__(self, label: np.ndarray, id: int) -> None:
        inside = Image.new("1", label.shape[::-1])
        draw, points = ImageDraw.Draw(inside), self.points
        if self.kind == "circle":
            (x, y), edge = points[0], float(np.hypot(*np.subtract(*points[:2])))
            draw.ellipse([x - edge, y - edge, x + edge, y + edge], outline=1, fill=1)
        elif self.kind == "rectangle":
            (x1, y1), (x2, y2) = points[:2]
            box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
            draw.rectangle(box, outline=1, fill=1)
        elif self.kind in ("line", "linestrip"):
            draw.line(points, fill=1, width=_LINE_WIDTH)
        elif self.kind == "point":
            (x, y), r = points[0], _POINT_SIZE
            draw.ellipse([x - r, y - r, x + r, y + r], outline=1, fill=1)
        else:
            draw.polygon(points, outline=1, fill=1)
        label[np.asarray(inside)] = id


def _coco_shapes(file: Path, content: dict, images: Images, root: Path, findings: Findings):
    listed = coco_file(file, content, images, root, findings)
    coco = COCO()
    for id, path in listed.paths.items():
        width, height = images.size(path)
        coco.imgs[id] = dict(width=width, height=height)
    found = {path: [] for path in listed.paths.values()}
    for annotation in listed.annotations:
        try:
            shape = _coco_shape(coco, annotation.entry, images.size(annotation.path))
            area = int(mask.area(shape))
        except Exception as error:  # whatever pycocotools meets in a file that is not its own
            findings.mistakes.append(f"{annotation.where}: has no polygon ({one_line(error)})")
            continue
        drawn = (annotation.name, _CocoShape(shape), annotation.where)
        found[annotation.path].append((area, drawn))
    for path, shapes in found.items():
        shapes.sort(key=lambda shape: -shape[0])
        yield path, [drawn for _, drawn in shapes], list(listed.names.values())


def _coco_shape(coco: COCO, entry: dict, size: tuple[int, int]) -> dict:
    """The pixels of an annotation as pycocotools packs them, for an image of (width, height).

    Raises:
        InputError: They are of another size, or its polygons or run lengths are none.
        Exception: Whatever pycocotools meets.
    """
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _refuse_far([to_number(value) for value in polygon], size)
        return coco.annToRLE(entry)
    stated, counts = tuple(segmentation["size"][::-1]), segmentation["counts"]
    if stated != size:
        said = "x".join(map(str, stated))
        raise InputError(f"states {said} pixels, but its image has {size[0]}x{size[1]}")
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        raise InputError(f"has runs of {sum(counts)} pixels in all, its image {size[0] * size[1]}")
    shape = coco.annToRLE(entry)
    mask.decode(shape)  # raises if there are too many
    return shape


def _refuse_far(values: Sequence[float], size: tuple[int, int]) -> None:
    """Raise InputError if a coordinate is too far outside of an image to be drawn."""
    if any(abs(value) > _FAR * max(size) for value in values):
        far = max(values, key=abs)
        raise InputError(f"has the coordinate {far:g}, but its image {size[0]}x{size[1]} pixels")


@dataclass(frozen=True)
class _CocoShape:
    """A shape as pycocotools packs it."""

    packed: dict

    def __call__(self, label: np.ndarray, id: int) -> None:
        label[mask.decode(self.packed).astype(bool)] = id
