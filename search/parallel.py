"""Several processes that search together: each computes the same path on its own images."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, all_reduce_params, get_world_size
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from engine.compat.cpu import synchronize_bn_on_cpu


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
            synchronize_bn_on_cpu(module)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def val_step(self, data: dict | tuple | list) -> list:
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        return self.module.test_step(data)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over all processes, in one message per type of tensor.

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
