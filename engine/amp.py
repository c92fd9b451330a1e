"""``--amp``: mixed precision by mmengine on a GPU, and by bfloat16 autocast on CPU."""

from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision on CPU, which mmengine's wrapper refuses: bfloat16 needs no loss scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module):
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield


def use_amp(cfg: Config) -> None:
    """Make a config's optimizer wrapper, or each of several, run forward in mixed precision."""
    wrappers = cfg.optim_wrapper
    for wrapper in [wrappers] if "optimizer" in wrappers else [wrappers.weights, wrappers.arch]:
        if torch.cuda.is_available():
            wrapper.type = "AmpOptimWrapper"
            wrapper.loss_scale = "dynamic"
        else:
            wrapper.type = "CPUAmpOptimWrapper"
