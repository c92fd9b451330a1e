"""What a GPU computes, compared with the CPU, and runs on it as users start them."""

import json

import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import task_loss
from engine.model import build_model
from tests.conftest import randomize
from tests.engine.test_fake_gpu import ADAPTATIONS, SEARCHES
from tests.processes import run_script

pytestmark = pytest.mark.gpu
# configs of search and training, and how long the training is
TRAINED = {
    "configs/fna_det/retinanet_{}_adapt_toy.py": "train_cfg.max_epochs=2",
    "configs/fna_det/ssdlite_{}_adapt_toy.py": "train_cfg.max_epochs=2",
    "configs/fna_seg/deeplabv3_{}_adapt_toy.py": "train_cfg.max_iters=2",
}
SMALL = ["train_dataloader.batch_size=2", "default_hooks.checkpoint.interval=1"]
SEARCH = [
    *("train_cfg.max_epochs=2", "train_cfg.arch_start_epoch=1"),
    *("train_cfg.ranking.candidates=2", "train_cfg.ranking.batches=1"),
]
TOLERANCE = 1e-5  # in double precision, where no rounding flips a ReLU; losses are in single


def gradients(path: str, device: str, options: dict, choice: list[int] | None) -> Tensor:
    """Of a step's loss, all in one vector, which the loss itself begins."""
    model, _ = build_model(path, "cpu", options)
    model = randomize(model).double().train().to(device)
    for dropout in (m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)):
        dropout.p = 0  # devices draw other numbers
    if hasattr(model.backbone, "set_path"):
        model.backbone.set_path(choice and choice * len(model.backbone.mixed_layers))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 96, 128, generator=generator, dtype=torch.double).to(device)
    loss = task_loss(model, images)
    loss.backward()
    parts = [loss, *(p.grad for p in model.parameters() if p.grad is not None)]
    return torch.cat([part.detach().cpu().double().flatten() for part in parts])


def assert_equal_on_both(path: str, options: dict, choice: list[int] | None = None) -> None:
    expected, found = (gradients(path, device, options, choice) for device in ("cpu", "cuda"))
    assert expected.shape == found.shape and expected.norm() > 0
    assert (found - expected).norm() < TOLERANCE * expected.norm()


@pytest.mark.parametrize("path", ADAPTATIONS)
def test_gradients_of_an_adaptation_equal_the_cpus(path):
    assert_equal_on_both(path, {})


@pytest.mark.parametrize("choice", [None, [0]], ids=["architecture", "weights"])
@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("path", SEARCHES)
def test_gradients_of_a_search_equal_the_cpus(path, share, choice):
    options = {"model.backbone.share_weights": share}
    if choice is None and not share:
        options["model.backbone.with_cp"] = True
    assert_equal_on_both(path, options, choice)


@pytest.mark.parametrize("amp", [[], ["--amp"]], ids=["float32", "amp"])
@pytest.mark.parametrize("config", TRAINED)
def test_the_method_on_the_gpu(config, amp, toy_city, seed_file, tmp_path):
    """Search, training of what it found, evaluation, as users run them."""

    def run(script, *arguments):
        process = run_script(script, *arguments)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr
        return process.stdout

    def options(work_dir, *settings):
        seed = f"model.backbone.init_cfg.seed={seed_file}"
        data = ["--data-root", toy_city, "--work-dir", tmp_path / work_dir]
        return [*data, *amp, "--cfg-options", seed, *SMALL, *settings]

    run("arch_adapt", config.format("arch"), 1, *options("search", *SEARCH))
    found = ["--net-config", tmp_path / "search/net_config.txt"]
    run("param_adapt", config.format("param"), 1, *found, *options("training", TRAINED[config]))
    (checkpoint,) = (tmp_path / "training").glob("*_2.pth")
    told = run(
        "test", config.format("param"), checkpoint, 1, "--data-root", toy_city,
        "--work-dir", tmp_path / "out", "--latency",
    )  # fmt: skip
    record = json.loads((tmp_path / "out/metrics.json").read_text())["latency"]
    assert record["device"] == torch.cuda.get_device_name() and record["device"] in told
    assert 0 < record["backbone"]["median"] < 1.2 * record["model"]["median"]
