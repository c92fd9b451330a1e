"""Boxes in COCO files."""

from collections.abc import Iterator
from pathlib import Path

from models import InputError

from .boxes import Box, Boxes
from .fields import annotation_files, class_name, one_line, read_json, root_of, to_number
from .source import Findings, Images


def read_coco(source: Path, images: Images, findings: Findings) -> Boxes:
    """COCO files, all of the same categories; what is in no box is dropped."""
    boxes = Boxes(classes=[])
    for file in annotation_files(source, ".json"):
        try:
            content = read_json(file)
            names = {entry["id"]: class_name(entry["name"]) for entry in content["categories"]}
            paths = dict(_coco_images(file, content, root_of(source), images, findings))
            used = {entry["category_id"] for entry in content["annotations"]}
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        except (KeyError, TypeError, AttributeError) as error:
            findings.mistakes.append(f"{file}: not in COCO format ({one_line(error)})")
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
                x, y, w, h = (to_number(value) for value in entry["bbox"])
            except (KeyError, TypeError, ValueError) as error:
                findings.mistakes.append(f"{where}: {one_line(error)}")
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
