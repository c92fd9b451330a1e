import math
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner.checkpoint import get_torch_safe_globals
from torch import nn

from engine.checkpoint import install_safe_loading, load_checkpoint_file
from models.errors import InputError


class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x, mode="tensor"):
        return {"loss": self.linear(torch.stack(x)).square().mean()}


class Call:
    """Pickles as a call of `function`, which a full unpickle makes."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def make_runner(work_dir: Path, max_iters: int, resume: bool) -> Runner:
    data = [{"x": torch.tensor([float(i), 1.0])} for i in range(4)]
    schedulers = [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 2},
        {"type": "MultiStepLR", "milestones": [1, 2], "by_epoch": False},
        {"type": "CosineAnnealingLR", "T_max": 9, "by_epoch": False},
        {"type": "PolyLR", "eta_min": 1e-4, "by_epoch": False},
    ]
    return Runner(
        model=TinyModel(),
        work_dir=str(work_dir),
        train_dataloader={
            "dataset": data,
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": max_iters},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        param_scheduler=schedulers,
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False},
        },
        resume=resume,
        experiment_name=f"{work_dir.name}_{max_iters}",
    )


@pytest.fixture
def safe_loading(monkeypatch):
    """Installs the safe loaders for one test."""
    monkeypatch.setattr(CheckpointLoader, "_schemes", OrderedDict(CheckpointLoader._schemes))
    install_safe_loading()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A folder with iter_2.pth, of a run of two iterations."""
    work_dir = tmp_path_factory.mktemp("run")
    make_runner(work_dir, max_iters=2, resume=False).train()
    return work_dir


def save(content: object, folder: Path) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


def assert_refused(path: Path, *words: str) -> None:
    """Loading fails with one line that has the words and the path."""
    with pytest.raises(InputError) as caught:
        load_checkpoint_file(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, str(path)):
        assert word in message


def test_a_run_resumes_where_it_stopped(run_dir, safe_loading):
    saved = torch.load(run_dir / "iter_2.pth", weights_only=False)
    runner = make_runner(run_dir, max_iters=3, resume=True)
    runner.load_or_resume()
    assert runner.iter == 2
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])
    runner.train()
    resumed = load_checkpoint_file(run_dir / "iter_3.pth")
    losses = resumed["message_hub"]["log_scalars"]["train/loss"]
    losses_before = saved["message_hub"]["log_scalars"]["train/loss"]
    assert type(losses) is HistoryBuffer
    assert len(losses.data[0]) == 3
    assert losses.data[0][:2].tolist() == losses_before.data[0].tolist()
    assert losses.mean() == pytest.approx(losses.data[0].mean())
    assert resumed["meta"]["iter"] == 3


def test_content_is_that_of_a_full_unpickle(run_dir):
    full = torch.load(run_dir / "iter_2.pth", weights_only=False)
    safe = load_checkpoint_file(run_dir / "iter_2.pth")
    assert safe.keys() == full.keys()
    for key in ("optimizer", "param_schedulers", "meta"):
        assert repr(safe[key]) == repr(full[key])
    scalars, expected = (c["message_hub"]["log_scalars"] for c in (safe, full))
    assert scalars.keys() == expected.keys()
    for name, history in scalars.items():
        assert history.max_length == expected[name].max_length
        for values, expected_values in zip(history.data, expected[name].data, strict=True):
            assert type(values) is np.ndarray
            assert values.dtype == expected_values.dtype
            assert values.tolist() == expected_values.tolist()


def test_what_was_loaded_can_be_saved_for_mmengine(run_dir, tmp_path):
    path = save(load_checkpoint_file(run_dir / "iter_2.pth"), tmp_path)
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        hub = torch.load(path, weights_only=True)["message_hub"]
    assert type(hub["log_scalars"]["train/loss"]) is HistoryBuffer


@pytest.mark.parametrize("code", ["?", "i1", "<i8", ">i4", "u2", "f2", "f4", "<f8", ">f8"])
def test_numpy_numbers_come_back(code, tmp_path):
    array = np.arange(6).reshape(2, 3).T.astype(code)
    content = {"array": array, "scalar": array[2, 1], "empty": array[:0]}
    loaded = load_checkpoint_file(save(content, tmp_path))
    for name, value in content.items():
        # numpy turns the numbers into the byte order of the machine.
        assert loaded[name].dtype == value.dtype.newbyteorder("=")
        assert loaded[name].tolist() == value.tolist()
    # Saved again, the array is numpy's own.
    again = torch.load(save(loaded, tmp_path), weights_only=False)
    assert type(again["array"]) is np.ndarray
    assert again["array"].tolist() == array.tolist()


