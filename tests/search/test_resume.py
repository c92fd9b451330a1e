from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader

from engine.compat.safe_load import install_safe_loading
from models import InputError
from search import loop, report
from search.loop import ArchAdaptLoop

from .tools import SHARED, equal, make_runner, skip_pictures, snapshot, steps_of, stop_workers

# 12 weight steps and 16 of α's; then 4 candidates are ranked on 2 batches.
RANKED = SHARED | dict(
    loop=SHARED["loop"] | dict(arch_steps=2, ranking=dict(candidates=4, batches=2)),
    noise=0.1, dropout=0.5, checkpoint_interval=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    skip_pictures(monkeypatch)


class Interrupt(Hook):
    """Stops a run after a weight step, once its checkpoint is written."""

    priority = "LOWEST"

    def __init__(self, after: int):
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def safe_loading(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
    install_safe_loading()


# Epochs end at 4, 8, 12; α learns from 5 on. With 3 : 2, steps 6, 8 … come without α's before.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "num_workers", "kind"),
    [
        (1, 0, {}),
        (2, 2, {}),
        (4, 0, {}),
        (5, 0, {}),
        (6, 0, {}),
        (7, 2, {}),
        (8, 0, {}),
        (11, 0, {}),
    ]
    + [(4, 0, SHARED), (7, 0, SHARED), (10, 0, SHARED)],
)
def test_a_resumed_run_ends_as_if_never_interrupted(
    after, num_workers, kind, tmp_path, safe_loading
):
    settings = dict(num_workers=num_workers, noise=0.1, dropout=0.5, **kind)
    settings["loop"] = dict(arch_steps=3, weight_steps=2, **kind.get("loop", {}))
    settings |= dict(seed=None, checkpoint_interval=1)  # the seed, too, comes from the checkpoint
    interrupted = make_runner(tmp_path / "resumed", **settings)
    interrupted.register_hook(Interrupt(after))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    resumed = make_runner(tmp_path / "resumed", resume=True, **settings)
    resumed.train()
    assert steps_of(interrupted) + steps_of(resumed) == "WWWW" + "AAAWW" * 4

    whole = make_runner(tmp_path / "whole", **settings | dict(seed=interrupted.seed))
    whole.train()
    assert equal(snapshot(resumed), snapshot(whole))
    for name in ("history", "temperatures", "costs"):
        ours, expected = (getattr(run.train_loop.report, name) for run in (resumed, whole))
        assert ours == expected and len(ours) > 0
    assert resumed.train_loop.cost.weight == whole.train_loop.cost.weight
    for runner in (interrupted, resumed, whole):
        stop_workers(runner.train_loop)
    for name in ("net_config.txt", "alpha.json"):
        contents = [(tmp_path / run / name).read_text() for run in ("resumed", "whole")]
        assert contents[0] == contents[1]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A search with a ranking that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        skip_pictures(patch)
        runner = make_runner(tmp_path_factory.mktemp("ranked"), **RANKED)
        runner.train()
    return runner


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ArchAdaptLoop, "arch_step", 6),
        (ArchAdaptLoop, "_update", 8),  # of α's
        (ArchAdaptLoop, "_update", 9),  # of the weights'
        (loop, "propose", 1),  # between the last epoch and the ranking
        (ArchAdaptLoop, "_task_loss", 28 + 3),  # of the second candidate
        (report, "draw_architectures", 3),  # of the ranking's; candidates.json is written
    ],
)
def test_a_run_interrupted_at_any_place_resumes(
    owner, name, call, ranked, tmp_path, monkeypatch, safe_loading
):
    original, calls = getattr(owner, name), []

    def interrupted(*args):
        result = original(*args)
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_runner(tmp_path, **RANKED).train()
    resumed = make_runner(tmp_path, resume=True, **RANKED)
    resumed.train()
    assert equal(snapshot(resumed), snapshot(ranked))
    for file in ("candidates.json", "net_config.txt", "alpha.json"):
        one, other = (Path(run.work_dir, file).read_text() for run in (resumed, ranked))
        assert one == other, file


def test_a_run_interrupted_while_it_ranks_resumes(tmp_path, monkeypatch, safe_loading):
    def interrupt(*args):
        raise KeyboardInterrupt

    settings = SHARED | dict(dropout=0.5, checkpoint_interval=1)
    settings["loop"] = SHARED["loop"] | dict(ranking=dict(candidates=4, batches=2))
    with monkeypatch.context() as patch:
        patch.setattr("search.loop.evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_runner(tmp_path / "resumed", **settings).train()
    resumed = make_runner(tmp_path / "resumed", resume=True, **settings)
    resumed.train()
    assert steps_of(resumed).count("A") == 0
    make_runner(tmp_path / "whole", **settings).train()
    for name in ("net_config.txt", "candidates.json"):
        contents = [(tmp_path / run / name).read_text() for run in ("resumed", "whole")]
        assert contents[0] == contents[1]


def test_a_resumed_run_must_be_the_same_search(tmp_path, safe_loading):
    first = make_runner(tmp_path, loop=dict(max_epochs=2), checkpoint_interval=1)
    first.train()
    others = {
        r"another search space; 2\.0: expected \['k5_e2', 'k3_e1'\]": dict(
            supernet=dict(ops=["k5_e2", "k3_e1", "skip"])
        ),
        "another search space; 4.0: .* found none": dict(
            supernet=dict(channels=[8, 12, 12], layers=[2, 2, 1], strides=[2, 1, 1])
        ),
        "split_ratio: expected 0.25, found 0.5": dict(loop=dict(split=dict(ratio=0.25, seed=0))),
        "weight_batches_per_epoch: expected 8, found 4": dict(batch_size=1),
        "weight_steps: expected 5, found 1": dict(loop=dict(weight_steps=5)),
    }
    for message, settings in others.items():
        with pytest.raises(InputError, match=message) as caught:
            make_runner(tmp_path, resume=True, **settings).train()
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    torch.save({"state_dict": {}, "meta": {}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth: is of no architecture adaptation"):
        make_runner(tmp_path, resume=True, load_from=str(tmp_path / "other.pth")).train()
    more_epochs = make_runner(tmp_path, resume=True)  # is allowed
    more_epochs.train()
    assert more_epochs.iter == 12
