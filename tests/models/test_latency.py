"""A latency table as the cost of a search; what of a table is refused."""

import copy
import json
import logging

import pytest
import torch
from torch import nn

from models import FNABackbone, FNASuperNet, InputError, Latency, cost_term, latency, price_list
from models.cost import fixed_cost, layers_with_inputs
from models.latency import LatencyTable, OpRow, device_name, signature
from models.ops import build_op
from tests.models import test_budget
from tests.models.test_budget import SIZE, build
from tests.models.test_supernet import random_path

SEED = [
    [[8, 8], ["k3_e1"], 1],
    [[8, 8], ["k3_e3", "k5_e2"], 2],
    [[8, 12], ["k3_e3"], 2],
    [[12, 16], ["k7_e6", "k3_e3"], 2],
    [[16, 16], ["k3_e3"], 2],
]
ABOUT = dict(kind="cpu", backend="torch", threads=1, batch=1, input_size=SIZE)


def known(op: nn.Module, shape: tuple[int, int, int]) -> float:
    """A latency that only a right op at a right input has: a number of its weights and shape."""
    weights = sum(p.numel() for m in op.modules() if isinstance(m, nn.Conv2d) for p in [m.weight])
    return weights / 1e5 + shape[1] * shape[2] / 1e4 + shape[0] / 1e3


def table_of(supernet: FNASuperNet, device: str | None = None) -> LatencyTable:
    """A table of a space's ops, with known latencies."""
    rows = {}
    for layer, shape in layers_with_inputs(supernet, SIZE):
        ops = [layer]
        if hasattr(layer, "candidates"):
            ops = [layer.build_derived(name) for name in layer.candidates if name != "skip"]
        for op in ops:
            rows[signature(op), shape] = OpRow("op", shape, signature(op), known(op, shape), 0.0, 9)
    return LatencyTable(device=device or device_name("cpu"), ops=tuple(rows.values()), **ABOUT)


@pytest.fixture
def table_file(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table_of(build()).to_json()))
    return path


@pytest.mark.parametrize("share_weights", [False, True])
def test_the_sum_over_a_network_is_that_of_the_known_latencies(table_file, share_weights):
    supernet = build(share_weights)
    cfg = dict(type="Latency", table=str(table_file), target="0.9 seed", input_size=SIZE)
    term = cost_term(cfg, supernet, SEED)
    for seed in range(3):
        path = random_path(supernet, seed)
        prices = price_list(supernet, term.cost, SIZE)
        total = term.fixed + sum(row[i].item() for row, i in zip(prices, path, strict=True))
        network = FNABackbone(supernet.search_space.net_config(path), (0,))
        layers = [each for each in layers_with_inputs(network, SIZE)]
        expected = [known(*each) for each in layers if not isinstance(each[0], nn.Identity)]
        assert total == pytest.approx(sum(expected))
    seed = FNABackbone(SEED, (0,), output_stride=32)
    assert term.target == pytest.approx(0.9 * fixed_cost(seed, term.cost, SIZE))
    weighted = dict(cfg, weight=0.1, base=10, scale=1)
    del weighted["target"]
    loss = cost_term(weighted, supernet, SEED)(torch.tensor(100.0))
    assert loss.item() == pytest.approx(0.1 * 2)  # λ · log_10(100 ms / 1 ms)


def test_an_op_is_known_by_what_it_computes():
    """Not by its norms, as they are of other kinds in a super network and folded when deployed."""
    plain = signature(build_op("k5_e3", 8, 12, 2))
    assert plain == signature(build_op("k5_e3", 8, 12, 2, norm=lambda n: nn.BatchNorm2d(n, 1e-3)))
    others = [("k3_e3", 8, 12, 2), ("k5_e6", 8, 12, 2), ("k5_e3", 8, 16, 2), ("k5_e3", 8, 12, 1)]
    others += [("k5_e3", 8, 12, 1, 2)]
    assert len({plain, *(signature(build_op(*op)) for op in others)}) == 6
    assert "\n" not in plain


def test_another_device_is_warned_of(tmp_path, table_file, monkeypatch):
    said = []
    monkeypatch.setattr(latency, "print_log", lambda text, *_, level: said.append((level, text)))
    Latency(str(table_file))
    assert not said
    path = tmp_path / "other.json"
    path.write_text(json.dumps(table_of(build(), "Abacus 3000").to_json()))
    Latency(str(path))
    ((level, text),) = said
    assert level == logging.WARNING and "was measured on Abacus 3000" in text
    assert device_name("cpu") in text


def changed(table: dict, where: str, value: object) -> dict:
    table = copy.deepcopy(table)
    *path, last = where.split(".")
    inner = table
    for key in path:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return table


@pytest.mark.parametrize(
    "where, value, message",
    [
        ("unit", "s", "its unit is 's', expected 'ms'"),
        ("unit", ["ms"], "its unit is"),
        ("format", KeyError, "is no table of scripts/measure_latency.sh"),
        ("input_size", [64, 97], "Latency is of images of 64x97, but input_size is 64x96"),
        ("input_size", [64, 96, 3], "input_size is [64, 96, 3], expected [height, width]"),
        ("device", "", "device is '', expected text"),
        ("kind", "abacus", "kind is 'abacus', expected 'cpu' or 'cuda'"),
        ("threads", True, "threads is True, expected a whole number"),
        ("batch", 0, "batch is 0, expected a whole number"),
        ("ops", {}, "ops is {}, expected a list of rows"),
        ("ops", [1], "ops is [1], expected a list of rows"),
        ("ops", [], "lacks MBConv("),
        ("ops.3.median", float("nan"), "median is nan, expected a number of ms"),
        ("ops.3.median", -1.0, "median is -1.0, expected a number of ms"),
        ("ops.3.median", "1", "median is '1', expected a number of ms"),
        ("ops.3.median", 10**400, "median is 1000"),
        ("ops.3.input", [8, 16], "input is [8, 16], expected [C, H, W]"),
        ("ops.3.module", KeyError, "module is None, expected text"),
        ("ops.3.module", "MBConv()", "it is of another search space"),
        ("ops.3.input", [8, 16, 25], "at an input of 8x"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(table_file, where, value, message):
    content = changed(json.loads(table_file.read_text()), where, value)
    table_file.write_text(json.dumps(content))
    cfg = dict(type="Latency", table=str(table_file), target=5, input_size=SIZE)
    with pytest.raises(InputError) as error:
        cost_term(cfg, build(), SEED)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("content", [b"", b"[", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no table of scripts/measure_latency.sh"):
        Latency(str(path))


def test_a_missing_table_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Latency(str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="Is a directory"):
        Latency(str(tmp_path))
    with pytest.raises(InputError, match="cost: .*'table'"):
        cost_term(dict(type="Latency", target=1, input_size=SIZE), build(), SEED)


def test_a_seed_that_the_table_does_not_know_is_no_measure(table_file):
    cfg = dict(type="Latency", table=str(table_file), target="0.9 seed", input_size=SIZE)
    with pytest.raises(InputError, match="lacks MBConv"):
        cost_term(cfg, build(), test_budget.SEED)
