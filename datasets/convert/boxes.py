"""Boxes: Pascal VOC, CSV, YOLO, labelme and COCO files into one COCO file per split."""

import csv
import io
import json
import math
import xml.sax
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from models import InputError

from .source import Findings, Images, files_in

# pixels are split as finely as this
_DECIMALS = 3
# Headings of CSV files, in lower case
_HEADINGS = {
    "image": ("filename", "file_name", "file", "image", "image_path", "image_name", "path"),
    "class": ("class", "class_name", "label", "label_name", "name", "category"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "w": ("w", "bbox_width", "box_width"),
    "h": ("h", "bbox_height", "box_height"),
}


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


def read_voc(source: Path, images: Images, findings: Findings, first_pixel: int = 1) -> Boxes:
    """The XML files of a folder, one per image.

    Args:
        first_pixel: 1: as in Pascal VOC itself, a box has the pixels from xmin to xmax, and the
            first pixel is 1. 0: xmin and xmax are a box's edges, and the image's left edge is 0.
    """
    boxes = Boxes()
    for file in _files(source, ".xml"):
        handler = _VOCHandler()
        try:
            xml.sax.parse(str(file), handler)
            path = images.find(handler.texts.get("filename", ""), file, _root(source))
            if path in boxes.of:
                raise InputError(f"image {path} has another annotation file, too")
            size = handler.texts.get("size/width"), handler.texts.get("size/height")
            images.check_size(path, [_number(side) if side else None for side in size])
        except (xml.sax.SAXException, ValueError, OSError) as error:
            findings.mistakes.append(f"{file}: {_one_line(error)}")
            continue
        boxes.of[path] = []
        for line, item in handler.objects:
            where = f"{file}:{line}"
            try:
                x1, y1, x2, y2 = (
                    _number(item.get(f"bndbox/{edge}"), edge)
                    for edge in ("xmin", "ymin", "xmax", "ymax")
                )
                name = _name(item.get("name"))
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
                continue
            # a box of one corner twice has no area, although it has a pixel
            more = first_pixel if x2 > x1 and y2 > y1 else 0
            edges = (x1 - first_pixel, y1 - first_pixel, x2 - first_pixel, y2 - first_pixel)
            edges = (*edges[:2], edges[2] + more, edges[3] + more)
            boxes.of[path].append(Box(name, edges, where))
    return boxes


class _VOCHandler(xml.sax.ContentHandler):
    """The texts of an annotation file by their path, and its objects, each with its line."""

    def __init__(self):
        super().__init__()
        self.texts: dict[str, str] = {}
        self.objects: list[tuple[int, dict[str, str]]] = []
        self._path: list[str] = []
        self._text = ""
        self._lines = None

    def setDocumentLocator(self, locator):
        self._lines = locator

    def startElement(self, name, attributes):
        self._path.append(name)
        self._text = ""
        if self._path[1:] == ["object"]:
            self.objects.append((self._lines.getLineNumber(), {}))

    def characters(self, content):
        self._text += content

    def endElement(self, name):
        inside = self._path[1:]
        if inside[:1] == ["object"] and self.objects:
            self.objects[-1][1]["/".join(inside[1:])] = self._text.strip()
        else:
            self.texts["/".join(inside)] = self._text.strip()
        self._path.pop()
        self._text = ""


def read_csv(
    source: Path, images: Images, findings: Findings, columns: Sequence[str] | None = None
) -> Boxes:
    """CSV files with a box in each row, and a heading or ``columns`` that says where what is.

    Edges are xmin, ymin, xmax, ymax or x, y, w, h. A row without a class and edges is an image
    without a box.
    """
    boxes = Boxes()
    for file in _files(source, ".csv"):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            findings.mistakes.append(f"{file}: {_one_line(error)}")
            continue
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.reader(io.StringIO(text), delimiter=delimiter)
        try:
            headings = columns or next(rows, [])
            places = _columns(headings)
        except InputError as error:
            findings.mistakes.append(f"{file}:1: {error}")
            continue
        for row in rows:
            where = f"{file}:{rows.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            try:
                cells = {key: row[place].strip() for key, place in places.items()}
                path = images.find(cells["image"], file, _root(source))
                of_image = boxes.of[path]
                if any(cells[key] for key in places if key != "image"):
                    of_image.append(Box(_name(cells["class"]), _edges(cells), where))
            except IndexError:
                findings.mistakes.append(f"{where}: has {len(row)} columns, not {len(headings)}")
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
    return boxes


def _columns(headings: Sequence[str]) -> dict[str, int]:
    """Where each column that counts is."""
    lower = [heading.strip().lower() for heading in headings]
    places = {
        key: lower.index(name)
        for key, names in _HEADINGS.items()
        for name in names[::-1]
        if name in lower
    }
    corners, sides = ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "w", "h")
    edges = corners if all(key in places for key in corners) else sides
    if missing := [key for key in ("image", "class", *edges) if key not in places]:
        raise InputError(
            f"has the columns {', '.join(headings)}, and none that is {missing[0]}; expected "
            "image, class, xmin, ymin, xmax, ymax (or x, y, w, h); --columns names them"
        )
    return {key: places[key] for key in ("image", "class", *edges)}


