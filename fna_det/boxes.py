"""The boxes of a COCO file's annotations: x, y, width, height in pixels, checked."""

import contextlib
from itertools import chain

import numpy as np

from models.errors import shown

from .columns import Notes, annotation_name, counted, more, what_it_is

# Corners that are taken for x, y, width, height reach far outside of the image, and so often.
_FAR, _OFTEN = 1.05, 0.25
_LARGEST_AREA = 1e10  # of an object that COCO's evaluation looks at
# Below it, a box has no area that a detection in float32 could meet. COCO's have two digits.
_LEAST_PIXELS = 0.01
_BBOX = "x, y, width, height in pixels"


def read_boxes(annotations: list[dict], notes: Notes) -> np.ndarray | None:
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
                notes.errors.append(
                    f"{annotation_name(annotation)} has bbox {shown(annotation['bbox'])}, "
                    f"expected {_BBOX}, finite and not negative in size{more(wrong)}"
                )
                return None
    for annotation, value in zip(annotations, values, strict=True):
        if not _are_four_numbers(value):
            notes.errors.append(
                f"{annotation_name(annotation)} has {_bbox(value)}, expected four numbers: {_BBOX}"
            )
            return None
    notes.errors.append("a bbox holds a number that is too large")
    return None


def findable(
    annotations: list[dict], boxes: np.ndarray, sizes: np.ndarray, notes: Notes
) -> np.ndarray:
    """The indices of the boxes that overlap their images (widths and heights, N×2)."""
    if notes.errors or not len(boxes):
        return np.arange(len(boxes))
    start, size = boxes[:, :2], boxes[:, 2:]
    end = start + size
    _refuse_other_units(annotations, boxes, sizes, notes)
    empty = (size < _LEAST_PIXELS).any(1)
    # as mmdet decides it
    inside = np.minimum(end, sizes) - np.maximum(start, 0)
    outside = ~empty & ~(inside > 0).all(1)
    reaching = ~empty & ~outside & ((start < -1) | (end > sizes + 1)).any(1)
    small = ~empty & ~outside & (size < 1).any(1)

    def first(mask):
        return f"first {annotation_name(annotations[np.flatnonzero(mask)[0]])}"

    left_out = empty | outside
    if left_out.sum() * 2 > len(boxes):
        notes.errors.append(
            f"{left_out.sum()} of {len(boxes)} boxes have no area or lie outside of their "
            f"images, {first(left_out)}: "
            f"{shown(annotations[np.flatnonzero(left_out)[0]]['bbox'])}; expected {_BBOX}"
        )
    if empty.any():
        notes.warnings.append(f"{_boxes_of(empty)} of no area: left out ({first(empty)})")
    if outside.any():
        notes.warnings.append(
            f"{_boxes_of(outside)} outside of the image: left out ({first(outside)})"
        )
    if reaching.any():
        notes.warnings.append(
            f"{_boxes_of(reaching)} reaching outside of the image: used as given "
            f"({first(reaching)})"
        )
    if small.any():
        notes.warnings.append(
            f"{_boxes_of(small)} narrower or lower than a pixel: not trained on, but evaluated "
            f"({first(small)})"
        )
    return np.flatnonzero(~left_out)


def _refuse_other_units(
    annotations: list[dict], boxes: np.ndarray, sizes: np.ndarray, notes: Notes
) -> None:
    """Refuse boxes that are corners, or fractions of the image's size."""
    start, size = boxes[:, :2], boxes[:, 2:]
    example = shown(annotations[0]["bbox"])
    if (boxes <= 1).all() and (sizes > 2).all():
        notes.errors.append(
            f"no bbox has a number above 1, such as {example}, as fractions of the image's "
            f"size have; expected {_BBOX}"
        )
        return
    corners = ((size > start) & (size <= sizes + 1)).all(1)
    far = (start + size > _FAR * sizes).any(1)
    if corners.mean() > 0.98 and far.mean() >= _OFTEN:
        annotation = annotations[np.flatnonzero(far)[0]]
        notes.errors.append(
            f"boxes look like corners x1, y1, x2, y2: {far.sum()} of {len(boxes)} would reach "
            f"far outside of the image, such as {shown(annotation['bbox'])} of "
            f"{annotation_name(annotation)}; expected {_BBOX}"
        )


def compute_areas(annotations: list[dict], boxes: np.ndarray, notes: Notes) -> None:
    """Put the box's area where none is given, or none that an object may have."""
    values = [a.get("area") for a in annotations]
    if not set(map(type, values)) <= {int, float, type(None)}:
        for annotation, value in zip(annotations, values, strict=True):
            if type(value) not in (int, float, type(None)):
                notes.errors.append(
                    f"{annotation_name(annotation)} has area {what_it_is(value)}, expected a "
                    "number of pixels"
                )
                return
    try:
        areas = np.array([0 if value is None else value for value in values], float)
    except OverflowError:
        notes.errors.append("an area is too large a number")
        return
    computed = np.flatnonzero(~((areas > 0) & (areas <= _LARGEST_AREA)))
    for index in computed:
        annotations[index]["area"] = float(boxes[index, 2] * boxes[index, 3])
    if computed.size:
        notes.warnings.append(
            f"{counted(computed, 'annotation')} without a valid area: computed from the box"
        )


def _bbox(value: object) -> str:
    return "no bbox" if value is None else f"bbox {what_it_is(value)}"


def _are_four_numbers(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(inner) in (int, float) for inner in value)
    )


def _boxes_of(mask: np.ndarray) -> str:
    return f"{mask.sum()} box{'es' if mask.sum() != 1 else ''}"
