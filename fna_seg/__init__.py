"""What only segmentation needs."""

from engine.compat.mmcv_ops import quiet_imports

with quiet_imports():
    import mmseg.apis
    import mmseg.datasets  # noqa: F401
from mmseg.registry import TRANSFORMS  # noqa: E402

from datasets.images import LoadCheckedImage  # noqa: E402

from .aspp import ASPPDecoderHead, SeparableASPPHead  # noqa: E402
from .data import (  # noqa: E402
    CheckedCityscapesDataset,
    CheckedSegDataset,
    LoadCheckedAnnotations,
)
from .metric import ClassIoUMetric  # noqa: E402
from .sliding import SlidingEncoderDecoder  # noqa: E402

TRANSFORMS.register_module("LoadImageFromFile", module=LoadCheckedImage)

__all__ = [
    "ASPPDecoderHead",
    "CheckedCityscapesDataset",
    "CheckedSegDataset",
    "ClassIoUMetric",
    "LoadCheckedAnnotations",
    "SeparableASPPHead",
    "SlidingEncoderDecoder",
]
