"""Labels: PNGs of colours or of other ids, and polygons, into PNGs of class ids."""

import contextlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask
from pycocotools.coco import COCO

from models import InputError

from .boxes import labelme_points, labelme_shapes, read_json
from .source import Findings, Images, files_in

IGNORED_ID = 255
# labelme draws the shapes that enclose nothing so wide
_LINE_WIDTH, _POINT_SIZE = 10, 5


@dataclass(frozen=True)
class Table:
    """The classes of colour labels, in the order of their ids, and each colour's id."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: dict[tuple[int, int, int], int]


def read_table(file: Path, ignored: Sequence[str] = ()) -> Table:
    """A table of colours: lines ``R G B NAME``, or ``NAME:R,G,B::`` as CVAT writes them.

    Colours of one name are one class. What follows # is a comment.

    Args:
        ignored: Names that are no class: 255.

    Raises:
        InputError: A line is neither of these, or has another's colour, or an ignored name is not
            there.
    """
    ids: dict[tuple[int, int, int], int] = {}
    classes: dict[str, tuple[int, int, int]] = {}
    names = set()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"table of colours {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        try:
            if ":" in line:
                name, numbers = line.split(":")[:2]
                colour = tuple(int(value) for value in numbers.split(","))
            else:
                *numbers, name = line.split(maxsplit=3)
                colour = tuple(int(value) for value in numbers)
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError
        except ValueError:
            raise InputError(f"{file}:{number}: {line!r}, expected R G B NAME") from None
        name = name.strip()
        if colour in ids:
            raise InputError(f"{file}:{number}: the colour {colour} is there twice")
        names.add(name)
        if name not in ignored:
            classes.setdefault(name, colour)
        ids[colour] = IGNORED_ID if name in ignored else list(classes).index(name)
    if unknown := [name for name in ignored if name not in names]:
        raise InputError(f"--ignore {unknown[0]}: {file} has no such name")
    if not classes or len(classes) > IGNORED_ID:
        raise InputError(f"{file}: has {len(classes)} classes, expected 1 to {IGNORED_ID}")
    return Table(tuple(classes), tuple(classes.values()), ids)


def ids_of_colours(label: Image.Image, table: Table) -> np.ndarray:
    """Each colour of a table becomes the id of its class, from 0.

    Returns (height, width) ids of a label.

    Raises:
        InputError: It has a colour that is not in the table.
    """
    pixels = np.asarray(label.convert("RGB")).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    found, places = np.unique(codes, return_inverse=True)
    colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found]
    unknown = [place for place, colour in enumerate(colours) if colour not in table.ids]
    if unknown:
        y, x = np.argwhere(codes == found[unknown[0]])[0]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"has the colour {colours[unknown[0]]} (at x {x}, y {y}){more}, which the table lacks"
        )
    ids = np.array([table.ids[colour] for colour in colours], np.uint8)
    return ids[places].reshape(codes.shape)


def ids_of_ids(label: Image.Image, renumbered: dict[int, int]) -> np.ndarray:
    """Ids, such as 11 for none, get other numbers, or stay.

    Returns (height, width) ids of a label.

    Raises:
        InputError: It has no ids of one byte, or one that is neither renumbered nor below 256.
    """
    if label.mode not in ("L", "P", "1", "I;16", "I"):
        raise InputError(f"has pixels of kind {label.mode} (as Pillow names them), expected ids")
    ids = np.asarray(label).astype(np.int64)
    result = ids.copy()
    for old, new in renumbered.items():
        result[ids == old] = new
    if result.min() < 0 or result.max() > IGNORED_ID:
        raise InputError(f"has the id {result.max()}, expected 0 to {IGNORED_ID}; --map it")
    return result.astype(np.uint8)


def label_files(images: Images, folder: Path, pattern: str) -> dict[str, Path]:
    """The label of each image that has one.

    Args:
        pattern: Its path inside ``folder``, of the image's ``{folder}`` and ``{stem}``.
    """
    found = {}
    for path in images.paths:
        place = PurePosixPath(path)
        try:
            name = pattern.format(folder=place.parent.as_posix(), stem=place.stem)
        except (KeyError, IndexError, ValueError):
            raise InputError(f"--label {pattern}: expected {{folder}} and {{stem}} in it") from None
        file = folder / name
        if file.is_file() and file.resolve() != (images.folder / path).resolve():
            found[path] = file
    if not found:
        example = PurePosixPath(images.paths[0])
        name = pattern.format(folder=example.parent.as_posix(), stem=example.stem)
        raise InputError(
            f"{images.folder}: no image has a label; that of {example} would be {folder / name}; "
            "--label says how labels are called"
        )
    return found


def reader_of(
    file: Path, path: str, images: Images, convert: Callable[[Image.Image], np.ndarray]
) -> Callable[[], np.ndarray]:
    """A function that gives the (height, width) ids of a label, or raises InputError."""

    def read() -> np.ndarray:
        try:
            with Image.open(file) as label:
                ids = convert(label)
            images.check_size(path, ids.shape[::-1])
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
        return ids

    return read


def write_labels(
    makers: dict[str, Callable[[], np.ndarray]], target: Path, findings: Findings
) -> None:
    """Write the label of each image, at the image's path in a folder, as a PNG of ids."""

    def write(path: str) -> str | None:
        place = (target / path).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            Image.fromarray(makers[path]()).save(place)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings.mistakes += [mistake for mistake in pool.map(write, makers) if mistake]


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
    files = [source] if source.is_file() else files_in(source, ".json")
    if not files:
        raise InputError(f"{source}: holds no file NAME.json")
    root = source.parent if source.is_file() else source
    for file in files:
        try:
            content = read_json(file)
            is_coco = isinstance(content, dict) and "annotations" in content
            read = _coco_shapes if is_coco else _labelme_shapes
            for path, found, names in read(file, images, root, findings):
                if path in shapes:
                    raise InputError(f"image {path} has another annotation, too")
                shapes[path] = found
                named += [name for name in names if name not in named]
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
        except (KeyError, TypeError) as error:
            findings.mistakes.append(
                f"{file}: neither labelme's nor COCO's ({type(error).__name__}: {error})"
            )
    occur = {name for found in shapes.values() for name, _, _ in found}
    names = list(classes or [name for name in named if name in occur])
    if background and background in names:
        names.remove(background)
    names = [*([background] if background else []), *names]
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


