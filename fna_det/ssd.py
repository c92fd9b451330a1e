"""mmdet's SSD head, made to predict."""

from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS


@MODELS.register_module()
class SSDLiteHead(SSDHead):
    """``SSDHead`` as it is, but for a bug that ends every prediction with an AttributeError.

    The base class asks ``loss_cls`` how scores are activated; ``SSDHead`` computes its loss itself
    and has none. With None, the base class takes the softmax, with which SSD trains.
    """

    loss_cls = None
