"""The network of any net_config, as an mmengine backbone."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from .errors import InputError
from .net_config import NetConfig, Stage
from .ops import Norm, build_op, conv_norm_act, parse_op
from .search_space import SearchedStage

STEM_STRIDE = 2
_EXPANDED = re.compile(r"([1-9]\d*)\.expand")  # a map between two blocks
_DEFAULT_INIT = [
    dict(type="Kaiming", layer="Conv2d"),
    dict(type="Constant", val=1, layer="BatchNorm2d"),
]


def total_stride(stages: Sequence[Stage | SearchedStage]) -> int:
    """Stride of the last stage's map, where none dilates."""
    return math.prod((STEM_STRIDE, *(stage.stride for stage in stages)))


def strides_and_dilations(stage_strides: list[int], output_stride: int) -> list[tuple[int, int]]:
    """What stride a stage keeps, and its dilation, so that the last map has ``output_stride``.

    Walking the stages, once the accumulated stride (the stem's 2 included) has reached
    ``output_stride``, a stage's stride becomes 1 and the dilation of that stage and of all after it
    is multiplied by what its stride was (paper, section 4.2, after DeepLabv3).

    Returns:
        (stride, dilation) of every stage.

    Raises:
        InputError: The strides cannot give ``output_stride``.
    """
    accumulated, dilation, plan = STEM_STRIDE, 1, []
    for stride in stage_strides:
        if accumulated >= output_stride:
            dilation *= stride
            stride = 1
        accumulated *= stride
        plan.append((stride, dilation))
    if accumulated != output_stride:
        raise InputError(
            f"output_stride {output_stride}: the stem's stride {STEM_STRIDE} and the stages' "
            f"strides {list(stage_strides)} cannot give it"
        )
    return plan


class StageBlock(nn.Module):
    """The layers of one stage; the first of them has the stride."""

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        return self.layers(x)

    def forward_expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and the first layer's expanded activation, N×(E·C_in)×H×W."""
        x, expanded = self.layers[0].forward_expanded(x)
        return self.layers[1:](x), expanded


class LastConv(nn.Module):
    """The 1x1 conv, norm and ReLU6 after the last stage."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.conv = conv_norm_act(in_channels, out_channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×H×W."""
        return self.conv(x)


