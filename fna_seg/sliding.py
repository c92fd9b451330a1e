"""Sliding-window inference as the DeepLab papers' codes do it."""

import torch
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SlidingEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder``, except that overlapping windows add up their softmax scores.

    mmseg averages the windows' logits, one window at a time. Where ``test_cfg.mode`` is
    ``'slide'``, ``test_cfg`` holds ``crop_size`` and ``stride``, (height, width) in pixels, and
    ``windows_per_batch``, how many windows are computed at once (default 1).
    """

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Images N×3×H×W → the sums of all windows' softmax scores, N×num_classes×H×W.

        The last window of a row or column ends at the image's border, so that each is whole; an
        image smaller than the window is one window.
        """
        size = [min(pair) for pair in zip(inputs.shape[2:], self.test_cfg.crop_size, strict=True)]
        tops, lefts = (
            window_starts(*lengths)
            for lengths in zip(inputs.shape[2:], size, self.test_cfg.stride, strict=True)
        )
        places = [
            (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
            for top in tops
            for left in lefts
        ]
        windows = [(image, place) for image in range(len(inputs)) for place in places]
        scores = inputs.new_zeros(len(inputs), self.out_channels, *inputs.shape[2:])
        step = self.test_cfg.get("windows_per_batch", 1)
        for start in range(0, len(windows), step):
            batch = windows[start : start + step]
            crops = torch.stack([inputs[image][place] for image, place in batch])
            # mmseg scales a head's map to the img_shape of the first image
            logits = self.encode_decode(crops, [dict(img_shape=crops.shape[2:])])
            for (image, place), added in zip(batch, logits.softmax(dim=1), strict=True):
                scores[image][place] += added
        return scores


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start along an axis of ``length`` >= ``window`` pixels, to cover each pixel."""
    return [*range(0, length - window, stride), length - window]
