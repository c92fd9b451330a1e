"""Images of a data set, of either task."""

import cv2
from mmcv.transforms import LoadImageFromFile

from models import SampleError


class LoadCheckedImage(LoadImageFromFile):
    """``LoadImageFromFile`` that ends a run in one line where it cannot read an image.

    In the scopes of mmdet and mmseg it stands under the name ``LoadImageFromFile``, for which their
    inferencers look in a test pipeline; :mod:`fna_det` and :mod:`fna_seg` put it there.

    Raises:
        SampleError: The image's file cannot be read, is cut off or holds no image.
    """

    def transform(self, results: dict) -> dict | None:
        try:
            return super().transform(results)
        except (OSError, AssertionError, cv2.error) as error:
            # the system's reason, if there is one; OpenCV gives none
            why = getattr(error, "strerror", None) or "damaged, cut off or no image"
            raise SampleError(f"image {results['img_path']}: cannot be read: {why}") from None
