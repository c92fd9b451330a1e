"""SSDLite's head: mmdet's SSD head with the paper's convs, made to predict."""

from mmcv.cnn import DepthwiseSeparableConvModule
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from torch import nn


@MODELS.register_module()
class SSDLiteHead(SSDHead):
    """``SSDHead`` whose predictors are depthwise-separable convs, each with a BN.

    The depthwise 3x3 conv is followed by BN and the activation, the 1x1 conv by BN only and without
    a bias, as in the paper's released code; mmdet's ends in a biased 1x1 conv. ``stacked_convs``
    and ``use_depthwise`` have no effect.

    The base class asks ``loss_cls`` how scores are activated, but ``SSDHead`` computes its loss
    itself and has none, so every prediction would end with an AttributeError. With None, the base
    class takes the softmax, with which SSD trains.
    """

    loss_cls = None

    def _init_layers(self) -> None:
        self.cls_convs = self._predictors(self.cls_out_channels)
        self.reg_convs = self._predictors(4)

    def _predictors(self, outputs: int) -> nn.ModuleList:
        """For each map of C channels, N×C×H×W → N×(anchors·outputs)×H×W."""
        return nn.ModuleList(
            DepthwiseSeparableConvModule(
                channels,
                anchors * outputs,
                kernel_size=3,
                padding=1,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
                pw_act_cfg=None,
            )
            for channels, anchors in zip(self.in_channels, self.num_base_priors, strict=True)
        )
