"""The clock, the backends, and what test.sh --latency says."""

import json
import statistics
import time

import pytest
import torch
from mmengine.config import Config
from torch import nn

from engine import latency
from engine.latency import (
    GivenMaps,
    InContext,
    OnnxRuntimeBackend,
    RawOutputs,
    Timing,
    TorchBackend,
    folded,
    make_backend,
    measure,
    to_onnx,
)
from engine.tables import read_row
from engine.test import describe_latency, measure_latency
from models import FNABackbone, InputError
from models.files import write_whole
from search.derived import derived_backbone
from tests.search.tools import SUPERNET, TinyTask


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = FNABackbone("[[8, 8], ['k3_e1'], 1] | [[8, 12], ['k5_e3', 'k3_e2'], 2]", (1, 2), 4)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network


def test_a_timing_is_median_and_quartiles():
    rounds = [5.0, 1.0, 2.0, 3.0, 4.0, 100.0, 2.5]
    low, median, high = statistics.quantiles(rounds, n=4, method="inclusive")
    timing = Timing.of(rounds)
    assert (timing.median, timing.count) == (median, 7) == (3.0, 7)
    assert timing.spread == pytest.approx((high - low) / median)
    assert Timing.of([0.0, 0.0]) == Timing(0.0, 0.0, 2)


class Recorder:
    """A backend whose clock only writes down who was timed, and after whom."""

    def __init__(self):
        self.timed = []

    def prepare(self, module, inputs):
        return module

    def milliseconds(self, run, before, runs):
        self.timed.append(f"{run} after {before}")
        return len(self.timed)


def test_networks_and_parts_are_measured_in_turns():
    backend = Recorder()
    networks, parts = {1: ("a", ()), 2: ("b", ())}, {3: ("part", ())}
    times = measure(backend, networks, 3, parts=parts)
    warm_up, first, second, third = (backend.timed[i : i + 3] for i in (0, 3, 6, 9))
    assert warm_up == ["a after a", "b after b", "part after part"]
    assert first == third == ["a after a", "b after b", "part after a"]
    assert second == ["a after a", "b after b", "part after b"]
    assert times == {1: [4, 7, 10], 2: [5, 8, 11], 3: [6, 9, 12]}


def test_norms_are_folded_and_the_network_left_alone():
    network = small_network().train()
    fold, x = folded(network), torch.randn(2, 3, 20, 24)
    assert network.training
    assert not [m for m in fold.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for one, other in zip(fold(x), network.eval()(x), strict=True):
            torch.testing.assert_close(one, other)


def test_onnx_runtime_computes_the_same():
    import onnxruntime

    network, x = small_network(), torch.randn(1, 3, 20, 24)
    session = onnxruntime.InferenceSession(to_onnx(network, [x]))
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        for one, other in zip(outputs, network.eval()(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [TorchBackend, OnnxRuntimeBackend])
def test_more_work_takes_longer_on_a_real_clock(make):
    backend = make("cpu", 1) if make is TorchBackend else make(1)
    one = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.randn(1, 32, 48, 48)
    networks = {"one": (one, [x]), "six": (nn.Sequential(*[one] * 6), [x])}
    times = {key: Timing.of(rounds).median for key, rounds in measure(backend, networks, 5).items()}
    assert 2 * times["one"] < times["six"] < 18 * times["one"]


def test_threads_are_put_back():
    before = torch.get_num_threads()
    seen = []
    backend = TorchBackend("cpu", before + 1)
    backend.milliseconds(lambda: seen.append(torch.get_num_threads()), lambda: None, 2)
    assert seen == [before + 1] * 2 and torch.get_num_threads() == before


def test_the_clock_takes_the_median_of_runs():
    durations = iter([0.0, 0.05, 0.01, 0.012, 0.0] * 2 + [0.05] * 6)  # the last are not timed

    def nothing() -> None:
        pass

    def work() -> None:
        end = time.thread_time() + next(durations)
        while time.thread_time() < end:
            pass

    assert 9 < latency._on_cpu(work, nothing, 5, threads=1) < 30
    assert 9 < latency._on_cpu(work, nothing, 5, threads=2) < 45
    # of one thread only its own time counts, not that in which others have its core
    assert latency._on_cpu(lambda: time.sleep(0.02), work, 3, threads=1) < 10
    assert latency._on_cpu(lambda: time.sleep(0.02), work, 3, threads=2) > 19


def test_a_gpu_is_timed_by_events(monkeypatch):
    """Around all runs, which follow each other: the CPU waits once, at the end."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 12.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert (
        TorchBackend("cuda", 1).milliseconds(
            lambda: log.append("run"), lambda: log.append("before"), 4
        )
        == 3.0
    )
    assert log == ["before", "event", *["run"] * 4, "event", "wait"]


def test_the_default_backend_is_that_of_deployment(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_backend(None, 1).name == "onnxruntime"
    assert make_backend("torch", 1).kind == "cpu"
    with pytest.raises(InputError, match="no GPU at hand"):
        make_backend("torch", 1, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Abacus")
    assert (make_backend(None, 1).name, make_backend(None, 1).kind) == ("torch", "cuda")
    assert make_backend("torch", 1, "cpu").kind == "cpu"
    with pytest.raises(InputError, match="onnxruntime measures on CPU only, not on Abacus"):
        make_backend("onnxruntime", 1)


@pytest.mark.gpu
def test_a_real_gpu_takes_some_time():
    backend = make_backend("torch", 1, "cuda")
    x = torch.randn(1, 3, 64, 64)
    (rounds,) = measure(backend, {0: (small_network(), [x])}, 3).values()
    assert 0 < Timing.of(rounds).median < 1000


def test_the_context_adds_the_same_to_any_op():
    op, x = nn.Conv2d(6, 9, 3, stride=2), torch.randn(1, 8, 10, 12)
    for each in (op, nn.Identity()):
        assert InContext(each, (6, 10, 12))(x).shape == (1, 8, 1, 1)
    stem = nn.Conv2d(3, 9, 3)
    assert InContext(stem, (3, 10, 12))(torch.randn(1, 3, 10, 12)).shape == (1, 8, 1, 1)


def test_what_stands_in_for_a_backbone_gives_its_maps():
    maps = [torch.randn(1, 2, 3, 3), torch.randn(1, 4, 2, 2)]
    assert [m.shape for m in GivenMaps()(maps)] == [m.shape for m in maps]
    assert GivenMaps()(maps[0])[0] is maps[0]


def test_the_latency_of_a_test(tmp_path):
    model = TinyTask(SUPERNET)
    supernet = model.backbone
    model.backbone = derived_backbone(supernet, supernet.derive())
    record = measure_latency(model, Config(dict(input_size=(16, 16))))
    assert 0 < record["backbone"]["median"] < 1.2 * record["model"]["median"]
    assert record | dict(unit="ms", backend="torch", threads=1, batch=1) == record
    line = describe_latency(record)
    assert "whole model" in line and "backbone" in line and "torch on" in line
    assert "1 thread, batch 1, 16x16" in line
    metrics = dict(params=1e6, latency=record)
    write_whole(tmp_path / "metrics.json", json.dumps(metrics).encode())
    assert read_row("it", str(tmp_path))["latency"].endswith(" ms")
    with pytest.raises(InputError, match="--latency: the config has no input_size"):
        measure_latency(model, Config(dict()))


def test_raw_outputs_are_all_tensors_of_a_detector():
    class Head(nn.Module):
        def forward(self, inputs, mode):
            assert mode == "tensor"
            return [inputs, inputs + 1], (inputs,)

    assert len(RawOutputs(Head())(torch.zeros(1))) == 3
