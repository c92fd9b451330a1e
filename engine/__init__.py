"""How any run runs, on mmengine's Runner; importing it registers what configs name."""

from .bn_statistics import UpdateBNStatistics
from .compat.cpu import CPUAmpOptimWrapper, CPUDistributedDataParallel
from .compat.safe_load import PlainHistory
from .hooks import ChannelsLast, CheckModel, ConvertReleased, MatchCheckpoint
from .resume import SeededBatchSampler, SeededDataset, SeededIterLoop

__all__ = [
    "CPUAmpOptimWrapper",
    "CPUDistributedDataParallel",
    "ChannelsLast",
    "CheckModel",
    "ConvertReleased",
    "MatchCheckpoint",
    "PlainHistory",
    "SeededBatchSampler",
    "SeededDataset",
    "SeededIterLoop",
    "UpdateBNStatistics",
]
