"""What only detection needs."""

from engine.compat.mmcv_ops import quiet_imports

with quiet_imports():
    import mmdet.apis  # noqa: F401
from mmdet.registry import TRANSFORMS  # noqa: E402

from datasets.images import LoadCheckedImage  # noqa: E402

from .coco import CheckedCocoDataset, CheckedCocoMetric  # noqa: E402
from .ssd import SSDLiteHead  # noqa: E402

TRANSFORMS.register_module("LoadImageFromFile", module=LoadCheckedImage)

__all__ = ["CheckedCocoDataset", "CheckedCocoMetric", "SSDLiteHead"]
