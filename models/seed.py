"""The seed network, MobileNetV2 trained on ImageNet, and the readers of its files.

Whatever a file's own scheme, a seed here is a state dict with the released checkpoints' keys
(``blocks.*``, and ``classifier.*`` where it has one) for BN eps 1e-5 and images normalised by
ImageNet's mean and standard deviation.
"""

import os
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import h5py
import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import FNABackbone
from .errors import InputError

IMAGE_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, pixels from 0 to 255
IMAGE_STD = (58.395, 57.12, 57.375)
NET_CONFIG = Path(__file__).parents[1] / "configs" / "net_configs" / "mobilenetv2.txt"

_FORMAT = "fna-seed"
_BN_EPS = 1e-5  # of every network here
_RELEASED_BN_EPS = 1e-3
_KERAS_BN_EPS = 1e-3
_KERAS_HALF_RANGE = 127.5  # Keras' MobileNetV2 expects x / 127.5 − 1
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_LAST_CHANNELS = 1280

# Limits of check_seed. Good seeds: 0.16-0.31 and 0.16-0.50 on photographs from street scenes to
# blood cells under a microscope; gross mistakes (a wrong reshape, gamma for beta, a factor of 255)
# give more than 0.75 of the first or 1.1 of the second.
MAX_MEAN_DEVIATION = 0.5
MAX_SPREAD_DEVIATION = 0.9


class MobileNetV2Seed(FNABackbone):
    """The seed with its classifier: MobileNetV2 at width 1.0.

    State-dict keys: ``blocks.*`` and ``classifier.{weight,bias}``, the released seed's.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2):
        super().__init__(NET_CONFIG, out_indices=(8,), last_channels=_LAST_CHANNELS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(_LAST_CHANNELS, num_classes)

    @classmethod
    def from_file(cls, path: str | Path) -> "MobileNetV2Seed":
        """The network of a seed file, in evaluation mode.

        The classifier of a seed that has none, such as the one from PyPI, keeps its random initial
        weights; the log says so.

        Raises:
            InputError: As :func:`load_seed`.
        """
        seed = load_seed(path)
        has_classifier = "classifier.weight" in seed
        network = cls(num_classes=len(seed["classifier.bias"]) if has_classifier else 1000)
        if not has_classifier:
            print_log(f"{path} has no classifier: it keeps its random weights", logger="current")
        network.load_state_dict(network.state_dict() | seed)
        return network.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images N×3×H×W → logits N×num_classes."""
        (features,) = super().forward(images)
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        return self.classifier(self.dropout(pooled))


def load_seed(path: str | Path) -> dict[str, Tensor]:
    """Read a MobileNetV2 seed of any known scheme.

    Known are: what :func:`save_seed` wrote; the paper's released seed (a bare state dict with our
    keys); torchvision's MobileNetV2 state dict; Keras Applications' MobileNetV2 in HDF5, whose
    classifier is dropped. Nothing in the file is executed.

    Returns:
        float32 tensors of all ``blocks.*`` keys, and ``classifier.{weight,bias}`` where the file
        has them.

    Raises:
        InputError: The file is missing, broken, holds code, or is no MobileNetV2 of width 1.0.
    """
    return read_seed(path)[0]