def _edges(cells: dict[str, str]) -> tuple[float, float, float, float]:
    first, second, third, fourth = (
        _number(cells[key], key) for key in cells if key not in ("image", "class")
    )
    if "w" in cells:
        third, fourth = first + third, second + fourth
    return first, second, third, fourth


def read_yolo(
    source: Path, images: Images, findings: Findings, classes: Sequence[str] | None = None
) -> Boxes:
    """Text files, one per image, of lines ``class x y width height`` in shares of the image.

    They are where YOLO looks for them: in the image's path the last folder ``images`` becomes
    ``labels``, or beside the image; or else where the image would be in ``source``. An image
    without one has no box. Lines with more numbers are polygons, of which the box around is taken.

    Args:
        classes: The names of the numbers; None: those in a data.yaml, classes.txt or obj.names in
            the folder.
    """
    boxes = Boxes(classes=classes or _yolo_classes(source))
    found = 0
    for path in images.paths:
        boxes.of[path] = []
        places = [*_yolo_places(images.folder / path), (source / path).with_suffix(".txt")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            continue
        found += 1
        try:
            width, height = images.size(path)
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            findings.mistakes.append(f"{file}: {_one_line(error)}")
            continue
        for number, line in enumerate(lines, 1):
            where = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                name, shares = _yolo_line(line, boxes.classes)
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
                continue
            x1, y1, x2, y2 = shares
            edges = (x1 * width, y1 * height, x2 * width, y2 * height)
            boxes.of[path].append(Box(name, edges, where))
    if not found:
        raise InputError(f"{source}: holds no label NAME.txt of an image")
    return boxes


def _yolo_places(image: Path) -> Iterator[Path]:
    parts = list(image.parts)
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        yield Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
    yield image.with_suffix(".txt")


def _yolo_classes(source: Path) -> list[str]:
    for file in files_in(source):
        try:
            if file.suffix in (".yaml", ".yml"):
                content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
                names = content.get("names") if isinstance(content, dict) else None
                if isinstance(names, dict):
                    names = [names[key] for key in sorted(names)]
                if names:
                    return [str(name) for name in names]
            elif file.name in ("classes.txt", "obj.names"):
                lines = file.read_text(encoding="utf-8-sig").splitlines()
                return [line.strip() for line in lines if line.strip()]
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"{file}: {_one_line(error)}") from None
    raise InputError(f"{source}: holds no data.yaml, classes.txt or obj.names; give --classes")


def _yolo_line(line: str, classes: Sequence[str]) -> tuple[str, tuple[float, float, float, float]]:
    number, *values = line.split()
    values = [_number(value) for value in values]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise InputError(
            f"has {len(values)} numbers after the class, expected x y width height or a polygon"
        )
    if any(not -0.01 <= value <= 1.01 for value in values):
        raise InputError("has a number outside of 0 to 1, expected shares of the image's sides")
    if not number.isdecimal():
        raise InputError(f"has the class {number!r}, expected a number")
    if int(number) >= len(classes):
        raise InputError(f"has the class {number}, but there are {len(classes)} names")
    name = classes[int(number)]
    if len(values) == 4:
        x, y, w, h = values
        return name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return name, _around(zip(values[::2], values[1::2], strict=True))


def read_labelme(source: Path, images: Images, findings: Findings) -> Boxes:
    """labelme's JSON files, one per image: the boxes around its shapes.

    Shapes of one class and one ``group_id`` are parts of one object.
    """
    boxes = Boxes()
    for file in _files(source, ".json"):
        try:
            path, shapes = labelme_shapes(file, images, _root(source))
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        if path in boxes.of:
            findings.mistakes.append(f"{file}: image {path} has another annotation file, too")
            continue
        groups: dict[tuple, list] = defaultdict(list)
        for number, shape in enumerate(shapes, 1):
            where = f"{file}: shape {number}"
            try:
                name, outline = _name(shape.get("label")), labelme_points(shape)
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
                continue
            group = shape.get("group_id")
            key = (name, number if group is None else f"group {group}")
            groups[key].append((where, outline))
        boxes.of[path] = [
            Box(name, _around(point for _, outline in parts for point in outline), parts[0][0])
            for (name, _), parts in groups.items()
        ]
    return boxes


