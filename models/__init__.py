"""The networks of FNA and what is known about them."""

from .backbone import FNABackbone
from .budget import BudgetTerm, cost_term
from .cost import (
    COSTS,
    CostTerm,
    MAdds,
    count_madds,
    count_params,
    expected_cost,
    price_list,
)
from .errors import DataError, InputError, SampleError
from .inherit import Inherit
from .latency import Latency
from .net_config import NetConfig
from .ops import register_op
from .remap import Remap, remap
from .search_space import SearchSpace
from .seed import load_seed
from .seeds.released import rename_released, rename_to_released
from .supernet import FNASuperNet

__all__ = [
    "COSTS",
    "BudgetTerm",
    "CostTerm",
    "DataError",
    "FNABackbone",
    "FNASuperNet",
    "Inherit",
    "InputError",
    "Latency",
    "MAdds",
    "NetConfig",
    "Remap",
    "SampleError",
    "SearchSpace",
    "cost_term",
    "count_madds",
    "count_params",
    "expected_cost",
    "load_seed",
    "price_list",
    "register_op",
    "remap",
    "rename_released",
    "rename_to_released",
]
