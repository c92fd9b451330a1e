"""Latency tables from a fake clock, their check, and a search whose cost is latency."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from engine.latency import InContext, RawOutputs, Timing, TorchBackend
from models import FNASuperNet, InputError, NetConfig, count_madds, register_op
from models.latency import LatencyTable
from search import measure_latency
from search.measure_latency import Check, find_ops, measure_table
from search.random_architectures import draw_over_costs

from .tools import SUPERNET, make_runner, skip_pictures

SIZE = (16, 16)


class FakeBackend:
    """Its milliseconds are thousands of multiply-adds, of whole networks ``factor`` times these; in
    some rounds the machine is slower."""

    name, kind, threads = "torch", "cpu", 1

    def __init__(self, slow: float = 1.0, factor: float = 1.0):
        self.slow, self.factor = slow, factor
        self.random = random.Random(0)
        self.prepared = []

    def prepare(self, module, inputs):
        self.prepared.append(module)
        _, channels, *size = inputs[0].shape
        if isinstance(module, RawOutputs):
            return 7.0
        madds = count_madds(module, size, channels) / 1e3
        return madds if isinstance(module, InContext) else self.factor * madds

    def milliseconds(self, run, before, runs):
        return run * self.random.choice([1] * 7 + [self.slow] * 3)

    def versions(self):
        return {"fake": "1"}


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type="TinyTask", backbone=SUPERNET))


def table_by(backend: FakeBackend, repeats: int = 5) -> tuple[dict, Check]:
    model = build_model()
    networks = draw_over_costs(model.backbone, SIZE, 8, torch.Generator().manual_seed(1))
    return measure_table(backend, model, SIZE, 1, repeats, networks)


def test_a_table_holds_each_op_once_with_its_own_time():
    backend = FakeBackend()
    content, check = table_by(backend)
    # stem and fixed layer; k3_e1 and k5_e2 in each of the four layers, of which none sees what
    # another does
    assert [row["op"] for row in content["ops"]] == ["stem", "fixed layer", *["k3_e1", "k5_e2"] * 4]
    ops = find_ops(build_model().backbone, SIZE)
    for ((text, shape), op), row in zip(ops.items(), content["ops"], strict=True):
        assert (row["module"], tuple(row["input"])) == (text, shape)
        # the convs around an op are equal to some multiply-adds
        channels, *size = shape
        expected = count_madds(op.module, size, channels) / 1e3
        assert row["median"] == pytest.approx(expected, abs=0.1)
        assert row["spread"] == 0 and row["count"] == 5
    assert content["fixed"]["rest"]["median"] == 7.0
    fixed = sum(row["median"] for row in content["ops"][:2])
    assert content["fixed"]["backbone"]["median"] == pytest.approx(fixed)
    assert len(check.networks) == 6 and check.factor == pytest.approx(1.0, abs=5e-3)
    assert check.errors == pytest.approx([0.0] * 6, abs=5e-3)
    assert check.spearman == pytest.approx(1.0) and check.good
    wrapped = [module for module in backend.prepared if isinstance(module, InContext)]
    assert len(wrapped) == 10 + 3  # the ops, and their inputs other than the image


def test_a_table_is_calibrated_by_networks_that_do_not_check_it():
    plain, _ = table_by(FakeBackend())
    content, check = table_by(FakeBackend(factor=1.25))
    assert check.factor == pytest.approx(1.25, abs=5e-3)
    assert check.errors == pytest.approx([0.0] * 6, abs=5e-3)
    for row, other in zip(content["ops"], plain["ops"], strict=True):
        assert row["median"] == pytest.approx(1.25 * other["median"], rel=5e-3)
    drawn = draw_over_costs(build_model().backbone, SIZE, 8, torch.Generator().manual_seed(1))
    assert check.networks == [drawn[n] for n in (0, 2, 3, 4, 6, 7)]


def test_a_table_is_read_as_it_was_written():
    content, _ = table_by(FakeBackend())
    content = json.loads(json.dumps(content))
    table = LatencyTable.from_json(content)
    assert table.to_json().items() <= content.items()
    for key in ("device", "backend", "threads", "batch", "input_size", "repeats", "versions"):
        assert content[key]


def test_slow_rounds_change_no_median_and_are_told_of():
    quiet, _ = table_by(FakeBackend(), repeats=101)
    loud, check = table_by(FakeBackend(slow=1.5), repeats=101)
    assert [r["median"] for r in loud["ops"]] == pytest.approx([r["median"] for r in quiet["ops"]])
    assert not quiet["noise"]["noisy"] and loud["noise"]["noisy"]
    assert any("too noisy" in line for line in measure_latency.summary(loud, check))


def test_the_checks_statistics_by_hand():
    one = NetConfig.parse("[[8, 8], ['k3_e1'], 1]")
    measured = [Timing(median, 0.01, 5) for median in (1.0, 2.0, 4.0, 5.0)]
    check = Check([one] * 4, [1.1, 1.8, 5.0, 4.0], measured)
    assert check.errors == pytest.approx([0.1, -0.1, 0.25, -0.2])
    assert check.mean_absolute_error == pytest.approx(0.1625)
    assert check.bias == pytest.approx(0.0125)
    assert check.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))  # two neighbours swapped
    assert not check.good
    assert "4 random architectures of 1.00 to 5.00 ms: Spearman 0.800" in str(check)


def test_architectures_of_the_check_are_of_all_sizes():
    supernet = build_model().backbone
    drawn = draw_over_costs(supernet, SIZE, 40, torch.Generator().manual_seed(0))
    madds = [count_madds(measure_latency.derived_backbone(supernet, n), SIZE) for n in drawn]
    low, high = min(madds[:10]), max(madds[-10:])
    assert sum(madds[:10]) / 10 < low + (high - low) / 3
    assert sum(madds[-10:]) / 10 > high - (high - low) / 3
    again = draw_over_costs(supernet, SIZE, 40, torch.Generator().manual_seed(0))
    assert drawn == again


@register_op(r"lookalike_(?P<number>\d)")
class Lookalike(nn.Identity):
    """An op whose text hides what it computes."""

    def __init__(self, in_channels, out_channels, number, **_):
        super().__init__()
        self.number = number


def test_ops_that_look_alike_are_refused():
    space = {k: v for k, v in SUPERNET.items() if k != "type"}
    ops = ["lookalike_1", "lookalike_2"]
    supernet = FNASuperNet(**space | dict(layer_ops={"2.1": ops}))
    with pytest.raises(InputError, match="ops lookalike_1 and lookalike_2 look alike"):
        find_ops(supernet, SIZE)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny_arch_adapt.py"
    train_cfg = dict(type="ArchAdaptLoop", cost=dict(type="MAdds", input_size=SIZE))
    path.write_text(
        f"model = dict(type='TinyTask', backbone={SUPERNET!r})\ninput_size = {SIZE}\n"
        f"train_cfg = {train_cfg!r}\ndefault_scope = 'mmengine'\n"
    )
    return path


def run_command(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["search.measure_latency", *map(str, arguments)])
    measure_latency.main()


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_the_command_measures_checks_and_draws(tmp_path, monkeypatch, capsys, config, backend):
    out, picture = tmp_path / "new" / "table.json", tmp_path / "check.png"
    counts = ["--repeats", 2, "--networks", 4, "--backend", backend]
    run_command(monkeypatch, config, "--out", out, "--picture", picture, *counts)
    text = capsys.readouterr().out
    assert "Check: 3 random architectures of" in text and f"The table is in {out}" in text
    table = LatencyTable.read(out)
    assert (table.backend, table.threads, table.batch, table.input_size) == (backend, 1, 1, SIZE)
    assert len(table.ops) == 10 and all(row.count == 2 for row in table.ops)
    assert sum(row.median for row in table.ops) > 0
    content = json.loads(out.read_text())
    assert set(content["check"]) >= {"spearman", "mean_absolute_error", "bias", "networks"}
    assert len(content["check"]["networks"]) == 3
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, message",
    [
        ("--threads 1000", "1000 threads: expected 1 to"),
        ("--batch 0", "--batch 0: expected at least 1"),
        ("--repeats 1", "--repeats 1: expected at least 2"),
        ("--networks 2", "--networks 2: expected at least 4"),
        ("--input-size 0 4", "expected at least 1 1"),
    ],
)
def test_the_command_refuses(tmp_path, monkeypatch, config, options, message):
    with pytest.raises(InputError, match=message):
        run_command(monkeypatch, config, "--out", tmp_path / "t.json", *options.split())
    assert not list(tmp_path.glob("*.json"))


def test_the_command_wants_a_search(tmp_path, monkeypatch):
    config = "configs/fna_det/retinanet_param_adapt_bccd.py"
    with pytest.raises(InputError, match="is of no architecture adaptation"):
        run_command(monkeypatch, config, "--out", tmp_path / "t.json")


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, config):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TorchBackend, "milliseconds", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_command(monkeypatch, config, "--out", tmp_path / "t.json", "--backend", "torch")
    assert [path.name for path in tmp_path.iterdir()] == [config.name]


def search(tmp_path: Path, monkeypatch, **table) -> tuple[dict, str]:
    """A search to a target between the cheapest and the dearest; its latency.json, its log."""
    content, _ = table_by(FakeBackend())
    content |= table
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    cost = dict(type="Latency", table=str(path), target=60.0, input_size=SIZE)
    skip_pictures(monkeypatch)
    runner = make_runner(tmp_path / "run", loop=dict(cost=cost))
    runner.train()
    text = next(Path(runner.log_dir).glob("*.log")).read_text()
    return json.loads((tmp_path / "run" / "latency.json").read_text()), text


def test_a_search_for_latency_measures_what_it_found(tmp_path, monkeypatch):
    record, text = search(tmp_path, monkeypatch)
    assert record["unit"] == "ms" and record["asked"] == 60.0
    found = record["networks"]["found"]
    network = measure_latency.derived_backbone(build_model().backbone, found["net_config"])
    # of the fake table, thousands of multiply-adds, almost: it is calibrated by networks
    assert found["table"] == pytest.approx(count_madds(network, SIZE) / 1e3, rel=1e-3)
    assert found["table"] <= 60.0
    assert found["net_config"] == (tmp_path / "run" / "net_config.txt").read_text().strip()
    assert 0 < found["backbone"]["median"] <= 1.2 * found["model"]["median"]
    assert record["measured_by"]["backend"] == "torch"
    assert "asked for at most 60.00 ms; found" in text and "measured (spread" in text
    assert "lambda learns to keep the backbone within 60 " in text
    assert "in ms of latency at 16x16" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "table, told",
    [
        (dict(device="Abacus"), "measured here, on another device than the table's"),
        (dict(kind="cuda", device="Abacus"), "not measured here: no GPU at hand"),
        (dict(threads=1000), "not measured here: 1000 threads: expected 1 to"),
        (dict(backend="abacus"), "not measured here: backend 'abacus', expected onnxruntime"),
    ],
)
def test_a_machine_that_is_not_the_tables_is_told_of(tmp_path, monkeypatch, table, told):
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record, text = search(tmp_path, monkeypatch, **table)
    assert told in text
    assert record["networks"]["found"]["table"] <= 60.0
    assert ("measured_by" in record) == ("another device" in told)