def labelme_shapes(file: Path, images: Images, root: Path) -> tuple[str, list[dict]]:
    """The image of one of labelme's files, and its shapes.

    Raises:
        InputError: It is none of labelme's files, or does not fit its image.
    """
    content = read_json(file)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise InputError("has no list of shapes: no file of labelme")
    path = images.find(str(content.get("imagePath") or ""), file, root)
    images.check_size(path, (content.get("imageWidth"), content.get("imageHeight")))
    return path, shapes


def labelme_points(shape: dict) -> list[tuple[float, float]]:
    """Points (x, y) in pixels of which the furthest bound a shape."""
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError):
        points = []
    if not points or not all(math.isfinite(value) for point in points for value in point):
        raise InputError("has no points (x, y)")
    if shape.get("shape_type") == "circle" and len(points) == 2:
        (x, y), edge = points[0], math.dist(*points)
        return [(x - edge, y - edge), (x + edge, y + edge)]
    return points


def read_coco(source: Path, images: Images, findings: Findings) -> Boxes:
    """COCO files, all of the same categories; what is in no box is dropped."""
    boxes = Boxes(classes=[])
    for file in _files(source, ".json"):
        try:
            content = read_json(file)
            names = {entry["id"]: _name(entry["name"]) for entry in content["categories"]}
            paths = dict(_coco_images(file, content, _root(source), images, findings))
            used = {entry["category_id"] for entry in content["annotations"]}
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        except (KeyError, TypeError, AttributeError) as error:
            findings.mistakes.append(f"{file}: not in COCO format ({_one_line(error)})")
            continue
        for path in paths.values():
            if path in boxes.of:
                findings.mistakes.append(f"{file}: image {path} is listed in another file, too")
            boxes.of[path] = []
        # Roboflow lists the project, too, as a category without objects
        order = [name for id, name in names.items() if id in used]
        boxes.classes += [name for name in order if name not in boxes.classes]
        for number, entry in enumerate(content["annotations"], 1):
            where = f"{file}: annotation {number} (id {entry.get('id')})"
            try:
                if entry["image_id"] not in paths:
                    raise InputError(f"is of the image {entry['image_id']}, which is not listed")
                if entry["category_id"] not in names:
                    raise InputError(f"is of the category {entry['category_id']}, not listed")
                x, y, w, h = (_number(value) for value in entry["bbox"])
            except (KeyError, TypeError, ValueError) as error:
                findings.mistakes.append(f"{where}: {_one_line(error)}")
                continue
            name, crowd = names[entry["category_id"]], bool(entry.get("iscrowd"))
            box = Box(name, (x, y, x + w, y + h), where, crowd)
            boxes.of[paths[entry["image_id"]]].append(box)
    return boxes


def _coco_images(
    file: Path, content: dict, root: Path, images: Images, findings: Findings
) -> Iterator[tuple[object, str]]:
    """The id and the path of each listed image."""
    listed = set()
    for entry in content["images"]:
        try:
            path = images.find(str(entry["file_name"]), file, root)
            if path in listed:
                raise InputError(f"image {path} is listed twice")
            images.check_size(path, (entry.get("width"), entry.get("height")))
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        listed.add(path)
        yield entry["id"], path


def read_json(file: Path) -> object:
    """The content of a JSON file. Raises InputError if it is none."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"no JSON file: {_one_line(error)}") from None


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


def _files(source: Path, suffix: str) -> list[Path]:
    """A file, or those of a folder."""
    if source.is_file():
        return [source]
    files = files_in(source, suffix)
    if not files:
        raise InputError(f"{source}: holds no file NAME{suffix}")
    return files


def _root(source: Path) -> Path:
    return source.parent if source.is_file() else source


def _around(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _name(text: object) -> str:
    name = str(text or "").strip()
    if not name:
        raise InputError("has no class name")
    return name


def _number(text: object, what: str = "number") -> float:
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"has the {what} {text!r}, expected a number")
    return number


def _rounded(number: float) -> float | int:
    number = round(number, _DECIMALS)
    return int(number) if number == int(number) else number


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
