"""Keras Applications' MobileNetV2 in HDF5, for images normalised as everywhere here."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import torch
from torch import Tensor

from ..errors import InputError
from ..files import open_regular
from ..seed import IMAGE_MEAN, IMAGE_STD, show_shape

BN_EPS = 1e-3
HALF_RANGE = 127.5  # its images are x / 127.5 − 1
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    with open_regular(path) as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def read_keras(path: Path, shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Tensor]:
    """The tensors of a Keras Applications file under our keys; its classifier is dropped.

    Keras' stride-2 convs pad at the bottom and right only, ours on all sides; the weights carry
    over all the same (statistics on photographs barely change).

    Args:
        shapes: Of every tensor of the seed, by our keys, in the order of computation.
        where: What to call the file in a message.

    Raises:
        InputError: The file is damaged, or not MobileNetV2 at width 1.0.
    """
    names = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    names |= {"weight": "gamma", "bias": "beta"}
    our_layers = list(dict.fromkeys(key.rpartition(".")[0] for key in shapes))
    tensors = {}
    try:
        with open_regular(path) as opened, h5py.File(opened, "r") as file:
            stored = _datasets(file)
            for layer, keras_layer in zip(our_layers, _layers(), strict=True):
                conv = len(shapes[f"{layer}.weight"]) == 4
                for name in ("weight",) if conv else names:
                    key = f"{layer}.{name}"
                    keras_key = f"{keras_layer}/{'kernel' if conv else names[name]}"
                    if keras_key not in stored:
                        raise InputError(
                            f"{where}: no {keras_key!r}; this is not Keras Applications' "
                            "MobileNetV2 (width 1.0)"
                        )
                    tensors[key] = _tensor(stored[keras_key], shapes[key], where, keras_key)
    except InputError:
        raise
    except Exception:  # whatever h5py may raise on arbitrary bytes
        raise InputError(f"{where}: truncated, or not a Keras file") from None
    _normalise_as_imagenet(tensors)
    return tensors


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """'layer/name' → dataset. Versions of Keras differ in the groups around and in ``:0`` after."""
    stored = {}

    def visit(path: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer_weights"):
            layer, name = path.rpartition("/")[0].rpartition("/")[2], path.rpartition("/")[2]
            name = name.removesuffix(":0").replace("depthwise_kernel", "kernel")
            stored[f"{layer}/{name}"] = item

    file.visititems(visit)  # follows no links to other files
    return stored


def _tensor(dataset: h5py.Dataset, shape: tuple[int, ...], where: str, name: str) -> Tensor:
    """A dataset as a tensor of ``shape``; kernels are height×width×in×out (depthwise: ×channels×1).

    Shape, type and place are looked at before anything is read.
    """
    depthwise = len(shape) == 4 and shape[1] == 1
    # axes of the stored kernel, in the order C_out, C_in, height, width
    axes = () if len(shape) == 1 else (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    expected = tuple(shape[axes.index(axis)] for axis in range(4)) if axes else shape
    if dataset.shape != expected:
        raise InputError(
            f"{where}: {name!r} is {show_shape(dataset.shape)}, expected {show_shape(expected)}"
        )
    if dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
        raise InputError(f"{where}: {name!r} holds no numbers of its own")
    tensor = torch.from_numpy(dataset[()].astype("float32"))
    return tensor.permute(axes).contiguous() if axes else tensor


def _normalise_as_imagenet(tensors: dict[str, Tensor]) -> None:
    """Change the first conv and BN from images x/127.5 − 1 to ImageNet's mean and std, in place.

    With x = std·z + mean, x/127.5 − 1 = (std/127.5)·z + (mean − 127.5)/127.5: a factor for the
    weights and a constant that moves the BN's mean. Exact but at the image border, where the padded
    zeros now mean ImageNet's mean colour.
    """
    weight = tensors["blocks.0.0.weight"]
    scale = torch.tensor(IMAGE_STD) / HALF_RANGE
    shift = torch.tensor(IMAGE_MEAN) / HALF_RANGE - 1
    tensors["blocks.0.1.running_mean"] -= weight.sum((2, 3)) @ shift
    tensors["blocks.0.0.weight"] = weight * scale.view(1, 3, 1, 1)


def _layers() -> list[str]:
    """Keras' names of the convs and BNs, in the order of computation."""
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    blocks = [f"block_{block}_{part}" for block in range(1, 17) for part in parts]
    first = [f"expanded_conv_{part}" for part in parts[2:]]
    return ["Conv1", "bn_Conv1", *first, *blocks, "Conv_1", "Conv_1_bn"]