def read_seed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`load_seed`, and what is known about the seed: its ``source`` and ``licence``."""
    where = f"seed file {path}"
    try:
        with open(path, "rb") as file:
            is_hdf5 = file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; scripts/get_seed.sh gets one") from None
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    tensors, bn_eps, about = (_read_keras if is_hdf5 else _read_torch)(Path(path), where)
    seed = _checked(tensors, where)
    for key in seed:
        if key.endswith("running_var"):
            # BN divides by sqrt(var + eps): moving the difference into var changes nothing
            seed[key] = seed[key] + (bn_eps - _BN_EPS)
    return seed, about


def save_seed(seed: Mapping[str, Tensor], about: Mapping[str, str], path: Path) -> None:
    """Write a seed so that :func:`read_seed` gives back the same tensors and ``about``.

    The file appears at once and whole: an interruption leaves what was there before.

    Raises:
        OSError: The file cannot be written.
    """
    meta = {**about, "format": _FORMAT, "bn_eps": _BN_EPS}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            torch.save({"meta": meta, "state_dict": dict(seed)}, file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_seed(seed: Mapping[str, Tensor], images: Tensor) -> float:
    """Check on photographs that a seed was converted rightly.

    The statistics that each BN stored in training are compared with those of the photographs. A
    seed passes if they are near, and if none of a few deliberate mistakes (kernels transposed,
    images scaled in another way) brings them nearer, which would undo a mistake in the seed.
    Not told: BGR for RGB, or the stem's and all depthwise kernels transposed together (both equal a
    change of the photographs, to which statistics are blind), and BN eps.

    Args:
        seed: What :func:`load_seed` returns.
        images: Normalised photographs N×3×H×W, more than a few and upright.

    Returns:
        The mean over channels, then layers, of |photographs' mean − stored mean| / stored standard
        deviation: about 0.1 to 0.3 for a good seed.

    Raises:
        InputError: The seed does not pass.
    """
    deviation, spread = statistics_deviation(seed, images)
    # negated, so that NaN does not pass
    if not (deviation < MAX_MEAN_DEVIATION and spread < MAX_SPREAD_DEVIATION):
        raise InputError(
            "the seed's BN statistics do not fit photographs, so it was converted wrongly: means "
            f"{deviation:.2f} standard deviations off (expected below {MAX_MEAN_DEVIATION}), "
            f"standard deviations by a factor of e^{spread:.2f} (below e^{MAX_SPREAD_DEVIATION})"
        )
    stem = {"blocks.0.0.weight": seed["blocks.0.0.weight"]}
    depthwise = {
        key: seed[key] for key, shape in _expected_shapes().items() if shape[1:] == (1, 3, 3)
    }
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    keras_images = (images * std + mean) / _KERAS_HALF_RANGE - 1
    for mistake, changed_seed, changed_images in (
        ("images from -1 to 1 instead of ImageNet's mean and std", seed, keras_images),
        ("the stem's kernels transposed", {**seed, **_transposed(stem)}, images),
        ("the depthwise kernels transposed", {**seed, **_transposed(depthwise)}, images),
    ):
        changed, _ = statistics_deviation(changed_seed, changed_images)
        if not deviation < changed:
            raise InputError(
                "the seed was converted wrongly: its BN statistics fit photographs better with "
                f"{mistake} ({changed:.3f} standard deviations off instead of {deviation:.3f})"
            )
    return deviation


@torch.no_grad()
def statistics_deviation(seed: Mapping[str, Tensor], images: Tensor) -> tuple[float, float]:
    """How far the statistics of normalised images N×3×H×W lie from those stored in a seed's BNs.

    Returns:
        Of the means, in stored standard deviations, and of the standard deviations, as the absolute
        logarithm of the ratio; each averaged over channels, then layers.
    """
    network = _empty_network().eval()
    network.load_state_dict({key: seed[key] for key in _expected_shapes()}, assign=True)
    of_means, of_stds = [], []

    def compare(bn: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        stored = bn.running_var + bn.eps
        of_means.append(((mean - bn.running_mean).abs() / stored.sqrt()).mean())
        of_stds.append((((variance + bn.eps) / stored).log().abs() / 2).mean())

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(compare)
    network(images)
    return torch.stack(of_means).mean().item(), torch.stack(of_stds).mean().item()


def _transposed(kernels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.transpose(2, 3) for key, value in kernels.items()}


def _read_torch(path: Path, where: str) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """The tensors of a PyTorch file under our keys, the BN eps they are for, and their source."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "truncated, or not a checkpoint"
        if "GLOBAL" in str(error):  # pickle's name for an import
            what = "refused, it holds Python objects or code besides tensors"
        raise InputError(f"{where}: {what}") from None
    except Exception:  # whatever a reader of archives may raise on arbitrary bytes
        raise InputError(f"{where}: truncated, or not a checkpoint") from None

    if not isinstance(content, Mapping):
        raise InputError(f"{where}: holds a {type(content).__name__}, expected a state dict")
    about = {"source": "the paper's released seed", "licence": "see its authors' release"}
    # A bare dict with our keys is the released seed: what this project or mmengine writes is
    # wrapped, and says so or has PyTorch's eps.
    bn_eps = _RELEASED_BN_EPS
    if isinstance(content.get("state_dict"), Mapping):
        meta = content.get("meta") if isinstance(content.get("meta"), Mapping) else {}
        bn_eps = meta.get("bn_eps", _BN_EPS)
        if not isinstance(bn_eps, float) or not 0 < bn_eps < 0.1:
            raise InputError(f"{where}: bn_eps is {bn_eps!r}, expected a number such as 1e-05")
        about = {key: str(meta.get(key, "unknown")) for key in about}
        content = content["state_dict"]

    tensors = {
        key.removeprefix("module."): value for key, value in content.items() if isinstance(key, str)
    }
    if any(key.startswith("features.") for key in tensors):
        ours = dict(zip(_torchvision_layers(), _our_layers(), strict=True))
        ours["classifier.1"] = "classifier"
        renamed = {}
        for key, value in tensors.items():
            layer, _, name = key.rpartition(".")
            renamed[f"{ours.get(layer, layer)}.{name}"] = value
        about = {"source": "torchvision's MobileNetV2", "licence": "BSD-3-Clause (torchvision)"}
        return renamed, _BN_EPS, about
    return tensors, bn_eps, about


