"""What only detection needs."""

from .checks import CheckModel
from .coco import CheckedCocoDataset

__all__ = ["CheckModel", "CheckedCocoDataset"]
