"""Boxes in labelme's JSON files, and what their shapes are."""

import math
from collections import defaultdict
from pathlib import Path

from models import InputError

from .boxes import Box, Boxes
from .fields import annotation_files, box_around, class_name, read_json, root_of
from .source import Findings, Images


def read_labelme(source: Path, images: Images, findings: Findings) -> Boxes:
    """labelme's JSON files, one per image: the boxes around its shapes.

    Shapes of one class and one ``group_id`` are parts of one object.
    """
    boxes = Boxes()
    for file in annotation_files(source, ".json"):
        try:
            path, shapes = labelme_shapes(file, read_json(file), images, root_of(source))
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
                name, outline = class_name(shape.get("label")), _outline(shape)
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
                continue
            group = shape.get("group_id")
            key = (name, number if group is None else f"group {group}")
            groups[key].append((where, outline))
        boxes.of[path] = [
            Box(name, box_around(point for _, outline in parts for point in outline), parts[0][0])
            for (name, _), parts in groups.items()
        ]
    return boxes


def labelme_shapes(
    file: Path, content: object, images: Images, root: Path
) -> tuple[str, list[dict]]:
    """The image that a file of labelme's with this content is of, and its shapes.

    Raises:
        InputError: It is none of labelme's files, or does not fit its image.
    """
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise InputError("has no list of shapes: no file of labelme")
    path = images.find(str(content.get("imagePath") or ""), file, root)
    images.check_size(path, (content.get("imageWidth"), content.get("imageHeight")))
    return path, shapes


def labelme_points(shape: dict) -> list[tuple[float, float]]:
    """The points (x, y) of a shape, in pixels. Raises InputError if they are none."""
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError):
        points = []
    if not points or not all(math.isfinite(value) for point in points for value in point):
        raise InputError("has no points (x, y)")
    return points


def _outline(shape: dict) -> list[tuple[float, float]]:
    """Points of which the furthest bound a shape: a circle's are its centre and one on its edge."""
    points = labelme_points(shape)
    if shape.get("shape_type") == "circle" and len(points) == 2:
        (x, y), edge = points[0], math.dist(*points)
        return [(x - edge, y - edge), (x + edge, y + edge)]
    return points
