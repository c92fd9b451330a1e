"""What only detection needs."""

from .coco import CheckClasses, CheckedCocoDataset
from .ssd import SSDLiteHead

__all__ = ["CheckClasses", "CheckedCocoDataset", "SSDLiteHead"]
