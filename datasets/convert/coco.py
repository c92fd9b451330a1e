"""COCO files: their images and annotations, and the boxes of these."""

from dataclasses import dataclass
from pathlib import Path

from models import InputError

from .boxes import Box, Boxes
from .fields import annotation_files, class_name, one_line, read_json, root_of, to_number
from .source import Findings, Images


@dataclass(frozen=True)
class CocoAnnotation:
    """One entry of ``annotations``: where it is written, its image's path, its class's name."""

    where: str
    path: str
    name: str
    entry: dict


@dataclass(frozen=True)
class CocoFile:
    """What a COCO file lists: classes and the images' paths, by id, and annotations of these."""

    names: dict[object, str]
    paths: dict[object, str]
    annotations: list[CocoAnnotation]


def read_coco(source: Path, images: Images, findings: Findings) -> Boxes:
    """COCO files, all of the same categories; what is in no box is dropped."""
    boxes = Boxes(classes=[])
    for file in annotation_files(source, ".json"):
        try:
            listed = coco_file(file, read_json(file), images, root_of(source), findings)
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        except (KeyError, TypeError, AttributeError) as error:
            findings.mistakes.append(f"{file}: not in COCO format ({one_line(error)})")
            continue
        for path in listed.paths.values():
            if path in boxes.of:
                findings.mistakes.append(f"{file}: image {path} is listed in another file, too")
            boxes.of[path] = []
        # Roboflow lists the project, too, as a category without objects
        used = {annotation.name for annotation in listed.annotations}
        order = [name for name in listed.names.values() if name in used]
        boxes.classes += [name for name in order if name not in boxes.classes]
        for annotation in listed.annotations:
            try:
                x, y, w, h = (to_number(value) for value in annotation.entry["bbox"])
            except (KeyError, TypeError, ValueError) as error:
                findings.mistakes.append(f"{annotation.where}: {one_line(error)}")
                continue
            crowd = bool(annotation.entry.get("iscrowd"))
            box = Box(annotation.name, (x, y, x + w, y + h), annotation.where, crowd)
            boxes.of[annotation.path].append(box)
    return boxes


def coco_file(
    file: Path, content: dict, images: Images, root: Path, findings: Findings
) -> CocoFile:
    """The images and annotations that a COCO file of this content lists.

    Those with a mistake are left out, and so are the annotations of such an image.

    Raises:
        InputError, KeyError, TypeError, AttributeError: It is no COCO file.
    """
    names, listed, seen, paths, annotations = {}, set(), set(), {}, []
    for entry in content["categories"]:
        if entry["id"] in names:
            raise InputError(f"lists two categories with the id {entry['id']}")
        names[entry["id"]] = class_name(entry["name"])
    for entry in content["images"]:
        if entry["id"] in listed:
            raise InputError(f"lists two images with the id {entry['id']}")
        listed.add(entry["id"])
        try:
            path = images.find(str(entry["file_name"]), file, root)
            if path in seen:
                raise InputError(f"image {path} is listed twice")
            images.check_size(path, (entry.get("width"), entry.get("height")))
        except InputError as error:
            findings.mistakes.append(f"{file}: {error}")
            continue
        seen.add(path)
        paths[entry["id"]] = path
    for number, entry in enumerate(content["annotations"], 1):
        where = f"{file}: annotation {number} (id {entry.get('id')})"
        image, category = entry.get("image_id"), entry.get("category_id")
        if image not in listed:
            findings.mistakes.append(f"{where}: is of the image {image}, which is not listed")
        elif category not in names:
            findings.mistakes.append(f"{where}: is of the category {category}, not listed")
        elif image in paths:
            annotations.append(CocoAnnotation(where, paths[image], names[category], entry))
    return CocoFile(names, paths, annotations)
