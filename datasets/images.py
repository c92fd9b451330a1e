"""Images of a data set, of either task."""

import warnings

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from PIL import ExifTags, Image

from models import SampleError

# of the eight ways to hold a camera, those that lie on their side
_SIDEWAYS = (5, 6, 7, 8)


def image_size(path: str) -> tuple[int, int] | None:
    """(width, height) of an image as it is loaded, that is turned by its EXIF data, from its head.

    None if the file cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            # Pillow itself turns the size of a TIFF
            if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (
                _SIDEWAYS
            ):
                return height, width
            return width, height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def wrong_size(
    path: str, found: tuple[int, int] | None, expected: tuple[float, float]
) -> str | None:
    """What to say where an image, as it is loaded, is not of the (width, height) that is written.

    ``found`` is None where the image cannot be read, which is said when it is loaded.
    """
    if found is None or tuple(found) == tuple(expected):
        return None
    width, height = expected
    swapped = " (swapped, or turned by the EXIF data of the photograph)"
    return (
        f"image {path}: is loaded with {found[0]}x{found[1]} pixels, but the annotations say "
        f"{width}x{height}{swapped if (height, width) == tuple(found) else ''}; boxes belong to "
        "the image as it is loaded: correct width and height if the boxes fit, else the boxes too"
    )


class LoadCheckedImage(LoadImageFromFile):
    """``LoadImageFromFile`` that ends a run in one line where it cannot read an image.

    In the scopes of mmdet and mmseg it stands under the name ``LoadImageFromFile``, for which their
    inferencers look in a test pipeline; :mod:`fna_det` and :mod:`fna_seg` put it there.

    Args:
        cache: Keep decoded images in memory: for a small data set, of which each process that loads
            it then decodes an image once.

    Raises:
        SampleError: The image's file cannot be read, is cut off or holds no image.
    """

    def __init__(self, *args, cache: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.cached: dict[str, np.ndarray] | None = {} if cache else None

    def transform(self, results: dict) -> dict | None:
        path = results["img_path"]
        if self.cached is not None and path in self.cached:
            image = self.cached[path].copy()
            shape = image.shape[:2]
            return results | dict(img=image, img_shape=shape, ori_shape=shape)
        results = self._load(results)
        if self.cached is not None and results is not None:
            self.cached[path] = results["img"].copy()
        return results

    def _load(self, results: dict) -> dict | None:
        try:
            return super().transform(results)
        except (OSError, AssertionError, cv2.error) as error:
            # the system's reason, if there is one; OpenCV gives none
            why = getattr(error, "strerror", None) or "damaged, cut off or no image"
            raise SampleError(f"image {results['img_path']}: cannot be read: {why}") from None
