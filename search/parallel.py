"""Several processes that search together: each computes the same path on its own images."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn

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


def average_gradients(parameters: Iterable[nn.Parameter], finite: Tensor) -> bool:
    """Average gradients over all processes, in one message per type of tensor.

    Parameters that no process used keep no gradient, so that momentum and weight decay leave them
    alone; where only some used one, the others count as zero. One process averages nothing.

    Args:
        parameters: The same ones in the same order in every process.
        finite: Whether this process' loss is, a boolean scalar.

    Returns:
        Whether all processes' losses are finite. If not, gradients stay as they are.
    """
    if get_world_size() == 1:
        return bool(finite)
    parameters = list(parameters)
    flags = [parameter.grad is not None for parameter in parameters]
    # one message tells of the gradients and of the loss
    flags = torch.tensor([*flags, False], dtype=torch.uint8).to(finite.device)
    flags[-1] = ~finite
    all_reduce(flags, op="max")
    *used, broken = flags.tolist()
    if broken:
        return False
    learning = [p for p, is_used in zip(parameters, used, strict=True) if is_used]
    for parameter in learning:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for dtype in {parameter.grad.dtype: None for parameter in learning}:
        alike = [p for p in learning if p.grad.dtype == dtype]
        message = torch.cat([p.grad.flatten() for p in alike])
        all_reduce(message, op="mean")
        # the message's parts are the gradients from here on: nothing is copied back
        for p, part in zip(alike, message.split([p.numel() for p in alike]), strict=True):
            p.grad = part.view_as(p)
    return True
