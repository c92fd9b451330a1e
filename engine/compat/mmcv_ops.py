"""The few compiled mmcv ops that the models use, without a compiler.

mmdet and mmseg import `mmcv.ops`, which needs the compiled module `mmcv._ext`. Where mmcv was
installed without it, `install()` puts a stand-in there: `nms` is torchvision's, the sigmoid focal
loss is written in PyTorch, and every other op is there to be imported but raises when called.
"""

import contextlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

EXT_NAME = "mmcv._ext"


def install() -> None:
    """Makes `import mmdet.models` and `import mmseg.models` work; call it before them.

    Does nothing where mmcv has its compiled ops, nor on a second call.
    """
    # True for the compiled module and for a stand-in of an earlier call, thanks to its __spec__.
    if importlib.util.find_spec(EXT_NAME) is not None:
        return
    ext = _StandIn(EXT_NAME)
    # mmengine asks importlib whether the ops are there, and that fails on a module without a spec.
    ext.__spec__ = ModuleSpec(EXT_NAME, loader=None)
    ext.nms = nms
    ext.sigmoid_focal_loss_forward = sigmoid_focal_loss_forward
    ext.sigmoid_focal_loss_backward = sigmoid_focal_loss_backward
    sys.modules[EXT_NAME] = ext


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Leaves out what mmdet and mmseg say on import about optional packages that nothing here uses.

    For `with quiet_imports(): import mmdet.datasets`; everything else that is printed or warned
    about stays. Meant for `datasets` and `evaluation`: `models` says nothing.
    """
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            # mmdet has a second, faster COCO metric that wants a package of its own.
            warnings.filterwarnings(
                "ignore",
                message="faster_coco_eval is not installed",
                category=UserWarning,
                module=r"mmdet\.evaluation\.metrics\.faster_coco_metric",
            )
            yield
    finally:
        for line in printed.getvalue().splitlines():
            # A debug message about the makers' own data format, which they print to stdout.
            if not line.startswith("Could not import OneDL"):
                print(line)


class _StandIn(types.ModuleType):
    """A module in which every op that is not set exists and raises when called."""

    def __getattr__(self, name: str) -> Callable:
        # Python itself looks for names such as __path__ and must be told that they are not there.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _missing_op(name)


def _missing_op(name: str) -> Callable:
    def op(*args, **kwargs):
        raise RuntimeError(
            f"mmcv op {name!r} is not available: the installed mmcv has no compiled ops; "
            "to get it, build onedl-mmcv from source with MMCV_WITH_OPS=1 and a C++ compiler "
            "(nvcc too for a GPU), after torch is installed"
        )

    return op


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels, any float type, on CPU or GPU.
        scores: (N,), any float type.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        offset: 0, or 1 where a box's width is x2 - x1 + 1 (the pixel-index convention).

    Returns:
        (K,) int64, the indices of the kept boxes, best score first.
    """
    # torchvision wants one type for both and has no half precision on CPU.
    dtype = _at_least_float32(torch.promote_types(boxes.dtype, scores.dtype))
    # Moving x2 and y2 by the offset adds it to every width and height, overlaps included.
    shift = torch.tensor([0, 0, offset, offset], dtype=dtype, device=boxes.device)
    return torchvision.ops.nms(boxes.to(dtype) + shift, scores.to(dtype), iou_threshold)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the focal loss of every logit into `output`.

    With p the probability given to the right answer of one logit (that it is the target's class,
    or that it is not), the loss is -a (1 - p)^gamma log(p), where a is alpha for the target's
    class and 1 - alpha for the others.

    Args:
        input: (N, C) logits.
        target: (N,) int64 classes; any value outside [0, C), such as C or -1, is background.
        weight: (C,) factors by the target's class (background counts 1), or empty for none.
        output: (N, C), overwritten.
        gamma: how strongly well classified logits are played down, >= 0.
        alpha: share of the target's class in the balance, in [0, 1].
    """
    sign, factor = _signs_and_factors(input, target, weight, alpha)
    # sign * logit is the logit of p; logsigmoid keeps log(p) exact where p itself would round to 0.
    logit = sign * input
    output.copy_(-factor * torch.sigmoid(-logit).pow(gamma) * F.logsigmoid(logit))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of each loss by its own logit into `grad_input`, (N, C).

    The other arguments are those of `sigmoid_focal_loss_forward`.
    """
    sign, factor = _signs_and_factors(input, target, weight, alpha)
    logit = sign * input
    miss = torch.sigmoid(-logit)
    slope = miss.pow(gamma) * (gamma * torch.sigmoid(logit) * F.logsigmoid(logit) - miss)
    grad_input.copy_(sign * factor * slope)


def _signs_and_factors(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Returns, in float32 at least, (N, C) signs (1 at the target's class, else -1) and factors.

    A factor is alpha or 1 - alpha, times the weight of the row's target.
    """
    num_classes = input.size(1)
    dtype = _at_least_float32(input.dtype)
    positive = target[:, None] == torch.arange(num_classes, device=target.device)
    sign = positive.to(dtype) * 2 - 1
    factor = torch.where(positive, alpha, 1 - alpha).to(dtype)
    if weight.numel():
        foreground = (target >= 0) & (target < num_classes)
        row_weight = weight.to(dtype)[target.clamp(0, num_classes - 1)]
        factor = factor * torch.where(foreground, row_weight, 1.0)[:, None]
    return sign, factor


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
