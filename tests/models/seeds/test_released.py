import pytest
import torch

from models import FNABackbone, NetConfig, rename_released, rename_to_released
from tests.conftest import ARCHITECTURES, net_config_file

# parts of an MBConv as the paper's files number them, in the order of computation
NUMBERED = {"expand": (0, 1), "depthwise": (3, 4), "project": (6, 7)}
NUMBERED_E1 = {"depthwise": (0, 1), "project": (3, 4)}


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_key_of_a_released_backbone_both_ways(name, prefix):
    tensors = FNABackbone(net_config_file(name), last_channels=1280).state_dict()
    ours = {prefix + key: tensor for key, tensor in tensors.items()}
    released, stages = rename_to_released(ours), NetConfig.parse(net_config_file(name)).stages
    for our_key, key in zip(ours, released, strict=True):
        parts = our_key.removeprefix(prefix).split(".")
        if parts[2] == "layers":
            stage, layer, part, index = int(parts[1]), int(parts[3]), parts[4], int(parts[5])
            expands = not stages[stage - 1].ops[layer].endswith("_e1")
            number = (NUMBERED if expands else NUMBERED_E1)[part][index]
            parts[4:6] = ["op", str(number)]
        assert key == prefix + ".".join(parts)
        assert released[key] is ours[our_key]
    assert rename_released(released) == ours
    assert len(released) == len(ours)


def test_other_keys_stay_as_they_are():
    others = dict.fromkeys(["neck.op.1.x", "bbox_head.conv.weight", "classifier.bias", "a.op.9.b"])
    others["blocks.1.layers.0.op.8.weight"] = torch.zeros(1)
    assert rename_released(others) == {
        ("neck.depthwise.1.x" if key == "neck.op.1.x" else key): value
        for key, value in others.items()
    }
