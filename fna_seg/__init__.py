"""What only segmentation needs."""

from engine.compat import mmcv_ops

mmcv_ops.install()  # before mmseg's models are imported

from .aspp import ASPPDecoderHead, SeparableASPPHead  # noqa: E402
from .data import (  # noqa: E402
    CheckedCityscapesDataset,
    CheckedSegDataset,
    LoadCheckedAnnotations,
)
from .metric import ClassIoUMetric  # noqa: E402
from .pictures import SegmentationPictures  # noqa: E402
from .sliding import SlidingEncoderDecoder  # noqa: E402

__all__ = [
    "ASPPDecoderHead",
    "CheckedCityscapesDataset",
    "CheckedSegDataset",
    "ClassIoUMetric",
    "LoadCheckedAnnotations",
    "SegmentationPictures",
    "SeparableASPPHead",
    "SlidingEncoderDecoder",
]
