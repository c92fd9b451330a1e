"""A sweep over targets: real searches of the toy task, what is reused, the table."""

import json
import re
import sys
from pathlib import Path

import pytest

from models import FNABackbone, InputError, count_madds
from search import pareto
from search.pareto import Search, read_targets, tabulate, write_results
from tests.conftest import REPO

from .tools import SHARED, SUPERNET

SEED = "[[8, 8], ['k3_e1'], 1] | [[8, 8], ['k5_e3', 'k3_e2'], 2] | [[8, 12], ['k3_e2'], 1]"
CONFIG = """
custom_imports = dict(imports=["search", "tests.search.tools"])
default_scope = "mmengine"
model = dict(type="TinyTask", backbone={supernet!r})
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RandomImages", length=16),
)
train_cfg = dict(
    type="ArchAdaptLoop",
    max_epochs=2,
    arch_start_epoch=1,
    split=dict(ratio=0.5, seed=0),
    cost=dict(type="MAdds", weight=0.1, base=10, scale=2, unit=1e5, input_size=(16, 16)),
    ranking=dict(candidates=3, batches=4),
    seed_net_config={seed!r},
)
optim_wrapper = dict(
    constructor="ArchAdaptOptimWrapperConstructor",
    weights=dict(optimizer=dict(type="SGD", lr=0.02)),
    arch=dict(optimizer=dict(type="Adam", lr=0.1)),
)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=2),
    checkpoint=dict(type="WholeCheckpointHook", interval=1),
)
log_processor = dict(type="ArchLogProcessor")
randomness = dict(seed=0)
"""


@pytest.fixture
def config(tmp_path):
    seed, path = tmp_path / "seed.txt", tmp_path / "tiny_arch_adapt.py"
    seed.write_text(SEED)
    space = SUPERNET | SHARED["supernet"]
    path.write_text(CONFIG.format(supernet=space, seed=str(seed)))
    return path


def sweep(monkeypatch, capfd, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["search.pareto", *map(str, arguments)])
    pareto.main()
    return capfd.readouterr().out


@pytest.mark.slow
def test_searches_to_targets_are_made_once_and_compared(tmp_path, monkeypatch, capfd, config):
    out, seed = tmp_path / "out", tmp_path / "seed.txt"
    published = tmp_path / "published.txt"
    published.write_text(seed.read_text().replace("'k5_e3', 'k3_e2'", "'k5_e3'"))
    options = "--config", config, "--published", published, "--out", out
    text = sweep(monkeypatch, capfd, *options, "--targets", "0.9,0.7")
    assert "1/2  search to 0.7 of the seed's cost  done in" in text
    cost = {name: madds(file) for name, file in (("seed", seed), ("published", published))}
    for target in (0.7, 0.9):
        folder = out / f"target_{target}"
        found = madds(folder / "net_config.txt")
        assert found <= target * cost["seed"]
        rows = json.loads((folder / "references.json").read_text())
        assert {name: row["cost"] * 1e5 for name, row in rows.items()} == pytest.approx(cost)
        best = json.loads((folder / "candidates.json").read_text())[0]
        for row in rows.values():  # on the same batches
            assert row["difference"] == pytest.approx(row["loss"] - best["loss"])
        assert f"| found, target {target} | {found / 1e5:.4g} |" in (out / "pareto.md").read_text()
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    before = (out / "target_0.7" / "net_config.txt").stat().st_mtime_ns
    text = sweep(monkeypatch, capfd, *options, "--targets", "0.7,0.8,0.9")
    assert text.count("already there") == 2
    assert "2/3  search to 0.8 of the seed's cost  done in" in text
    assert (out / "target_0.7" / "net_config.txt").stat().st_mtime_ns == before
    assert "found, target 0.8" in (out / "pareto.md").read_text()


def madds(file: Path) -> int:
    return count_madds(FNABackbone(file, (3,), 4), (16, 16))


def a_search(target: float, cost: float, loss: float, seed: float, published: float) -> Search:
    def row(loss_of: float, cost: float) -> dict:
        return dict(cost=cost, loss=loss_of, difference=loss_of - loss, standard_error=0.02)

    references = dict(seed=row(seed, 10.0), published=row(published, 9.0))
    return Search(target, None, cost, loss, loss - seed, 0.02, 0.4, references)


