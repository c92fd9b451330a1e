"""Both seeded loops, interrupted anywhere, and evaluations that were due."""

import itertools
from collections import OrderedDict

import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from engine.compat.safe_load import install_safe_loading
from engine.resume import DueEvaluation, SeededBatchSampler, seeded_dataloader_cfg
from engine.run_state import CheckRunState
from models import InputError
from tests.search.tools import equal, stop_workers

NUMBERS = itertools.count()
EPOCHS = dict(type="SeededEpochLoop", max_epochs=3)  # of 5 batches
ITERS = dict(type="SeededIterLoop", max_iters=15)


@DATASETS.register_module()
class Shapes(BaseDataset):
    """Ten images, three of them upright, with noise of their own at each use."""

    def load_data_list(self) -> list[dict]:
        return [dict(number=n, width=2 if n % 3 else 1, height=1 + (n % 3 == 0)) for n in range(10)]

    def prepare_data(self, index: int) -> dict:
        return dict(number=index, x=torch.tensor([index / 9, 1.0]) + 0.1 * torch.randn(2))


@MODELS.register_module()
class Line(BaseModel):
    """A regression whose forward is random."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.seen: list[list[int]] = []

    def forward(self, number, x, mode="tensor"):
        self.seen.append([int(n) for n in number])
        output = self.layers(torch.stack(list(x)))
        return {"loss": output.square().mean()} if mode == "loss" else [output]


@METRICS.register_module()
class Count(BaseMetric):
    """What was evaluated: at the end, the number of samples."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {"count": len(results)}


class InterruptAt(Hook):
    """Stops a run at a call of this hook of mmengine's."""

    priority = "LOWEST"

    def __init__(self, stage: str, call: int):
        self.left = call
        setattr(self, stage, self._count)

    def _count(self, runner, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def safe_loading(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
    install_safe_loading()


def make_runner(work_dir, loop, resume=False, interval=1, num_workers=0, loader=None, **settings):
    loader = dict(
        batch_size=2,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        sampler=dict(type="DefaultSampler", shuffle=True),
        dataset=dict(type="Shapes"),
    ) | (loader or {})
    if loop["type"] == "SeededEpochLoop":
        loader.setdefault("batch_sampler", dict(type="mmdet.AspectRatioBatchSampler"))
    by_mmengine = loop["type"] == "EpochBasedTrainLoop"
    arguments = dict(
        model=dict(type="Line"),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9)),
        param_scheduler=dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=9),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1),
            checkpoint=dict(
                type="WholeCheckpointHook",
                # mmengine's loop does not resume in the middle of an epoch
                **dict(interval=1) if by_mmengine else dict(interval=interval, by_epoch=False),
            ),
        ),
        custom_hooks=[dict(type="PlainHistory"), dict(type="DueEvaluation")],
        randomness=dict(seed=3),
        resume=resume,
        cfg=dict(resume=resume),
        experiment_name=f"resume_{next(NUMBERS)}",
    )
    return Runner(**arguments | settings)


def state(runner: Runner) -> dict:
    scalars = runner.message_hub.log_scalars
    return dict(
        weights=runner.model.state_dict(),
        optimizer=runner.optim_wrapper.state_dict(),
        logged={k: v.data[0].tolist() for k, v in scalars.items() if not k.endswith("time")},
    )


def train_interrupted(work_dir, interruption, *args, **kwargs) -> tuple[Runner, Runner]:
    """A run that is stopped, and the one that resumes it, to the end."""
    stopped = make_runner(work_dir, *args, **kwargs)
    stopped.register_hook(interruption)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = make_runner(work_dir, *args, resume=True, **kwargs)
    resumed.train()
    return stopped, resumed


@pytest.mark.slow
@pytest.mark.parametrize("loop", [EPOCHS, ITERS], ids=["epochs", "iterations"])
@pytest.mark.parametrize("after, num_workers", [(1, 0), (5, 0), (7, 2), (9, 0), (14, 0)])
def test_both_loops_resume_to_the_bit(loop, after, num_workers, tmp_path):
    """With a checkpoint every three iterations, so that steps are made again."""
    settings = dict(loop=loop, interval=3, num_workers=num_workers)
    runs = train_interrupted(tmp_path / "run", InterruptAt("before_train_iter", after), **settings)
    whole = make_runner(tmp_path / "whole", **settings)
    whole.train()
    assert len(whole.model.seen) == 15
    used = (after - 1) // 3 * 3
    assert runs[1].model.seen == whole.model.seen[used:]
    assert equal(state(runs[1]), state(whole))
    for runner in (*runs, whole):
        stop_workers(runner.train_loop)


