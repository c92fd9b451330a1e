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
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO

from datasets.images import image_size, wrong_size
from models import DataError, InputError
from models.errors import printable, shown

# of so many images, evenly spread, the headers are read to compare sizes
_COMPARED_IMAGES = 50
# Corners that are taken for x, y, width, height reach far outside of the image, and so often.
_FAR, _OFTEN = 1.05, 0.25
_MOST_PIXELS = 10**6  # of a side
_LARGEST_AREA = 1e10  # of an object that COCO's evaluation looks at
# Below it, a box has no area that a detection in float32 could meet. COCO's have two digits.
_LEAST_PIXELS = 0.01
_BBOX = "x, y, width, height in pixels"


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
        self.errors: list[str] = []
        self.warnings: list[str] = []
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
        category_ids = self._whole_numbers(annotations, "category_id", _annotation)
        boxes = self._boxes(annotations)
        self._check_crowds(annotations)
        if not self.errors:
            self._use_only_listed_categories(annotations, content)
            of_boxes = chain.from_iterable(sizes[a["image_id"]] for a in annotations)
            sizes = np.fromiter(of_boxes, float, 2 * len(annotations)).reshape(-1, 2)
            kept = self._findable(annotations, boxes, sizes)
            content["annotations"] = [annotations[i] for i in kept.tolist()]
            self._compute_areas(content["annotations"], boxes[kept])
        if not self.errors and category_ids is not None:
            names = {category["id"]: category["name"] for category in content["categories"]}
            self.boxes = Counter(
                names[a["category_id"]] for a in content["annotations"] if not a["iscrowd"]
            )

    # --- categories

    def _check_categories(self, content: dict) -> None:
        """Put the categories into the order of the classes, and add those that the file lacks."""
        categories = content["categories"]
        ids = self._whole_numbers(categories, "id", _place("category"))
        if ids is None or not self._texts(categories, "name", _place("category")):
            return
        if twice := _twice(ids.tolist()):
            self.errors.append(f"lists two categories with the id {twice[0]}")
            return
        used = {a.get("category_id") for a in content["annotations"] if _hashable(a, "category_id")}
        for name in _twice([category["name"] for category in categories]):
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
                f"{_annotation(wrong[0])} has category {category} "
                f"({'which the file does not list' if name is None else shown(name)[1:-1]}), "
                f"{expected}{_more(wrong)}"
            )

    # --- images

    def _check_images(self, images: list[dict], image_folder: str | None) -> None:
        if not images:
            self.errors.append("holds no image")
            return
        ids = self._whole_numbers(images, "id", _place("image"))
        if ids is not None and (twice := _twice(ids.tolist())):
            self.errors.append(f"lists two images with the id {twice[0]}{_more(twice)}")
        if not self._texts(images, "file_name", _image):
            return
        names = [image["file_name"] for image in images]
        if twice := _twice(names):
            self.warnings.append(f"lists the image {shown(twice[0])} more than once{_more(twice)}")
        paths = None if image_folder is None else [os.path.join(image_folder, n) for n in names]
        if paths is not None:
            missing = [path for path in paths if not os.path.isfile(path)]
            if missing:
                slash = "; write / for \\ in file_name" if "\\" in missing[0] else ""
                self.errors.append(
                    f"image {printable(missing[0], 300)}: no such file, but the "
                    f"annotations list it{slash}{_more(missing, of=len(paths))}"
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
                    f"{_image(image)} has {key} {_what_it_is(value)}, expected pixels"
                )
                return
        if unknown and paths is None:
            self.errors.append(f"{_image(images[unknown[0]])} has no width and height")
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
                f"{_count(unknown, 'image')} without width and height: read from the image files"
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
        ids = self._whole_numbers(annotations, "image_id", _annotation)
        if ids is None:
            return annotations
        kept = [a for a in annotations if a["image_id"] in images]
        if orphans := [a for a in annotations if a["image_id"] not in images]:
            self.warnings.append(
                f"{_count(orphans, 'annotation')} of images that the file does not list: left out"
            )
        return kept

    def _check_annotation_ids(self, annotations: list[dict]) -> None:
        given = [a for a in annotations if a.get("id") is not None]
        ids = self._whole_numbers(given, "id", _annotation)
        if ids is None:
            return
        if twice := _twice(ids.tolist()):
            self.errors.append(
                f"annotation ids are not unique: {twice[0]}{_more(twice)}; is a part of the file "
                "in it twice?"
            )
        elif len(given) < len(annotations) or (ids == 0).any():
            # pycocotools takes the id 0 for "no match"; nothing refers to an annotation's id
            for number, annotation in enumerate(annotations, 1):
                annotation["id"] = number
            what = "annotations without id" if len(given) < len(annotations) else "an annotation 0"
            self.warnings.append(f"{what}: annotations are numbered from 1 here")

    def _boxes(self, annotations: list[dict]) -> np.ndarray | None:
        """N×4: x, y, width, height."""
        values = [a.get("bbox") for a in annotations]
        if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
            if set(map(type, chain.from_iterable(values))) <= {int, float}:
                with contextlib.suppress(OverflowError):
                    boxes = np.array(values, float).reshape(-1, 4)
                    wrong = np.flatnonzero(
                        ~np.isfinite(boxes).all(1) | (boxes[:, 2] < 0) | (boxes[:, 3] < 0)
                    )
                    if not wrong.size:
                        return boxes
                    annotation = annotations[wrong[0]]
                    self.errors.append(
                        f"{_annotation(annotation)} has bbox {shown(annotation['bbox'])}, "
                        f"expected {_BBOX}, finite and not negative in size{_more(wrong)}"
                    )
                    return None
        for annotation, value in zip(annotations, values, strict=True):
            if not _are_four_numbers(value):
                self.errors.append(
                    f"{_annotation(annotation)} has {_bbox(value)}, expected four numbers: {_BBOX}"
                )
                return None
        self.errors.append("a bbox holds a number that is too large")
        return None

    def _check_crowds(self, annotations: list[dict]) -> None:
        missing, ignored = [], []
        for a in annotations:
            value = a.get("iscrowd")
            if value is None:
                missing.append(a)
                a["iscrowd"] = 0
            elif type(value) not in (int, float, bool) or value not in (0, 1):
                self.errors.append(
                    f"{_annotation(a)} has iscrowd {_what_it_is(value)}, expected 0 or 1"
                )
                return
            if a.get("ignore"):
                # mmdet leaves it out of training, but COCO's evaluation expects it to be found
                ignored.append(a)
                a["iscrowd"], a["ignore"] = 1, 0
        if missing:
            self.warnings.append(f"{_count(missing, 'annotation')} without iscrowd: taken for 0")
        if ignored:
            self.warnings.append(
                f"{_count(ignored, 'annotation')} to be ignored: taken for crowds, which count "
                "neither as found nor as missed"
            )

    def _findable(
        self, annotations: list[dict], boxes: np.ndarray, sizes: np.ndarray
    ) -> np.ndarray:
        """The indices of the boxes that overlap their images (widths and heights, N×2)."""
        if self.errors or not len(boxes):
            return np.arange(len(boxes))
        start, size = boxes[:, :2], boxes[:, 2:]
        end = start + size
        self._refuse_other_units(annotations, boxes, sizes)
        empty = (size < _LEAST_PIXELS).any(1)
        # as mmdet decides it
        inside = np.minimum(end, sizes) - np.maximum(start, 0)
        outside = ~empty & ~(inside > 0).all(1)
        reaching = ~empty & ~outside & ((start < -1) | (end > sizes + 1)).any(1)
        small = ~empty & ~outside & (size < 1).any(1)

        def first(mask):
            return f"first {_annotation(annotations[np.flatnonzero(mask)[0]])}"

        left_out = empty | outside
        if left_out.sum() * 2 > len(boxes):
            self.errors.append(
                f"{left_out.sum()} of {len(boxes)} boxes have no area or lie outside of their "
                f"images, {first(left_out)}: "
                f"{shown(annotations[np.flatnonzero(left_out)[0]]['bbox'])}; expected {_BBOX}"
            )
        if empty.any():
            self.warnings.append(f"{_boxes_of(empty)} of no area: left out ({first(empty)})")
        if outside.any():
            self.warnings.append(
                f"{_boxes_of(outside)} outside of the image: left out ({first(outside)})"
            )
        if reaching.any():
            self.warnings.append(
                f"{_boxes_of(reaching)} reaching outside of the image: used as given "
                f"({first(reaching)})"
            )
        if small.any():
            self.warnings.append(
                f"{_boxes_of(small)} narrower or lower than a pixel: not trained on, but evaluated "
                f"({first(small)})"
            )
        return np.flatnonzero(~left_out)

    def _refuse_other_units(
        self, annotations: list[dict], boxes: np.ndarray, sizes: np.ndarray
    ) -> None:
        """Refuse boxes that are corners, or fractions of the image's size."""
        start, size = boxes[:, :2], boxes[:, 2:]
        example = shown(annotations[0]["bbox"])
        if (boxes <= 1).all() and (sizes > 2).all():
            self.errors.append(
                f"no bbox has a number above 1, such as {example}, as fractions of the image's "
                f"size have; expected {_BBOX}"
            )
            return
        corners = ((size > start) & (size <= sizes + 1)).all(1)
        far = (start + size > _FAR * sizes).any(1)
        if corners.mean() > 0.98 and far.mean() >= _OFTEN:
            annotation = annotations[np.flatnonzero(far)[0]]
            self.errors.append(
                f"boxes look like corners x1, y1, x2, y2: {far.sum()} of {len(boxes)} would reach "
                f"far outside of the image, such as {shown(annotation['bbox'])} of "
                f"{_annotation(annotation)}; expected {_BBOX}"
            )

    def _compute_areas(self, annotations: list[dict], boxes: np.ndarray) -> None:
        values = [a.get("area") for a in annotations]
        if not set(map(type, values)) <= {int, float, type(None)}:
            for annotation, value in zip(annotations, values, strict=True):
                if type(value) not in (int, float, type(None)):
                    self.errors.append(
                        f"{_annotation(annotation)} has area {_what_it_is(value)}, expected a "
                        "number of pixels"
                    )
                    return
        try:
            areas = np.array([0 if value is None else value for value in values], float)
        except OverflowError:
            self.errors.append("an area is too large a number")
            return
        computed = np.flatnonzero(~((areas > 0) & (areas <= _LARGEST_AREA)))
        for index in computed:
            annotations[index]["area"] = float(boxes[index, 2] * boxes[index, 3])
        if computed.size:
            self.warnings.append(
                f"{_count(computed, 'annotation')} without a valid area: computed from the box"
            )

    # --- columns

    def _whole_numbers(
        self, items: list[dict], key: str, name: Callable[[dict], str]
    ) -> np.ndarray | None:
        """A column of ids; None, and an error, where one is no whole number."""
        values = [item.get(key) for item in items]
        if set(map(type, values)) - {int}:
            wrong = []
            for item, value in zip(items, values, strict=True):
                if type(value) is float and value.is_integer():
                    item[key] = int(value)
                elif type(value) is not int:
                    wrong.append((item, value))
            if wrong:
                item, value = wrong[0]
                given = f"has no {key}" if value is None else f"has {key} {_what_it_is(value)}"
                self.errors.append(f"{name(item)} {given}, expected a number{_more(wrong)}")
                return None
            values = [item[key] for item in items]
        try:
            return np.array(values, np.int64)
        except OverflowError:
            self.errors.append(f"an {key} has more than 18 digits")
            return None

    def _texts(self, items: list[dict], key: str, name: Callable[[dict], str]) -> bool:
        for item in items:
            if not isinstance(item.get(key), str) or not item[key]:
                given = _what_it_is(item[key]) if key in item else "missing"
                self.errors.append(f"{name(item)}: {key} is {given}, expected a text")
                return False
        return True


