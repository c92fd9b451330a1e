"""How any run runs, on mmengine's Runner; importing it registers what configs name."""

from .bn_statistics import UpdateBNStatistics
from .checkpoints import WholeCheckpointHook
from .compat.cpu import CPUAmpOptimWrapper, CPUDistributedDataParallel
from .compat.safe_load import PlainHistory
from .hooks import ChannelsLast, CheckModel, ConvertReleased, MatchCheckpoint
from .resume import (
    DueEvaluation,
    SeededBatchSampler,
    SeededDataset,
    SeededEpochLoop,
    SeededIterLoop,
)

__all__ = [
    "CPUAmpOptimWrapper",
    "CPUDistributedDataParallel",
    "ChannelsLast",
    "CheckModel",
    "ConvertReleased",
    "DueEvaluation",
    "MatchCheckpoint",
    "PlainHistory",
    "SeededBatchSampler",
    "SeededDataset",
    "SeededEpochLoop",
    "SeededIterLoop",
    "UpdateBNStatistics",
    "WholeCheckpointHook",
]
