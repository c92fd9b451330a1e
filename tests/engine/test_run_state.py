"""Checkpoints of finished runs, damaged in one place: each is refused in one line."""

import copy
from collections import OrderedDict

import pytest
import torch
from mmengine.runner import CheckpointLoader

from engine.compat.safe_load import install_safe_loading, load_checkpoint_file
from engine.run_state import CheckRunState
from models import InputError
from tests.engine.test_resume import EPOCHS, ITERS, VALIDATION
from tests.engine.test_resume import make_runner as make_adaptation
from tests.search.tools import make_runner as make_search
from tests.search.tools import skip_pictures


@pytest.fixture(autouse=True)
def safe_loading(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
    install_safe_loading()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A runner that has trained by epochs and has evaluated, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
        install_safe_loading()
        runner = make_adaptation(folder, EPOCHS, interval=5, **VALIDATION)
        runner.train()
    return runner, load_checkpoint_file(folder / "iter_15.pth")


def change(path: str, value: object):
    """Puts a value at a place such as 'meta.epoch'; without a value, removes what is there."""

    def damage(checkpoint: dict) -> None:
        *outer, last = path.split(".")
        inner = checkpoint
        for key in outer:
            inner = inner[int(key) if isinstance(inner, list) else key]
        if value is KeyError:
            del inner[last]
        else:
            inner[int(last) if isinstance(inner, list) else last] = value

    return damage


def empty_state(checkpoint: dict) -> None:
    checkpoint["optimizer"]["state"] = {}


def nan_momentum(checkpoint: dict) -> None:
    next(iter(checkpoint["optimizer"]["state"].values()))["momentum_buffer"].fill_(torch.nan)


def other_shape(checkpoint: dict) -> None:
    next(iter(checkpoint["optimizer"]["state"].values()))["momentum_buffer"] = torch.zeros(9)


NESTED = [[[[[[[]]]]]]]
HUB, GROUP, SCHEDULER = "message_hub", "optimizer.param_groups.0", "param_schedulers.0"
DAMAGES = [
    *(change("meta", value) for value in ([], None, KeyError, "text")),
    *(
        change(f"meta.{key}", value)
        for key in ("epoch", "iter")
        for value in (KeyError, "1", 1.0, True, -3, 10**18, None, torch.ones(1))
    ),
    *(change("meta.seed", value) for value in ("1", -1, 2**70, 2**32, 1.5, [1])),
    change("meta.dataset_meta", NESTED),
    change("meta.iter", 3),  # of 2 epochs
    *(change(HUB, value) for value in ([], None, {}, "text")),
    *(
        change(f"{HUB}.{part}", value)
        for part in ("log_scalars", "runtime_info", "resumed_keys")
        for value in (KeyError, [], None, {1: 2})
    ),
    *(
        change(f"{HUB}.log_scalars.train/loss", value)
        for value in (1.0, [[1.0]], [[1.0], [1, 2]], [["x"], [1]], [1, 2], {"a": 1}, NESTED)
    ),
    *(change(f"{HUB}.runtime_info.keep_ckpt_ids", value) for value in (1, ["x"], [[1]], NESTED)),
    *(change(f"{HUB}.runtime_info.last_ckpt", value) for value in (1, ["x"])),
    *(change(f"{HUB}.runtime_info.best_score", value) for value in ("x", [1], None)),
    *(change(f"{HUB}.runtime_info.evaluated", value) for value in ("x", -1)),
    *(change(f"{HUB}.runtime_info.batches_per_epoch", value) for value in ("x", 4, 0)),
    *(change(f"{HUB}.runtime_info.epoch_began", value) for value in ("x", [1], [0, 0], [2, 4])),
    change(f"{HUB}.runtime_info.other", NESTED),
    change(f"{HUB}.resumed_keys.iter", "x"),
    *(change("optimizer", value) for value in ([], None, {}, "text", {"state": {}})),
    *(change("optimizer.state", value) for value in ([], None, {9: {}}, {"x": {}}, {0: 1})),
    *(change("optimizer.param_groups", value) for value in ([], None, {}, [1], [{}, {}])),
    *(change(f"{GROUP}.params", value) for value in ([], None, [0] * 4, ["x"] * 4)),
    *(change(f"{GROUP}.lr", value) for value in (KeyError, "x", None, float("nan"), [1], True)),
    *(change(f"{GROUP}.momentum", value) for value in ("x", float("inf"))),
    change(f"{GROUP}.nesterov", 2),
    *(empty_state, nan_momentum, other_shape),
    *(change("param_schedulers", value) for value in (KeyError, [], None, {}, [1], [{}], "text")),
    *(change(f"{SCHEDULER}.{key}", 1.0) for key in ("step", "optimizer", "_get_value", "new")),
    *(change(f"{SCHEDULER}.last_step", value) for value in (KeyError, "x", None, float("nan"))),
    *(change(f"{SCHEDULER}.base_values", value) for value in (1.0, ["x"], [NESTED])),
    *(change(f"{SCHEDULER}.param_name", value) for value in ("params", 1, None)),
    change(f"{SCHEDULER}.by_epoch", 1),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_in_one_line(damage, finished):
    runner, whole = finished
    checkpoint = copy.deepcopy(whole)
    damage(checkpoint)
    with pytest.raises(InputError) as caught:
        CheckRunState().after_load_checkpoint(runner, checkpoint)
    assert "no run can continue from it: " in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_a_run_writes_is_taken(finished, tmp_path):
    runner, whole = finished
    CheckRunState().after_load_checkpoint(runner, copy.deepcopy(whole))
    older = copy.deepcopy(whole)
    for name in ("batches_per_epoch", "epoch_began", "evaluated"):  # as before they were kept
        del older["message_hub"]["runtime_info"][name]
    CheckRunState().after_load_checkpoint(runner, older)
    schedulers = [
        dict(type="MultiStepLR", by_epoch=False, milestones=[2, 4]),
        dict(type="CosineAnnealingLR", by_epoch=False, T_max=9, eta_min_ratio=0.1),
        dict(type="PolyLR", by_epoch=False, begin=2, end=9),
    ]
    for number, optimizer in enumerate(("AdamW", "RMSprop", "SGD")):  # SGD keeps nothing
        settings = dict(
            param_scheduler=schedulers,
            optim_wrapper=dict(optimizer=dict(type=optimizer, lr=1e-3)),
        )
        folder = tmp_path / str(number)
        short = dict(ITERS, max_iters=3)
        make_adaptation(folder, short, **settings).train()
        resumed = make_adaptation(folder, ITERS, resume=True, **settings)
        resumed.register_hook(CheckRunState())
        resumed.train()
        assert resumed.iter == 15


def test_more_steps_than_the_config_asks_for(finished, tmp_path):
    make_adaptation(tmp_path, ITERS, interval=15).train()
    short = make_adaptation(tmp_path, dict(ITERS, max_iters=4), resume=True)
    short.register_hook(CheckRunState())
    with pytest.raises(InputError, match="it has made 15 iters, and the config asks for 4"):
        short.train()


SEARCH_DAMAGES = [
    *(change("arch_adapt", value) for value in ([], None, KeyError, "text", {})),
    *(
        change(f"arch_adapt.{key}", value)
        for key in ("history", "reported", "temperatures", "costs", "settings", "search_space")
        for value in (KeyError, [], None, NESTED, "text", [[1.0]])
        if not (key == "costs" and value == [])
    ),
    *(change(f"arch_adapt.{key}", value) for key in ("weight", "warned") for value in ("x", None)),
    *(change("arch_adapt.history.0", value) for value in ([], [[0.0]] * 4, [["x"] * 3] * 4)),
    *(change("arch_adapt.reported.0", value) for value in (3, -1, 0.5, "x")),
    *(change("optimizer", value) for value in ({}, [])),
    *(change("optimizer.weights", value) for value in ({}, KeyError)),
    change("optimizer.other", {}),
    *(change("param_schedulers", value) for value in ({}, [], {"weights": []})),
    *(change("param_schedulers.weights", value) for value in ([], None, [{}])),
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search that has ended, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
        install_safe_loading()
        skip_pictures(patch)
        runner = make_search(folder, checkpoint_interval=12)
        runner.train()
    runner.cfg["resume"] = True
    return runner, load_checkpoint_file(folder / "iter_12.pth")


@pytest.mark.parametrize("damage", SEARCH_DAMAGES)
def test_damage_of_a_search_is_refused_in_one_line(damage, searched):
    runner, whole = searched
    checkpoint = copy.deepcopy(whole)
    damage(checkpoint)
    with pytest.raises(InputError) as caught:
        runner.train_loop.report.after_load_checkpoint(runner, checkpoint)
        CheckRunState().after_load_checkpoint(runner, checkpoint)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_searchs_own_state_is_taken(searched):
    runner, whole = searched
    runner.train_loop.report.after_load_checkpoint(runner, whole)
    CheckRunState().after_load_checkpoint(runner, whole)