def _read_keras(path: Path, where: str) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """The tensors of a Keras Applications file, for images normalised as ours.

    Keras' stride-2 convs pad at the bottom and right only, ours on all sides; the weights carry
    over all the same (statistics on photographs barely change).
    """
    names = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    names |= {"weight": "gamma", "bias": "beta"}
    shapes = _expected_shapes()
    tensors = {}
    try:
        with h5py.File(path, "r") as file:
            stored = _keras_datasets(file)
            for layer, keras_layer in zip(_our_layers(), _keras_layers(), strict=True):
                conv = len(shapes[f"{layer}.weight"]) == 4
                for name in ("weight",) if conv else names:
                    key = f"{layer}.{name}"
                    keras_key = f"{keras_layer}/{'kernel' if conv else names[name]}"
                    if keras_key not in stored:
                        raise InputError(
                            f"{where}: no {keras_key!r}; this is not Keras Applications' "
                            "MobileNetV2 (width 1.0)"
                        )
                    tensors[key] = _keras_tensor(stored[keras_key], shapes[key], where, keras_key)
    except InputError:
        raise
    except Exception:  # as above
        raise InputError(f"{where}: truncated, or not a Keras file") from None
    _normalise_as_imagenet(tensors)
    about = {"source": "Keras Applications' MobileNetV2", "licence": "Apache-2.0 (Keras)"}
    return tensors, _KERAS_BN_EPS, about


