import math
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import WEIGHT_INITIALIZERS

from models import FNABackbone, FNASuperNet, InputError, NetConfig, Remap, load_seed, remap
from models.remap import remap_tensor
from models.seed import save_seed
from tests.conftest import ARCHITECTURES, REPO, SEED_META, net_config_file, randomize

SPACES = [
    Config.fromfile(REPO / f"configs/_base_/search_space_{name}.py").search_space
    for name in ("detection", "ssdlite", "segmentation")
]
SEED_DEPTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 1}


def slow_remap_tensor(source, initial):
    """One number at a time, straight from the rules' wording; NaN where a channel is new."""
    if initial.dim() == 0:
        return source.clone()
    old, result = source.tolist(), initial.tolist()
    if initial.dim() == 1:
        for i in range(min(len(result), len(old))):
            result[i] = old[i]
        return torch.tensor(result)
    new_k, old_k = initial.shape[-1], source.shape[-1]
    for o in range(initial.shape[0]):
        for i in range(initial.shape[1]):
            for row in range(new_k):
                for column in range(new_k):
                    # measured from the kernel's centre
                    y, x = row - new_k // 2 + old_k // 2, column - new_k // 2 + old_k // 2
                    inside = 0 <= y < old_k and 0 <= x < old_k
                    if o < source.shape[0] and i < source.shape[1]:
                        result[o][i][row][column] = old[o][i][y][x] if inside else 0.0
                    else:
                        result[o][i][row][column] = math.nan
    return torch.tensor(result)


def slow_source_key(key, net_config):
    """The seed's key for a target's key, or None."""
    parts = key.split(".")
    if parts[2] != "layers":
        return key
    stage, layer, part = int(parts[1]), int(parts[3]), parts[4]
    assert part != "expand" or not net_config.stages[stage - 1].ops[layer].endswith("_e1")
    if stage == 1 and part == "expand":  # the seed's first stage has none
        return None
    return ".".join([*parts[:3], str(min(layer, SEED_DEPTHS[stage] - 1)), *parts[4:]])


OTHERS = {
    "narrow, wide": "[[24, 20], ['k3_e1'], 1]|[[20, 32], ['k5_e3', 'skip', 'k7_e6', 'k1_e6'], 2]",
    "expanding first stage": "[[32, 16], ['k3_e6', 'k3_e1'], 1]|[[16, 24], ['k3_e1', 'k9_e4'], 2]",
}


@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_every_tensor_against_the_slow_rules(name, seed_network):
    net_config = NetConfig.parse(OTHERS.get(name) or net_config_file(name))
    last = len(net_config.stages)
    stride = 4 if name in OTHERS else 32
    target = randomize(FNABackbone(net_config, (last,), stride), generator_seed=1).state_dict()
    seed = seed_network.state_dict()
    remapped = remap(seed, target)
    assert list(remapped) == list(target)
    for key, tensor in remapped.items():
        source = slow_source_key(key, net_config)
        expected = slow_remap_tensor(seed[source], target[key]) if source in seed else target[key]
        new = expected.isnan()
        assert name in OTHERS or not new.any()
        assert torch.equal(tensor[~new], expected[~new]), key
        if new.any():  # 1e-5 times U(-b, b) with b = sqrt(6 / fan-in)
            bound = 1e-5 * math.sqrt(6 / tensor[0].numel())
            assert tensor[new].abs().max() <= bound and tensor[new].count_nonzero() == new.sum()


