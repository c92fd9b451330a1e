from argparse import Namespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from engine.architecture import carried_net_config, check_weights, take_net_config
from engine.hooks import KeepNetConfig
from models import FNABackbone, InputError, NetConfig
from tests.conftest import net_config_file

SMALL = "[[8, 8], ['k3_e1'], 1]|\n[[8, 12], ['k3_e2', 'k5_e2'], 2]"
OTHER = SMALL.replace("k5", "k3")
DEEPER = SMALL + "|\n[[12, 16], ['k3_e2'], 1]"
OTHER_STRIDE = SMALL.replace("2]", "1]", 1).replace(", 2]", ", 1]")  # the same weights


def checkpoint(text=SMALL, **state_dict):
    return dict(meta=dict(net_config=text), state_dict=state_dict)


def config(text=SMALL):
    return Config(dict(model=dict(backbone=dict(type="FNABackbone", net_config=text))))


def test_a_checkpoint_carries_its_architecture():
    saved = dict(meta={})
    model = nn.Module()
    model.backbone = FNABackbone(SMALL, out_indices=(2,), output_stride=4)
    KeepNetConfig().before_save_checkpoint(Namespace(model=model), saved)
    assert saved["meta"]["net_config"] == SMALL
    assert carried_net_config(saved, "it") == NetConfig.parse(SMALL)


def test_a_search_and_foreign_files_carry_none():
    saved = dict(meta={})
    KeepNetConfig().before_save_checkpoint(Namespace(model=nn.Linear(1, 1)), saved)
    assert saved == dict(meta={})
    for foreign in (saved, {}, dict(meta=None), dict(meta=[])):
        assert carried_net_config(foreign, "it") is None


@pytest.mark.parametrize("text", [3, "", str(net_config_file("retinanet")), "[[8, 8], ['x'], 1]"])
def test_what_is_carried_must_be_an_architecture(text):
    """A path is not read."""
    with pytest.raises(InputError, match="^it: meta.net_config"):
        carried_net_config(checkpoint(text), "it")


def test_the_checkpoints_architecture_is_built():
    cfg = config()
    assert not take_net_config(cfg, checkpoint(), "it")
    assert take_net_config(cfg, checkpoint(OTHER), "it")
    assert cfg.model.backbone.net_config == OTHER
    assert not take_net_config(cfg, dict(state_dict={}), "it", asked="--net-config")
    assert cfg.model.backbone.net_config == OTHER
    supernet = Config(dict(model=dict(backbone=dict(type="FNASuperNet"))))
    assert not take_net_config(supernet, checkpoint(), "it")
    assert "net_config" not in supernet.model.backbone


@pytest.mark.parametrize(
    "carried, what",
    [
        (OTHER, "its stage 2 is [[8, 12], ['k3_e2', 'k3_e2'], 2], not "),
        (OTHER_STRIDE, "1], not [[8, 12], ['k3_e2', 'k5_e2'], 2]"),
        (DEEPER, "it has 3 stages, not 2"),
    ],
)
def test_another_one_than_asked_for_is_refused(carried, what):
    with pytest.raises(InputError) as error:
        take_net_config(config(), checkpoint(carried), "it", asked="--net-config")
    message = str(error.value)
    assert message.startswith("it: is of another architecture than --net-config: ")
    assert what in message and "\n" not in message
    with_skip = SMALL.replace("'k5_e2'", "'k5_e2', 'skip'")  # the same network
    assert not take_net_config(config(), checkpoint(with_skip), "it", asked="--net-config")


def small(text=SMALL) -> FNABackbone:
    return FNABackbone(text, out_indices=(2,), output_stride=4)


def test_a_resumed_run_refuses_other_strides_though_the_weights_fit():
    model = nn.Module()
    model.backbone = small()
    weights = {f"backbone.{key}": tensor for key, tensor in small().state_dict().items()}
    check_weights(model, checkpoint(**weights), "it", {})
    with pytest.raises(InputError, match="another architecture than the model: its stage 2"):
        check_weights(model, checkpoint(OTHER_STRIDE, **weights), "it", {})


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("text", [OTHER, DEEPER])
def test_a_backbone_refuses_the_weights_of_another(text, prefix):
    """In torch's and so in mmengine's loading, which would go on with random layers."""
    model = small()
    if prefix:
        model = nn.ModuleDict(dict(backbone=model))
    weights = {prefix + key: tensor for key, tensor in small(text).state_dict().items()}
    with pytest.raises(InputError, match=f"first {prefix}blocks.[23]"):
        model.load_state_dict(weights, strict=False)


def test_a_backbone_takes_its_own_weights_and_none():
    source, model = small(), nn.ModuleDict(dict(backbone=small(), head=nn.Linear(1, 1)))
    weights = {
        f"backbone.{key}": tensor
        for key, tensor in source.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    model.load_state_dict(weights, strict=False)
    for key, tensor in weights.items():
        assert torch.equal(model.state_dict()[key], tensor)
    model.load_state_dict({"head.bias": torch.ones(1)}, strict=False)
    assert model.head.bias == 1
