import os
import pickle
from collections import OrderedDict

import h5py
import pytest
import torch
import torchvision
from torch.nn import functional as F

from models import FNABackbone, InputError, rename_to_released
from models.seeds.read import NET_CONFIG, read_foreign_seed

from .conftest import MEAN, STD, images, logits, randomise, write_keras


def refusal(path):
    with pytest.raises(InputError) as error:
        read_foreign_seed(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


# Reading


@pytest.mark.parametrize("zipped", [True, False])
def test_torchvision_weights_give_torchvisions_logits(tmp_path, zipped):
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(randomise(model.state_dict()))
    path = tmp_path / "mobilenet_v2.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)

    ours = logits(read_foreign_seed(path)[0], images())

    assert ours.shape == (2, 1000)
    torch.testing.assert_close(ours, model.eval()(images()))
    assert ours.std() > 1e-3  # the random network is alive


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counter", [True, False])
def test_released_form_has_another_bn_eps(tmp_path, ours, prefix, counter):
    released = OrderedDict(
        (prefix + key, value)
        for key, value in rename_to_released(ours).items()
        if counter or not key.endswith("num_batches_tracked")
    )
    assert f"{prefix}blocks.2.layers.0.op.6.weight" in released
    torch.save(released, tmp_path / "seed_mbv2.pt")

    read, about = read_foreign_seed(tmp_path / "seed_mbv2.pt")

    torch.testing.assert_close(logits(read, images()), logits(ours, images(), eps=1e-3))
    assert about["source"] == "the paper's released seed"


def test_what_mmengine_wrote_has_pytorchs_bn_eps(tmp_path, ours):
    torch.save({"meta": {"epoch": 3}, "state_dict": ours}, tmp_path / "epoch_3.pth")
    read, _ = read_foreign_seed(tmp_path / "epoch_3.pth")
    assert torch.equal(read["blocks.0.1.running_var"], ours["blocks.0.1.running_var"])


@pytest.mark.parametrize("layout", ["new", "old"])
def test_keras_file_computes_what_keras_computes(tmp_path, keras_layers, layout):
    """Against Keras' arithmetic, written out here, on the pixels that no padding reaches."""
    path = tmp_path / "mobilenet_v2.h5"
    write_keras(path, keras_layers, layout)
    read, _ = read_foreign_seed(path)
    assert not any(key.startswith("classifier") for key in read)
    network = FNABackbone(NET_CONFIG, out_indices=(0, 1, 8), last_channels=1280).eval()
    network.load_state_dict(read)
    keras = {(layer, name): torch.from_numpy(array) for layer, name, array in keras_layers}

    def bn(x, name):
        shape = (1, -1, 1, 1)
        gamma, beta, mean, variance = (
            keras[name, part].view(shape)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / (variance + 1e-3).sqrt() + beta

    pixels = 255 * torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(2))
    stem, first, _ = network((pixels - MEAN) / STD)

    x = pixels / 127.5 - 1
    # H×W×in×out → out×in×H×W; VALID from pixel 1 on meets our padded conv from its output 1 on
    x = F.conv2d(x[..., 1:, 1:], keras["Conv1", "kernel"].permute(3, 2, 0, 1), stride=2)
    x = bn(x, "bn_Conv1").clamp(0, 6)
    torch.testing.assert_close(stem[..., 1:16, 1:16], x[..., :15, :15], atol=1e-4, rtol=1e-4)
    kernel = keras["expanded_conv_depthwise", "depthwise_kernel"].permute(2, 3, 0, 1)
    x = bn(F.conv2d(x, kernel, groups=32), "expanded_conv_depthwise_BN").clamp(0, 6)
    kernel = keras["expanded_conv_project", "kernel"].permute(3, 2, 0, 1)
    x = bn(F.conv2d(x, kernel), "expanded_conv_project_BN")
    torch.testing.assert_close(first[..., 2:15, 2:15], x[..., :13, :13], atol=1e-4, rtol=1e-4)

    # the blocks after are arithmetic of the same kind: each tensor in its place is enough
    for ours, theirs, name, axes in (
        (
            "blocks.2.layers.0.depthwise.0.weight",
            "block_1_depthwise",
            "depthwise_kernel",
            (2, 3, 0, 1),
        ),
        ("blocks.6.layers.2.expand.0.weight", "block_15_expand", "kernel", (3, 2, 0, 1)),
        ("blocks.7.layers.0.project.0.weight", "block_16_project", "kernel", (3, 2, 0, 1)),
        ("blocks.7.layers.0.project.1.bias", "block_16_project_BN", "beta", (0,)),
        ("blocks.8.conv.0.weight", "Conv_1", "kernel", (3, 2, 0, 1)),
        ("blocks.8.conv.1.running_mean", "Conv_1_bn", "moving_mean", (0,)),
    ):
        assert torch.equal(read[ours], keras[theirs, name].permute(axes)), ours


# Refusing


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_checkpoint(tmp_path, ours, zipped, share):
    path = tmp_path / "seed.pth"
    torch.save(ours, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_truncated_keras_file(tmp_path, keras_layers, share):
    path = tmp_path / "seed.h5"
    write_keras(path, keras_layers)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"\x00" * 5000, b"\x80\x02.", b"PK\x03\x04" + b"x" * 99]
)
def test_file_of_something_else(tmp_path, content):
    (tmp_path / "seed.pth").write_bytes(content)
    assert "not a checkpoint" in refusal(tmp_path / "seed.pth")


