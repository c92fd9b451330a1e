"""A search and the parameter adaptation that inherits from it, run as users run them."""

import re

import pytest
import torch
from mmengine.config import Config

from engine.compat.safe_load import load_checkpoint_file
from engine.model import build_model
from models import FNABackbone, NetConfig
from models.inherit import find_path
from models.ops import SKIP
from tests.engine.test_train import SMALL, TOY
from tests.processes import run_script

pytestmark = pytest.mark.slow  # each test starts whole runs
SEARCH = "configs/fna_det/retinanet_arch_adapt_toy.py"
SEARCH_OPTIONS = [
    *(option for option in SMALL if not option.startswith("test_")),
    "train_cfg.ranking.batches=1",
]
KINDS = {"shared": True, "separate": False}


@pytest.fixture(scope="module", params=KINDS)
def searched(request, toy_city, seed_file, tmp_path_factory):
    """The work dir of a search with ranking, and its super network, trained."""
    work_dir = tmp_path_factory.mktemp(request.param) / "search"
    share = f"model.backbone.share_weights={KINDS[request.param]}"
    options = [*SEARCH_OPTIONS, f"model.backbone.init_cfg.seed={seed_file}", share]
    process = run_script(
        "arch_adapt", SEARCH, 0, "--data-root", toy_city, "--work-dir", work_dir,
        "--cfg-options", *options,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    sharing = {"model.backbone.share_weights": KINDS[request.param]}
    model, _ = build_model(SEARCH, "cpu", sharing)
    model.load_state_dict(load_checkpoint_file(work_dir / "epoch_2.pth")["state_dict"])
    return work_dir, model


def adapt(searched, toy_city, work_dir, *options, source=None, **environment):
    """One epoch in which no weight changes, of what it inherits."""
    options = [*SMALL, "train_cfg.max_epochs=1", "optim_wrapper.optimizer.lr=0", *options]
    process = run_script(
        "param_adapt", TOY, 0, "--data-root", toy_city, "--work-dir", work_dir,
        "--inherit", source or searched[0], "--cfg-options", *options, **environment,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process


def test_it_starts_as_the_super_networks_path(searched, toy_city, tmp_path):
    search, model = searched
    process = adapt(searched, toy_city, tmp_path)
    assert f"tensors from the search's checkpoint {search}/epoch_2.pth" in process.stdout
    assert re.search(r"neck (\d+) of \1 tensors, bbox_head (\d+) of \2 tensors", process.stdout)
    dumped = Config.fromfile(tmp_path / "retinanet_param_adapt_toy.py").model
    assert dumped.backbone.init_cfg == dict(type="Inherit", checkpoint=f"{search}/epoch_2.pth")
    found = NetConfig.parse(search / "net_config.txt")
    assert NetConfig.parse(dumped.backbone.net_config) == found

    started = load_checkpoint_file(tmp_path / "epoch_1.pth")["state_dict"]
    for key, tensor in model.state_dict().items():
        if not key.startswith("backbone.") and "num_batches" not in key:
            assert torch.equal(started[key], tensor), key
    supernet = model.backbone.train()
    network = FNABackbone(found, supernet.out_indices, last_channels=supernet.last_channels)
    network.load_state_dict(
        {k.removeprefix("backbone."): t for k, t in started.items() if k.startswith("backbone.")}
    )
    space = supernet.search_space.candidates
    scores = {
        layer: alpha.double().log_softmax(0).tolist()
        for layer, alpha in zip(space, supernet.alpha_values(), strict=True)
    }
    chosen = dict(find_path(found, space, scores).values())
    supernet.set_path([ops.index(chosen.get(layer, SKIP)) for layer, ops in space.items()])
    image = torch.randn(2, 3, 64, 96)
    for ours, theirs in zip(network.train()(image), supernet(image), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("searched", ["shared"], indirect=True)
def test_it_resumes_without_the_search_and_runs_in_two_processes(searched, toy_city, tmp_path):
    search, _ = searched
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    checkpoint = search / "epoch_2.pth"
    options = ["train_cfg.max_epochs=2", "optim_wrapper.optimizer.lr=0.001"]
    adapt(searched, toy_city, whole, *options, source=checkpoint, PROCESSES="2")
    process = run_script(
        "param_adapt", TOY, 0, "--data-root", toy_city, "--work-dir", resumed,
        "--inherit", search, "--resume", whole / "epoch_1.pth", "--cfg-options", *SMALL, *options,
        PROCESSES="2",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Inherit" not in process.stdout
    expected, ours = (
        load_checkpoint_file(folder / "epoch_2.pth")["state_dict"] for folder in (whole, resumed)
    )
    dumped, again = (
        Config.fromfile(folder / "retinanet_param_adapt_toy.py").model
        for folder in (whole, resumed)
    )
    assert dumped == again
    for key, tensor in expected.items():
        assert torch.equal(ours[key], tensor), key
