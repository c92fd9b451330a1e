"""mmdet's reader and metric of COCO files, on annotations that are checked once."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import MMLogger

from datasets.classes import check_classes, listed
from datasets.images import wrong_size
from models import InputError

from .annotations import Annotations
from .objects import describe_objects


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """``CocoDataset`` that refuses annotations it would silently drop or mislabel.

    Labels are numbered in the order of ``classes``. If it is to be tested on (``test_mode``), its
    ``metainfo`` has the checked ``annotations``, from which :class:`CheckedCocoMetric` takes them.

    Raises:
        InputError: ``classes`` is no list of names, the annotation file cannot be used
            (:class:`Annotations`), or holds no box or no image to train on.
    """

    annotations: Annotations | None = None
    _dropped: str = ""

    @property
    def metainfo(self) -> dict:
        metainfo = super().metainfo
        if self.test_mode and self.annotations is not None:
            metainfo["annotations"] = self.annotations
        return metainfo

    def COCOAPI(self, path: str) -> COCO:  # mmdet's name of what reads a file
        """The checked annotations of ``ann_file``; ``path`` is its copy where it is remote."""
        folder = self.data_prefix["img"] if self.backend_args is None else None
        classes = super().metainfo["classes"]
        self.annotations = Annotations(path, classes, folder, self.ann_file)
        self.annotations.raise_errors()
        return self.annotations.coco

    def load_data_list(self) -> list[dict]:
        check_classes(self.metainfo.get("classes"), f"data set of {self.ann_file}")
        data_list = super().load_data_list()
        if not self.test_mode:
            self.annotations.refuse_without_boxes("to train on")
            self.annotations.coco = None  # large, and only the evaluator needs it
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """One image. mmdet would leave out what it takes for wrong, which is checked already."""
        data_info = super().parse_data_info(dict(raw_data_info, raw_ann_info=[]))
        data_info["instances"] = [
            self._instance(annotation)
            for annotation in raw_data_info["raw_ann_info"]
            # as in mmdet, a detector does not train on what is less than a pixel
            if self.test_mode or min(annotation["bbox"][2:]) >= 1
        ]
        return data_info

    def _instance(self, annotation: dict) -> dict:
        x, y, width, height = annotation["bbox"]
        instance = dict(
            ignore_flag=int(annotation["iscrowd"]),
            bbox=[x, y, x + width, y + height],
            bbox_label=self.cat2label[annotation["category_id"]],
        )
        if annotation.get("segmentation"):
            instance["mask"] = annotation["segmentation"]
        return instance

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        if not kept:
            raise InputError(
                f"annotation file {self.ann_file}: no image left after "
                f"filter_cfg={self.filter_cfg}; expected large enough ones with annotations"
            )
        if dropped := len(self.data_list) - len(kept):
            reasons = ["without a box"] if self.filter_cfg.get("filter_empty_gt") else []
            if side := self.filter_cfg.get("min_size"):
                reasons.append(f"with a side below {side} pixels")
            self._dropped = f"; left out: {dropped} images {' or '.join(reasons)}"
        return kept

    def summary(self) -> str:
        """In one line what the file holds, and which images are left out."""
        boxes = self.annotations.boxes
        return (
            f"{self.annotations.images} images, {boxes.total()} boxes"
            f" ({listed(boxes, self.annotations.classes)}){self._dropped}"
        )

    def warnings(self) -> list[str]:
        """What was mended in the annotations or left out of them, in one line or none."""
        return [self.annotations.warning] if self.annotations.warning else []

    @staticmethod
    def inspect(results: Mapping) -> tuple[str | None, None]:
        """What is wrong with an image that was read: its size is not the one that is written."""
        (height, width), written = results["ori_shape"], (results["width"], results["height"])
        return wrong_size(results["img_path"], (width, height), written), None

    def details(
        self, samples: Sequence[Mapping], inspected: Sequence[None], model: Mapping
    ) -> list[str]:
        """A table of the objects that were listed."""
        classes = self.annotations.classes
        return describe_objects(samples, classes, self.pipeline.transforms, model)


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """``CocoMetric`` on the annotations that the data loader has read and checked.

    Args:
        ann_file: Not needed. If given, it must be the loader's; without a loader, it is read.
        arguments: ``CocoMetric``'s.

    Raises:
        InputError: ``ann_file`` is another file than the loader's, or there is no box to find.
    """

    def __init__(self, ann_file: str | None = None, **arguments: object):
        super().__init__(**arguments)
        self.ann_file = ann_file

    @CocoMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        """The loader's metainfo, which mmengine sets before anything is evaluated."""
        CocoMetric.dataset_meta.fset(self, meta)
        annotations = meta.get("annotations")
        if annotations is None:
            if self.ann_file is None:
                raise InputError(
                    "CheckedCocoMetric: no annotations; expected a data set of the type "
                    "CheckedCocoDataset with test_mode=True, or an ann_file"
                )
            annotations = Annotations(self.ann_file, meta["classes"])
            annotations.raise_errors()
        elif self.ann_file and not _same_file(self.ann_file, annotations.file):
            raise InputError(
                f"evaluator: ann_file is {self.ann_file}, but the data loader reads "
                f"{annotations.file}; leave ann_file out of the evaluator"
            )
        if not self.format_only:
            annotations.refuse_without_boxes("to evaluate with")
        self._coco_api = annotations.coco  # mmdet has no other way in but a file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP and the like, 0 where nothing was detected; mmdet would give none then.

        What COCO gives -1, because there are no objects of that size, is left out and logged.
        """
        truth, found = results[0]
        if not (self.format_only or any(len(predicted["scores"]) for _, predicted in results)):
            # COCO's code cannot do without a detection
            nothing = dict(
                found,
                bboxes=np.zeros((1, 4), np.float32),
                scores=np.zeros(1, np.float32),
                labels=np.zeros(1, int),
            )
            results = [(truth, nothing), *results[1:]]
        metrics = super().compute_metrics(results)
        if absent := [name for name, value in metrics.items() if value == -1]:  # COCO's sign
            MMLogger.get_current_instance().info(
                f"{', '.join(absent)}: left out, because no object is of that size (s: below 32x32 "
                "pixels, m: up to 96x96, l: larger)"
            )
        return {name: value for name, value in metrics.items() if name not in absent}


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
