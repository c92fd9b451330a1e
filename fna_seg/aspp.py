"""The heads of DeepLabv3 and DeepLabv3+ as the paper counts them, made of mmseg's parts.

mmseg's own heads of these names reduce the concatenated branches by a 3x3 conv, 3M parameters where
the paper's networks have 2.5M in all; here it is a 1x1 conv, as in the DeepLab papers.
"""

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead
from mmseg.models.decode_heads.sep_aspp_head import DepthwiseSeparableASPPModule
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


class _PointwiseASPPHead(ASPPHead):
    """mmseg's ASPP: a 1x1 and three dilated 3x3 branches and image pooling, joined by a 1x1 conv.

    Args:
        kwargs: As ``ASPPHead``'s. ``dilations`` are for an output stride of 16; at 8 the config
            doubles them.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        losses = self.loss_decode
        for loss in losses if isinstance(losses, nn.ModuleList) else [losses]:
            if getattr(loss, "class_weight", None) is not None:
                # mmseg's mean then leaves ignored pixels out by itself, and fails if asked to
                loss.avg_non_ignore = False
        self.bottleneck = self._conv((len(self.dilations) + 1) * self.channels, self.channels, 1)

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """As mmseg's but for its advice on sizes, for which an export would hold one size only."""
        x = self._transform_inputs(inputs)
        pooled = resize(
            self.image_pool(x),
            size=x.shape[2:],
            mode="bilinear",
            align_corners=self.align_corners,
            warning=False,
        )
        return self.bottleneck(torch.cat([pooled, *self.aspp_modules(x)], dim=1))

    def _conv(self, in_channels: int, out_channels: int, kernel_size: int) -> ConvModule:
        return ConvModule(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )


@MODELS.register_module()
class SeparableASPPHead(_PointwiseASPPHead):
    """DeepLabv3's head with depthwise-separable branches (paper, section 4.2).

    From the backbone's last map, N×C×h×w, to scores of the classes, N×num_classes×h×w.

    Args:
        kwargs: As ``ASPPHead``'s.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.aspp_modules = DepthwiseSeparableASPPModule(
            dilations=self.dilations,
            in_channels=self.in_channels,
            channels=self.channels,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )


@MODELS.register_module()
class ASPPDecoderHead(_PointwiseASPPHead):
    """DeepLabv3+'s head: ASPP with full 3x3 convs, and a decoder at the stride of an early map.

    From the backbone's two maps, N×C_early×H×W and N×C×h×w, to scores of the classes,
    N×num_classes×H×W.

    Args:
        in_channels: (C_early, C).
        low_level_channels: What a 1x1 conv makes of the early map's before the maps are joined.
        kwargs: As ``ASPPHead``'s.
    """

    def __init__(self, in_channels: tuple[int, int], low_level_channels: int = 48, **kwargs):
        early, last = in_channels
        super().__init__(in_channels=last, **kwargs)
        self.low_level = self._conv(early, low_level_channels, 1)
        self.decoder = nn.Sequential(
            self._conv(self.channels + low_level_channels, self.channels, 3),
            # The paper's multiply-adds contain one add per element here, and its parameters no BN:
            # this conv has a bias instead.
            ConvModule(self.channels, self.channels, 3, padding=1, act_cfg=self.act_cfg),
        )

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        low_level = self.low_level(inputs[0])
        context = resize(
            super()._forward_feature(inputs),
            size=low_level.shape[2:],
            mode="bilinear",
            align_corners=self.align_corners,
            warning=False,
        )
        return self.decoder(torch.cat([context, low_level], dim=1))