def test_losses_are_compared_within_a_super_network(tmp_path, capsys):
    searches = [a_search(0.6, 5.9, 3.0, 2.8, 2.9), a_search(0.9, 8.8, 1.9, 2.0, 2.2)]
    rows = {row["network"]: row for row in tabulate(searches, "ms")}
    assert rows["found, target 0.6"]["to the seed's"] == "+0.2000 ± 0.0200"
    assert rows["found, target 0.9"]["to the seed's"] == "-0.1000 ± 0.0200"
    assert rows["found, target 0.6"]["of the seed's"] == "0.590"
    assert rows["published"]["to the seed's"] == "+0.1500"
    assert rows["published"]["loss"] == "2.2000 to 2.9000"
    assert rows["seed"]["to the seed's"] == "+0.0000"
    write_results(tmp_path, searches, "ms")
    lines = (tmp_path / "pareto.md").read_text().splitlines()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert re.search(r"found, target 0.6 +5.9", capsys.readouterr().out)


def test_targets_are_numbers():
    assert read_targets("0.9,0.6, 0.75") == [0.6, 0.75, 0.9]
    for wrong in ("", "a", "0.5,0.5", "0", "-1", "nan", "inf", "0.5,"):
        with pytest.raises(InputError, match="--targets .*: expected different numbers"):
            read_targets(wrong)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--config none.py --targets 1", "config none.py: no such file"),
        ("--config {config} --targets 1 --table none.json", "--table none.json: no such file"),
        (
            "--config configs/fna_det/retinanet_param_adapt_bccd.py --targets 1",
            "is of no architecture adaptation",
        ),
        (
            "--config {config} --targets 1 --published configs/net_configs/retinanet.txt",
            "net_config: its stages are not those of the search space",
        ),
    ],
)
def test_a_sweep_refuses(tmp_path, monkeypatch, capfd, config, arguments, message):
    arguments = arguments.format(config=config).split()
    with pytest.raises(InputError, match=message):
        sweep(monkeypatch, capfd, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def prepared(monkeypatch, capfd, tmp_path):
    """A function: what a command line would start: (settings, references, stamp)."""

    class Recorder:
        def __init__(self, config, settings, references, folder, targets, screen):
            self.settings, self.references = settings, references

        def run(self, stamp):
            started.append((self.settings, self.references, stamp))
            raise KeyboardInterrupt

    started = []
    monkeypatch.setattr(pareto, "Sweep", Recorder)

    def prepare(*arguments):
        with pytest.raises(SystemExit):
            sweep(monkeypatch, capfd, "--targets", "1", "--out", tmp_path / "out", *arguments)
        return started.pop()

    return prepare


def test_what_searches_of_a_sweep_are_told(prepared, tmp_path):
    bccd = "configs/fna_det/ssdlite_arch_adapt_bccd.py"
    settings, references, stamp = prepared("--config", bccd)
    assert {"train_cfg.ranking.candidates=1", "train_cfg.ranking.batches=10"} <= set(settings)
    assert references["published"] == str(REPO / "configs/net_configs/ssdlite.txt")
    assert references["seed"] == str(REPO / "configs/net_configs/mobilenetv2.txt")
    assert prepared("--config", bccd)[2] == stamp

    option = "train_cfg.ranking.batches=7"
    settings, _, other = prepared("--config", bccd, "--cfg-options", option)
    assert other != stamp
    assert option in settings and "train_cfg.ranking.batches=10" not in settings

    table = tmp_path / "table.json"
    content = (REPO / "docs/evidence/bccd_ssdlite/latency_table.json").read_text()
    table.write_text(content)
    settings, _, with_table = prepared("--config", bccd, "--table", table)
    assert {"train_cfg.cost.type=Latency", f"train_cfg.cost.table={table}"} <= set(settings)
    table.write_text(content + " ")
    assert len({stamp, other, with_table, prepared("--config", bccd, "--table", table)[2]}) == 4
