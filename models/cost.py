"""Parameters and multiply-adds, counted as the paper counts them."""

import copy

import torch
from torch import nn


def count_params(module: nn.Module) -> int:
    """Number of parameters: weights, biases and BN's affine terms, without running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_madds(module: nn.Module, input_size: tuple[int, int], channels: int = 3) -> int:
    """Multiply-adds of one forward pass on an image of ``input_size`` = (height, width) in pixels.

    A conv (or linear) layer counts its multiply-adds, and one add for each output element where it
    has a bias; BN, activations, resizing and pooling count nothing. So counted, the paper's tables
    come out to their last digit. The pass runs on the meta device: it computes no image and leaves
    ``module`` as it is. Detectors and segmentors of mmdet and mmseg are counted as they train:
    backbone, neck and heads on one image. ``channels`` are the input's, for a layer counted alone.
    """
    madds = 0

    def count(layer: nn.Module, _, output: torch.Tensor) -> None:
        nonlocal madds
        # weight is C_out × (what one output element multiplies)
        madds += output.numel() * (layer.weight[0].numel() + (layer.bias is not None))

    meta = copy.deepcopy(module).to("meta").eval()
    for layer in meta.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        meta(torch.empty(1, channels, *input_size, device="meta"))
    return madds
