"""Boxes in CSV files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from models import InputError

from .boxes import Box, Boxes
from .fields import annotation_files, class_name, one_line, root_of, to_number
from .source import Findings, Images

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


def read_csv(
    source: Path, images: Images, findings: Findings, columns: Sequence[str] | None = None
) -> Boxes:
    """CSV files with a box in each row, and a heading or ``columns`` that says where what is.

    Edges are xmin, ymin, xmax, ymax or x, y, w, h. A row without a class and edges is an image
    without a box.
    """
    boxes = Boxes()
    for file in annotation_files(source, ".csv"):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            findings.mistakes.append(f"{file}: {one_line(error)}")
            continue
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.reader(io.StringIO(text), delimiter=delimiter)
        try:
            headings = columns or next(rows, [])
            places = _columns(headings)
            numbered = [(rows.line_num, row) for row in rows]
        except (InputError, csv.Error) as error:
            findings.mistakes.append(f"{file}:{rows.line_num}: {error}")
            continue
        for number, row in numbered:
            where = f"{file}:{number}"
            if not any(cell.strip() for cell in row):
                continue
            try:
                cells = {key: row[place].strip() for key, place in places.items()}
                path = images.find(cells["image"], file, root_of(source))
                of_image = boxes.of[path]
                if any(cells[key] for key in places if key != "image"):
                    of_image.append(Box(class_name(cells["class"]), _edges(cells), where))
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
        to_number(cells[key], key) for key in cells if key not in ("image", "class")
    )
    if "w" in cells:
        third, fourth = first + third, second + fourth
    return first, second, third, fourth
