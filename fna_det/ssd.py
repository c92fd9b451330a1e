"""mmdet's SSD head, made to predict, and its anchors as mmdet 0.x had them."""

from collections.abc import Sequence

from mmdet.models.dense_heads import SSDHead
from mmdet.models.task_modules.prior_generators.anchor_generator import (
    LegacySSDAnchorGenerator,
    SSDAnchorGenerator,
)
from mmdet.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class SSDLiteHead(SSDHead):
    """``SSDHead`` as it is, but for a bug that ends every prediction with an AttributeError.

    The base class asks ``loss_cls`` how scores are activated; ``SSDHead`` computes its loss itself
    and has none. With None, the base class takes the softmax, with which SSD trains.
    """

    loss_cls = None


@TASK_UTILS.register_module()
class LegacySSDLiteAnchorGenerator(LegacySSDAnchorGenerator):
    """``LegacySSDAnchorGenerator`` for sizes of one's own, which it does not take.

    Args:
        strides, ratios, min_sizes, max_sizes, scale_major: As ``SSDAnchorGenerator``'s.
    """

    def __init__(
        self,
        strides: Sequence[int],
        ratios: Sequence[Sequence[float]],
        min_sizes: Sequence[float],
        max_sizes: Sequence[float],
        scale_major: bool = True,
    ):
        SSDAnchorGenerator.__init__(
            self, strides, ratios, min_sizes, max_sizes, scale_major=scale_major
        )
        self.centers = [((stride - 1) / 2, (stride - 1) / 2) for stride in strides]
        self.base_anchors = self.gen_base_anchors()