class StagedBackbone(BaseModule):
    """Stem, stages and, where asked for, the last 1x1 conv of MobileNetV2's family.

    Its blocks are numbered as in the released checkpoints: ``blocks.0`` the 3x3 stem with stride 2,
    ``blocks.1`` … the stages, then ``blocks.N.conv`` the last 1x1 conv.

    Args:
        stages: The stages, whose layers ``build_layer`` makes.
        build_layer: (an entry of a stage's ``ops``, in_channels, out_channels, stride, dilation,
            norm) → the layer.
        out_indices, output_stride, last_channels, norm_cfg, init_cfg: See :class:`FNABackbone`.
    """

    def __init__(
        self,
        stages: Sequence[Stage | SearchedStage],
        build_layer: Callable[..., nn.Module],
        out_indices: Sequence[int | str],
        output_stride: int,
        last_channels: int | None,
        norm_cfg: dict | None,
        init_cfg: dict | list[dict] | None,
    ):
        super().__init__(init_cfg=init_cfg or _DEFAULT_INIT)
        norm = norm_factory(norm_cfg)
        plan = strides_and_dilations([stage.stride for stage in stages], output_stride)

        channels = stages[0].in_channels
        blocks: list[nn.Module] = [conv_norm_act(3, channels, 3, norm, stride=STEM_STRIDE)]
        for stage, (stride, dilation) in zip(stages, plan, strict=True):
            layers = []
            for op in stage.ops:
                layers.append(build_layer(op, channels, stage.out_channels, stride, dilation, norm))
                channels, stride = stage.out_channels, 1
            blocks.append(StageBlock(layers))
        if last_channels:
            blocks.append(LastConv(channels, last_channels, norm))
        self.blocks = nn.ModuleList(blocks)

        self.out_indices, self.output_stride = tuple(out_indices), output_stride
        self.last_channels, self.norm_cfg = last_channels, norm_cfg
        self.out_channels = tuple(
            map_channels(index, stages, last_channels) for index in self.out_indices
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images N×3×H×W → the maps of ``out_indices``, each N×C×⌈H/stride⌉×⌈W/stride⌉.

        They come in the order of ``out_indices``; an expanded map has the stride of its layer's
        input.
        """
        maps = {}
        for index, block in enumerate(self.blocks):
            if f"{index}.expand" in self.out_indices:
                x, maps[f"{index}.expand"] = block.forward_expanded(x)
            else:
                x = block(x)
            if index in self.out_indices:
                maps[index] = x
        return tuple(maps[index] for index in self.out_indices)


def norm_factory(norm_cfg: dict | None) -> Norm:
    """channels → BN, with the ``eps`` and ``momentum`` of an mmdet ``norm_cfg``.

    Raises:
        InputError: It asks for another norm than BN, or sets anything else.
    """
    settings = dict(norm_cfg or {})
    if settings.pop("type", "BN") != "BN" or settings.keys() - {"eps", "momentum"}:
        raise InputError(f"norm_cfg: {dict(norm_cfg)}, expected type 'BN', with eps and momentum")
    return partial(nn.BatchNorm2d, **settings)


def map_channels(
    out_index: int | str, stages: Sequence[Stage | SearchedStage], last_channels: int | None
) -> int:
    """Channels of the map that an entry of ``out_indices`` names.

    Raises:
        InputError: It names no map.
    """
    if isinstance(out_index, int):
        widths = [stages[0].in_channels, *(stage.out_channels for stage in stages)]
        widths += [last_channels] if last_channels else []
        if not 0 <= out_index < len(widths):
            raise InputError(f"out_indices: no block {out_index}, expected 0 to {len(widths) - 1}")
        return widths[out_index]
    match = _EXPANDED.fullmatch(str(out_index))
    if not match or int(match[1]) > len(stages):
        raise InputError(
            f"out_indices: no map {out_index!r}, expected a block's number, or the number of a "
            f"stage, 1 to {len(stages)}, as in '1.expand'"
        )
    stage = stages[int(match[1]) - 1]
    expansions = first_expansions(stage)
    if len(expansions) > 1 or expansions[0] < 2:
        raise InputError(
            f"out_indices: {out_index!r} needs one expansion of 2 or more in the first layer of "
            f"that stage, got {', '.join(f'e{e}' for e in expansions)} (in a search space, "
            "layer_ops says what that layer chooses from)"
        )
    return expansions[0] * stage.in_channels


def first_expansions(stage: Stage | SearchedStage) -> list[int]:
    """The expansions among which a stage's first layer chooses, ascending; one, if it is fixed."""
    first = [stage.ops[0]] if isinstance(stage, Stage) else stage.ops[0]
    return sorted({parse_op(op).expansion for op in first})


@MODELS.register_module()
class FNABackbone(StagedBackbone):
    """The network of a net_config.

    Args:
        net_config: The stages, as :meth:`NetConfig.parse` reads them: text, a file, or rows.
        out_indices: The blocks whose outputs are the feature maps. The default suits FPN: 24, 32,
            96 and 320 channels at strides 4, 8, 16 and 32. ``'6.expand'`` is the activation after
            the expand conv, BN and ReLU6 of stage 6's first layer (SSDLite's first map: 576
            channels at stride 16).
        output_stride: Stride of the last stage's map. What the stages' strides give, or less, which
            dilates instead (:func:`strides_and_dilations`).
        last_channels: Channels of the last 1x1 conv, 1280 in MobileNetV2; None for none.
        norm_cfg: BN's settings, as mmdet's own backbones take them:
            ``dict(type='BN', eps=1e-5, momentum=0.1)`` is the default.
        init_cfg: mmengine initializer, such as ``dict(type='Remap', seed='seed.pth')``. Default:
            Kaiming for convs, 1 and 0 for BN.

    Raises:
        InputError: The net_config is malformed, ``out_indices`` names a block that is not there or
            a layer that does not expand, the strides cannot give ``output_stride``, or ``norm_cfg``
            is not BN's. Also when a state dict is loaded that has weights for the backbone, but
            not all of them, others, or some of another shape.
    """

    def __init__(
        self,
        net_config: NetConfig | str | Path | list,
        out_indices: Sequence[int | str] = (2, 3, 5, 7),
        output_stride: int = 32,
        last_channels: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        net_config = NetConfig.parse(net_config)
        super().__init__(
            net_config.stages,
            build_op,
            out_indices,
            output_stride,
            last_channels,
            norm_cfg,
            init_cfg,
        )
        self.net_config = net_config
        self.register_load_state_dict_pre_hook(_refuse_other_architecture)


def differing_tensors(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> list[tuple[str, tuple[int, ...] | None, tuple[int, ...] | None]]:
    """The names of the tensors in which two state dicts differ, and their shapes there.

    The shape of a tensor that is not there is None. BN's counter is younger than some checkpoints,
    and nothing here reads it: it may be missing.
    """
    one, other = (
        {key: tuple(getattr(tensor, "shape", ())) for key, tensor in state_dict.items()}
        for state_dict in (expected, found)
    )
    return [
        (key, one.get(key), other.get(key))
        for key in one | other
        if one.get(key) != other.get(key) and not key.endswith("num_batches_tracked")
    ]


def _refuse_other_architecture(
    backbone: FNABackbone, state_dict: Mapping[str, Tensor], prefix: str, *_: object
) -> None:
    """Raise InputError where weights for a backbone are another's.

    mmengine's loading, and with it mmdet's and mmseg's, would only warn and leave layers random.
    """
    found = {
        key.removeprefix(prefix): tensor
        for key, tensor in state_dict.items()
        if key.startswith(prefix)
    }
    if found and (differing := differing_tensors(backbone.state_dict(), found)):
        key, expected, given = differing[0]
        raise InputError(
            f"the weights are of another architecture than the backbone; {len(differing)} tensors "
            f"differ, first {prefix}{key}: expected {expected or 'none'}, found {given or 'none'} "
            "(engine.init_model builds that of the checkpoint)"
        )
