import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import FNABackbone, InputError, load_seed
from models.seeds import fetch
from models.seeds.check import check_seed
from models.seeds.read import NET_CONFIG
from tests.conftest import REPO, randomize

from .conftest import MEAN, STD

REAL_SEED = REPO / "checkpoints" / "seed_mbv2.pth"
DATA = Path(os.environ.get("FNA_DATA", REPO / "data"))


@pytest.fixture(scope="module")
def real_seed():
    if not REAL_SEED.exists():
        pytest.skip(f"no {REAL_SEED.relative_to(REPO)}; scripts/get_seed.sh gets one")
    return load_seed(REAL_SEED)


def camvid_photographs():
    paths = sorted(DATA.glob("camvid/images/*/*.jpg"))[::43][:16]
    if len(paths) < 16:
        pytest.skip("no camvid photographs in FNA_DATA")
    crops = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize((320, 240)).crop((48, 8, 272, 232))
        crops.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return (torch.stack(crops) - MEAN) / STD


@pytest.mark.parametrize("photographs", [fetch.photographs, camvid_photographs])
def test_real_seed_fits_photographs(real_seed, photographs):
    assert 0.05 < check_seed(real_seed, photographs()) < 0.25


def transpose(seed, wanted):
    kernels = {key: value for key, value in seed.items() if value.dim() == 4 and wanted(key, value)}
    return seed | {key: value.transpose(2, 3) for key, value in kernels.items()}


def unfold_normalisation(seed):
    """As if the first conv of Keras' seed had been taken as it is."""
    weight = seed["blocks.0.0.weight"] * (127.5 / STD)
    shift = (MEAN / 127.5 - 1).flatten()
    mean = seed["blocks.0.1.running_mean"] + weight.sum((2, 3)) @ shift
    return seed | {"blocks.0.0.weight": weight, "blocks.0.1.running_mean": mean}


def swap(seed, one, other):
    swapped = dict(seed)
    for key in seed:
        if key.endswith(f".{one}") and key.replace(one, other) in seed and seed[key].dim() == 1:
            twin = key.replace(one, other)
            swapped[key], swapped[twin] = seed[twin], seed[key]
    return swapped


def reshape_pointwise(seed):
    """As if in×out had been read as out×in."""
    return seed | {
        key: value.flatten(1).T.reshape(value.shape)
        for key, value in seed.items()
        if value.dim() == 4 and value.shape[2] == 1
    }


MISTAKES = {
    "stem transposed": lambda seed: transpose(seed, lambda _, value: value.shape[1] == 3),
    "depthwise transposed": lambda seed: transpose(seed, lambda _, value: value.shape[1] == 1),
    "pointwise reshaped": reshape_pointwise,
    "normalisation not folded": unfold_normalisation,
    "for pixels to 255": lambda seed: seed | {"blocks.0.0.weight": seed["blocks.0.0.weight"] / 255},
    "for pixels to 1": lambda seed: seed | {"blocks.0.0.weight": seed["blocks.0.0.weight"] * 255},
    "gamma for beta": lambda seed: swap(seed, "weight", "bias"),
    "mean for variance": lambda seed: swap(seed, "running_mean", "running_var"),
    "never trained": lambda _: FNABackbone(NET_CONFIG, last_channels=1280).state_dict(),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_conversions_are_refused(real_seed, mistake):
    with pytest.raises(InputError, match="converted wrongly"):
        check_seed(MISTAKES[mistake](real_seed), fetch.photographs())


@pytest.fixture(scope="module")
def own_seed():
    """A network whose statistics are those of the photographs: what check_seed must accept."""
    network = randomize(FNABackbone(NET_CONFIG, last_channels=1280), 0).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the average of all passes
    with torch.no_grad():
        network(fetch.photographs())
    return network.state_dict()


def test_statistics_of_the_photographs_themselves_pass(own_seed):
    assert check_seed(own_seed, fetch.photographs()) < 0.05


@pytest.mark.parametrize("mistake", ["stem transposed", "for pixels to 255", "never trained"])
def test_mistakes_are_told_without_a_real_seed(own_seed, mistake):
    with pytest.raises(InputError, match="converted wrongly"):
        check_seed(MISTAKES[mistake](own_seed), fetch.photographs())
