from argparse import Namespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from engine.hooks import ChannelsLast, CheckModel, MatchCheckpoint
from models import InputError


def load(state_dict, resume=False, **others):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    cfg = dict(load_from="some.pth", resume=resume)
    runner = Namespace(model=model, cfg=cfg, work_dir=".")
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
    assert "some.pth: is another model's" in str(error.value)
    assert message in str(error.value)
    assert "(is this config the one it was trained with?)" in str(error.value)


def test_of_another_backbone_the_architecture_is_asked_for(tmp_path):
    model = nn.Module()
    model.backbone, model.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
    (tmp_path / "a.py").touch()
    cfg = Config(dict(load_from="some.pth"), filename=tmp_path / "a.py")
    runner = Namespace(model=model, cfg=cfg, work_dir=".")

    def message(**changed):
        state_dict = model.state_dict() | {k.replace("_", "."): v for k, v in changed.items()}
        with pytest.raises(InputError) as error:
            MatchCheckpoint().after_load_checkpoint(runner, dict(state_dict=state_dict))
        return str(error.value)

    backbone = dict(backbone_weight=torch.zeros(4, 3, 3, 3))
    assert "is of another architecture; 1 tensors differ, first backbone.w" in message(**backbone)
    assert "(is --net-config the one it was trained with?)" in message(**backbone)
    both = message(**backbone, head_weight=torch.zeros(1))
    assert "is another model's; 2 tensors differ, first head.weight: expected (2, 4, 1, 1)" in both
    assert "(is a.py the one it was trained with?)" in both


def test_no_weights_and_no_state_of_a_run(good):
    with pytest.raises(InputError, match="holds no state_dict"):
        load(None)
    with pytest.raises(InputError, match="has no message_hub, optimizer"):
        load(good, resume=True, meta={})


def check_model(channels, classes, **model):
    """The hook on a model whose backbone gives these channels, and whose config is this."""
    runner = dict(
        model=Namespace(backbone=Namespace(out_channels=channels)),
        cfg=Namespace(model=ConfigDict(model, type="Any", backbone=dict(type="Any"))),
    )
    loader = Namespace(dataset=Namespace(metainfo=dict(classes=classes)))
    CheckModel().before_train(Namespace(**runner, train_dataloader=loader))
    CheckModel().before_test(Namespace(**runner, test_dataloader=loader))


HEAD = dict(in_channels=320, in_index=-1, num_classes=3)


@pytest.mark.parametrize("name", ["decode_head", "head"])
@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        dict(in_channels=320, num_classes=3),
        dict(in_channels=(320, 24), in_index=(1, 0), num_classes=3),
        dict(in_channels=(24, 320), num_classes=3),
        dict(in_channels=320),
    ],
)
def test_heads_that_fit(name, head):
    check_model([24, 320], "abc", **{name: head})


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(in_channels=160), "model.decode_head.in_channels is 160, but the backbone gives 320"),
        (dict(in_index=0), "in_channels is 320, but the backbone gives 24 channels"),
        (dict(num_classes=2), "decode_head.num_classes is 2, but the data set has 3 classes: a, b"),
        (dict(in_channels=[320, 24], in_index=[0, 1]), "is [320, 24], but .* gives [24, 320]"),
    ],
)
def test_heads_that_do_not_fit(change, message):
    pattern = message.replace("[", r"\[")
    with pytest.raises(InputError, match=pattern):
        check_model([24, 320], "abc", decode_head=HEAD | change)


def test_every_head_is_checked():
    auxiliary = dict(in_channels=24, in_index=0, num_classes=3)
    check_model([24, 320], "abc", decode_head=HEAD, auxiliary_head=auxiliary)
    with pytest.raises(InputError, match="model.auxiliary_head.in_channels is 24"):
        check_model([32, 320], "abc", decode_head=HEAD, auxiliary_head=auxiliary)


def test_heads_after_a_neck_are_the_necks_matter():
    head = dict(num_classes=3, in_channels=256)
    check_model([24, 320], "abc", neck=dict(in_channels=(24, 320)), bbox_head=head)
    with pytest.raises(InputError, match="model.neck.in_channels"):
        check_model([24, 320], "abc", neck=dict(in_channels=(24, 160)), bbox_head=head)
    with pytest.raises(InputError, match="bbox_head.num_classes is 3"):
        check_model([24, 320], "ab", neck=dict(in_channels=(24, 320)), bbox_head=head)


def test_channels_last_changes_the_order_of_all_maps_and_no_result():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)).eval()
    image = torch.randn(2, 3, 8, 9)
    expected = model(image)
    maps = []
    for module in model:
        module.register_forward_hook(lambda module, inputs, output: maps.append(output))
    ChannelsLast().before_run(Namespace(model=model))
    torch.testing.assert_close(model(image), expected)
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in maps)
