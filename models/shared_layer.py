"""A searched layer whose candidates share one set of weights.

It holds the parts of one MBConv, of its candidates' largest kernel and expansion; each candidate is
a slice: of a K×K kernel the centre, of the expanded channels the first (Stamoulis et al.,
Single-Path NAS, 2019; weight entanglement: Chen et al., AutoFormer, 2021). One pass computes the
mixture of all of them, where separate candidates need one each.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .errors import InputError
from .ops import SKIP, MBConv, Norm, Op, parse_op
from .searched_layer import SearchedLayer


class SharedLayer(SearchedLayer):
    """Candidates ``kK_eE`` and ``skip`` as slices of one MBConv's ``expand, depthwise, project``.

    With all ops active, p = softmax(α / temperature) and r = 1 − p(skip): what a kernel size adds
    to the next smaller one is scaled by p(kernel size or a larger one) / r, the channels that an
    expansion adds by p(expansion or a larger one) / r before the projection, and the branch by r.
    Where p is 1 for one candidate, that is exactly this candidate.

    Args:
        candidates, in_channels, out_channels, stride, dilation, norm, temperature: As in
            :class:`MixedLayer`.

    Raises:
        InputError: A candidate is no slice of the largest: another op than an MBConv, or one
            without expansion (E = 1) among others with it.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        norm: Norm = nn.BatchNorm2d,
        temperature: float = 1.0,
    ):
        super().__init__(candidates, in_channels, out_channels, stride, dilation, norm, temperature)
        real = [parse_op(name) for name in self.candidates if name != SKIP]
        _check_nested(real)
        kernel = max(op.kernel_size for op in real)
        expansion = max(op.expansion for op in real)
        largest: MBConv = self._build(f"k{kernel}_e{expansion}")
        # its parts under their own names: a state-dict key means what it means in any network
        self.expand, self.depthwise = largest.expand, largest.depthwise
        self.project, self.residual = largest.project, largest.residual
        self.in_channels = in_channels
        self._ops = [parse_op(name) for name in self.candidates]
        self._kernels = sorted({op.kernel_size for op in real})
        self._expansions = sorted({op.expansion for op in real})
        self._describe()
        self.alpha = self._draw_alpha()

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        return self.forward_expanded(x)[0]

    def _describe(self) -> None:
        """Which candidates are at least of a size, and to which size an entry belongs."""

        def at_least(sizes: list[int], of: str) -> Tensor:  # size × candidate
            return torch.tensor(
                [[getattr(op, of) >= size for op in self._ops] for size in sizes]
            ).float()

        kernel, channels = self.depthwise[0].kernel_size[0], self.depthwise[0].out_channels
        distance = (torch.arange(kernel) - kernel // 2).abs()
        needed = 2 * torch.maximum(distance[:, None], distance[None]) + 1  # kernel size
        ring = torch.bucketize(needed, torch.tensor(self._kernels))
        block = torch.bucketize(
            torch.arange(channels) // self.in_channels + 1, torch.tensor(self._expansions)
        )
        for name, value in dict(
            ring=ring,
            block=block,
            at_least_kernel=at_least(self._kernels, "kernel_size"),
            at_least_expansion=at_least(self._expansions, "expansion"),
            real=torch.tensor([op.name != SKIP for op in self._ops]).float(),
        ).items():
            self.register_buffer(f"_{name}", value, persistent=False)

    def forward_expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and what goes into the depthwise conv: N×(E·C_in)×H×W."""
        if self.path is None:
            return self._mixture(x)
        op = self._ops[self.path]
        if op.name == SKIP:
            return x, x
        return self._slice(x, op)

    def _slice(self, x: Tensor, op: Op) -> tuple[Tensor, Tensor]:
        """One candidate."""
        conv, channels = self.depthwise[0], op.expansion * self.in_channels
        kernel = centre(conv.weight[:channels], op.kernel_size)
        padding = _padding(conv, op.kernel_size)

        def depthwise(y: Tensor) -> Tensor:
            return F.conv2d(y, kernel, None, conv.stride, padding, conv.dilation, channels)

        return self._convolve(x, channels, depthwise, self.project[0].weight[:, :channels])

    def _mixture(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All candidates at once."""
        p = self.probabilities()
        real = p @ self._real
        least = real.clamp_min(torch.finfo(p.dtype).tiny)  # all of p may be skip's
        rings = self._at_least_kernel @ p / least
        gates = (self._at_least_expansion @ p / least)[self._block]
        conv, project = self.depthwise[0], self.project[0].weight

        def depthwise(y: Tensor) -> Tensor:
            return ScaledRings.apply(y, rings, conv.weight, self._ring, conv, self._kernels)

        return self._convolve(x, len(gates), depthwise, project * gates.view(1, -1, 1, 1), real)

    def _convolve(
        self,
        x: Tensor,
        channels: int,
        depthwise: Callable[[Tensor], Tensor],
        project: Tensor,
        share: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The MBConv with these convs, of ``channels`` expanded ones; ``share`` scales it."""
        expanded = x
        if self.expand is not None:
            conv, norm, act = self.expand
            expanded = act(norm(F.conv2d(x, conv.weight[:channels])))
        _, norm, act = self.depthwise
        y = self.project[1](F.conv2d(act(norm(depthwise(expanded))), project))
        y = y if share is None else share * y
        return (x + y if self.residual else y), expanded


class ScaledRings(Function):
    """A depthwise conv whose kernel's rings are scaled: ring i by ``rings[i]``.

    As ``F.conv2d(x, weight * rings[ring], ...)`` computes it, but backward finds the gradient of
    each scale by a conv with that ring, and not by the gradient of the kernel. On CPUs PyTorch
    computes the latter 50 times as long as the conv, where the kernel is larger than 3x3.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        rings: Tensor,
        weight: Tensor,
        ring: Tensor,
        conv: nn.Conv2d,
        kernels: Sequence[int],
    ) -> Tensor:
        """N×C×H×W, scales, the C×1×K×K kernel, K×K ring of each entry, settings, rings' sizes."""
        ctx.save_for_backward(x, rings, weight, ring)
        ctx.conv, ctx.kernels = conv, kernels
        scaled = weight * rings[ring]
        return F.conv2d(x, scaled, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, rings, weight, ring = ctx.saved_tensors
        conv, factors = ctx.conv, rings[ring]
        # in mixed precision, forward has cast them so
        x, weight = x.to(grad.dtype), weight.to(grad.dtype)
        of_x, _, of_weight = ctx.needs_input_grad[:3]
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight * factors.to(grad.dtype), None, conv.stride, conv.padding,
            conv.dilation, False, [0, 0], conv.groups, [of_x, of_weight, False],
        )  # fmt: skip
        grad_rings = []
        for number, size in enumerate(ctx.kernels):
            alone = centre(weight * (ring == number), size)
            padding = _padding(conv, size)
            part = F.conv2d(x, alone, None, conv.stride, padding, conv.dilation, conv.groups)
            grad_rings.append((part * grad).sum(dtype=rings.dtype))
        grad_weight = grad_weight * factors if of_weight else None
        return grad_x, torch.stack(grad_rings), grad_weight, None, None, None


def centre(kernel: Tensor, size: int) -> Tensor:
    """The middle of C×1×K×K kernels: C×1×size×size."""
    cut = (kernel.shape[-1] - size) // 2
    return kernel[..., cut : cut + size, cut : cut + size]


def _padding(conv: nn.Conv2d, kernel_size: int) -> int:
    return conv.dilation[0] * (kernel_size - 1) // 2


def _check_nested(ops: Sequence[Op]) -> None:
    for op in ops:
        if op.build.func is not MBConv:
            raise InputError(
                f"share_weights: {op.name!r} is no slice of a larger op, expected such as 'k3_e6'"
            )
    if len({op.expansion == 1 for op in ops}) > 1:
        names = ", ".join(op.name for op in ops)
        raise InputError(
            f"share_weights: {names}: an op without expansion is no slice of one that has it, "
            "expected expansions of 1 only, or of 2 and more"
        )