def test_inputs_are_left_alone(seed_network):
    seed = seed_network.state_dict()
    target = randomize(FNABackbone(net_config_file("retinanet")), generator_seed=1).state_dict()
    seed_before = {key: tensor.clone() for key, tensor in seed.items()}
    target_before = {key: tensor.clone() for key, tensor in target.items()}
    for tensor in remap(seed, target).values():
        tensor.zero_()
    assert all(torch.equal(seed[key], seed_before[key]) for key in seed)
    assert all(torch.equal(target[key], target_before[key]) for key in target)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_seed_shaped_network_computes_the_seeds_features(kernel, seed_network):
    """Enlarged kernels too: their rings are zero."""
    text = net_config_file("mobilenetv2").read_text().replace("k3_", f"k{kernel}_")
    target = randomize(FNABackbone(text), generator_seed=1).eval()
    target.load_state_dict(remap(seed_network.state_dict(), target.state_dict()))
    image = torch.randn(2, 3, 96, 64)
    seed_network.out_indices = target.out_indices
    for ours, seeds in zip(target(image), seed_network(image), strict=True):
        if kernel == 3:
            assert torch.equal(ours, seeds)
        else:
            torch.testing.assert_close(ours, seeds, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ssdlite", "mobilenetv2"])
def test_last_conv_is_the_seeds(name, seed_network):
    """SSDLite's second map starts from the seed's 320→1280 conv, its BN included."""
    target = FNABackbone(net_config_file(name), ("6.expand", 8), last_channels=1280)
    seed = seed_network.state_dict()
    remapped = remap(seed, randomize(target, generator_seed=1).state_dict())
    keys = [key for key in seed if key.startswith("blocks.8.conv.")]
    assert len(keys) == 6 and keys == [key for key in remapped if key.startswith("blocks.8.")]
    assert all(torch.equal(remapped[key], seed[key]) for key in keys)


def test_smaller_kernel_takes_the_centre():
    source = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert remap_tensor(source, torch.ones(1, 1, 3, 3)).flatten().tolist() == [
        6, 7, 8, 11, 12, 13, 16, 17, 18
    ]  # fmt: skip


def test_wider_tensors_are_noise_for_convs_and_initial_for_bn():
    conv = remap_tensor(torch.ones(2, 2, 1, 1), torch.full((3, 3, 1, 1), 9.0)).squeeze()
    assert torch.equal(conv[:2, :2], torch.ones(2, 2))
    new = torch.cat([conv[2], conv[:2, 2]])
    assert (new != 0).all() and new.abs().max() < 2e-5
    assert remap_tensor(torch.ones(2), torch.full((3,), 9.0)).tolist() == [1, 1, 9]
    with pytest.raises(ValueError, match="cannot remap"):
        remap_tensor(torch.ones(2), torch.ones(2, 2))


@pytest.mark.parametrize("kind", ["plain", "super"])
def test_new_channels_learn(kind, seed_network):
    """The channels that e8 adds to the seed's e6 get a gradient in all three convs."""
    if kind == "plain":
        network = FNABackbone("[[32, 16], ['k3_e1'], 1]|[[16, 24], ['k3_e8', 'k5_e8'], 2]", (2,), 4)
        layer = network.blocks[2].layers[1]
    else:
        network = FNASuperNet("[[32, 16], ['k3_e1'], 1]", [24], [2], [2], ["k3_e6", "k5_e8"],
                              out_indices=(2,), output_stride=4)  # fmt: skip
        layer = network.blocks[2].layers[1].ops["k5_e8"]
    torch.manual_seed(0)
    network.load_state_dict(remap(seed_network.state_dict(), network.state_dict()))
    if kind == "super":
        network.set_path([1, 1])
    (network(torch.randn(2, 3, 32, 32))[0] * torch.randn(2, 24, 8, 8)).sum().backward()
    seeds, all_channels = 6 * 24, 8 * 24
    for weight, axis in ((layer.expand[0].weight, 0), (layer.depthwise[0].weight, 0),
                         (layer.project[0].weight, 1)):  # fmt: skip
        of_channel = weight.grad.abs().movedim(axis, 0).flatten(1).amax(1)
        assert len(of_channel) == all_channels and (of_channel[seeds:] > 0).all()


def test_published_spaces_draw_no_noise(seed_network):
    """None of their tensors is wider than the seed's, so remapping draws no random number."""
    seed = seed_network.state_dict()
    networks = [FNABackbone(net_config_file(name), last_channels=1280) for name in ARCHITECTURES]
    for network in [*networks, *(FNASuperNet(**space, last_channels=1280) for space in SPACES)]:
        state = torch.get_rng_state()
        remap(seed, network.state_dict())
        assert torch.equal(torch.get_rng_state(), state)


def test_initializer_remaps_a_file_and_logs_one_line(tmp_path, seed_network, monkeypatch):
    seed_file = tmp_path / "seed.pth"
    save_seed(seed_network.state_dict(), SEED_META, seed_file)
    target = FNABackbone(
        net_config_file("retinanet"), init_cfg=dict(type="Remap", seed=str(seed_file))
    )
    initial = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    seed = load_seed(seed_file)
    expected = remap(seed, initial)
    lines = []
    module = sys.modules[Remap.__module__]  # models.remap is the function
    monkeypatch.setattr(module, "print_log", lambda message, **_: lines.append(message))
    WEIGHT_INITIALIZERS.build(target.init_cfg)(target)
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, expected[key]), key

    net_config = NetConfig.parse(net_config_file("retinanet"))
    sources = {key: slow_source_key(key, net_config) for key in expected}
    resized = sum(seed[source].shape != initial[key].shape for key, source in sources.items())
    assert len(lines) == 1
    assert f"{len(expected)} tensors" in lines[0] and f"({resized} of them" in lines[0]
    assert "0 keep" in lines[0] and "width first, kernel center, depth True" in lines[0]


