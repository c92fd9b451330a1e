"""The operations that every network here is made of, and their names.

``kK_eE`` is an MBConv with a KxK depthwise convolution and expansion E; ``skip`` is the identity
(paper, section 3.1.1; Tan et al., MnasNet, for the search space).
"""

import re

from torch import Tensor, nn

from .errors import InputError

SKIP = "skip"
_NAME = re.compile(r"k([1-9]\d?)_e([1-9]\d?)")


def parse_op(name: str) -> tuple[int, int] | None:
    """``'k5_e6'`` → (kernel size 5, expansion 6); ``'skip'`` → None.

    Raises:
        InputError: The name is neither, or the kernel size is even.
    """
    if name == SKIP:
        return None
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(f"unknown op {name!r}, expected 'kK_eE' such as 'k3_e6', or 'skip'")
    kernel_size, expansion = map(int, match.groups())
    if kernel_size % 2 == 0:
        raise InputError(
            f"op {name!r} has an even kernel size; expected an odd one such as 3, 5, 7"
        )
    return kernel_size, expansion


def conv_bn_act(in_channels: int, out_channels: int, kernel_size: int, **conv) -> list[nn.Module]:
    """[conv without bias, BN, ReLU6]; the padding keeps the size up to the stride."""
    padding = conv.get("dilation", 1) * (kernel_size - 1) // 2
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False, **conv),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    ]


class MBConv(nn.Module):
    """Inverted residual block: expand 1x1, depthwise KxK, project 1x1, each with BN.

    ``op`` numbers its parts as the released checkpoints do: without expansion (E = 1) 0 depthwise,
    1 BN, 2 act, 3 project, 4 BN; else 0 expand, 1 BN, 2 act, 3 depthwise, 4 BN, 5 act, 6 project,
    7 BN.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expansion: int,
        stride: int = 1,
        dilation: int = 1,
    ):
        super().__init__()
        hidden = in_channels * expansion
        expand = conv_bn_act(in_channels, hidden, 1) if expansion > 1 else []
        depthwise = conv_bn_act(
            hidden, hidden, kernel_size, stride=stride, dilation=dilation, groups=hidden
        )
        project = conv_bn_act(hidden, out_channels, 1)[:2]
        self.op = nn.Sequential(*expand, *depthwise, *project)
        self.residual = in_channels == out_channels and stride == 1

    def forward(self, x: Tensor, return_expanded: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉.

        With ``return_expanded``, which needs E > 1, what goes into the depthwise conv comes along:
        the activation after the expand conv, N×(E·C_in)×H×W.
        """
        if not return_expanded:
            return x + self.op(x) if self.residual else self.op(x)
        expanded = self.op[:3](x)
        output = self.op[3:](expanded)
        return (x + output if self.residual else output), expanded


def build_op(
    name: str, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """The module of an op: an :class:`MBConv`, or the identity for ``skip``.

    Raises:
        InputError: Unknown name, or a ``skip`` where channels or size change.
    """
    parsed = parse_op(name)
    if parsed is None:
        if in_channels != out_channels or stride != 1:
            raise InputError(
                "'skip' stands where channels or size change; expected a real op there"
            )
        return nn.Identity()
    return MBConv(in_channels, out_channels, *parsed, stride=stride, dilation=dilation)


class StageBlock(nn.Module):
    """The layers of one row of a net_config; the first of them has the stride."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, return_expanded: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉.

        With ``return_expanded``, the first layer's expanded activation comes along.
        """
        if not return_expanded:
            return self.layers(x)
        x, expanded = self.layers[0](x, return_expanded=True)
        return self.layers[1:](x), expanded
