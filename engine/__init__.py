"""How any run runs, on mmengine's Runner; importing it registers what configs name.

It also prepares the libraries, in a user's own program too: mmdet and mmseg find the compiled ops
that mmcv lacks, and mmengine loads checkpoints without running what they hold.
"""

from .bn_statistics import UpdateBNStatistics
from .checkpoints import WholeCheckpointHook
from .compat.cpu import CPUAmpOptimWrapper, CPUDistributedDataParallel
from .compat.mmcv_ops import install
from .compat.safe_load import PlainHistory, install_safe_loading
from .data import CheckBatches, ReportData
from .hooks import ChannelsLast, CheckModel, ConvertReleased, KeepNetConfig, MatchCheckpoint
from .model import init_model
from .pictures import DrawPredictions
from .resume import (
    DueEvaluation,
    SeededBatchSampler,
    SeededDataset,
    SeededEpochLoop,
    SeededIterLoop,
)

install()  # before mmdet's or mmseg's models are imported
install_safe_loading()

__all__ = [
    "CPUAmpOptimWrapper",
    "CPUDistributedDataParallel",
    "ChannelsLast",
    "CheckBatches",
    "CheckModel",
    "ConvertReleased",
    "DrawPredictions",
    "DueEvaluation",
    "KeepNetConfig",
    "MatchCheckpoint",
    "PlainHistory",
    "ReportData",
    "SeededBatchSampler",
    "SeededDataset",
    "SeededEpochLoop",
    "SeededIterLoop",
    "UpdateBNStatistics",
    "WholeCheckpointHook",
    "init_model",
]
