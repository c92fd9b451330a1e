"""Seed files of every known form, brought to the one that training reads."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import InputError, printable
from ..files import load_tensors
from ..net_config import NetConfig
from ..seed import checked_tensors, expected_shapes, known_origin
from .keras import BN_EPS as KERAS_BN_EPS
from .keras import is_hdf5, read_keras
from .released import rename_released
from .torchvision import is_torchvision, rename_torchvision

LAST_CHANNELS = 1280  # of MobileNetV2's last 1x1 conv
NET_CONFIG = Path(__file__).parents[2] / "configs" / "net_configs" / "mobilenetv2.txt"
_BN_EPS = 1e-5  # of every network here
_RELEASED_BN_EPS = 1e-3


def mobilenetv2_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the seed without its classifier, in the order of computation."""
    return expected_shapes(NetConfig.parse(NET_CONFIG), LAST_CHANNELS)


def read_foreign_seed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A MobileNetV2 of width 1.0 from a file of any known form.

    Known are: the paper's released seed (a bare state dict, parts numbered); torchvision's state
    dict; Keras Applications' HDF5; and what this project or mmengine wrote, parts named or
    numbered.

    Returns:
        Tensors and ``meta`` for :func:`models.seed.save_seed`.

    Raises:
        InputError: The file is missing, damaged, holds code, or is another network.
    """
    path, where = Path(path), f"seed file {printable(str(path))}"
    try:
        hdf5 = is_hdf5(path)
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise InputError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    if hdf5:
        tensors, bn_eps = read_keras(path, mobilenetv2_shapes(), where), KERAS_BN_EPS
        about = {"source": "Keras Applications' MobileNetV2", "licence": "Apache-2.0 (Keras)"}
    else:
        tensors, bn_eps, about = _read_torch(path, where)
    net_config = NetConfig.parse(NET_CONFIG)
    last = tensors.get(f"blocks.{len(net_config.stages) + 1}.conv.0.weight")
    if last is None:
        raise InputError(
            f"{where}: has no last 1x1 conv under a known name, expected a MobileNetV2"
        )
    try:
        seed = checked_tensors(tensors, net_config, where)
    except InputError as error:
        raise InputError(f"{error}; not MobileNetV2 at width 1.0") from None
    for key in seed:
        if key.endswith("running_var"):
            # BN divides by sqrt(var + eps): moving the difference into var changes nothing
            seed[key] = seed[key] + (bn_eps - _BN_EPS)
    return seed, {"net_config": str(net_config), **about}


def _read_torch(path: Path, where: str) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """The tensors of a PyTorch file under our keys, the BN eps they are for, and their source."""
    content = load_tensors(path, "seed file")
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
            raise InputError(
                f"{where}: bn_eps is a {type(bn_eps).__name__} or out of range, expected a number "
                "such as 1e-05"
            )
        about = known_origin(meta)
        content = content["state_dict"]

    tensors = {
        key.removeprefix("module."): value for key, value in content.items() if isinstance(key, str)
    }
    if is_torchvision(tensors):
        our_layers = list(dict.fromkeys(key.rpartition(".")[0] for key in mobilenetv2_shapes()))
        about = {"source": "torchvision's MobileNetV2", "licence": "BSD-3-Clause (torchvision)"}
        return rename_torchvision(tensors, our_layers), _BN_EPS, about
    return rename_released(tensors), bn_eps, about
