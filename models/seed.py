"""The seed: a network trained on ImageNet, in the one form that training reads.

A seed file holds ``meta`` (``net_config``, ``source``, ``licence``) and a ``state_dict`` in this
project's names: ``blocks.*``, and ``classifier.{weight,bias}`` where the seed has one. Its weights
are for BN eps 1e-5 and images normalised by ImageNet's mean and standard deviation.
``scripts/get_seed.sh`` brings files of other forms to this one (models/seeds/).
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .backbone import FNABackbone, total_stride
from .errors import InputError, printable, shown
from .files import load_tensors, write_whole
from .net_config import NetConfig

IMAGE_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, pixels from 0 to 255
IMAGE_STD = (58.395, 57.12, 57.375)
_MAX_CLASSES = 100_000  # ImageNet's largest version has 21,841


def load_seed(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a seed file.

    Returns:
        float32 tensors of all ``blocks.*`` keys of the seed's network, and
        ``classifier.{weight,bias}`` where the file has them.

    Raises:
        InputError: The file is missing, damaged, holds code, is in another form, or a tensor is not
            what the file's own net_config needs.
    """
    return read_seed(path)[0]


def read_seed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`load_seed`, and what is known about the seed: its file's ``meta``."""
    where = f"seed file {printable(str(path))}"
    if not os.path.exists(path):
        raise InputError(f"{where}: no such file; scripts/get_seed.sh gets one")
    content = load_tensors(path, "seed file")
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping) or not isinstance(meta.get("net_config"), str):
        raise InputError(
            f"{where}: is not in the form that training reads; scripts/get_seed.sh --source {path} "
            "converts it"
        )
    try:
        net_config = NetConfig.parse(meta["net_config"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    about = {"net_config": str(net_config), **known_origin(meta)}
    return checked_tensors(content.get("state_dict"), net_config, where), about


def known_origin(meta: Mapping) -> dict[str, str]:
    """The source and licence that a file's ``meta`` states, each on one line."""
    stated = {key: meta.get(key) for key in ("source", "licence")}
    return {
        key: printable(text, 500) if isinstance(text, str) else "unknown"
        for key, text in stated.items()
    }


def save_seed(seed: Mapping[str, Tensor], meta: Mapping[str, str], path: Path) -> None:
    """Write a seed so that :func:`read_seed` gives back the same tensors and ``meta``.

    Args:
        meta: ``net_config`` (text), ``source`` and ``licence``.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    torch.save({"meta": dict(meta), "state_dict": dict(seed)}, content)
    write_whole(path, content.getvalue())


def expected_shapes(net_config: NetConfig, last_channels: int | None) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a seed of this architecture, without its classifier."""
    with torch.device("meta"):
        network = FNABackbone(net_config, (0,), total_stride(net_config.stages), last_channels)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def checked_tensors(tensors: object, net_config: NetConfig, where: str) -> dict[str, Tensor]:
    """A seed's tensors as float32, each of them there, in its shape and finite.

    BN's counter may be lacking; keys that are neither blocks nor a classifier are dropped.

    Args:
        where: What to call the file in a message.

    Raises:
        InputError: They are not; the message names the tensor.
    """
    if not isinstance(tensors, Mapping):
        raise InputError(f"{where}: holds no state dict, expected a seed's tensors")
    last = tensors.get(f"blocks.{len(net_config.stages) + 1}.conv.0.weight")
    last_channels = len(last) if isinstance(last, Tensor) and last.dim() == 4 else None
    expected = expected_shapes(net_config, last_channels)
    for key in tensors:
        if isinstance(key, str) and key.startswith("blocks.") and key not in expected:
            raise InputError(f"{where}: {shown(key)} is no part of the seed's architecture")
    if "classifier.weight" in tensors or "classifier.bias" in tensors:
        bias = tensors.get("classifier.bias")
        classes = len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 else 1000
        if classes > _MAX_CLASSES:
            raise InputError(
                f"{where}: 'classifier.bias' is of {classes} classes, expected at most "
                f"{_MAX_CLASSES}"
            )
        features = last_channels or net_config.stages[-1].out_channels
        expected |= {"classifier.weight": (classes, features), "classifier.bias": (classes,)}

    seed = {}
    for key, shape in expected.items():
        if key.endswith("num_batches_tracked"):
            # only momentum=None would use it, and training a seed further starts anew
            seed[key] = torch.tensor(0)
            continue
        if key not in tensors:
            raise InputError(f"{where}: no {key!r}, expected {show_shape(shape)}")
        seed[key] = _checked_tensor(tensors[key], shape, f"{where}: {key!r}")
        if key.endswith("running_var") and (seed[key] < 0).any():
            raise InputError(f"{where}: {key!r} holds numbers that cannot be; the file is damaged")
    return seed


def _checked_tensor(value: object, shape: tuple[int, ...], what: str) -> Tensor:
    # load_tensors and Keras' reader let only ordinary tensors through, but of any type of number
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise InputError(f"{what} is not an ordinary tensor of real numbers")
    if tuple(value.shape) != shape:
        raise InputError(f"{what} is {show_shape(value.shape)}, expected {show_shape(shape)}")
    tensor = value.detach().float().clone()
    if not tensor.isfinite().all():
        raise InputError(f"{what} holds numbers that cannot be; the file is damaged")
    return tensor


def show_shape(shape: tuple[int, ...]) -> str:
    """(32, 3, 3, 3) → '32×3×3×3'."""
    return "×".join(map(str, shape)) or "one number"
