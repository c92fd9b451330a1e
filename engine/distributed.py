"""Several processes on CPU: what mmengine and torch leave out there."""

import torch
import torch.distributed.nn.functional as dist_fn
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, distributed, nn


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """Synchronized BN for CPU tensors, which torch's own refuses; gradients flow across ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C×H×W, normalised by the statistics of all ranks' N while training."""
        if not self.training:
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        total = torch.cat([x.sum(dims), x.new_tensor([x.numel() / x.size(1)])])
        total, count = dist_fn.all_reduce(total).split([x.size(1), 1])
        mean = total / count
        centred = x - mean.view(shape)
        var = dist_fn.all_reduce(centred.square().sum(dims)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = self.momentum or 1 / self.num_batches_tracked
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(var * count / (count - 1), momentum)
        normalized = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for models on CPU: no device ids, and BN that synchronizes there."""

    def __init__(self, module: nn.Module, device_ids=None, broadcast_buffers=False, **kwargs):
        for layer in module.modules():
            if type(layer) is nn.SyncBatchNorm:  # mmengine has converted to it by cfg.sync_bn
                layer.__class__ = CPUSyncBatchNorm
        super().__init__(
            module=module, device_ids=None, broadcast_buffers=broadcast_buffers, **kwargs
        )


def shut_down() -> None:
    """Leave the process group, which warns at exit where nobody did."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
