"""Parameter remapping: the seed's weights carried onto any network of the same stages.

Paper, section 3.2. Depth: layer i of a stage takes its tensors from the seed's layer min(i, l − 1),
l being the seed's layers in that stage. (The paper prints max; its text and figure mean min.)
Width: the first channels are copied. Kernel: centres coincide. The variants that the paper studies
(its table 6) keep the most important channels instead, or spread the kernel; each rule can also be
left out.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .channels import IMPORTANCE, channel_picker
from .errors import InputError
from .seed import load_seed

# A searched layer's candidates have their op's name in front: ….layers.0.ops.k5_e6.expand.0.weight
LAYER_KEY = re.compile(
    r"(?P<stage>blocks\.\d+)\.layers\.(?P<layer>\d+)\.(?:ops\.[^.]+\.)?(?P<rest>.+)"
)
# The distance in a larger kernel between what are neighbours in a smaller one, from both sizes.
_KERNEL_STEP: dict[str, Callable[[int, int], int]] = {
    "center": lambda small, large: 1,
    "dilate": lambda small, large: (large - 1) // (small - 1) if small > 1 else 1,
}
_RULES = {
    "width": ("first", *IMPORTANCE, None),
    "kernel": (*_KERNEL_STEP, None),
    "depth": (True, False),
}
_NEW_CHANNELS_SCALE = 1e-5


def find_sources(
    seed: dict[str, Tensor],
    target: dict[str, Tensor],
    width: str | None = "first",
    kernel: str | None = "center",
    depth: bool = True,
) -> dict[str, str]:
    """The depth rule: which seed key each target key takes its values from.

    Target keys with no source, such as a neck's or the expansion of a stage whose seed layer has
    none, are left out, and so are those that need a rule which is left out (see :func:`remap`).
    Keys outside the stages (stem, last conv) keep their own name.
    """
    if width is None and kernel is None and not depth:
        return {}
    depths = Counter()
    for match in filter(None, map(LAYER_KEY.fullmatch, seed)):
        depths[match["stage"]] = max(depths[match["stage"]], int(match["layer"]) + 1)

    def source_of(key: str) -> str:
        if not (match := LAYER_KEY.fullmatch(key)):
            return key
        layer = int(match["layer"])
        if depth:
            layer = min(layer, depths[match["stage"]] - 1)
        return f"{match['stage']}.layers.{layer}.{match['rest']}"

    sources = {}
    for key, initial in target.items():
        if (source := source_of(key)) not in seed:
            continue
        old, new = seed[source].shape, initial.shape
        if (width is None and old[:2] != new[:2]) or (kernel is None and old[2:] != new[2:]):
            continue
        sources[key] = source
    return sources


def remap_tensor(source: Tensor, initial: Tensor, kernel: str = "center") -> Tensor:
    """The width and kernel rules for one tensor.

    Conv weights are C_out×C_in×k×k: the first channels are copied and kernels aligned; the rest of
    a larger kernel becomes 0. So would the weights of channels that the source lacks, but zeros on
    both sides of a channel never get a gradient: they become slight noise instead, 1e-5 times
    Kaiming's uniform initialization, as the authors do. 1-d tensors (BN) take the source's entries
    first and keep their initial values after. Other tensors (BN's counter) are copied.

    Args:
        source: The seed's tensor, or the channels of it that are to be copied.
        initial: The target's tensor before remapping; gives shape, type and device.
        kernel: ``'center'`` or ``'dilate'``. Kernel sizes are odd.
    """
    if source.dim() != initial.dim():
        raise ValueError(f"cannot remap {tuple(source.shape)} onto {tuple(initial.shape)}")
    remapped = initial.clone()
    into, out_of = [], []
    for axis, (new, old) in enumerate(zip(initial.shape, source.shape, strict=True)):
        size, large = min(new, old), max(new, old)
        # axes 0 and 1 are channels, aligned at the first; 2 and 3 the kernel's, at the centre
        step = _KERNEL_STEP[kernel](size, large) if axis >= 2 else 1
        start = (large - 1 - step * (size - 1)) // 2 if axis >= 2 else 0
        spread = slice(start, start + step * (size - 1) + 1, step)
        into.append(spread if new > old else slice(size))
        out_of.append(slice(size) if new > old else spread)
    if initial.dim() == 4:
        if initial.shape[0] > source.shape[0] or initial.shape[1] > source.shape[1]:
            nn.init.kaiming_uniform_(remapped)
            remapped *= _NEW_CHANNELS_SCALE
        remapped[tuple(into[:2])] = 0
    remapped[tuple(into)] = source[tuple(out_of)].to(remapped)
    return remapped


def remap(
    seed_state_dict: dict[str, Tensor],
    target_state_dict: dict[str, Tensor],
    width: str | None = "first",
    kernel: str | None = "center",
    depth: bool = True,
) -> dict[str, Tensor]:
    """Remap a seed's parameters onto a network of the same stages.

    The defaults are the paper's method. All tensors that share channels follow one list of indices,
    so a narrower network computes what these channels compute in the seed.

    Args:
        seed_state_dict: The seed's tensors, as :func:`models.load_seed` returns them.
        target_state_dict: The state dict of the network to initialize: a target or a super network.
        width: Which channels of the seed a narrower tensor keeps, in their order: the ``'first'``,
            or the most important by ``'bn'`` (|weight| of the BN after the conv), ``'std'``
            (standard deviation of the conv's weights) or ``'l1'`` (their L1 norm). Wider tensors
            take all of the seed's channels in front. With None, tensors of another width keep
            their initial values.
        kernel: Where a kernel goes in a larger one: ``'center'``, or ``'dilate'`` for a 3x3 on the
            corners, the middles of the edges and the centre. A smaller kernel takes the seed's
            values from these places. With None, kernels of another size keep their initial values.
        depth: Whether layers beyond the seed's last of a stage take its tensors. If not, they keep
            their initial values.

    Without any of the three rules there is no remapping: every tensor keeps its initial value, even
    where it has the seed's shape.

    Returns:
        A new state dict with exactly the target's keys and shapes. Tensors with no source in the
        seed keep their values.

    Raises:
        InputError: ``width``, ``kernel`` or ``depth`` is none of these.
    """
    rules = dict(width=width, kernel=kernel, depth=depth)
    _check_rules(**rules)
    sources = find_sources(seed_state_dict, target_state_dict, **rules)
    return _carry(seed_state_dict, target_state_dict, sources, width, kernel)


def _carry(
    seed: dict[str, Tensor],
    target: dict[str, Tensor],
    sources: dict[str, str],
    width: str | None,
    kernel: str | None,
) -> dict[str, Tensor]:
    """The target's tensors, each with what its source gives."""
    pick = channel_picker(seed, width) if width in IMPORTANCE else lambda key, shape: seed[key]
    remapped = {key: initial.clone() for key, initial in target.items()}
    for key, source in sources.items():
        kept = pick(source, target[key].shape)
        remapped[key] = remap_tensor(kept, target[key], kernel or "center")
    return remapped


def _check_rules(**rules: str | bool | None) -> None:
    for name, value in rules.items():
        if value not in _RULES[name]:
            expected = ", ".join(map(repr, _RULES[name]))
            raise InputError(f"Remap: {name} is {value!r}, expected one of {expected}")


@WEIGHT_INITIALIZERS.register_module(name="Remap")
class Remap:
    """Initializer of a backbone: ``init_cfg=dict(type='Remap', seed='seed.pth')``.

    What takes nothing from the seed keeps the values that the network has by then: PyTorch's own,
    or in a list of initializers those of the ones before.

    Args:
        seed: A seed file that ``scripts/get_seed.sh`` wrote.
        width, kernel, depth: The rules, as in :func:`remap`; the defaults are the paper's method.

    Raises:
        InputError: A rule is unknown; when it runs, if the file is no seed.
    """

    def __init__(
        self,
        seed: str | Path,
        width: str | None = "first",
        kernel: str | None = "center",
        depth: bool = True,
    ):
        self.seed = seed
        self.rules = dict(width=width, kernel=kernel, depth=depth)
        _check_rules(**self.rules)

    def __call__(self, module: nn.Module) -> None:
        seed, initial = load_seed(self.seed), module.state_dict()
        sources = find_sources(seed, initial, **self.rules)
        rules = self.rules["width"], self.rules["kernel"]
        module.load_state_dict(_carry(seed, initial, sources, *rules))
        resized = sum(seed[source].shape != initial[key].shape for key, source in sources.items())
        shown = ", ".join(f"{name} {rule}" for name, rule in self.rules.items())
        print_log(
            f"Remap ({shown}): {len(sources)} tensors from the seed {self.seed} ({resized} of them "
            f"cropped or embedded), {len(initial) - len(sources)} keep their initial values",
            logger="current",
            level=logging.INFO,
        )
