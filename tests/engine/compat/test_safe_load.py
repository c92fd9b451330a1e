import math
import os
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import nn

from engine.compat.safe_load import install_safe_loading, load_checkpoint_file
from models import InputError


class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
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
    data = [{"x": torch.tensor([float(i), 1.0])} for i in range(6)]
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
        cfg={"resume": resume},
        custom_hooks=[{"type": "PlainHistory"}],
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
    losses, _ = resumed["message_hub"]["log_scalars"]["train/loss"]
    losses_before, _ = saved["message_hub"]["log_scalars"]["train/loss"]
    assert len(losses) == 3 and losses[:2] == losses_before
    history = runner.message_hub.get_scalar("train/loss")
    assert type(history) is HistoryBuffer and history.data[0].tolist() == losses
    assert history.mean() == pytest.approx(sum(losses) / 3)
    assert resumed["meta"]["iter"] == 3


def test_a_resumed_runs_logged_numbers_are_those_of_an_uninterrupted_one(tmp_path, safe_loading):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    make_runner(whole, max_iters=3, resume=False).train()
    resumed.mkdir()
    shutil.copy(whole / "iter_2.pth", resumed)
    (resumed / "last_checkpoint").write_text(str(resumed / "iter_2.pth"))
    make_runner(resumed, max_iters=3, resume=True).train()
    contents = [load_checkpoint_file(folder / "iter_3.pth") for folder in (resumed, whole)]
    scalars, expected = (content["message_hub"]["log_scalars"] for content in contents)
    assert scalars.keys() == expected.keys() >= {"train/loss", "train/lr"}
    for name in scalars.keys() - {"train/time", "train/data_time"}:
        assert scalars[name] == expected[name], name


def test_content_is_that_of_a_full_unpickle(run_dir):
    full = torch.load(run_dir / "iter_2.pth", weights_only=False)
    del full["message_hub"]["runtime_info"]["cfg"], full["message_hub"]["resumed_keys"]["cfg"]
    assert repr(load_checkpoint_file(run_dir / "iter_2.pth")) == repr(full)


def test_plain_torch_reads_what_a_run_writes(run_dir):
    with torch.serialization.safe_globals([]):
        hub = torch.load(run_dir / "iter_2.pth", weights_only=True)["message_hub"]
    losses, counts = hub["log_scalars"]["train/loss"]
    assert [type(number) for number in losses] == [float, float] and counts == [1, 1]
    assert type(hub["runtime_info"]["eta"]) is float


def test_the_running_histories_stay_as_they_are(run_dir, tmp_path):
    runner = make_runner(tmp_path, max_iters=2, resume=False)
    runner.train()
    assert type(runner.message_hub.get_scalar("train/loss")) is HistoryBuffer


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
    assert_refused(path, "holds Python objects", "('getattr')")


def test_histories_are_refused_and_the_way_out_works(run_dir, tmp_path):
    content = torch.load(run_dir / "iter_2.pth")
    content["message_hub"]["log_scalars"]["train/loss"] = HistoryBuffer([1.0, 2.0], [1, 1])
    path = save(content, tmp_path)
    with pytest.raises(InputError) as caught:
        load_checkpoint_file(path)
    message = str(caught.value)
    assert "\n" not in message and "HistoryBuffer" in message and "if you trust the file" in message
    (command,) = re.findall(r"torch\.save\(.*, NEW_FILE\)", message)
    exec(command, dict(torch=torch, FILE=path, NEW_FILE=tmp_path / "weights.pth"))
    weights = load_checkpoint_file(tmp_path / "weights.pth")["state_dict"]
    assert all(torch.equal(weights[key], content["state_dict"][key]) for key in weights)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3),
        np.float64(1.5),
        np.array([1, "text"], dtype=object),
        np.zeros(2, dtype=[("field", "O")]),
        # A crafted file: a pointer of its own choice as a Python object.
        Call(np.ndarray, (1,), "O", b"12345678"),
        Call(np._core.multiarray.scalar, np.dtype("O"), b"12345678"),
    ],
)
def test_numpy_objects_are_refused(value, tmp_path):
    path = save({"value": value}, tmp_path)
    assert_refused(path, "holds Python objects", "numpy")


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
    assert_refused(path, "truncated, or not a checkpoint")


# torch's own, about its TorchScript.
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_other_files(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a checkpoint\n")
    assert_refused(text, "truncated, or not a checkpoint")
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    assert_refused(script, "its archive is compressed")
    assert_refused(tmp_path / "none.pth", "No such file or directory")
    assert_refused(tmp_path, "Is a directory")
    assert_refused(save([torch.zeros(1)], tmp_path), "holds a list, expected a dict")


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
