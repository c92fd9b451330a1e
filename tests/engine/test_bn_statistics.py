import os
import re
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import distributed, nn

import engine  # noqa: F401  (registers what configs name)
from engine.model import unwrapped
from tests.processes import run_processes
from tests.search.tools import stop_workers  # the module also registers RandomImages

ITERATIONS = 7  # more than an epoch of 8 images
MOMENTUM = 0.3


@MODELS.register_module()
class TinyBN(BaseModel):
    """A conv with BN, dropout, a classifier; remembers the images of every pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, momentum=MOMENTUM)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 1)
        self.seen = []

    def forward(self, image, target, number, mode="tensor"):
        images = torch.stack(list(image))
        self.seen.append((images, torch.is_grad_enabled(), self.norm.training))
        output = self.head(self.dropout(self.norm(self.conv(images)).relu().mean((2, 3))))
        return {"loss": (output - torch.stack(list(target))).square().mean()}


@HOOKS.register_module()
class Remember(Hook):
    """The state when training begins."""

    priority = "LOWEST"

    def before_train(self, runner):
        model = unwrapped(runner.model)
        self.state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        self.passes, model.seen = model.seen, []
        self.optimizer = dict(runner.optim_wrapper.optimizer.state)


def run(work_dir, hook=True, num_workers=0, loop=None, **cfg) -> tuple[Runner, Remember]:
    """Train 8 noisy images for 3 epochs of 4 iterations, with the passes before or without."""
    cfg = dict(
        model=dict(type="TinyBN"),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(type="RandomImages", length=8, noise=0.5),
        ),
        train_cfg=loop or dict(type="EpochBasedTrainLoop", max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9)),
        custom_hooks=[
            dict(type="Remember"),
            dict(type="PlainHistory"),  # what is written can be loaded
            *([dict(type="UpdateBNStatistics", iterations=ITERATIONS, interval=3)] * hook),
        ],
        randomness=dict(seed=5),
        default_scope="mmengine",
        experiment_name=f"bn_{uuid.uuid4().hex}",
        **cfg,
    )
    runner = Runner.from_cfg(Config(cfg))
    runner.train()
    stop_workers(runner.train_loop)
    return runner, next(hook for hook in runner.hooks if isinstance(hook, Remember))


def by_momentum(batches, conv):
    """Running mean and variance after these batches, as BN's documentation defines them."""
    mean, var = torch.zeros(4, dtype=torch.double), torch.ones(4, dtype=torch.double)
    with torch.no_grad():
        for images in batches:
            x = conv(images.double()).transpose(0, 1).flatten(1)
            mean = (1 - MOMENTUM) * mean + MOMENTUM * x.mean(1)
            var = (1 - MOMENTUM) * var + MOMENTUM * x.var(1, unbiased=True)
    return mean, var


def initial_conv():
    return TinyBN().conv.double()


def test_statistics_move_by_momentum_and_nothing_else_does(tmp_path):
    runner, at_start = run(tmp_path)
    assert len(at_start.passes) == ITERATIONS and not at_start.optimizer
    assert all(training and not grad for _, grad, training in at_start.passes)
    mean, var = by_momentum([images for images, *_ in at_start.passes], initial_conv())
    found = at_start.state
    torch.testing.assert_close(found["norm.running_mean"].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["norm.running_var"].double(), var, rtol=1e-5, atol=1e-6)
    for key, parameter in TinyBN().named_parameters():
        assert torch.equal(found[key], parameter), key
    assert len(runner.model.seen) == 12  # and then it trains


EPOCHS = dict(type="EpochBasedTrainLoop", max_epochs=3)
ITERS = dict(type="SeededIterLoop", max_iters=12)


@pytest.mark.parametrize("loop, num_workers", [(EPOCHS, 0), (EPOCHS, 2), (ITERS, 0), (ITERS, 2)])
def test_training_is_what_it_would_be_without(tmp_path, loop, num_workers):
    """Images, their noise, dropout and so the weights are equal to the bit: in training, outputs
    do not depend on running statistics."""
    runners = [
        run(tmp_path / str(hook), hook, num_workers, dict(loop))[0].model for hook in (True, False)
    ]
    assert len(runners[0].seen) == len(runners[1].seen) == 12
    for (one, *_), (other, *_) in zip(runners[0].seen, runners[1].seen, strict=True):
        assert torch.equal(one, other)
    for (key, one), other in zip(
        runners[0].named_parameters(), runners[1].parameters(), strict=True
    ):
        assert torch.equal(one, other), key
    assert not torch.equal(runners[0].norm.running_mean, runners[1].norm.running_mean)


def test_not_where_a_checkpoint_brings_statistics(tmp_path):
    run(tmp_path / "whole")
    short = dict(type="EpochBasedTrainLoop", max_epochs=3)
    checkpoint = str(tmp_path / "whole/epoch_2.pth")
    for name, resume, passes in (("resumed", True, 4), ("loaded", False, 12)):
        runner, at_start = run(tmp_path / name, load_from=checkpoint, resume=resume, loop=short)
        assert at_start.passes == [] and len(runner.model.seen) == passes
        expected = torch.load(checkpoint, weights_only=False)["state_dict"]
        assert all(torch.equal(at_start.state[key], expected[key]) for key in expected)
    # --resume in an empty work dir is a start like any other
    assert len(run(tmp_path / "new", resume=True)[1].passes) == ITERATIONS


def test_progress_is_logged_with_the_time_left(tmp_path):
    runner, _ = run(tmp_path)
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    lines = re.findall(r"BN statistics before training: \[(\d+)/7\]  eta: (\d:\d\d:\d\d)", log)
    assert [done for done, _ in lines] == ["3", "6", "7"] and lines[-1][1] == "0:00:00"


def run_rank(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    for name, sync_bn in (("own", None), ("sync", "torch")):
        _, at_start = run(
            f"{folder}/{name}",
            launcher="pytorch",
            model_wrapper_cfg=dict(type="CPUDistributedDataParallel"),
            sync_bn=sync_bn,
        )
        assert get_rank() == rank
        content = dict(state=at_start.state, batches=[images for images, *_ in at_start.passes])
        torch.save(content, f"{folder}/{name}_{rank}.pth")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_equal_statistics(tmp_path):
    run_processes(run_rank, str(tmp_path))
    for name in ("own", "sync"):
        ranks = [torch.load(tmp_path / f"{name}_{rank}.pth") for rank in (0, 1)]
        shards = [rank["batches"] for rank in ranks]
        assert len(shards[0]) == ITERATIONS and not torch.equal(shards[0][0], shards[1][0])
        for key, tensor in ranks[0]["state"].items():
            assert torch.equal(tensor, ranks[1]["state"][key]), (name, key)
        conv = initial_conv()
        if name == "sync":
            expected = by_momentum([torch.cat(pair) for pair in zip(*shards, strict=True)], conv)
        else:
            both = [by_momentum(shard, conv) for shard in shards]
            expected = [torch.stack(pair).mean(0) for pair in zip(*both, strict=True)]
        found = [ranks[0]["state"][f"norm.running_{key}"].double() for key in ("mean", "var")]
        torch.testing.assert_close(found, list(expected), rtol=1e-5, atol=1e-5)
