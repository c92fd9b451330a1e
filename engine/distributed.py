"""Several processes: what mmengine and torch leave out, on CPU and for a super network."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, all_reduce_params, get_world_size
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, distributed, nn


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

    No subclass of torch's, which DistributedDataParallel refuses on CPU too. Statistics are taken
    in float32 whatever the input's type, as torch's are under autocast.
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


def _synchronize_bn_on_cpu(module: nn.Module) -> None:
    """Make what mmengine has converted by cfg.sync_bn work on CPU tensors."""
    for layer in module.modules():
        if type(layer) is nn.SyncBatchNorm:
            layer.__class__ = CPUSyncBatchNorm


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for models on CPU: no device ids, and BN that synchronizes there."""

    def __init__(self, module: nn.Module, device_ids=None, broadcast_buffers=False, **kwargs):
        _synchronize_bn_on_cpu(module)
        super().__init__(
            module=module, device_ids=None, broadcast_buffers=broadcast_buffers, **kwargs
        )


@MODEL_WRAPPERS.register_module()
class SampledPathParallel(nn.Module):
    """Data parallelism for a super network: every process holds all of it and computes one path.

    The buckets of DistributedDataParallel would carry the gradients of all paths. Here the loop
    averages those of the parameters in use, by :func:`average_gradients`.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        if next(module.parameters()).device.type == "cpu":
            _synchronize_bn_on_cpu(module)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def val_step(self, data: dict | tuple | list) -> list:
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        return self.module.test_step(data)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over all processes, in one message a type of tensor.

    Parameters that no process used keep no gradient, so that momentum and weight decay leave them
    alone; where only some used one, the others count as zero. One process: nothing happens.

    Args:
        parameters: The same ones in the same order in every process.
    """
    if get_world_size() == 1:
        return
    parameters = list(parameters)
    used = torch.tensor([parameter.grad is not None for parameter in parameters])
    used = used.to(parameters[0].device, torch.uint8)
    all_reduce(used, op="max")
    learning = [p for p, is_used in zip(parameters, used.tolist(), strict=True) if is_used]
    for parameter in learning:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    all_reduce_params([parameter.grad for parameter in learning], op="mean")


def shut_down() -> None:
    """Leave the process group, which warns at exit where nobody did."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