def _annotation(item: dict) -> str:
    return f"annotation {shown(item.get('id'))}" if "id" in item else "an annotation without id"


def _image(item: dict) -> str:
    return f"image {shown(item.get('file_name', item.get('id')))}"


def _place(what: str) -> Callable[[dict], str]:
    return lambda item: f"{what} {shown(item)}"


def _bbox(value: object) -> str:
    return "no bbox" if value is None else f"bbox {_what_it_is(value)}"


def _what_it_is(value: object) -> str:
    text = ", which is text" if isinstance(value, str) else ""
    if isinstance(value, list) and any(isinstance(inner, str) for inner in value):
        text = ", with text in it"
    return f"{shown(value)}{text}"


def _are_four_numbers(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(inner) in (int, float) for inner in value)
    )


def _hashable(item: dict, key: str) -> bool:
    return not isinstance(item.get(key), list | dict)


def _twice(values: Iterable) -> list:
    return [value for value, count in Counter(values).items() if count > 1]


def _more(wrong: Sequence, of: int | None = None) -> str:
    if len(wrong) < 2:
        return ""
    return f" ({len(wrong) - 1} more like it{f' of {of}' if of else ''})"


def _count(items: Sequence, what: str) -> str:
    return f"{len(items)} {what}{'s' if len(items) != 1 else ''}"


def _boxes_of(mask: np.ndarray) -> str:
    return f"{mask.sum()} box{'es' if mask.sum() != 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown}, ..." if len(names) > 5 else shown
