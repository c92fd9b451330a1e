"""What mmengine and torch refuse to do without a GPU: mixed precision, several processes."""

from contextlib import contextmanager

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS, OPTIM_WRAPPERS
from torch import Tensor, distributed, nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision on CPU, which mmengine's wrapper refuses: bfloat16 needs no loss scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module):
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield


class _SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' tensors; every rank's gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        distributed.all_reduce(total)
        return total


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Synchronized BN for CPU tensors, which torch's own refuses; gradients flow across ranks.

    It is not a subclass of torch's, because DistributedDataParallel refuses that on CPU too.
    Statistics are taken in float32 whatever the input's type, as torch does under autocast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C×H×W, normalised by the statistics of all ranks' N while training."""
        if not self.training:
            return super().forward(x)
        dtype, x = x.dtype, x.float()
        dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        total = torch.cat([x.sum(dims), x.new_tensor([x.numel() / x.size(1)])])
        total, count = _SumOverRanks.apply(total).split([x.size(1), 1])
        mean = total / count
        centred = x - mean.view(shape)
        var = _SumOverRanks.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = self.momentum or 1 / self.num_batches_tracked
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(var * count / (count - 1), momentum)
        normalized = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(dtype)


def synchronize_bn_on_cpu(network: nn.Module) -> None:
    """Replace torch's synchronized BN, which ``cfg.sync_bn`` has put in, by one for CPU tensors."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.SyncBatchNorm:
                setattr(parent, name, _for_cpu(child))


def _for_cpu(norm: nn.SyncBatchNorm) -> CPUSyncBatchNorm:
    """The same layer; it shares the parameters and buffers."""
    settings = norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    twin = CPUSyncBatchNorm(*settings).train(norm.training)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(twin, name, getattr(norm, name))
    return twin


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for models on CPU: no device ids, and BN that synchronizes there."""

    def __init__(self, module: nn.Module, device_ids=None, broadcast_buffers=False, **kwargs):
        synchronize_bn_on_cpu(module)
        super().__init__(
            module=module, device_ids=None, broadcast_buffers=broadcast_buffers, **kwargs
        )
