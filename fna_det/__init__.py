"""What only detection needs."""

from engine.compat import mmcv_ops

mmcv_ops.install()  # before mmdet's models are imported

from .coco import CheckedCocoDataset  # noqa: E402
from .ssd import SSDLiteHead  # noqa: E402

__all__ = ["CheckedCocoDataset", "SSDLiteHead"]