def test_batches_are_of_one_shape_and_an_epoch_has_all_images(tmp_path):
    runner = make_runner(tmp_path, EPOCHS)
    runner.train()
    epochs = [runner.model.seen[start : start + 5] for start in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(n for batch in epoch for n in batch) == list(range(10))
        assert sum(len({n % 3 == 0 for n in batch}) > 1 for batch in epoch) <= 1  # what is left
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_epoch_of_another_length_begins_anew(tmp_path):
    first = make_runner(tmp_path, EPOCHS)
    first.register_hook(InterruptAt("after_train_iter", 7))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    settings = dict(resume=True, loader=dict(batch_size=1))
    smaller = make_runner(tmp_path, EPOCHS, **settings)
    smaller.register_hook(InterruptAt("after_train_iter", 13))
    with pytest.raises(KeyboardInterrupt):
        smaller.train()
    assert sorted(n for batch in smaller.model.seen[:10] for n in batch) == list(range(10))
    again = make_runner(tmp_path, EPOCHS, **settings)
    again.register_hook(CheckRunState())
    again.train()
    assert again.iter == 7 + 20
    last_epoch = smaller.model.seen[10:] + again.model.seen
    assert sorted(n for batch in last_epoch for n in batch) == list(range(10))


@pytest.mark.parametrize("loop", [EPOCHS, ITERS], ids=["epochs", "iterations"])
@pytest.mark.parametrize("batch_size", [2, 1])
def test_passes_of_another_length_are_told(loop, batch_size, tmp_path, monkeypatch):
    first = make_runner(tmp_path, loop)
    first.register_hook(InterruptAt("after_train_iter", 7))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    resumed = make_runner(tmp_path, loop, resume=True, loader=dict(batch_size=batch_size))
    told = []
    monkeypatch.setattr(resumed.logger, "warning", told.append)
    resumed.train()
    lines = [line for line in told if "does not continue exactly" in line]
    assert len(lines) == (batch_size == 1)
    assert all("10 batches, and had 5" in line for line in lines)


def test_what_cannot_be_counted_is_refused(tmp_path):
    cfg = dict(drop_last=True, batch_sampler=dict(type="Any"), dataset={})
    with pytest.raises(InputError, match="drop_last does not go with a batch_sampler"):
        seeded_dataloader_cfg(cfg, 0)
    for loop in (EPOCHS, ITERS):
        loader = dict(batch_size=11, drop_last=True, batch_sampler=None)
        with pytest.raises(InputError, match="train_dataloader: 10 images do not fill one batch"):
            make_runner(tmp_path, loop, loader=loader).train()


def test_samples_have_seeds_of_their_own():
    sampler = SeededBatchSampler(torch.utils.data.SequentialSampler(range(6)), 2, part=0)
    sampler.sampler.set_epoch = lambda epoch: None
    sampler.set_seed(5)
    sampler.start(0)
    first = list(sampler)
    sampler.start(0, skip=2)
    assert list(sampler) == first[2:]
    sampler.start(1)
    seeds = {seed for batch in [*first, *sampler] for _, seed in batch}
    assert len(seeds) == 12


def test_a_pass_that_was_left_in_the_middle_leaves_nothing_behind():
    """As that of α's data is when the ranking starts one of its own."""
    sampler = DefaultSampler(DATASETS.build(dict(type="Shapes")))
    inner = dict(type="mmdet.AspectRatioBatchSampler")
    batches = SeededBatchSampler(sampler, 2, part=0, inner=inner)
    batches.start(0)
    whole = list(batches)
    assert len(whole) == 5
    for count in range(5):
        left = list(itertools.islice(unfinished := iter(batches), count))
        assert left == whole[:count] and list(batches) == whole
        assert list(unfinished) == whole[count:]


VALIDATION = dict(
    val_dataloader=dict(
        batch_size=1,
        num_workers=0,
        dataset=dict(type="Shapes"),
        sampler=dict(type="DefaultSampler"),
    ),
    val_evaluator=dict(type="Count"),
    val_cfg=dict(type="ValLoop"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "loop, evaluated_after",
    [
        (EPOCHS | dict(val_interval=2), [2, 3]),
        (ITERS | dict(val_interval=6), [6, 12, 15]),
        (ITERS | dict(val_begin=8, dynamic_intervals=[(10, 1)]), [9, 10, 11, 12, 13, 14, 15]),
        (dict(type="EpochBasedTrainLoop", max_epochs=3), [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("at", ["before_val", "after_val_iter", "after_val"])
def test_an_evaluation_that_was_due_is_made_up_for(loop, evaluated_after, at, tmp_path):
    """Interrupted in the last one, when the last checkpoint has been written."""
    last = len(evaluated_after) if at != "after_val_iter" else 10 * len(evaluated_after) - 3
    interval = 5  # at the end of each epoch and after 15 iterations
    stopped, resumed = train_interrupted(
        tmp_path, InterruptAt(at, last), loop, interval=interval, **VALIDATION
    )
    count = resumed.message_hub.get_scalar("val/count").data[0]
    assert count.tolist() == [10] * len(evaluated_after)
    assert len(resumed.model.seen) == 10  # of the evaluation, and no training


def test_an_evaluation_is_not_made_twice(tmp_path):
    """A checkpoint in the middle of an epoch knows of the evaluation before it."""
    loop = EPOCHS | dict(val_interval=1)
    interruption = InterruptAt("before_train_iter", 8)
    _, resumed = train_interrupted(tmp_path, interruption, loop, **VALIDATION)
    assert resumed.message_hub.get_scalar("val/count").data[0].tolist() == [10] * 3
    assert isinstance(resumed.hooks[-1], DueEvaluation)


def test_processes_draw_different_random_numbers(monkeypatch):
    """For their samples; and the same ones again."""

    def seeds(rank):
        monkeypatch.setattr("engine.resume.get_rank", lambda: rank)
        sampler = DefaultSampler(list(range(10)), shuffle=True, seed=1)
        batches = SeededBatchSampler(sampler, batch_size=2, part=0)
        batches.set_seed(1)
        return [seed for batch in batches for _, seed in batch]

    assert seeds(0) == seeds(0)
    assert len(set(seeds(0) + seeds(1))) == 20
