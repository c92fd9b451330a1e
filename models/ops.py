"""The operations that every network here is made of, and their names.

``kK_eE`` is an MBConv with a KxK depthwise convolution and expansion E; ``skip`` is the identity
(paper, section 3.1.1; Tan et al., MnasNet, for the search space).
:func:`register_op` adds others.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from .errors import InputError, shown

SKIP = "skip"
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}  # pattern of names → builder

Norm = Callable[[int], nn.Module]  # number of channels → the norm layer


@dataclass(frozen=True)
class Op:
    """What an op's name says.

    ``build(in_channels, out_channels, stride=, dilation=, norm=)`` makes its module. Where the name
    tells no kernel size or expansion, they are 0.
    """

    name: str
    build: Callable[..., nn.Module]
    kernel_size: int = 0
    expansion: int = 0


def register_op(pattern: str) -> Callable[[Callable], Callable]:
    """Make names that match ``pattern`` stand for a module, wherever ops are named.

    The decorated class or function is called with ``in_channels, out_channels, stride, dilation,
    norm`` and the pattern's named groups (numbers as ``int``), and returns a module N×C_in×H×W →
    N×C_out×⌈H/stride⌉×⌈W/stride⌉.

    Raises:
        ValueError: The pattern is already registered.
    """

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if pattern in _BUILDERS:
            raise ValueError(f"op {pattern!r} is already registered")
        _BUILDERS[pattern] = build
        return build

    return register


def parse_op(name: str) -> Op:
    """The op of a name such as ``'k5_e6'`` or ``'skip'``.

    Raises:
        InputError: No registered op has this name, or its kernel size is even.
    """
    found = ((build, re.fullmatch(pattern, name)) for pattern, build in _BUILDERS.items())
    build, match = next(((build, match) for build, match in found if match), (None, None))
    if match is None:
        raise InputError(
            f"unknown op {shown(name)}, expected 'kK_eE' such as 'k3_e6', 'skip', or an op that "
            "the config's custom_imports register"
        )
    settings = {key: int(v) if v.isdecimal() else v for key, v in match.groupdict().items()}
    op = Op(
        name,
        partial(build, **settings),
        settings.get("kernel_size", 0),
        settings.get("expansion", 0),
    )
    if "kernel_size" in settings and op.kernel_size % 2 == 0:
        raise InputError(
            f"op {name!r} has an even kernel size; expected an odd one such as 3, 5, 7"
        )
    return op


def build_op(
    name: str,
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    dilation: int = 1,
    norm: Norm = nn.BatchNorm2d,
) -> nn.Module:
    """The module of an op.

    Raises:
        InputError: Unknown name, or a ``skip`` where channels or size change.
    """
    op = parse_op(name)
    return op.build(in_channels, out_channels, stride=stride, dilation=dilation, norm=norm)


@register_op(SKIP)
def _skip(in_channels: int, out_channels: int, stride: int, dilation: int, norm: Norm) -> nn.Module:
    if in_channels != out_channels or stride != 1:
        raise InputError("'skip' stands where channels or size change; expected a real op there")
    return nn.Identity()


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, norm: Norm, **conv
) -> nn.Sequential:
    """Conv without bias, norm; the padding keeps the size up to the stride."""
    padding = conv.get("dilation", 1) * (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False, **conv),
        norm(out_channels),
    )


def conv_norm_act(*args, **kwargs) -> nn.Sequential:
    """As :func:`conv_norm`, with a ReLU6 after it."""
    return conv_norm(*args, **kwargs).append(nn.ReLU6(inplace=True))


@register_op(r"k(?P<kernel_size>[1-9]\d?)_e(?P<expansion>[1-9]\d?)")
class MBConv(nn.Module):
    """Inverted residual block: ``expand`` 1x1, ``depthwise`` KxK and ``project`` 1x1 convs.

    Without expansion (E = 1) there is no ``expand``. Inside a part, 0 is the conv and 1 its norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expansion: int,
        stride: int = 1,
        dilation: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        hidden = in_channels * expansion
        self.expand = conv_norm_act(in_channels, hidden, 1, norm) if expansion > 1 else None
        self.depthwise = conv_norm_act(
            hidden, hidden, kernel_size, norm, stride=stride, dilation=dilation, groups=hidden
        )
        self.project = conv_norm(hidden, out_channels, 1, norm)
        self.residual = in_channels == out_channels and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        return self.forward_expanded(x)[0]

    def forward_expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and what goes into the depthwise conv: N×(E·C_in)×H×W."""
        expanded = x if self.expand is None else self.expand(x)
        output = self.project(self.depthwise(expanded))
        return (x + output if self.residual else output), expanded
