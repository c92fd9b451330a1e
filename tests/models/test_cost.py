import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import FNABackbone, NetConfig, count_madds, count_params
from tests.conftest import ARCHITECTURES, net_config_file


@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_madds_are_half_the_flops_torch_counts(name, size):
    backbone = FNABackbone(net_config_file(name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, *size))
    assert count_madds(backbone, size) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_params_by_the_formula(name):
    """Stem, then per MBConv: expand, depthwise and project weights and two numbers a BN channel."""
    total = 3 * 9 * 32 + 2 * 32
    for stage in NetConfig.parse(net_config_file(name)).stages:
        channels = stage.in_channels
        for op in stage.ops:
            if op != "skip":
                kernel, expansion = int(op[1]), int(op[4])
                hidden = channels * expansion
                expand = channels * hidden + 2 * hidden if expansion > 1 else 0
                total += expand + hidden * (kernel**2 + 2) + stage.out_channels * (hidden + 2)
                channels = stage.out_channels
    assert count_params(FNABackbone(net_config_file(name))) == total


def test_bias_linear_and_repeated_use_by_hand():
    shared = nn.Conv2d(3, 3, 3, padding=1, bias=True)
    network = nn.Sequential(
        shared, shared, nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.Flatten(), nn.Linear(4 * 6, 5)
    )
    conv, narrow = 4 * 6 * 3 * (27 + 1), 2 * 3 * 4 * 3
    assert count_madds(network, (4, 6)) == 2 * conv + narrow + 5 * (24 + 1)


def test_counting_leaves_the_module_alone():
    backbone = FNABackbone(net_config_file("retinanet"))
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    count_madds(backbone, (64, 64))
    assert backbone.training
    assert all(not m._forward_hooks for m in backbone.modules())
    for key, tensor in backbone.state_dict().items():
        assert tensor.device.type == "cpu"
        torch.testing.assert_close(tensor, before[key])
