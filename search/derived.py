"""Networks that are derived from a super network, alone and in its model."""

import copy

from torch import nn

from models import FNABackbone, FNASuperNet, NetConfig


def derived_backbone(supernet: FNASuperNet, net_config: NetConfig) -> FNABackbone:
    """The network of ``net_config``, giving the maps that ``supernet`` gives."""
    return FNABackbone(
        net_config,
        supernet.out_indices,
        supernet.output_stride,
        supernet.last_channels,
        supernet.norm_cfg,
    )


def with_backbone(model: nn.Module, backbone: nn.Module) -> nn.Module:
    """A copy of ``model`` with another backbone."""
    return copy.deepcopy(model, {id(model.backbone): backbone})
