"""``kK_eE_se``: an MBConv with squeeze-and-excitation (Hu et al., 2018) after its depthwise conv.

An op beyond the paper's; a config makes it known by ``custom_imports`` of ``models.squeeze_excite``
(docs/extending.md).
"""

from torchvision.ops import SqueezeExcitation

from .ops import MBConv, register_op

_REDUCTION = 4  # of the op's inputs, as MnasNet and EfficientNet have it


@register_op(r"k(?P<kernel_size>[1-9]\d?)_e(?P<expansion>[1-9]\d?)_se")
class SqueezeExciteMBConv(MBConv):
    """:class:`MBConv` whose depthwise part ends by weighing its channels.

    The seed has no such tensors, so remapping leaves ``depthwise.squeeze_excite`` at its initial
    values and takes all else from the seed.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, expansion: int, **rest
    ):
        super().__init__(in_channels, out_channels, kernel_size, expansion, **rest)
        gate = SqueezeExcitation(in_channels * expansion, max(in_channels // _REDUCTION, 1))
        self.depthwise.add_module("squeeze_excite", gate)
