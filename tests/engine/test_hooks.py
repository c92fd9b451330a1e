from argparse import Namespace

import pytest
import torch
from torch import nn

from engine.hooks import MatchCheckpoint
from models import InputError


def load(state_dict, resume=False, **others):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    runner = Namespace(model=model, _load_from="some.pth", _resume=resume, work_dir=".")
    MatchCheckpoint().after_load_checkpoint(runner, dict(state_dict=state_dict, **others))


@pytest.fixture
def good():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict()


def test_what_fits_is_taken(good):
    load(good)
    load({f"module.{key}": tensor for key, tensor in good.items()})
    load(good, resume=True, meta={}, message_hub={}, optimizer={})
    del good["1.num_batches_tracked"]  # as in checkpoints of before PyTorch 0.4.1
    load(good)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(new=torch.zeros(1)), "1 tensors differ, first new: expected none, found (1,)"),
        ({"0.weight": torch.zeros(4, 3, 3, 3)}, "expected (4, 3, 1, 1), found (4, 3, 3, 3)"),
        ({"0.bias": "text"}, "0.bias"),
    ],
)
def test_what_differs_is_named(good, change, message):
    with pytest.raises(InputError) as error:
        load(good | change)
    assert "some.pth: is of another architecture" in str(error.value)
    assert message in str(error.value)


def test_no_weights_and_no_state_of_a_run(good):
    with pytest.raises(InputError, match="holds no state_dict"):
        load(None)
    with pytest.raises(InputError, match="has no message_hub, optimizer"):
        load(good, resume=True, meta={})