def _keras_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """'layer/name' → dataset. Versions of Keras differ in the groups around and in ``:0`` after."""
    stored = {}

    def visit(path: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer_weights"):
            layer, name = path.rpartition("/")[0].rpartition("/")[2], path.rpartition("/")[2]
            name = name.removesuffix(":0").replace("depthwise_kernel", "kernel")
            stored[f"{layer}/{name}"] = item

    file.visititems(visit)  # follows no links to other files
    return stored


def _keras_tensor(dataset: h5py.Dataset, shape: tuple[int, ...], where: str, name: str) -> Tensor:
    """A dataset as a tensor of ``shape``; kernels are height×width×in×out (depthwise: ×channels×1).

    Shape, type and place are looked at before anything is read.
    """
    depthwise = len(shape) == 4 and shape[1] == 1
    # axes of the stored kernel, in the order C_out, C_in, height, width
    axes = () if len(shape) == 1 else (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    expected = tuple(shape[axes.index(axis)] for axis in range(4)) if axes else shape
    if dataset.shape != expected:
        raise InputError(f"{where}: {name!r} is {_size(dataset.shape)}, expected {_size(expected)}")
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
    scale = torch.tensor(IMAGE_STD) / _KERAS_HALF_RANGE
    shift = torch.tensor(IMAGE_MEAN) / _KERAS_HALF_RANGE - 1
    tensors["blocks.0.1.running_mean"] -= weight.sum((2, 3)) @ shift
    tensors["blocks.0.0.weight"] = weight * scale.view(1, 3, 1, 1)


def _our_layers() -> list[str]:
    """The seed's convs and BNs by name, in the order of computation."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in _expected_shapes()))


def _torchvision_layers() -> list[str]:
    """torchvision's names of :func:`_our_layers`."""
    parts = ("0.0", "0.1", "1.0", "1.1", "2", "3")
    blocks = [f"features.{block}.conv.{part}" for block in range(2, 18) for part in parts]
    first = [f"features.1.conv.{part}" for part in ("0.0", "0.1", "1", "2")]
    return ["features.0.0", "features.0.1", *first, *blocks, "features.18.0", "features.18.1"]


def _keras_layers() -> list[str]:
    """Keras Applications' names of :func:`_our_layers`."""
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    blocks = [f"block_{block}_{part}" for block in range(1, 17) for part in parts]
    first = [f"expanded_conv_{part}" for part in parts[2:]]
    return ["Conv1", "bn_Conv1", *first, *blocks, "Conv_1", "Conv_1_bn"]


@cache
def _expected_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the seed without its classifier."""
    return {key: tuple(value.shape) for key, value in _empty_network().state_dict().items()}


def _empty_network() -> FNABackbone:
    """The seed's network without its classifier, on the meta device."""
    with torch.device("meta"):
        return FNABackbone(NET_CONFIG, last_channels=_LAST_CHANNELS)


def _checked(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The seed's tensors as float32, each of them there, in its shape and finite.

    BN's counter may be lacking; keys that are neither blocks nor a classifier are dropped.
    """
    expected = dict(_expected_shapes())
    if extra := [key for key in tensors if key.startswith("blocks.") and key not in expected]:
        raise InputError(f"{where}: {extra[0]!r} is no part of MobileNetV2; a seed of another net")
    if "classifier.weight" in tensors or "classifier.bias" in tensors:
        bias = tensors.get("classifier.bias")
        classes = len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 else 1000
        expected |= {"classifier.weight": (classes, _LAST_CHANNELS), "classifier.bias": (classes,)}

    seed = {}
    for key, shape in expected.items():
        value = tensors.get(key)
        if key.endswith("num_batches_tracked"):
            # only momentum=None would use it, and training a seed further starts anew
            seed[key] = torch.tensor(0)
            continue
        if value is None:
            raise InputError(
                f"{where}: no {key!r}, expected {_size(shape)}; not a MobileNetV2 seed"
            )
        if not isinstance(value, Tensor) or not _is_plain(value):
            raise InputError(f"{where}: {key!r} is not an ordinary tensor of real numbers")
        if tuple(value.shape) != shape:
            raise InputError(
                f"{where}: {key!r} is {_size(value.shape)}, expected {_size(shape)}; not "
                "MobileNetV2 at width 1.0"
            )
        seed[key] = value.detach().float().clone()
        negative = key.endswith("running_var") and (seed[key] < 0).any()
        if negative or not seed[key].isfinite().all():
            raise InputError(f"{where}: {key!r} holds numbers that cannot be; the file is damaged")
    return seed


def _is_plain(value: Tensor) -> bool:
    dense = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
    return dense and value.is_floating_point()


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"
