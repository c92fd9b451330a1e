"""The paper's released checkpoints, taken as they are.

The authors named the tensors as their own code does. A table says what each module of the network
here is made of; RetinaNet's names are mmdet's, which stay. It is read from the network's side, so
that what a file lacks is found, and called by its name there.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models import InputError, rename_released

_BN_EPS = 1e-3  # of SSDLite, whose heads end with a BN
_SCORES = 81  # of SSDLite's anchors: COCO's 80 classes and the background
_COUNTER = "num_batches_tracked"  # of BN; nothing here reads it
_EXTRA = "backbone.extra."
_EXTRA_PARTS = 6  # of an extra layer: 1x1 conv, BN, depthwise conv, BN, 1x1 conv, BN


@dataclass
class _Released:
    """The tensors of a released file, and which of them have been used.

    ``modules`` maps what the table calls a module to the file's own name, where they differ.
    """

    tensors: Mapping[str, Tensor]
    where: str
    modules: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def read(self, module: str, name: str, shape: torch.Size) -> Tensor:
        """A module's tensor, which must be there in this shape."""
        key = f"{self.modules.get(module, module)}.{name}"
        if key not in self.tensors:
            raise self.error(f"has no {key}, expected {tuple(shape)}")
        tensor = self.tensors[key]
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        if found != tuple(shape):
            raise self.error(f"{key} is {found}, expected {tuple(shape)}")
        self.used.add(key)
        return tensor

    def error(self, what: str) -> InputError:
        return InputError(f"{self.where}: {what} (do config and --net-config belong to it?)")


def _copied(released: _Released, module: str, name: str, shape: torch.Size) -> Tensor:
    return released.read(module, name, shape)


