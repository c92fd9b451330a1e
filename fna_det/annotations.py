"""Annotation files in COCO's format, checked once, where they are read.

A file that would give wrong figures is refused. What can be mended without a doubt is mended, and
boxes that nothing can find are left out, of training and of evaluation alike; one warning counts
them. COCO's own files pass: they are evaluated exactly as pycocotools does.
"""

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO

from datasets.images import image_size, wrong_size
from models import DataError, InputError
from models.errors import printable, shown

from .boxes import compute_areas, findable, read_boxes
from .columns import (
    Notes,
    all_texts,
    annotation_name,
    counted,
    entry_name,
    image_name,
    more,
    repeated,
    what_it_is,
    whole_numbers,
)

# of so many images, evenly spread, the headers are read to compare sizes
_COMPARED_IMAGES = 50
_MOST_PIXELS = 10**6  # of a side


class Annotations:
    """The annotations of a COCO file, as the data loader and the evaluator use them.

    Args:
        file: The file to read.
        classes: The config's classes. Categories are put into their order.
        image_folder: What ``file_name`` is relative to; None where images are not on this machine.
        name: What to call the file in messages; default, ``file``.

    Attributes:
        coco: mmdet's index of the annotations, None where there are errors.
        errors: Each says in one line why the file cannot be used.
        warnings: Each says in a few words what was mended or left out.
        images: How many there are.
        boxes: How many there are of each class, those of crowds not counted.
    """

    def __init__(
        self,
        file: str | os.PathLike,
        classes: Sequence[str],
        image_folder: str | None = None,
        name: str | os.PathLike | None = None,
    ):
        self.file = str(name or file)
        self.classes = tuple(classes)
        self.notes = Notes()
        self.errors, self.warnings = self.notes.errors, self.notes.warnings
        self.images = 0
        self.boxes: Counter[str] = Counter()
        self.coco: COCO | None = None
        content = self._parsed(file)
        if content is not None:
            self._check(content, image_folder)
        if not self.errors:
            self.coco = COCO()
            self.coco.dataset = content
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco.createIndex()
            # createIndex makes new ones
            self.coco.img_ann_map = self.coco.imgToAnns
            self.coco.cat_img_map = self.coco.catToImgs

    def __deepcopy__(self, memo: dict) -> "Annotations":
        return self  # mmengine copies a data set's metainfo, in which this stands, at every access

    def raise_errors(self) -> None:
        """Raise DataError if the file cannot be used."""
        if self.errors:
            raise DataError(*(f"annotation file {self.file}: {error}" for error in self.errors))

    def refuse_without_boxes(self, purpose: str) -> None:
        """Raise InputError if the file holds no box, of a crowd apart, for a purpose."""
        if not self.boxes:
            why = f" ({'; '.join(self.warnings)})" if self.warnings else ""
            raise InputError(f"annotation file {self.file}: holds no box {purpose}{why}")

    @property
    def warning(self) -> str | None:
        """One line about all that was mended or left out."""
        return f"annotation file {self.file}: {'; '.join(self.warnings)}" if self.warnings else None

    def _parsed(self, file: str | os.PathLike) -> dict | None:
        why = None
        try:
            # bytes: json then knows UTF-8 with a byte order mark and UTF-16 too
            content = json.loads(Path(file).read_bytes())
        except FileNotFoundError:
            self.errors.append("no such file")
            return None
        except OSError as error:
            self.errors.append(f"cannot be read: {error.strerror or error}")
            return None
        except RecursionError:
            why = "is nested too deeply"
        except ValueError as error:
            why = f"is not JSON: {error}"
        else:
            if not isinstance(content, dict):
                why = f"is a {type(content).__name__}"
            else:
                content.setdefault("annotations", [])
                for key in ("images", "categories", "annotations"):
                    if key not in content:
                        why = f"has no {key!r}"
                    elif not isinstance(content[key], list):
                        why = f"{key!r} is no list"
                    elif set(map(type, content[key])) - {dict}:
                        why = f"{key!r} lists something else than objects"
                    if why:
                        break
        if why is None:
            return content
        self.errors.append(
            f"not in COCO format: {why}; expected lists of images, annotations and categories"
        )
        return None

    def _check(self, content: dict, image_folder: str | None) -> None:
        images, annotations = content["images"], content["annotations"]
        self.images = len(images)
        self._check_categories(content)
        self._check_images(images, image_folder)
        if self.errors:
            return
        sizes = {image["id"]: (image["width"], image["height"]) for image in images}
        annotations = self._of_listed_images(annotations, sizes)
        self._check_annotation_ids(annotations)
        category_ids = whole_numbers(annotations, "category_id", annotation_name, self.errors)
        boxes = read_boxes(annotations, self.notes)
        self._check_crowds(annotations)
        if not self.errors:
            self._use_only_listed_categories(annotations, content)
            of_boxes = chain.from_iterable(sizes[a["image_id"]] for a in annotations)
            sizes = np.fromiter(of_boxes, float, 2 * len(annotations)).reshape(-1, 2)
            kept = findable(annotations, boxes, sizes, self.notes)
            content["annotations"] = [annotations[i] for i in kept.tolist()]
            compute_areas(content["annotations"], boxes[kept], self.notes)
        if not self.errors and category_ids is not None:
            names = {category["id"]: category["name"] for category in content["categories"]}
            self.boxes = Counter(
                names[a["category_id"]] for a in content["annotations"] if not a["iscrowd"]
            )

    # --- categories

    def _check_categories(self, content: dict) -> None:
        """Put the categories into the order of the classes, and add those that the file lacks."""
        categories = content["categories"]
        ids = whole_numbers(categories, "id", entry_name("category"), self.errors)
        if ids is None or not all_texts(categories, "name", entry_name("category"), self.errors):
            return
        if twice := repeated(ids.tolist()):
            self.errors.append(f"lists two categories with the id {twice[0]}")
            return
        used = {a.get("category_id") for a in content["annotations"] if _hashable(a, "category_id")}
        for name in repeated([category["name"] for category in categories]):
            same = [c["id"] for c in categories if c["name"] == name]
            in_use = [id for id in same if id in used] or same[:1]
            if len(in_use) > 1:
                self.errors.append(
                    f"lists the category {shown(name)} twice, as {in_use[0]} and {in_use[1]}, "
                    "with annotations of both; expected one id for each name"
                )
            else:
                self.warnings.append(f"lists the category {shown(name)} twice, once without a box")
                categories = [c for c in categories if c["name"] != name or c["id"] in in_use]
        by_name = {category["name"]: category for category in categories}
        if missing := [name for name in self.classes if name not in by_name]:
            # a class without a box, but one that may be detected
            free = max(ids.tolist(), default=0) + 1
            for id, name in enumerate(missing, free):
                by_name[name] = dict(id=id, name=name)
            self.warnings.append(f"lists no category of the name {_listed(missing)}")
        others = [c for name, c in by_name.items() if name not in self.classes]
        content["categories"] = [by_name[name] for name in self.classes] + others

    def _use_only_listed_categories(self, annotations: list[dict], content: dict) -> None:
        names = {category["id"]: category["name"] for category in content["categories"]}
        expected = f"expected one of the config's classes: {', '.join(self.classes)}"
        wrong = [a for a in annotations if names.get(a["category_id"]) not in self.classes]
        if wrong:
            category = wrong[0]["category_id"]
            name = names.get(category)
            self.errors.append(
                f"{annotation_name(wrong[0])} has category {category} "
                f"({'which the file does not list' if name is None else shown(name)[1:-1]}), "
                f"{expected}{more(wrong)}"
            )

    # --- images

    def _check_images(self, images: list[dict], image_folder: str | None) -> None:
        if not images:
            self.errors.append("holds no image")
            return
        ids = whole_numbers(images, "id", entry_name("image"), self.errors)
        if ids is not None and (twice := repeated(ids.tolist())):
            self.errors.append(f"lists two images with the id {twice[0]}{more(twice)}")
        if not all_texts(images, "file_name", image_name, self.errors):
            return
        names = [image["file_name"] for image in images]
        if twice := repeated(names):
            self.warnings.append(f"lists the image {shown(twice[0])} more than once{more(twice)}")
        paths = None if image_folder is None else [os.path.join(image_folder, n) for n in names]
        if paths is not None:
            missing = [path for path in paths if not os.path.isfile(path)]
            if missing:
                slash = "; write / for \\ in file_name" if "\\" in missing[0] else ""
                self.errors.append(
                    f"image {printable(missing[0], 300)}: no such file, but the "
                    f"annotations list it{slash}{more(missing, of=len(paths))}"
                )
                return
        self._check_sizes(images, paths)

    def _check_sizes(self, images: list[dict], paths: list[str] | None) -> None:
        """Compare the sizes of a few images with their files, and read those that are not given."""
        unknown = []
        for index, image in enumerate(images):
            for key in ("width", "height"):
                value = image.get(key)
                if type(value) in (int, float) and 0 < value < _MOST_PIXELS:
                    continue
                if value is None or value == 0:
                    unknown.append(index)
                    break
                self.errors.append(
                    f"{image_name(image)} has {key} {what_it_is(value)}, expected pixels"
                )
                return
        if unknown and paths is None:
            self.errors.append(f"{image_name(images[unknown[0]])} has no width and height")
            return
        for index in unknown:
            size = image_size(paths[index])
            if size is None:
                self.errors.append(
                    f"image {paths[index]}: cannot be read, and the file does not say its width "
                    "and height"
                )
                return
            images[index]["width"], images[index]["height"] = size
        if unknown:
            self.warnings.append(
                f"{counted(unknown, 'image')} without width and height: read from the image files"
            )
        if paths is None:
            return
        step = max(1, len(images) // _COMPARED_IMAGES)
        for image, path in list(zip(images, paths, strict=True))[::step]:
            message = wrong_size(path, image_size(path), (image["width"], image["height"]))
            if message:
                self.errors.append(message)
                return

    # --- annotations

    def _of_listed_images(self, annotations: list[dict], images: dict) -> list[dict]:
        ids = whole_numbers(annotations, "image_id", annotation_name, self.errors)
        if ids is None:
            return annotations
        kept = [a for a in annotations if a["image_id"] in images]
        if orphans := [a for a in annotations if a["image_id"] not in images]:
            self.warnings.append(
                f"{counted(orphans, 'annotation')} of images that the file does not list: left out"
            )
        return kept

    def _check_annotation_ids(self, annotations: list[dict]) -> None:
        given = [a for a in annotations if a.get("id") is not None]
        ids = whole_numbers(given, "id", annotation_name, self.errors)
        if ids is None:
            return
        if twice := repeated(ids.tolist()):
            self.errors.append(
                f"annotation ids are not unique: {twice[0]}{more(twice)}; is a part of the file "
                "in it twice?"
            )
        elif len(given) < len(annotations) or (ids == 0).any():
            # pycocotools takes the id 0 for "no match"; nothing refers to an annotation's id
            for number, annotation in enumerate(annotations, 1):
                annotation["id"] = number
            what = "annotations without id" if len(given) < len(annotations) else "an annotation 0"
            self.warnings.append(f"{what}: annotations are numbered from 1 here")

    def _check_crowds(self, annotations: list[dict]) -> None:
        missing, ignored = [], []
        for a in annotations:
            value = a.get("iscrowd")
            if value is None:
                missing.append(a)
                a["iscrowd"] = 0
            elif type(value) not in (int, float, bool) or value not in (0, 1):
                self.errors.append(
                    f"{annotation_name(a)} has iscrowd {what_it_is(value)}, expected 0 or 1"
                )
                return
            if a.get("ignore"):
                # mmdet leaves it out of training, but COCO's evaluation expects it to be found
                ignored.append(a)
                a["iscrowd"], a["ignore"] = 1, 0
        if missing:
            self.warnings.append(f"{counted(missing, 'annotation')} without iscrowd: taken for 0")
        if ignored:
            self.warnings.append(
                f"{counted(ignored, 'annotation')} to be ignored: taken for crowds, which count "
                "neither as found nor as missed"
            )


def _hashable(item: dict, key: str) -> bool:
    return not isinstance(item.get(key), list | dict)


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(map(repr, names[:5]))
    return f"{text}, ..." if len(names) > 5 else text