def test_missing_seed(tmp_path):
    target = FNABackbone(
        net_config_file("retinanet"), init_cfg=dict(type="Remap", seed=str(tmp_path / "none.pth"))
    )
    with pytest.raises(InputError, match="none.pth"):
        target.init_weights()


# As many layers as the seed, each narrower or as wide, down to half.
NARROW = """
[[24, 12], ['k3_e1'], 1]|
[[12, 24], ['k3_e6', 'k3_e3'], 2]|
[[24, 20], ['k3_e3', 'k3_e3', 'k3_e6'], 2]|
[[20, 64], ['k3_e6', 'k3_e4', 'k3_e6', 'k3_e2'], 2]|
[[64, 50], ['k3_e3', 'k3_e6', 'k3_e6'], 1]|
[[50, 160], ['k3_e6', 'k3_e6', 'k3_e3'], 2]|
[[160, 200], ['k3_e3'], 1]
"""
WIDE = "[[40, 16], ['k3_e6'], 1]|[[16, 30], ['k3_e6', 'k3_e8'], 2]|[[30, 32], ['k5_e7'], 2]"
WIDTHS = ["first", "bn", "std", "l1"]


@pytest.fixture(scope="module")
def signed_seed(seed_network):
    """The seed network with BN weights of both signs."""
    network = FNABackbone(net_config_file("mobilenetv2"), last_channels=1280)
    network.load_state_dict(seed_network.state_dict())
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1 and name.endswith("weight"):
            tensor[1::3] *= -1
    return network.eval()


def top(rule, makers, size):
    """The ``size`` most important of the channels that some (conv weight, BN weight) make."""
    convs, bns = zip(*[(conv.double().flatten(1), bn) for conv, bn in makers], strict=True)
    if rule == "first":
        return list(range(size))
    of_one = {
        "bn": [bn.abs() for bn in bns],
        "std": [((c - c.mean(1, keepdim=True)) ** 2).mean(1).sqrt() for c in convs],
        "l1": [c.abs().sum(1) for c in convs],
    }[rule]
    importance = sum(of_one).tolist()
    best = sorted(range(len(importance)), key=lambda i: -importance[i])[:size]
    return sorted(best)


def selected_maps(seed, net_config, rule, image, last_channels):
    """What chosen channels of the seed compute, block by block, in plain torch functions."""

    def bn_of(conv):
        return re.sub(r"\d$", lambda number: str(int(number[0]) + 1), conv)

    def conv_bn(x, conv, outs, ins, stride=1, depthwise=False):
        weight = seed[f"{conv}.weight"][outs]
        weight = weight if depthwise else weight[:, ins]
        padding = weight.shape[-1] // 2
        x = F.conv2d(x, weight, None, stride, padding, groups=len(outs) if depthwise else 1)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(seed[f"{bn_of(conv)}.{name}"][outs] for name in names), eps=1e-5)

    def chosen(convs, size):
        makers = [(seed[f"{conv}.weight"], seed[f"{bn_of(conv)}.weight"]) for conv in convs]
        return top(rule, makers, size)

    before = chosen(["blocks.0.0"], net_config.stages[0].in_channels)
    x = conv_bn(image, "blocks.0.0", before, [0, 1, 2], stride=2).clamp(0, 6)
    maps = [x]
    for number, stage in enumerate(net_config.stages, 1):
        layers = [f"blocks.{number}.layers.{i}" for i in range(len(stage.ops))]
        outs = chosen([f"{layer}.project.0" for layer in layers], stage.out_channels)
        for index, (layer, op) in enumerate(zip(layers, stage.ops, strict=True)):
            expansion = int(op.split("_e")[1])
            inside, y = before, x
            if expansion > 1:
                inside = chosen([f"{layer}.expand.0"], expansion * len(before))
                y = conv_bn(y, f"{layer}.expand.0", inside, before).clamp(0, 6)
            stride = stage.stride if index == 0 else 1
            y = conv_bn(y, f"{layer}.depthwise.0", inside, None, stride, True).clamp(0, 6)
            y = conv_bn(y, f"{layer}.project.0", outs, inside)
            x = x + y if index else y
            before = outs
        maps.append(x)
    last = chosen(["blocks.8.conv.0"], last_channels)
    maps.append(conv_bn(x, "blocks.8.conv.0", last, before).clamp(0, 6))
    return maps


