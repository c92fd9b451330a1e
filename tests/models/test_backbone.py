import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from models import FNABackbone, InputError, NetConfig
from models.backbone import strides_and_dilations
from tests.conftest import ARCHITECTURES, net_config_file, randomize


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_gradients_and_keys(name):
    backbone = FNABackbone(net_config_file(name))
    maps = backbone(torch.randn(2, 3, 65, 96))
    shapes = [tuple(m.shape) for m in maps]
    assert shapes == [(2, 24, 17, 24), (2, 32, 9, 12), (2, 96, 5, 6), (2, 320, 3, 3)]
    sum(m.mean() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    for number, stage in enumerate(backbone.net_config.stages, 1):
        for layer, op in enumerate(stage.ops):
            prefix = f"blocks.{number}.layers.{layer}."
            tensors = {
                k.removeprefix(prefix) for k in backbone.state_dict() if k.startswith(prefix)
            }
            parts = {int(key.split(".")[1]) for key in tensors}
            expected = set() if op == "skip" else {0, 1, 3, 4, 6, 7}
            assert parts == ({0, 1, 3, 4} if op.endswith("_e1") else expected)


def test_seed_architecture_is_torchvisions_mobilenet_v2():
    """Same tensors in the same order, so the same function."""
    theirs = randomize(mobilenet_v2()).eval()
    ours = FNABackbone(net_config_file("mobilenetv2"), out_indices=(8,), last_channels=1280).eval()
    their_tensors = [t for key, t in theirs.state_dict().items() if key.startswith("features")]
    assert [t.shape for t in their_tensors] == [t.shape for t in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), their_tensors, strict=True)))
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(image)[0], theirs.features(image))


def test_default_initialization_keeps_the_signal(caplog):
    backbone = FNABackbone(net_config_file("retinanet"))
    backbone.init_weights()
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert all(0.05 < m.std() < 20 for m in maps)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_output_stride_sets_the_size_of_the_last_map(name, output_stride):
    backbone = FNABackbone(net_config_file(name), out_indices=(7,), output_stride=output_stride)
    assert backbone(torch.randn(2, 3, 64, 128))[0].shape[2:] == (
        64 // output_stride,
        128 // output_stride,
    )


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_all_layers_of_a_stage_dilate(output_stride):
    """The layer that lost its stride dilates like those after it."""
    backbone = FNABackbone(net_config_file("deeplabv3"), output_stride=output_stride)
    dilations = {8: [1, 1, 1, 2, 2, 4, 4], 16: [1] * 5 + [2, 2], 32: [1] * 7}[output_stride]
    for stage, dilation in zip(backbone.blocks[1:], dilations, strict=True):
        for conv in (m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.groups > 1):
            assert conv.dilation == (dilation, dilation)
            assert conv.padding[0] == dilation * (conv.kernel_size[0] - 1) // 2


def test_strides_and_dilations_by_hand():
    strides = [1, 2, 2, 2, 1, 2, 1]
    assert strides_and_dilations(strides, 32) == [(s, 1) for s in strides]
    assert strides_and_dilations(strides, 16) == [
        (1, 1), (2, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 2)
    ]  # fmt: skip
    assert strides_and_dilations(strides, 8) == [
        (1, 1), (2, 1), (2, 1), (1, 2), (1, 2), (1, 4), (1, 4)
    ]  # fmt: skip


@pytest.mark.parametrize("output_stride", [0, 12, 64])
def test_impossible_output_stride(output_stride):
    with pytest.raises(InputError, match=f"output_stride {output_stride}"):
        FNABackbone(net_config_file("retinanet"), output_stride=output_stride)


@pytest.mark.parametrize("index", [-1, 8])
def test_out_index_of_no_block(index):
    with pytest.raises(InputError, match="out_indices"):
        FNABackbone(net_config_file("retinanet"), out_indices=(2, index))


def test_skip_is_the_identity():
    with_skip = NetConfig.parse("[[32, 16], ['k3_e1', 'skip', 'k3_e3'], 1]")
    backbone = FNABackbone(with_skip, out_indices=(1,), output_stride=2)
    assert isinstance(backbone.blocks[1].layers[1], nn.Identity)
    assert "blocks.1.layers.2.op.0.weight" in backbone.state_dict()
