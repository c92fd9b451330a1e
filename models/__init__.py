"""The networks of FNA and what is known about them."""

from .backbone import FNABackbone
from .cost import count_madds, count_params
from .errors import InputError, SampleError
from .net_config import NetConfig
from .remap import Remap, remap
from .seed import MobileNetV2Seed, load_seed
from .supernet import FNASuperNet

__all__ = [
    "FNABackbone",
    "FNASuperNet",
    "InputError",
    "MobileNetV2Seed",
    "NetConfig",
    "Remap",
    "SampleError",
    "count_madds",
    "count_params",
    "load_seed",
    "remap",
]
