"""Boxes in YOLO's text files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from models import InputError

from .boxes import Box, Boxes
from .fields import box_around, one_line, to_number
from .source import Findings, Images, files_in


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
            findings.mistakes.append(f"{file}: {one_line(error)}")
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
                    if sorted(names) != list(range(len(names))):
                        numbers = ", ".join(map(str, sorted(names)))
                        raise InputError(f"names has the numbers {numbers}; expected 0, 1, 2 ...")
                    names = [names[key] for key in sorted(names)]
                if names:
                    return [str(name) for name in names]
            elif file.name in ("classes.txt", "obj.names"):
                lines = file.read_text(encoding="utf-8-sig").splitlines()
                return [line.strip() for line in lines if line.strip()]
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"{file}: {one_line(error)}") from None
    raise InputError(f"{source}: holds no data.yaml, classes.txt or obj.names; give --classes")


def _yolo_line(line: str, classes: Sequence[str]) -> tuple[str, tuple[float, float, float, float]]:
    number, *values = line.split()
    values = [to_number(value) for value in values]
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
    return name, box_around(zip(values[::2], values[1::2], strict=True))
