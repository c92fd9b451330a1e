"""The paper's released checkpoints, taken as they are.

The authors' files name tensors as their code does. A table says which of them each module here is
made of. It is read from the network's side, so a tensor that a file lacks is found, and reported by
its name in the file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models import InputError, rename_to_released

_SCORES = 81  # of SSDLite's anchors: COCO's 80 classes and the background
_OWN = re.compile(r"backbone\.blocks\.\d+\.layers\.\d+\.(ops\.\w+\.)?depthwise\.")  # a name here
_COUNTER = "num_batches_tracked"  # of BN; nothing here reads it


@dataclass
class _Released:
    """The tensors of a released file, and which of them have been used."""

    tensors: Mapping[str, Tensor]
    where: str
    used: set[str] = field(default_factory=set)

    def read(self, module: str, name: str, shape: torch.Size) -> Tensor:
        """A module's tensor, which must be there in this shape."""
        key = f"{module}.{name}"
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


def _background_last(released: _Released, module: str, name: str, shape: torch.Size) -> Tensor:
    """A tensor over an SSDLite head's scores: mmdet 0.x had the background before the classes."""
    if shape[0] % _SCORES:
        raise released.error(f"{module} scores COCO's 80 classes, the model others")
    scores = released.read(module, name, shape).unflatten(0, (-1, _SCORES))
    return scores.roll(-1, dims=1).flatten(0, 1)


@dataclass(frozen=True)
class _Format:
    """A kind of released file.

    Args:
        framework: What was trained.
        sign: A prefix of keys that only files of this kind have.
        parts: Prefixes of keys that the network must use completely.
        renamed: Pattern of a module here → the module there whose tensors it takes.
        changed: The same, for modules whose tensors are made of the file's, and how.

    A pattern must match a whole name; the first match counts.
    """

    framework: str
    sign: str
    parts: tuple[str, ...]
    renamed: dict[str, str]
    changed: dict[str, tuple[str, Callable[[_Released, str, str, torch.Size], Tensor]]]


# mmdet 0.6.0 had bare convs in RetinaHead's towers; two weeks later it made them ConvModules, whose
# names are today's. The paper's file may be of either time.
_FORMATS = (
    _Format(
        "RetinaNet",
        sign="bbox_head.cls_convs.0.weight",
        parts=("backbone.", "neck.", "bbox_head."),
        renamed={r"(bbox_head\.(?:cls|reg)_convs\.\d+)\.conv": r"\1", r".+": r"\g<0>"},
        changed={},
    ),
    _Format(
        "RetinaNet",
        sign="neck.fpn_convs.",
        parts=("backbone.", "neck.", "bbox_head."),
        renamed={r".+": r"\g<0>"},
        changed={},
    ),
    _Format(
        "SSDLite",
        sign="backbone.extra.",
        parts=("backbone.", "bbox_head."),
        renamed={
            r"backbone\.blocks\..+": r"\g<0>",
            **{
                rf"neck\.extra_layers\.{layer}\.{ours}": f"backbone.extra.{theirs}"
                for layer in range(4)
                for ours, theirs in (
                    (r"0\.conv", f"{2 * layer}.0"),
                    (r"0\.bn", f"{2 * layer}.1"),
                    (r"1\.depthwise_conv\.conv", f"{2 * layer + 1}.0"),
                    (r"1\.depthwise_conv\.bn", f"{2 * layer + 1}.1"),
                    (r"1\.pointwise_conv\.conv", f"{2 * layer + 1}.3"),
                    (r"1\.pointwise_conv\.bn", f"{2 * layer + 1}.4"),
                )
            },
            r"(bbox_head\.(?:cls|reg)_convs\.\d+)\.depthwise_conv\.conv": r"\1.0",
            r"(bbox_head\.(?:cls|reg)_convs\.\d+)\.depthwise_conv\.bn": r"\1.1",
            r"(bbox_head\.reg_convs\.\d+)\.pointwise_conv\.conv": r"\1.3",
            r"(bbox_head\.reg_convs\.\d+)\.pointwise_conv\.bn": r"\1.4",
        },
        changed={
            r"(bbox_head\.cls_convs\.\d+)\.pointwise_conv\.conv": (r"\1.3", _background_last),
            r"(bbox_head\.cls_convs\.\d+)\.pointwise_conv\.bn": (r"\1.4", _background_last),
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
    tensors = checkpoint.get("state_dict", checkpoint.get("model"))
    if not isinstance(tensors, Mapping) or not all(isinstance(key, str) for key in tensors):
        return None
    tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    if any(_OWN.match(key) for key in tensors):
        return None
    known = (f for f in _FORMATS if any(key.startswith(f.sign) for key in tensors))
    if (kind := next(known, None)) is None:
        return None

    released = _Released(tensors, f"{where}: released {kind.framework}")
    rules = {pattern: (source, _copied) for pattern, source in kind.renamed.items()} | kind.changed
    state_dict = {}
    expected = model.state_dict()
    # an MBConv's parts numbered as in the file, so that messages name the file's own keys
    for key, (numbered, tensor) in zip(expected, rename_to_released(expected).items(), strict=True):
        module, _, name = numbered.rpartition(".")
        if name == _COUNTER:
            continue
        matches = (re.fullmatch(pattern, module) for pattern in rules)
        if (match := next(filter(None, matches), None)) is None:
            raise released.error(f"has nothing for {key}")
        source, make = rules[match.re.pattern]
        state_dict[key] = make(released, match.expand(source), name, tensor.shape)

    unused = [key for key in tensors if key not in released.used and not key.endswith(_COUNTER)]
    if surplus := [key for key in unused if key.startswith(kind.parts)]:
        raise released.error(f"has {surplus[0]}, for which the network has no use")
    report = f"{released.where}: {len(released.used)} tensors used, 0 missing; {len(unused)} unused"
    return state_dict, report + (f": {', '.join(map(ascii, unused[:3]))}" if unused else "")
