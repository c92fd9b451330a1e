"""A trained model as a module from an image's pixels to what is seen in it, to be exported whole.

mmdet's and mmseg's own ways from an image to a result branch on how much they find, which no graph
can hold. What is written anew here does the same: an export is compared with theirs
(``onnx_check.py``).
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from models import InputError
from models.errors import shown

from .compat.mmcv_ops import nms


class Deployed(nn.Module):
    """A model's data_preprocessor and network for one image; subclasses add what follows.

    Attributes:
        outputs: The names of what ``forward`` returns.
    """

    outputs: Sequence[str]

    def __init__(self, model: BaseModel):
        super().__init__()
        self.model = model
        settings = model.cfg.model.data_preprocessor
        self.takes_rgb = settings.get("bgr_to_rgb") or settings.get("rgb_to_bgr")

    def network_input(self, image: Tensor) -> Tensor:
        """Pixels H×W×3 (red, green, blue) from 0 to 255 → normalised and padded, 1×3×H'×W'."""
        settings = self.model.data_preprocessor
        pixels = image.permute(2, 0, 1)[None]
        if not self.takes_rgb:  # loaders give blue, green, red
            pixels = pixels.flip(1)
        pixels = pixels.float()
        if hasattr(settings, "mean"):
            pixels = (pixels - settings.mean) / settings.std
        divisor = getattr(settings, "pad_size_divisor", 1)
        if divisor > 1:
            # written so, an export of any size finds the maps' sizes in seconds, not minutes
            down, right = ((s + divisor - 1) // divisor * divisor - s for s in image.shape[:2])
            pixels = F.pad(pixels, (0, right, 0, down), value=settings.pad_value)
        return pixels


class RawOutputs(Deployed):
    """What the head's convs give: a detector's scores and deltas of each map, or class scores."""

    def __init__(self, model: BaseModel):
        super().__init__(model)
        self.outputs = ["scores"]
        if hasattr(model, "bbox_head"):
            maps = range(len(model.bbox_head.prior_generator.strides))
            self.outputs = [f"{what}_{number}" for what in ("scores", "deltas") for number in maps]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """As a detector's ``scores_0``: 1×(anchors·classes)×h×w, before sigmoid or softmax."""
        outputs = self.model(self.network_input(image), mode="tensor")
        return (outputs,) if isinstance(outputs, Tensor) else sum(map(tuple, outputs), ())


class Detector(Deployed):
    """A detector with anchors, to the boxes after NMS.

    Raises:
        InputError: It is of another kind, or its ``test_cfg.nms`` is.
    """

    outputs = ("boxes", "scores", "labels")

    def __init__(self, model: BaseModel):
        from mmdet.models.dense_heads import AnchorHead

        super().__init__(model)
        self.head = getattr(model, "bbox_head", None)
        if not isinstance(self.head, AnchorHead):
            raise InputError(f"{type(model).__name__}: no detector with anchors; --raw exports it")
        self.settings = self.head.test_cfg
        known = {"type", "iou_threshold", "offset", "class_agnostic"}
        if self.settings.nms.get("type", "nms") != "nms" or set(self.settings.nms) - known:
            raise InputError(
                f"test_cfg.nms is {shown(dict(self.settings.nms))}, which cannot be exported; "
                "--raw exports what comes before"
            )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels H×W×3 → boxes K×4 (x1, y1, x2, y2 in pixels), their scores and classes, K each.

        The best score is first. As mmdet's ``predict_by_feat`` and ``_bbox_post_process``.
        """
        maps, deltas = self.model(self.network_input(image), mode="tensor")
        sizes = [scores.shape[-2:] for scores in maps]
        anchors = self.head.prior_generator.grid_priors(sizes, maps[0].dtype, maps[0].device)
        best = [self._best(*level) for level in zip(maps, deltas, anchors, strict=True)]
        scores, labels, deltas, anchors = (torch.cat(parts) for parts in zip(*best, strict=True))
        boxes = self.head.bbox_coder.decode(anchors, deltas, max_shape=image.shape[:2])
        return self._without_duplicates(boxes, scores, labels)

    def _best(self, scores: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, ...]:
        """Of a map, the best pairs of an anchor and a class: scores, labels, deltas, anchors."""
        scores = scores[0].permute(1, 2, 0).reshape(-1, self.head.cls_out_channels)
        if self.head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores = scores.softmax(-1)[:, :-1]  # the last one is the background
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        count = torch.sym_min(self.settings.get("nms_pre", 2**62), scores.numel())
        scores, places = scores.flatten().topk(count)
        rows = places // self.head.num_classes
        return scores, places % self.head.num_classes, deltas[rows], anchors[rows]

    def _without_duplicates(
        self, boxes: Tensor, scores: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is above the score's threshold, without boxes that NMS takes for the same."""
        kept = scores > self.settings.get("score_thr", 0)
        least = self.settings.get("min_bbox_size", -1)
        if least >= 0:
            kept &= (boxes[:, 2:] - boxes[:, :2] > least).all(1)
        kept = kept.nonzero()[:, 0]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        apart = boxes
        if not self.settings.nms.get("class_agnostic"):
            # each class in a place of its own; with a box at 0, or there may be no largest one
            largest = torch.cat([boxes, boxes.new_zeros(1, 4)]).max()
            apart = boxes + (labels * (largest + 1))[:, None]
        options = self.settings.nms
        order = nms(apart, scores, options.iou_threshold, options.get("offset", 0))
        order = order[: self.settings.max_per_img]
        return boxes[order], scores[order], labels[order]


class Segmentor(Deployed):
    """A segmentor, to the class of each pixel.

    Args:
        slide: Whether to slide windows over an image that is larger than one, as ``test_cfg`` says.
            How many there are belongs to one size of images.
    """

    outputs = ("ids",)

    def __init__(self, model: BaseModel, slide: bool):
        super().__init__(model)
        self.slide = slide

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Pixels H×W×3 → classes, H×W."""
        pixels = self.network_input(image)
        if self.slide:
            scores = self.model.slide_inference(pixels, [dict(img_shape=pixels.shape[2:])])[0]
        else:
            # not encode_decode: mmseg's resize looks at the size, and would hold it fast
            scores = F.interpolate(
                self.model(pixels, mode="tensor"),
                size=pixels.shape[2:],
                mode="bilinear",
                align_corners=self.model.align_corners,
            )[0]
        if len(scores) == 1:  # of one class, against none
            ids = scores[0].sigmoid() > self.model.decode_head.threshold
        else:
            ids = scores.argmax(0)
        return (ids.to(torch.uint8 if len(scores) <= 256 else torch.int64),)


def windows(model: BaseModel) -> tuple[int, int] | None:
    """(height, width) of the windows that a segmentor's test slides, None where it slides none."""
    settings = model.test_cfg or {}
    return tuple(settings["crop_size"]) if settings.get("mode") == "slide" else None


def exceeds(size: Sequence[int], window: tuple[int, int]) -> bool:
    """Whether an image of a (height, width) is cut up into windows."""
    return any(side > most for side, most in zip(size, window, strict=False))


def deployed(model: BaseModel, size: tuple[int, int] | None = None, raw: bool = False) -> Deployed:
    """The module to export.

    Args:
        size: (height, width) of the images; None where they may differ, and are not cut up then.
        raw: Whether to end with the head's outputs.

    Raises:
        InputError: The model is of a kind that cannot be exported so.
    """
    if raw:
        return RawOutputs(model).eval()
    if not hasattr(model, "decode_head"):
        return Detector(model).eval()
    window = windows(model)
    return Segmentor(model, slide=bool(size and window and exceeds(size, window))).eval()
