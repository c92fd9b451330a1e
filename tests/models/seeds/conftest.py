"""What the tests of seed files share: random seeds in the forms of others."""

import h5py
import numpy as np
import pytest
import torch

from models import FNABackbone
from models.seeds.read import NET_CONFIG

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


@pytest.fixture(scope="package")
def ours():
    """A random seed with our keys and a classifier of 1000 classes."""
    seed = FNABackbone(NET_CONFIG, last_channels=1280).state_dict()
    seed |= {"classifier.weight": torch.empty(1000, 1280), "classifier.bias": torch.empty(1000)}
    return randomise(seed)


@pytest.fixture(scope="package")
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


def logits(seed, x, eps=1e-5):
    """What the seed's network, its classifier included, makes of images."""
    norm_cfg = dict(type="BN", eps=eps)
    network = FNABackbone(NET_CONFIG, (8,), last_channels=1280, norm_cfg=norm_cfg).eval()
    network.load_state_dict({key: seed[key] for key in network.state_dict()})
    with torch.no_grad():
        pooled = network(x)[0].mean((2, 3))
    return torch.nn.functional.linear(pooled, seed["classifier.weight"], seed["classifier.bias"])