def test_code_is_refused_and_not_run(tmp_path, safe_loading):
    made = tmp_path / "made"
    for function, argument in ((os.mkdir, str(made)), (eval, f"open({str(made)!r}, 'w')")):
        path = save({"state_dict": {}, "meta": Call(function, argument)}, tmp_path)
        assert_refused(path, "holds Python objects", function.__name__, "refused")
        with pytest.raises(InputError, match="holds Python objects"):
            load_checkpoint(nn.Linear(2, 1), str(path))
        assert not made.exists()


def test_resuming_refuses_code(tmp_path, safe_loading):
    made = tmp_path / "made"
    path = save({"state_dict": {}, "meta": Call(os.mkdir, str(made))}, tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(path))
    with pytest.raises(InputError, match="holds Python objects"):
        make_runner(tmp_path, max_iters=1, resume=True).load_or_resume()
    assert not made.exists()


def test_attributes_are_refused(tmp_path):
    path = save({"meta": Call(getattr, torch.nn.Parameter, "__init__")}, tmp_path)
    assert_refused(path, "holds Python objects ('getattr')")


def test_a_history_cannot_bring_functions(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    state = {**history.__getstate__(), "statistics_methods": {"mean": torch.Tensor}}
    path = save({"history": BuildHistory(state)}, tmp_path)
    loaded = load_checkpoint_file(path)["history"]
    assert loaded.statistics("mean") == 1.5
    assert HistoryBuffer._statistics_methods["mean"] is HistoryBuffer.mean


def test_a_history_without_numbers_is_refused(tmp_path):
    state = {"_log_history": [torch.Tensor], "_count_history": [1], "max_length": 9}
    path = save({"history": BuildHistory(state)}, tmp_path)
    assert_refused(path, "holds Python objects", "HistoryBuffer")


class BuildHistory:
    """Pickles as a HistoryBuffer with the given state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return HistoryBuffer, (), self.state


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "text"], dtype=object),
        np.zeros(2, dtype=[("field", "O")]),
        # A crafted file: a pointer of its own choice as a Python object.
        Call(np.ndarray, (1,), "O", b"12345678"),
        Call(np._core.multiarray.scalar, np.dtype("O"), b"12345678"),
    ],
)
def test_numpy_objects_are_refused(value, tmp_path):
    path = save({"value": value}, tmp_path)
    with pytest.raises(InputError):
        load_checkpoint_file(path)


def test_configs_that_mmengine_would_run_are_dropped(tmp_path):
    hub = {"log_scalars": {}, "runtime_info": {"cfg": "x", "a": 1}, "resumed_keys": {"cfg": True}}
    content = {"state_dict": {}, "meta": {"config": "x", "epoch": 3}, "message_hub": hub}
    loaded = load_checkpoint_file(save(content, tmp_path))
    assert loaded["meta"] == {"epoch": 3}
    assert loaded["message_hub"]["runtime_info"] == {"a": 1}
    assert loaded["message_hub"]["resumed_keys"] == {}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_file(share, run_dir, tmp_path):
    whole = (run_dir / "iter_2.pth").read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: math.floor(share * len(whole))])
    assert_refused(path, "damaged, or not a checkpoint", "expected")


# torch's own, about its TorchScript.
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_other_files(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a checkpoint\n")
    assert_refused(text, "not a checkpoint", "expected")
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    assert_refused(script, "not a checkpoint", "expected")
    assert_refused(tmp_path / "none.pth", "not found", "expected")
    assert_refused(tmp_path, "cannot be read")
    assert_refused(save([torch.zeros(1)], tmp_path), "list, not a dict")


def test_old_file_format(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert load_checkpoint_file(path)["weight"].tolist() == [1.0, 1.0]
    torch.save(Call(os.mkdir, "x"), path, _use_new_zipfile_serialization=False)
    assert_refused(path, "holds Python objects", "mkdir")


@pytest.mark.parametrize(
    "url", ["http://a/b.pth", "https://a/b.pth", "torchvision://resnet50", "s3://a/b.pth"]
)
def test_remote_checkpoints_are_refused(url, safe_loading):
    with pytest.raises(InputError, match="not a local file"):
        load_checkpoint(nn.Linear(2, 1), url)


def test_installing_twice_is_harmless(tmp_path, safe_loading):
    install_safe_loading()
    model = nn.Linear(2, 1)
    path = save({"state_dict": {"weight": torch.ones(1, 2), "bias": torch.ones(1)}}, tmp_path)
    load_checkpoint(model, str(path))
    assert model.weight.tolist() == [[1.0, 1.0]]
