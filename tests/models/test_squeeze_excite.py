"""An op that is not the paper's: one file, named by a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.nn import functional as F

from models import (
    FNABackbone,
    FNASuperNet,
    InputError,
    MAdds,
    NetConfig,
    count_madds,
    price_list,
    register_op,
    remap,
)
from models.ops import MBConv, build_op, parse_op
from models.squeeze_excite import SqueezeExciteMBConv
from tests.conftest import REPO, net_config_file, randomize

SE_OPS = ["k3_e6", "k5_e3_se", "k7_e6_se", "skip"]
SPACE = dict(
    fixed_stage="[[32, 16], ['k3_e1'], 1]",
    channels=[24, 32],
    layers=[2, 2],
    strides=[2, 2],
    ops=SE_OPS,
    out_indices=(2, 3),
    output_stride=8,
)
GATE = ".squeeze_excite."


def test_it_weighs_the_channels_of_the_depthwise_conv():
    op = randomize(build_op("k5_e3_se", 16, 24, stride=2)).eval()
    assert isinstance(op, SqueezeExciteMBConv) and parse_op("k5_e3_se").expansion == 3
    x = torch.randn(2, 16, 9, 12)
    y = op.expand(x)
    conv, norm, act = op.depthwise[:3]
    y = act(norm(conv(y)))
    gate, t = op.depthwise.squeeze_excite, y.mean((2, 3))
    t = F.relu(F.linear(t, gate.fc1.weight.flatten(1), gate.fc1.bias))
    t = F.linear(t, gate.fc2.weight.flatten(1), gate.fc2.bias).sigmoid()
    assert gate.fc1.weight.shape == (4, 48, 1, 1)
    torch.testing.assert_close(op(x), op.project(y * t[..., None, None]))


@pytest.mark.parametrize("expansion", [3, 6])
def test_its_madds_are_counted(expansion):
    hidden, squeezed = 16 * expansion, 4
    plain = count_madds(build_op(f"k5_e{expansion}", 16, 16), (9, 12), channels=16)
    gated = count_madds(build_op(f"k5_e{expansion}_se", 16, 16), (9, 12), channels=16)
    # two 1x1 convs with bias on one pixel
    assert gated - plain == squeezed * (hidden + 1) + hidden * (squeezed + 1)


def test_remapping_leaves_the_gate_alone_and_fills_the_rest_as_without_it(seed_network):
    seed = seed_network.state_dict()
    text = net_config_file("retinanet").read_text()
    gated = text.replace("_e6", "_e6_se").replace("_e3", "_e3_se")
    initial = randomize(FNABackbone(gated), generator_seed=1).state_dict()
    remapped = remap(seed, initial)
    plain = remap(seed, randomize(FNABackbone(text), generator_seed=2).state_dict())
    gates = {key for key in remapped if GATE in key}
    assert len(gates) == 4 * sum(row.count("_se'") for row in gated.split("|"))
    assert all(torch.equal(remapped[key], initial[key]) for key in gates)
    assert remapped.keys() - gates == plain.keys()
    assert all(torch.equal(remapped[key], plain[key]) for key in plain)


def test_it_is_searched_priced_and_derived(seed_network):
    supernet = FNASuperNet(**SPACE)
    supernet.load_state_dict(remap(seed_network.state_dict(), supernet.state_dict()))
    prices = price_list(supernet, MAdds(), (64, 96))
    for layer, price, channels, size in zip(
        supernet.mixed_layers, prices, (16, 24, 24, 32), ((32, 48), (16, 24), (16, 24), (8, 12)),
        strict=True,
    ):  # fmt: skip
        ops = [build_op(op, channels, layer.ops["k3_e6"].project[0].out_channels,
                        layer.ops["k3_e6"].depthwise[0].stride[0]) if op != "skip" else None
               for op in layer.candidates]  # fmt: skip
        expected = [count_madds(op, size, channels) if op else 0 for op in ops]
        assert price[: len(ops)].tolist() == expected

    image = torch.randn(2, 3, 64, 96)
    sum(m.square().mean() for m in supernet(image)).backward()
    assert all(alpha.grad.abs().max() > 0 for alpha in supernet.alphas())
    for alpha, choice in zip(supernet.alphas(), (2, 1, 1, 3), strict=True):
        alpha.data[choice] += 1
    derived = supernet.derive()
    assert [stage.ops for stage in derived.stages[1:]] == [
        ("k7_e6_se", "k5_e3_se"), ("k5_e3_se", "skip")
    ]  # fmt: skip
    assert NetConfig.parse(str(derived)) == derived
    backbone = FNABackbone(derived, out_indices=(2, 3), output_stride=8)
    assert [m.shape for m in backbone(image)] == [(2, 24, 16, 24), (2, 32, 8, 12)]


def test_a_config_makes_it_known(tmp_path):
    path = tmp_path / "search.py"
    path.write_text(
        f"_base_ = {str(REPO / 'configs/_base_/search_space_detection.py')!r}\n"
        "custom_imports = dict(imports=['models', 'models.squeeze_excite'])\n"
        "search_space = dict(ops=['k3_e6_se', 'k5_e6_se', 'skip'])\n"
        "model = dict(type='FNASuperNet', out_indices=(2, 3, 5, 7))\n"
    )
    cfg = Config.fromfile(path)
    supernet = MODELS.build(cfg.model | cfg.search_space)
    assert supernet.search_space.candidates["2.1"] == ("k3_e6_se", "k5_e6_se", "skip")


def test_a_pattern_is_registered_once():
    with pytest.raises(ValueError, match="already registered"):
        register_op(r"k(?P<kernel_size>[1-9]\d?)_e(?P<expansion>[1-9]\d?)")(MBConv)
    with pytest.raises(InputError, match="unknown op 'k3_e6_xy', expected .*custom_imports"):
        parse_op("k3_e6_xy")
