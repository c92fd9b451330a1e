"""The numbering of an MBConv's parts in the paper's released files, and their names here.

There an MBConv is one sequence ``op``: with expansion 0 expand conv, 1 BN, 2 activation, 3
depthwise conv, 4 BN, 5 activation, 6 project conv, 7 BN; without (E = 1), it begins with the
depthwise conv. Here its parts have names, inside which 0 is the conv and 1 the BN.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_NUMBERED = re.compile(r"(?P<mbconv>.+)\.op\.(?P<number>[0-7])\.(?P<tensor>[^.]+)")
_NAMED = re.compile(
    r"(?P<mbconv>.+)\.(?P<part>expand|depthwise|project)\.(?P<index>[0-2])\.(?P<tensor>[^.]+)"
)
_PARTS = {True: ("expand", "depthwise", "project"), False: ("depthwise", "project")}
_PART_LENGTH = 3  # conv, BN, activation


def rename_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released file under this project's names; other keys stay as they are.

    Works for a backbone alone and inside a detector or segmentor.
    """
    # only an MBConv that expands has a part number 6, its project conv
    expanding = {key.rpartition(".op.6.")[0] for key in state_dict if ".op.6." in key}

    def name(key: str) -> str:
        if not (match := _NUMBERED.fullmatch(key)):
            return key
        part, index = divmod(int(match["number"]), _PART_LENGTH)
        parts = _PARTS[match["mbconv"] in expanding]
        if part >= len(parts):
            return key
        return f"{match['mbconv']}.{parts[part]}.{index}.{match['tensor']}"

    return {name(key): tensor for key, tensor in state_dict.items()}


def rename_to_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`rename_released`."""
    expanding = {key.rpartition(".expand.")[0] for key in state_dict if ".expand." in key}

    def name(key: str) -> str:
        if not (match := _NAMED.fullmatch(key)):
            return key
        part = _PARTS[match["mbconv"] in expanding].index(match["part"])
        return f"{match['mbconv']}.op.{_PART_LENGTH * part + int(match['index'])}.{match['tensor']}"

    return {name(key): tensor for key, tensor in state_dict.items()}
