"""torchvision's names of MobileNetV2's layers."""

from collections.abc import Mapping

from torch import Tensor


def is_torchvision(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has torchvision's names."""
    return any(key.startswith("features.") for key in state_dict)


def rename_torchvision(
    state_dict: Mapping[str, Tensor], our_layers: list[str]
) -> dict[str, Tensor]:
    """torchvision's tensors under the names of ``our_layers``; other keys stay as they are.

    Args:
        our_layers: The seed's convs and BNs, in the order of computation.
    """
    ours = dict(zip(_layers(), our_layers, strict=True)) | {"classifier.1": "classifier"}
    renamed = {}
    for key, tensor in state_dict.items():
        layer, _, name = key.rpartition(".")
        renamed[f"{ours.get(layer, layer)}.{name}"] = tensor
    return renamed


def _layers() -> list[str]:
    """Its convs and BNs, in the order of computation."""
    parts = ("0.0", "0.1", "1.0", "1.1", "2", "3")
    blocks = [f"features.{block}.conv.{part}" for block in range(2, 18) for part in parts]
    first = [f"features.1.conv.{part}" for part in ("0.0", "0.1", "1", "2")]
    return ["features.0.0", "features.0.1", *first, *blocks, "features.18.0", "features.18.1"]
