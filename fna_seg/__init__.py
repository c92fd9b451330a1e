"""What only segmentation needs."""

from engine import mmcv_ops

mmcv_ops.install()  # before mmseg's models are imported

from .data import (  # noqa: E402
    CheckedCityscapesDataset,
    CheckedSegDataset,
    LoadCheckedAnnotations,
)
from .metric import ClassIoUMetric  # noqa: E402
from .pictures import SegmentationPictures  # noqa: E402

__all__ = [
    "CheckedCityscapesDataset",
    "CheckedSegDataset",
    "ClassIoUMetric",
    "LoadCheckedAnnotations",
    "SegmentationPictures",
]