class Bomb:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["pickle 2", "pickle 4", "torch", "torch legacy"])
def test_code_is_refused_and_not_run(tmp_path, ours, how):
    path, bomb = tmp_path / "seed.pth", Bomb(tmp_path / "ran")
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(bomb, protocol=int(how[-1])))
    else:
        torch.save({**ours, "x": bomb}, path, _use_new_zipfile_serialization=how == "torch")
    expected = "not a checkpoint" if how == "pickle 4" else "refused, it holds Python objects"
    assert expected in refusal(path)
    assert not (tmp_path / "ran").exists()


def without(key):
    return lambda seed: seed.pop(key)


@pytest.mark.parametrize(
    "change, message",
    [
        (without("blocks.2.layers.1.expand.0.weight"), "no 'blocks.2.layers.1.expand.0.weight'"),
        (without("classifier.bias"), "no 'classifier.bias'"),
        (
            lambda seed: seed.update(
                {"blocks.1.layers.0.depthwise.0.weight": torch.zeros(32, 1, 5, 5)}
            ),
            "'blocks.1.layers.0.depthwise.0.weight' is 32×1×5×5, expected 32×1×3×3",
        ),
        (
            lambda seed: seed.update({"classifier.weight": torch.zeros(1000, 1792)}),
            "'classifier.weight' is 1000×1792, expected 1000×1280",
        ),
        (
            lambda seed: seed.update({"blocks.2.layers.2.expand.1.bias": torch.zeros(144)}),
            "'blocks.2.layers.2.expand.1.bias' is no part of the seed's architecture",
        ),
        (lambda seed: seed.update({"blocks.0.1.bias": "zero"}), "'blocks.0.1.bias' is not an"),
        (
            lambda seed: seed.update({"blocks.0.1.bias": torch.zeros(32).to_sparse()}),
            "'blocks.0.1.bias' is not an ordinary tensor",
        ),
        (
            lambda seed: seed.update({"blocks.0.1.bias": torch.full((32,), torch.nan)}),
            "'blocks.0.1.bias' holds numbers that cannot be",
        ),
        (
            lambda seed: seed.update({"blocks.0.1.running_var": -torch.ones(32)}),
            "'blocks.0.1.running_var' holds numbers that cannot be",
        ),
        (
            without("blocks.0.0.weight"),
            "no 'blocks.0.0.weight', expected 32×3×3×3; not MobileNetV2",
        ),
        (dict.clear, "no last 1x1 conv under a known name, expected a MobileNetV2"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_seed_of_another_network(tmp_path, ours, change, message):
    changed = dict(ours)
    change(changed)
    torch.save(changed, tmp_path / "seed.pth")
    assert message in refusal(tmp_path / "seed.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"meta": 1, "state_dict": 2}])
def test_checkpoint_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "seed.pth")
    assert "expected" in refusal(tmp_path / "seed.pth")


@pytest.mark.parametrize("bn_eps", ["1e-5", float("nan"), -1.0, 5.0])
def test_senseless_bn_eps(tmp_path, ours, bn_eps):
    torch.save({"meta": {"bn_eps": bn_eps}, "state_dict": ours}, tmp_path / "seed.pth")
    assert "bn_eps" in refusal(tmp_path / "seed.pth")


def test_torchvision_network_of_another_kind(tmp_path):
    torch.save(torchvision.models.mobilenet_v2(width_mult=0.5).state_dict(), tmp_path / "seed.pth")
    assert "expected 32×3×3×3; not MobileNetV2 at width 1.0" in refusal(tmp_path / "seed.pth")


def test_keras_network_of_another_kind(tmp_path, keras_layers):
    path = tmp_path / "seed.h5"
    write_keras(path, [each for each in keras_layers if each[0] != "block_7_expand"])
    assert "no 'block_7_expand/kernel'" in refusal(path)
    swapped = [
        (layer, name, array.transpose(1, 0, 3, 2) if layer == "block_7_expand" else array)
        for layer, name, array in keras_layers
    ]
    write_keras(path, swapped)
    assert "'block_7_expand/kernel' is 1×1×384×64, expected 1×1×64×384" in refusal(path)


def test_keras_file_reads_no_other_file(tmp_path, keras_layers):
    """HDF5 can declare that a dataset's numbers, or a group, are in some other file."""
    (tmp_path / "private").write_bytes(b"\x00" * 4096)
    path = tmp_path / "seed.h5"
    write_keras(path, keras_layers[1:], "old")
    with h5py.File(path, "a") as file:
        file.require_group("Conv1/Conv1").create_dataset(
            "kernel:0", (3, 3, 3, 32), "f4", external=[(tmp_path / "private", 0, 3456)]
        )
    assert "'Conv1/kernel' holds no numbers of its own" in refusal(path)
    write_keras(tmp_path / "other.h5", keras_layers)
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink(tmp_path / "other.h5", "model_weights")
    assert "no 'Conv1/kernel'" in refusal(path)
