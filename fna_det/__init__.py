"""What only detection needs."""

from .coco import CheckClasses, CheckedCocoDataset

__all__ = ["CheckClasses", "CheckedCocoDataset"]
