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
            parts = {key.rpartition(".")[0] for key in tensors}
            names = () if op == "skip" else ("expand", "depthwise", "project")
            names = ("depthwise", "project") if op.endswith("_e1") else names
            assert parts == {f"{name}.{index}" for name in names for index in (0, 1)}


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


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dilated_layers_see_as_far_as_the_undilated_ones(name, output_stride):
    """How many pixels of the image a depthwise conv spans, counted from gradients.

    Equal for every layer, but for the first of a stage that lost its stride: it is dilated with its
    stage, so it spans what its neighbours span, not what it spanned before its own stride.
    """
    dilated = FNABackbone(net_config_file(name), (7,), output_stride)
    stages = dilated.net_config.stages
    plan = strides_and_dilations([stage.stride for stage in stages], output_stride)
    lost = {
        f"blocks.{number}.layers.0.depthwise.0"
        for number, (stage, (stride, _)) in enumerate(zip(stages, plan, strict=True), 1)
        if stride != stage.stride
    }
    spans = depthwise_spans(dilated)
    undilated = depthwise_spans(FNABackbone(net_config_file(name), (7,)))
    assert len(lost) == {8: 2, 16: 1}[output_stride]
    assert spans == {
        layer: span * 2 if layer in lost else span for layer, span in undilated.items()
    }


def depthwise_spans(backbone, size=256):
    """Depthwise conv → pixels of the image from the first of its output's inputs to the last."""
    widths = {}
    for name, conv in backbone.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.groups > 1:
            conv.register_forward_hook(
                lambda conv, inputs, _, name=name: widths.update({name: inputs[0].shape[3]})
            )
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, size, size))
    spans = {}
    for name, width in widths.items():
        conv = backbone.get_submodule(name)
        nn.init.ones_(conv.weight)
        x = torch.zeros(1, conv.in_channels, width, width, requires_grad=True)
        output = conv(x)
        middle = output.shape[3] // 2
        output[0, 0, middle, middle].backward()
        columns = x.grad[0, 0].sum(0).nonzero().flatten()
        spans[name] = (columns[-1] - columns[0]).item() * (size // width)
    return spans


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


@pytest.mark.parametrize(
    "index", [-1, 8, "8.expand", "0.expand", "6.expanded", "6", 6.0, None, "1.expand"]
)
def test_out_index_of_nothing(index):
    with pytest.raises(InputError, match="out_indices") as error:
        FNABackbone(net_config_file("retinanet"), out_indices=(2, index))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("output_stride", [32, 16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_expanded_map_is_what_the_layers_activation_gives(name, output_stride):
    backbone = FNABackbone(
        net_config_file(name), ("6.expand", 3, 8), output_stride, last_channels=1280
    )
    seen = []
    activation = backbone.blocks[6].layers[0].expand[2]
    activation.register_forward_hook(lambda *args: seen.append(args[2]))
    image = torch.randn(2, 3, 96, 64)
    expanded, third, last = backbone(image)
    assert backbone.out_channels == (576, 32, 1280)
    assert third.shape == (2, 32, 12, 8) and expanded.shape == (2, 576, 6, 4)
    assert last.shape == (2, 1280, 96 // output_stride, 64 // output_stride)
    assert len(seen) == 1 and seen[0] is expanded  # so the expand conv runs once
    assert 0 <= expanded.min() and expanded.max() <= 6 and expanded.max() > 1


@pytest.mark.parametrize("first", ["k3_e2", "k5_e6"])
def test_expanded_map_leaves_the_others_as_they_are(first):
    text = f"[[8, 8], ['{first}', 'k3_e1'], 1]"  # a residual layer
    with_it = randomize(FNABackbone(text, ("1.expand", 1), output_stride=2))
    without = randomize(FNABackbone(text, (1,), output_stride=2))
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(with_it(image)[1], without(image)[0])


def test_norm_cfg_sets_every_norm():
    backbone = FNABackbone(
        net_config_file("ssdlite"), last_channels=1280,
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.03),
    )  # fmt: skip
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 40 and all((n.eps, n.momentum) == (1e-3, 0.03) for n in norms)
    default = FNABackbone(net_config_file("ssdlite")).blocks[0][1]
    assert (default.eps, default.momentum) == (1e-5, 0.1)


@pytest.mark.parametrize("norm_cfg", [dict(type="GN", num_groups=2), dict(type="BN", epsilon=1)])
def test_norm_cfg_of_another_norm(norm_cfg):
    with pytest.raises(InputError, match="norm_cfg"):
        FNABackbone(net_config_file("ssdlite"), norm_cfg=norm_cfg)


def test_skip_is_the_identity():
    with_skip = NetConfig.parse("[[32, 16], ['k3_e1', 'skip', 'k3_e3'], 1]")
    backbone = FNABackbone(with_skip, out_indices=(1,), output_stride=2)
    assert isinstance(backbone.blocks[1].layers[2], nn.Identity)  # skips go last
    assert "blocks.1.layers.1.expand.0.weight" in backbone.state_dict()