def _pooling_first(released: _Released, module: str, name: str, shape: torch.Size) -> Tensor:
    """A conv over ASPP's five branches: there the image pooling comes last, in mmseg first."""
    return released.read(module, name, shape).roll(shape[1] // 5, dims=1)


def _folded(released: _Released, head: str, name: str, shape: torch.Size) -> Tensor:
    """Weight or bias of the one conv that computes what ``head.3``, a conv, and its BN compute.

    BN makes (y - mean) * scale + bias of y, where scale = weight / sqrt(var + eps).
    """
    weight, bias, mean, var = (
        released.read(f"{head}.4", of_bn, shape[:1]).double()
        for of_bn in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (var + _BN_EPS).sqrt()
    if name == "bias":
        return (bias - mean * scale).float()
    conv = released.read(f"{head}.3", "weight", shape).double()
    return (conv * scale.view(-1, 1, 1, 1)).float()


def _background_last(released: _Released, head: str, name: str, shape: torch.Size) -> Tensor:
    """As ``_folded``, for scores: mmdet 0.x had the background before the classes, not after."""
    if shape[0] % _SCORES:
        raise released.error(f"{head} scores COCO's 80 classes, the model others")
    folded = _folded(released, head, name, shape)
    return folded.unflatten(0, (-1, _SCORES)).roll(-1, dims=1).flatten(0, 1)


@dataclass(frozen=True)
class _Format:
    """A kind of released file.

    Args:
        framework: What was trained.
        sign: The beginning of keys that tell such files from each other.
        parts: The beginnings of keys all of which the network must use.
        renamed: Pattern of a module here → the module there whose tensors it takes.
        changed: The same, for modules whose tensors are made of other tensors, and how.
    """

    framework: str
    sign: str
    parts: tuple[str, ...]
    renamed: dict[str, str]
    changed: dict[str, tuple[str, Callable[[_Released, str, str, torch.Size], Tensor]]]


_FORMATS = (
    _Format(
        "RetinaNet",
        sign="neck.fpn_convs.",
        parts=("backbone.", "neck.", "bbox_head."),
        renamed={r".+": r"\g<0>"},
        changed={},
    ),
    _Format(
        "SSDLite",
        sign=_EXTRA,
        parts=("backbone.blocks.", _EXTRA, "bbox_head."),
        renamed={
            r"backbone\.blocks\..+": r"\g<0>",
            r"neck\.extra_layers\.(\d+)\.0\.conv": r"backbone.extra.\1.0",
            r"neck\.extra_layers\.(\d+)\.0\.bn": r"backbone.extra.\1.1",
            r"neck\.extra_layers\.(\d+)\.1\.depthwise_conv\.conv": r"backbone.extra.\1.2",
            r"neck\.extra_layers\.(\d+)\.1\.depthwise_conv\.bn": r"backbone.extra.\1.3",
            r"neck\.extra_layers\.(\d+)\.1\.pointwise_conv\.conv": r"backbone.extra.\1.4",
            r"neck\.extra_layers\.(\d+)\.1\.pointwise_conv\.bn": r"backbone.extra.\1.5",
            r"(bbox_head\.(?:cls|reg)_convs\.\d+)\.0\.conv": r"\1.0",
            r"(bbox_head\.(?:cls|reg)_convs\.\d+)\.0\.bn": r"\1.1",
        },
        changed={
            r"(bbox_head\.cls_convs\.\d+)\.1": (r"\1", _background_last),
            r"(bbox_head\.reg_convs\.\d+)\.1": (r"\1", _folded),
        },
    ),
    _Format(
        "DeepLabv3",
        sign="head.branch1.",
        parts=("backbone.blocks.", "head.", "cls_conv."),
        renamed={
            r"backbone\.blocks\..+": r"\g<0>",
            r"decode_head\.aspp_modules\.0\.conv": "head.branch1.0",
            r"decode_head\.aspp_modules\.0\.bn": "head.branch1.1",
            **{
                rf"decode_head\.aspp_modules\.{index}\.{ours}": f"head.branch{index + 1}.0.{theirs}"
                for index in (1, 2, 3)
                for ours, theirs in (
                    (r"depthwise_conv\.conv", "depthwise"),
                    (r"depthwise_conv\.bn", "bn1"),
                    (r"pointwise_conv\.conv", "pointwise"),
                    (r"pointwise_conv\.bn", "bn2"),
                )
            },
            r"decode_head\.image_pool\.1\.(conv|bn)": r"head.branch5_\1",
            r"decode_head\.bottleneck\.bn": "head.conv_cat.1",
            r"decode_head\.conv_seg": "cls_conv",
        },
        changed={r"decode_head\.bottleneck\.conv": ("head.conv_cat.0", _pooling_first)},
    ),
)


def convert(checkpoint: Mapping, model: nn.Module, where: str) -> tuple[dict, str] | None:
    """The state dict of a model from a released checkpoint, and what to report about it.

    Args:
        checkpoint: What a file holds.
        model: The network, not wrapped; its keys and shapes say what is needed.
        where: What to call the file in a message.

    Returns:
        None for every other checkpoint.

    Raises:
        InputError: A tensor is missing, of another shape, or too many; the message names its key.
    """
    if "message_hub" in checkpoint:  # mmengine's own, of a run here
        return None
    tensors = checkpoint.get("state_dict", checkpoint.get("model"))
    if not isinstance(tensors, Mapping) or not all(isinstance(key, str) for key in tensors):
        return None
    tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    known = (f for f in _FORMATS if any(key.startswith(f.sign) for key in tensors))
    if (kind := next(known, None)) is None:
        return None

    released = _Released(tensors, f"{where}: released {kind.framework}")
    # keys of the file by our names of an MBConv's parts, so that messages can name the file's own
    keys = rename_released({key: key for key in tensors})
    modules = {ours.rpartition(".")[0]: key.rpartition(".")[0] for ours, key in keys.items()}
    released.modules = modules | _numbered_extra_layers(released)
    rules = {pattern: (source, _copied) for pattern, source in kind.renamed.items()} | kind.changed
    state_dict, folded = {}, set()
    for key, tensor in model.state_dict().items():
        module, _, name = key.rpartition(".")
        if name == _COUNTER:
            continue
        matches = (re.fullmatch(pattern, module) for pattern in rules)
        if (match := next(filter(None, matches), None)) is None:
            raise released.error(f"has nothing for {key}")
        source, make = rules[match.re.pattern]
        used_before = set(released.used)
        state_dict[key] = make(released, match.expand(source), name, tensor.shape)
        if make in (_folded, _background_last):
            folded |= released.used - used_before

    unused = [key for key in tensors if key not in released.used and not key.endswith(_COUNTER)]
    if surplus := [key for key in unused if key.startswith(kind.parts)]:
        raise released.error(f"has {surplus[0]}, for which the network has no use")
    report = (
        f"{released.where}: {len(released.used)} tensors used, {len(folded)} of them BNs and convs "
        f"folded into one; 0 missing; {len(unused)} unused"
    )
    return state_dict, report + (f": {', '.join(map(ascii, unused[:3]))}" if unused else "")


def _numbered_extra_layers(released: _Released) -> dict[str, str]:
    """SSDLite's extra layers, by order: ``backbone.extra.LAYER.PART`` → the file's name.

    How their modules are named is not known, but what they are: 1x1 conv, depthwise 3x3 conv and
    1x1 conv, each with its BN. Their tensors' shapes are checked when they are read.
    """
    keys = [key for key in released.tensors if key.startswith(_EXTRA)]
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    for number, module in enumerate(modules):
        weight = released.tensors.get(f"{module}.weight")
        if (getattr(weight, "ndim", None) == 4) != (number % 2 == 0):
            expected = "conv" if number % 2 == 0 else "BN"
            raise released.error(f"{module}.weight is not of a {expected}, which is next there")
    numbers = (divmod(number, _EXTRA_PARTS) for number in range(len(modules)))
    names = (f"{_EXTRA}{layer}.{part}" for layer, part in numbers)
    return dict(zip(names, modules, strict=True))
