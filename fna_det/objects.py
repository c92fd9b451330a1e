"""The objects of a data set, as a detector sees them: their sizes, and do anchors cover them?"""

from collections.abc import Mapping, Sequence

import mmcv
import numpy as np
from mmcv.transforms import Resize
from mmdet.models.task_modules import AnchorGenerator
from mmdet.registry import TASK_UTILS
from prettytable import PrettyTable

# An anchor that overlaps an object by so much is trained to find it (MaxIoUAssigner's pos_iou_thr).
COVERED = 0.5


def describe_objects(
    samples: Sequence[Mapping], classes: Sequence[str], transforms: Sequence, model: Mapping
) -> list[str]:
    """Lines of a table: for each class its boxes, their sizes, and the share that anchors cover.

    Args:
        samples: What a data set lists: ``instances``, ``height`` and ``width`` of each image.
        classes: Names, in the order of the labels.
        transforms: The pipeline. Of it only the step Resize counts.
        model: A detector's config. Without a head that has anchors, their column is left out.
    """
    found = [(s, i) for s in samples for i in s["instances"] if not i["ignore_flag"]]
    if not found:
        return []
    labels = np.array([instance["bbox_label"] for _, instance in found])
    corners = np.array([instance["bbox"] for _, instance in found], float)
    sizes = np.array([(sample["width"], sample["height"]) for sample, _ in found], float)
    resized = _resized(sizes, transforms)
    corners *= np.tile(resized / sizes, 2)
    sides = np.sqrt(np.prod(corners[:, 2:] - corners[:, :2], axis=1))
    best = None
    if "anchor_generator" in model.get("bbox_head", {}):
        generator = TASK_UTILS.build(model["bbox_head"]["anchor_generator"])
        divisor = model.get("data_preprocessor", {}).get("pad_size_divisor", 1)
        best = best_overlaps(corners, np.ceil(resized / divisor) * divisor, generator)

    columns = ["class", "boxes", "side: 10 %", "median", "90 %"]
    table = PrettyTable(columns + ["covered by anchors"] * (best is not None), align="r")
    table.align["class"] = "l"
    rows = [(name, labels == label) for label, name in enumerate(classes)]
    for name, chosen in [*rows, ("all", labels >= 0)]:
        if not chosen.any():
            row = [name, 0, "-", "-", "-", "-"]
        else:
            row = [name, chosen.sum(), *np.percentile(sides[chosen], (10, 50, 90)).round(0)]
            row = [*row[:2], *map(int, row[2:])]
            if best is not None:
                row.append(f"{100 * (best[chosen] >= COVERED).mean():.0f} %")
        table.add_row(row[: len(table.field_names)])
    note = "side: square root of the area, in pixels after resizing"
    if best is not None:
        note += f"; covered: an anchor overlaps the box by IoU {COVERED} or more"
    return [*table.get_string().splitlines(), note]


def best_overlaps(
    boxes: np.ndarray, image_sizes: np.ndarray, generator: AnchorGenerator
) -> np.ndarray:
    """The largest IoU of each box with an anchor of its image.

    Anchors of one shape stand on a grid. Of them, the one whose centre is nearest in x and in y
    overlaps a box the most, so no grid needs to be written out.

    Args:
        boxes: N×4, x1, y1, x2, y2.
        image_sizes: N×2, width and height of each box's image, padded.
        generator: mmdet's.

    Returns:
        N numbers from 0 to 1.
    """
    centres, extents = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    best = np.zeros(len(boxes))
    for stride, anchors in zip(generator.strides, generator.base_anchors, strict=True):
        stride = np.array(stride, float)
        last = np.ceil(image_sizes / stride) - 1
        for anchor in anchors.double().numpy():
            centre, extent = (anchor[:2] + anchor[2:]) / 2, anchor[2:] - anchor[:2]
            place = np.clip(np.round((centres - centre) / stride), 0, last)
            distance = np.abs(centre + place * stride - centres)
            overlap = (extents + extent) / 2 - distance
            overlap = np.clip(np.minimum(overlap, np.minimum(extents, extent)), 0, None)
            common = overlap.prod(1)
            best = np.maximum(best, common / (extents.prod(1) + extent.prod() - common))
    return best


def _resized(sizes: np.ndarray, transforms: Sequence) -> np.ndarray:
    """N×2 widths and heights of images after the pipeline's Resize."""
    resize = next((step for step in transforms if isinstance(step, Resize) and step.scale), None)
    if resize is None:
        return sizes
    unique, inverse = np.unique(sizes, axis=0, return_inverse=True)
    if resize.keep_ratio:
        new = [mmcv.rescale_size((width, height), resize.scale) for width, height in unique]
    else:
        new = [resize.scale] * len(unique)
    return np.array(new, float)[inverse.reshape(-1)]
