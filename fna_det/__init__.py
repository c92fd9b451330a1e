"""What only detection needs."""

from .coco import CheckedCocoDataset

__all__ = ["CheckedCocoDataset"]
