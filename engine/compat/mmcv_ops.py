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
from torch.autograd.function import once_differentiable

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
    sys.modules[EXT_NAME] = ext
    from mmcv import ops

    # in place of a function of mmcv's that would call the compiled op, in the logits' type
    ops.sigmoid_focal_loss = ops.focal_loss.sigmoid_focal_loss = sigmoid_focal_loss


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


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The focal loss of every logit (Lin et al., Focal Loss for Dense Object Detection).

    With p the probability given to the right answer of one logit (that it is the target's class,
    or that it is not), the loss is -a (1 - p)^gamma log(p), where a is alpha for the target's
    class and 1 - alpha for the others. Half-precision logits give a loss in float32.

    Args:
        input: (N, C) logits.
        target: (N,) int64 classes; any value outside [0, C), such as C or -1, is background.
        gamma: how strongly well classified logits are played down, >= 0.
        alpha: share of the target's class in the balance, in [0, 1].
        weight: (C,) factors by the target's class (background counts 1), or None.
        reduction: "none", "sum", or "mean", the sum divided by N.

    Returns:
        (N, C), or a scalar.
    """
    # In float16, the gradient of every background below a probability of 1e-3 would be 0 before a
    # scaled loss could multiply it.
    logits = input.to(_at_least_float32(input.dtype))
    with_slopes = logits.requires_grad and torch.is_grad_enabled()
    losses = _FocalLoss.apply(logits, target, gamma, alpha, weight, with_slopes)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / len(input)


class _FocalLoss(torch.autograd.Function):
    """Losses (N, C) of logits (N, C), in few passes over them: see `sigmoid_focal_loss`.

    Nearly all of the logits are of wrong classes, so all of them are taken for such. Then the one
    of each row's class is put right: it is a wrong class's at the negated logit. Nothing waits to
    learn how many those are, as a GPU would to list them.
    """

    @staticmethod
    def forward(
        ctx,
        logits: Tensor,
        target: Tensor,
        gamma: float,
        alpha: float,
        weight: Tensor | None,
        with_slopes: bool,
    ) -> Tensor:
        results = _of_wrong_classes(logits, gamma, 1 - alpha, with_slopes)
        classes = logits.size(1)
        right = target.clamp(0, classes - 1)[:, None]
        foreground = ((target >= 0) & (target < classes))[:, None]
        right_results = _of_wrong_classes(-logits.gather(1, right), gamma, alpha, with_slopes)
        for result, right_result, sign in zip(results, right_results, (1, -1), strict=False):
            as_it_is = result.gather(1, right)
            result.scatter_(1, right, torch.where(foreground, sign * right_result, as_it_is))
            if weight is not None:
                result.mul_(torch.where(foreground, weight[right].to(result.dtype), 1.0))
        ctx.save_for_backward(*results[1:])
        return results[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return grad * slopes, None, None, None, None, None


def _of_wrong_classes(
    logits: Tensor, gamma: float, factor: float, with_slopes: bool
) -> tuple[Tensor, ...]:
    """factor * p^gamma * -log(1 - p), p a class's probability; where asked for, its slopes too.

    The derivative by the logit is factor * p^gamma * (p + gamma * (1 - p) * -log(1 - p)).
    """
    hits = torch.sigmoid(logits)
    misses = F.softplus(logits)  # -log(1 - p), exact where 1 - p itself would round to 0
    powers, zero = hits.pow(gamma), logits.new_zeros(())
    losses = torch.addcmul(zero, powers, misses, value=factor)
    if not with_slopes:
        return (losses,)
    slopes = torch.lerp(misses.mul_(gamma), logits.new_ones(()), hits)
    return losses, torch.addcmul(zero, powers, slopes, value=factor)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
