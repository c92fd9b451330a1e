import re
import sys

import pytest
import torch
from mmengine.registry import WEIGHT_INITIALIZERS

from models import FNABackbone, InputError, NetConfig, Remap, load_seed, remap
from models.remap import remap_tensor
from tests.conftest import ARCHITECTURES, net_config_file, randomize

SEED_DEPTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 1}
# name of a part of an MBConv by its number, with and without expansion
PARTS = {
    0: "expand",
    1: "expand_bn",
    3: "depthwise",
    4: "depthwise_bn",
    6: "project",
    7: "project_bn",
}
PARTS_E1 = {0: "depthwise", 1: "depthwise_bn", 3: "project", 4: "project_bn"}


def slow_remap_tensor(source, initial):
    """One number at a time, straight from the rules' wording."""
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
                    inside = o < source.shape[0] and i < source.shape[1]
                    inside = inside and 0 <= y < old_k and 0 <= x < old_k
                    result[o][i][row][column] = old[o][i][y][x] if inside else 0.0
    return torch.tensor(result)


def slow_source_key(key, net_config):
    """The seed's key for a target's key, or None."""
    match = re.fullmatch(r"blocks\.(\d)\.layers\.(\d+)\.op\.(\d)\.(\w+)", key)
    if not match:
        return key
    stage, layer, part = (int(match[i]) for i in (1, 2, 3))
    op = net_config.stages[stage - 1].ops[layer]
    name = (PARTS_E1 if op.endswith("_e1") else PARTS)[part]
    of_seed = {v: k for k, v in (PARTS_E1 if stage == 1 else PARTS).items()}
    if name not in of_seed:
        return None
    layer = min(layer, SEED_DEPTHS[stage] - 1)
    return f"blocks.{stage}.layers.{layer}.op.{of_seed[name]}.{match[4]}"


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
        assert torch.equal(tensor, expected), key


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


def test_wider_tensors_are_zero_for_convs_and_initial_for_bn():
    conv = remap_tensor(torch.ones(2, 2, 1, 1), torch.full((3, 3, 1, 1), 9.0)).squeeze()
    assert conv.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert remap_tensor(torch.ones(2), torch.full((3,), 9.0)).tolist() == [1, 1, 9]
    with pytest.raises(ValueError, match="cannot remap"):
        remap_tensor(torch.ones(2), torch.ones(2, 2))


def test_initializer_remaps_a_file_and_logs_one_line(tmp_path, seed_network, monkeypatch):
    seed_file = tmp_path / "seed.pth"
    torch.save({f"module.{key}": t for key, t in seed_network.state_dict().items()}, seed_file)
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
    assert "0 keep" in lines[0]


def test_missing_seed(tmp_path):
    target = FNABackbone(
        net_config_file("retinanet"), init_cfg=dict(type="Remap", seed=str(tmp_path / "none.pth"))
    )
    with pytest.raises(InputError, match="none.pth"):
        target.init_weights()