@pytest.mark.parametrize("width", WIDTHS)
def test_narrowed_network_computes_what_these_channels_compute_in_the_seed(width, signed_seed):
    net_config, seed = NetConfig.parse(NARROW), signed_seed.state_dict()
    target = FNABackbone(net_config, out_indices=range(9), last_channels=700)
    target = randomize(target, generator_seed=1).eval()
    target.load_state_dict(remap(seed, target.state_dict(), width=width))
    image = torch.randn(2, 3, 96, 64)
    expected = selected_maps(seed, net_config, width, image, last_channels=700)
    with torch.no_grad():
        for block, (ours, theirs) in enumerate(zip(target(image), expected, strict=True)):
            torch.testing.assert_close(ours, theirs, msg=lambda m, b=block: f"block {b}: {m}")


def test_width_rules_differ_only_where_the_target_is_narrower(seed_network):
    seed = seed_network.state_dict()
    for text, stages, differ in ((WIDE, 3, False), (NARROW, 7, True)):
        stride = 8 if stages == 3 else 32
        target = randomize(FNABackbone(text, (stages,), stride), generator_seed=1).state_dict()
        torch.manual_seed(0)  # of the slight noise in new channels
        first = remap(seed, target)
        for width in ("bn", "std", "l1"):
            torch.manual_seed(0)
            other = remap(seed, target, width=width)
            assert differ == any(not torch.equal(other[key], first[key]) for key in first)


def test_width_rules_on_a_layer_by_hand():
    """Three expanded channels of which a layer keeps two; each rule another two."""
    values = {
        "expand.0.weight": [[1.0, 2.0], [4.0, 4.0], [-3.0, 0.0]],  # std 0.5, 0, 1.5; L1 3, 8, 3
        "expand.1.weight": [-9.0, 1.0, 2.0],
        "depthwise.0.weight": [[10.0], [20.0], [30.0]],
        "project.0.weight": [[100.0, 200.0, 300.0], [400.0, 500.0, 600.0]],
        "project.1.weight": [1.0, 1.0],
    }
    seed = {f"blocks.2.layers.0.{key}": torch.tensor(value) for key, value in values.items()}
    seed = {key: t[:, :, None, None] if t.dim() == 2 else t for key, t in seed.items()}
    narrow = {
        "expand.0": (2, 2, 1, 1), "expand.1": (2,), "depthwise.0": (2, 1, 1, 1),
        "project.0": (2, 2, 1, 1), "project.1": (2,),
    }  # fmt: skip
    target = {f"blocks.2.layers.0.{p}.weight": torch.zeros(s) for p, s in narrow.items()}
    for width, kept in dict(first=[0, 1], bn=[0, 2], std=[0, 2], l1=[0, 1]).items():
        remapped = {
            ".".join(key.split(".")[-3:-1]): tensor.squeeze().tolist()
            for key, tensor in remap(seed, target, width=width).items()
        }
        assert remapped["expand.0"] == [values["expand.0.weight"][i] for i in kept]
        assert remapped["expand.1"] == [values["expand.1.weight"][i] for i in kept]
        assert remapped["depthwise.0"] == [values["depthwise.0.weight"][i][0] for i in kept]
        assert remapped["project.0"] == [
            [row[i] for i in kept] for row in values["project.0.weight"]
        ]


@pytest.mark.parametrize("rules", [dict(width="bn"), dict(width="l1", kernel="dilate"),
                                   dict(depth=False), dict(width=None, kernel=None)])  # fmt: skip
def test_super_network_gets_what_plain_networks_get(rules, signed_seed):
    """A candidate's tensors are those of the network that has this op in its place."""
    seed, channels = signed_seed.state_dict(), [24, 20, 64]
    supernet = FNASuperNet(
        "[[32, 16], ['k3_e1'], 1]", channels, [3, 3, 3], [2, 2, 2], ["k3_e3", "k5_e6"],
        out_indices=(4,), output_stride=16,
    )  # fmt: skip
    remapped = remap(seed, randomize(supernet, generator_seed=1).state_dict(), **rules)
    for op in ("k3_e3", "k5_e6"):
        rows = zip([16, 24, 20], channels, strict=True)
        text = "|".join(f"[[{c_in}, {c}], {[op] * 3}, 2]" for c_in, c in rows)
        plain = FNABackbone(f"[[32, 16], ['k3_e1'], 1]|{text}", (4,), 16).state_dict()
        keys = {key: re.sub(r"(blocks\.[2-4]\.layers\.\d)\.", rf"\1.ops.{op}.", key)
                for key in plain}  # fmt: skip
        plain = {key: supernet.state_dict().get(keys[key], plain[key]) for key in plain}
        expected = remap(seed, plain, **rules)
        compared = [key for key in plain if keys[key] in remapped]
        assert len(compared) > 27
        for key in compared:
            assert torch.equal(remapped[keys[key]], expected[key]), key


