"""What the tests share: paths, a random seed network, and where real data lie."""

import gc
import os
from pathlib import Path

import pytest
import torch

import fna_det  # noqa: F401  (registers what configs name)
import fna_seg  # noqa: F401
from datasets.toy_city import write_dataset
from models import FNABackbone, NetConfig
from models.seed import save_seed

# mmengine collects garbage for every data set; what was imported need not be looked through
gc.freeze()

REPO = Path(__file__).resolve().parent.parent
# --net-config configs/net_configs/mobilenetv2.txt, for build_model
SEEDS_OWN = {"model.backbone.net_config": "configs/net_configs/mobilenetv2.txt"}
ARCHITECTURES = ("retinanet", "ssdlite", "deeplabv3", "mobilenetv2")

SEED_META = {
    "net_config": str(NetConfig.parse(REPO / "configs/net_configs/mobilenetv2.txt")),
    "source": "random numbers",
    "licence": "none",
}


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.getoption("markexpr"):  # asked for by name
        deselected = [item for item in items if "long" in item.keywords]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if "long" not in item.keywords]
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):  # not a keyword: those have the folders' names
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def net_config_file(name: str) -> Path:
    return REPO / f"configs/net_configs/{name}.txt"


def randomize(module: torch.nn.Module, generator_seed: int = 0) -> torch.nn.Module:
    """Random weights and BN statistics of ordinary size, so that every tensor matters."""
    generator = torch.Generator().manual_seed(generator_seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif tensor.dim() == 4:
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
        elif name.endswith(("weight", "running_var")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        else:
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return module


@pytest.fixture(scope="session")
def seed_network() -> FNABackbone:
    """A network of the seed's architecture with random weights; its state dict is a seed."""
    return randomize(FNABackbone(net_config_file("mobilenetv2"), last_channels=1280)).eval()


@pytest.fixture
def fna_data() -> Path:
    """The folder of real data sets, $FNA_DATA or data/."""
    return Path(os.environ.get("FNA_DATA", REPO / "data"))


@pytest.fixture(scope="session")
def seed_file(seed_network, tmp_path_factory) -> Path:
    """A seed file with random weights."""
    path = tmp_path_factory.mktemp("seed") / "seed.pth"
    save_seed(seed_network.state_dict(), SEED_META, path)
    return path


@pytest.fixture(scope="session")
def toy_city(tmp_path_factory) -> Path:
    """A small embedded data set: 8 and 4 scenes of 128x64."""
    root = tmp_path_factory.mktemp("toy") / "toy_city"
    write_dataset(root, num_train=8, num_val=4, size=(64, 128), seed=3)
    return root
