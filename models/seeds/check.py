"""Whether a seed was converted rightly, tried on photographs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..backbone import FNABackbone
from ..errors import InputError
from ..seed import IMAGE_MEAN, IMAGE_STD
from .keras import HALF_RANGE as KERAS_HALF_RANGE
from .read import LAST_CHANNELS, NET_CONFIG, mobilenetv2_shapes

# Limits of check_seed. Good seeds: 0.16-0.31 and 0.16-0.50 on photographs from street scenes to
# blood cells under a microscope; gross mistakes (a wrong reshape, gamma for beta, a factor of 255)
# give more than 0.75 of the first or 1.1 of the second.
MAX_MEAN_DEVIATION = 0.5
MAX_SPREAD_DEVIATION = 0.9


def check_seed(seed: Mapping[str, Tensor], images: Tensor) -> float:
    """Check on photographs that a seed was converted rightly.

    The statistics that each BN stored in training are compared with those of the photographs. A
    seed passes if they are near, and if none of a few deliberate mistakes (kernels transposed,
    images scaled in another way) brings them nearer, which would undo a mistake in the seed.
    Not told: BGR for RGB, or the stem's and all depthwise kernels transposed together (both equal a
    change of the photographs, to which statistics are blind), and BN eps.

    Args:
        seed: What :func:`load_seed` returns.
        images: Normalised photographs N×3×H×W, more than a few and upright.

    Returns:
        The mean over channels, then layers, of |photographs' mean − stored mean| / stored standard
        deviation: about 0.1 to 0.3 for a good seed.

    Raises:
        InputError: The seed does not pass.
    """
    deviation, spread = statistics_deviation(seed, images)
    # negated, so that NaN does not pass
    if not (deviation < MAX_MEAN_DEVIATION and spread < MAX_SPREAD_DEVIATION):
        raise InputError(
            "the seed's BN statistics do not fit photographs, so it was converted wrongly: means "
            f"{deviation:.2f} standard deviations off (expected below {MAX_MEAN_DEVIATION}), "
            f"standard deviations by a factor of e^{spread:.2f} (below e^{MAX_SPREAD_DEVIATION})"
        )
    stem = {"blocks.0.0.weight": seed["blocks.0.0.weight"]}
    depthwise = {
        key: seed[key] for key, shape in mobilenetv2_shapes().items() if shape[1:] == (1, 3, 3)
    }
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    keras_images = (images * std + mean) / KERAS_HALF_RANGE - 1
    for mistake, changed_seed, changed_images in (
        ("images from -1 to 1 instead of ImageNet's mean and std", seed, keras_images),
        ("the stem's kernels transposed", {**seed, **_transposed(stem)}, images),
        ("the depthwise kernels transposed", {**seed, **_transposed(depthwise)}, images),
    ):
        changed, _ = statistics_deviation(changed_seed, changed_images)
        if not deviation < changed:
            raise InputError(
                "the seed was converted wrongly: its BN statistics fit photographs better with "
                f"{mistake} ({changed:.3f} standard deviations off instead of {deviation:.3f})"
            )
    return deviation


@torch.no_grad()
def statistics_deviation(seed: Mapping[str, Tensor], images: Tensor) -> tuple[float, float]:
    """How far the statistics of normalised images N×3×H×W lie from those stored in a seed's BNs.

    Returns:
        Of the means, in stored standard deviations, and of the standard deviations, as the absolute
        logarithm of the ratio; each averaged over channels, then layers.
    """
    network = FNABackbone(NET_CONFIG, last_channels=LAST_CHANNELS).eval()
    network.load_state_dict({key: seed[key] for key in network.state_dict()})
    of_means, of_stds = [], []

    def compare(bn: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        stored = bn.running_var + bn.eps
        of_means.append(((mean - bn.running_mean).abs() / stored.sqrt()).mean())
        of_stds.append((((variance + bn.eps) / stored).log().abs() / 2).mean())

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(compare)
    network(images)
    return torch.stack(of_means).mean().item(), torch.stack(of_stds).mean().item()


def _transposed(kernels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.transpose(2, 3) for key, value in kernels.items()}