def _labelme_shapes(file: Path, images: Images, root: Path, findings: Findings):
    path, shapes = labelme_shapes(file, images, root)
    found = []
    for number, shape in enumerate(shapes, 1):
        where = f"{file}: shape {number}"
        try:
            labelme_points(shape)
            kind = shape.get("shape_type") or "polygon"
            if kind not in _DRAWN:
                raise InputError(f"is a {kind}, which has no pixels; expected a polygon")
            points = [(float(x), float(y)) for x, y in shape["points"]]
            if len(points) < _DRAWN[kind]:
                raise InputError(f"has {len(points)} points, too few for a {kind}")
        except InputError as error:
            findings.mistakes.append(f"{where}: {error}")
            continue
        found.append((str(shape.get("label")), _LabelmeShape(kind, points), where))
    yield path, found, sorted({name for name, _, _ in found})


# labelme's kinds, and the points that each has at least
_DRAWN = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1}


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


def _coco_shapes(file: Path, images: Images, root: Path, findings: Findings):
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        coco = COCO(str(file))
    names = {id: str(category["name"]) for id, category in coco.cats.items()}
    order, of_image = list(names.values()), defaultdict(list)
    for annotation in coco.dataset["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    for image in coco.dataset["images"]:
        try:
            path = images.find(str(image["file_name"]), file, root)
            images.check_size(path, (image.get("width"), image.get("height")))
            image["width"], image["height"] = images.size(path)
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        found = []
        for annotation in of_image[image["id"]]:
            where = f"{file}: annotation of id {annotation.get('id')}"
            try:
                shape = coco.annToRLE(annotation)
                area, name = int(mask.area(shape)), names[annotation["category_id"]]
            except Exception as error:  # whatever pycocotools meets in a file that is not its own
                findings.mistakes.append(
                    f"{where}: has no polygon ({type(error).__name__}: {error})"
                )
                continue
            found.append((area, name, _CocoShape(shape), where))
        found.sort(key=lambda entry: -entry[0])
        yield path, [entry[1:] for entry in found], order


@dataclass(frozen=True)
class _CocoShape:
    """A shape as pycocotools packs it."""

    packed: dict

    def __call__(self, label: np.ndarray, id: int) -> None:
        label[mask.decode(self.packed).astype(bool)] = id