@pytest.mark.parametrize("kernel", [5, 7, 9])
def test_dilated_placement_is_a_dilated_convolution(kernel):
    source, image, dilation = torch.randn(4, 1, 3, 3), torch.randn(1, 4, 20, 20), kernel // 2
    spread = remap_tensor(source, torch.ones(4, 1, kernel, kernel), "dilate")
    torch.testing.assert_close(
        F.conv2d(image, spread, padding=dilation, groups=4),
        F.conv2d(image, source, padding=dilation, dilation=dilation, groups=4),
    )
    assert torch.count_nonzero(spread) == torch.count_nonzero(source)


def test_smaller_kernel_takes_what_lies_where_dilation_puts_it():
    source = torch.arange(25.0).reshape(1, 1, 5, 5)
    taken = remap_tensor(source, torch.ones(1, 1, 3, 3), "dilate")
    assert taken.flatten().tolist() == [0, 2, 4, 10, 12, 14, 20, 22, 24]
    for rule in ("center", "dilate"):
        assert remap_tensor(source, torch.ones(1, 1, 1, 1), rule).item() == 12
        larger = remap_tensor(torch.full((1, 1, 1, 1), 5.0), torch.ones(1, 1, 3, 3), rule)
        assert larger.flatten().tolist() == [0, 0, 0, 0, 5, 0, 0, 0, 0]


def test_each_rule_can_be_left_out(seed_network):
    """The seed has 2 layers of 3x3 and expansion 6 in stage 2."""
    text = "[[32, 16], ['k3_e1'], 1]|[[16, 24], ['k3_e3', 'k5_e6', 'k3_e6'], 2]"
    target = randomize(FNABackbone(text, (2,), 4), generator_seed=1).state_dict()
    seed = seed_network.state_dict()
    everything = remap(seed, target)
    layer = "blocks.2.layers"
    # counters of batches are equal everywhere, so nothing shows where they come from
    keys = {key for key in target if not key.endswith("num_batches_tracked")}

    def kept(**rules):
        remapped = remap(seed, target, **rules)
        unchanged = {key for key in keys if torch.equal(remapped[key], target[key])}
        assert all(torch.equal(remapped[key], everything[key]) for key in keys - unchanged)
        return unchanged

    assert kept() == set()
    assert kept(depth=False) == {key for key in keys if key.startswith(f"{layer}.2.")}
    assert kept(kernel=None) == {f"{layer}.1.depthwise.0.weight"}
    # layer 0 has 48 channels inside instead of 96; its last BN has the stage's 24 as ever
    narrow = {key for key in keys if key.startswith(f"{layer}.0.") and ".project.1." not in key}
    assert kept(width=None) == narrow


def test_without_any_rule_the_network_stays_as_it_was(seed_file):
    off = dict(type="Remap", seed=str(seed_file), width=None, kernel=None, depth=False)
    for text in (net_config_file("retinanet"), net_config_file("mobilenetv2")):
        target = FNABackbone(text, last_channels=1280, init_cfg=off)
        initial = {key: tensor.clone() for key, tensor in target.state_dict().items()}
        target.init_weights()
        assert all(torch.equal(t, initial[key]) for key, t in target.state_dict().items())


def test_rules_by_config(seed_file, seed_network):
    rules = dict(width="l1", kernel="dilate", depth=False)
    init_cfg = dict(type="Remap", seed=str(seed_file), **rules)
    target = FNABackbone(net_config_file("deeplabv3"), init_cfg=init_cfg)
    initial = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    target.init_weights()
    expected = remap(load_seed(seed_file), initial, **rules)
    assert all(torch.equal(t, expected[key]) for key, t in target.state_dict().items())


@pytest.mark.parametrize("rules", [dict(width="best"), dict(kernel="centre"), dict(depth="off")])
def test_unknown_rules(rules, seed_network):
    (name,) = rules
    seed = seed_network.state_dict()
    for use in (lambda: remap(seed, seed, **rules), lambda: Remap("seed.pth", **rules)):
        with pytest.raises(InputError, match=f"^Remap: {name} is '.*', expected one of ") as error:
            use()
        assert "\n" not in str(error.value)
