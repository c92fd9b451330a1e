"""Searches to a target, with ranking, from their files and logs; random architectures."""

import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from models import (
    FNABackbone,
    FNASuperNet,
    InputError,
    MAdds,
    NetConfig,
    cost_term,
    count_madds,
    price_list,
)
from models.ops import SKIP
from search import random_architectures
from search.random_architectures import draw_within
from search.ranking import Candidate, evaluate, propose, to_json
from search.turns import Temperature
from tests.conftest import REPO

from .tools import SHARED, SUPERNET, make_runner, skip_pictures

TARGET = SHARED["cost"]["target"] * 1e5


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of shared weights to a target, at whose end six architectures are ranked."""
    loop = dict(max_epochs=6, arch_steps=4, ranking=dict(candidates=6, batches=3))
    runner = make_runner(
        tmp_path_factory.mktemp("budget"), **SHARED | dict(loop=SHARED["loop"] | loop)
    )
    runner.train()
    return runner


def madds(net_config: NetConfig | str) -> int:
    return count_madds(FNABackbone(net_config, (3,), 4), (16, 16))


def log_of(runner) -> str:
    return next(Path(runner.log_dir).glob("*.log")).read_text()


@pytest.mark.slow
def test_what_is_found_is_within_the_target_and_the_best_of_the_ranked(searched):
    folder = Path(searched.work_dir)
    ranked = json.loads((folder / "candidates.json").read_text())
    assert len({row["net_config"] for row in ranked}) == len(ranked) == 6
    assert [row["loss"] for row in ranked] == sorted(row["loss"] for row in ranked)
    for row in ranked:
        assert row["cost"] * 1e5 == pytest.approx(madds(row["net_config"]))
        assert madds(row["net_config"]) <= TARGET
    assert (folder / "net_config.txt").read_text().strip() == ranked[0]["net_config"]
    assert ranked[0]["difference"] == 0 and ranked[1]["difference"] > 0


def test_the_ranked_are_in_training_mode_after_an_evaluation_too(tmp_path, monkeypatch):
    """So they are in a run that is resumed before the ranking."""

    class Evaluates(Hook):
        def after_train(self, runner):
            runner.model.eval()

    skip_pictures(monkeypatch)
    contents = []
    for hooks in ([], [Evaluates()]):
        folder = tmp_path / str(len(hooks))
        loop = dict(max_epochs=2, ranking=dict(candidates=3, batches=1))
        runner = make_runner(folder, loop=loop, custom_hooks=hooks)
        runner.train()
        contents.append((folder / "candidates.json").read_text())
    assert contents[0] == contents[1]


def test_the_log_says_how_the_search_does(searched):
    text = log_of(searched)
    assert "lambda learns to keep the backbone within 0.7" in text
    assert text.count("Entropy of alpha, of uniform: stage 2 ") == 5
    assert "Ranking [6/6]" in text and "Best of 6 ranked architectures" in text
    hub = searched.message_hub
    assert hub.get_scalar("train/arch_target").current() == pytest.approx(0.7)
    assert hub.get_scalar("train/arch_lambda").current() == searched.train_loop.cost.weight
    assert (Path(searched.work_dir) / "cost.png").stat().st_size > 1000


def test_it_gets_colder(searched):
    temperatures = searched.train_loop.report.temperatures
    assert temperatures[0] == 1.0  # the super network's, before alpha learns
    assert temperatures[1:] == sorted(temperatures[1:], reverse=True)
    assert temperatures[-1] == pytest.approx(0.5)
    assert Temperature(4.0, 1.0).at(1, 3) == pytest.approx(2.0)


def test_proposals_are_different_and_within_the_budget():
    torch.manual_seed(0)
    settings = {key: value for key, value in SUPERNET.items() if key != "type"}
    supernet = FNASuperNet(**settings)
    term = cost_term(dict(type="MAdds", unit=1e5, target=0.6, input_size=(16, 16)), supernet, "")
    prices = price_list(supernet, MAdds(), (16, 16))
    proposed = propose(supernet, prices, term, 8, torch.Generator().manual_seed(0))
    assert len({candidate.net_config for candidate in proposed}) == 8
    assert proposed[0].net_config == supernet.derive(prices, term.budget)
    assert all(c.cost == madds(c.net_config) <= term.target for c in proposed)
    best = max(proposed, key=lambda candidate: candidate.score)
    assert best is proposed[0]
    for candidate in proposed:  # of all paths of the architecture the likeliest
        scores = [
            sum(a.log_softmax(0)[i].item() for a, i in zip(supernet.alphas(), path, strict=True))
            for path in itertools.product(*map(range, map(len, supernet.alphas())))
            if supernet.search_space.net_config(path) == candidate.net_config
        ]
        assert candidate.score == pytest.approx(max(scores), abs=1e-5)


def test_a_ranking_is_paired():
    losses = {0: [1.0, 5.0, 3.0], 1: [0.5, 4.5, 2.5], 2: [2.0, 1.0, 9.0]}
    one = NetConfig.parse("[[8, 8], ['k3_e1'], 1]")
    ranked = evaluate(
        [Candidate([path], one, 0.0, 1e5) for path in losses],
        [None] * 3,
        lambda path, number, batch: torch.tensor(losses[path[0]][number]),
        lambda line: None,
    )
    assert [candidate.path for candidate in ranked] == [[1], [0], [2]]
    rows = json.loads(to_json(ranked, 1e5))
    assert rows[1]["difference"] == pytest.approx(0.5) and rows[1]["standard_error"] == 0
    differences = torch.tensor([1.5, -3.5, 6.5])
    assert rows[2]["standard_error"] == pytest.approx(differences.std().item() / 3**0.5)


def test_a_loss_that_is_not_finite_never_wins():
    losses = [[math.nan, 1.0], [3.0, 3.0], [2.0, math.inf], [2.0, 2.0]]
    one = NetConfig.parse("[[8, 8], ['k3_e1'], 1]")

    def ranked(paths):
        return evaluate(
            [Candidate([path], one, 0.0, 1.0) for path in paths],
            [None] * 2,
            lambda path, number, batch: torch.tensor(losses[path[0]][number]),
            lambda line: None,
        )

    assert [candidate.path for candidate in ranked(range(4))] == [[3], [1]]
    assert ranked([]) == []
    with pytest.raises(InputError, match="no loss is finite"):
        ranked([0, 2])


@pytest.mark.slow
def test_a_collapse_is_warned_of_once(tmp_path):
    runner = make_runner(tmp_path, loop=dict(max_epochs=5))
    for layer in runner.model.backbone.mixed_layers:
        if SKIP in layer.candidates:
            layer.alpha.data[layer.candidates.index(SKIP)] = 9.0
    runner.train()
    text = log_of(runner)
    assert text.count("alpha collapses to skip: 2 of the 2 layers") == 1
    # not before a third of α's epochs, which begin with the second
    assert "Architecture after epoch 2:" in text.partition("alpha collapses")[0]


@pytest.mark.slow
def test_half_of_the_skips_are_no_collapse(tmp_path):
    runner = make_runner(tmp_path, loop=dict(max_epochs=3))
    layers = [each for each in runner.model.backbone.mixed_layers if SKIP in each.candidates]
    for layer, favourite in zip(layers, (SKIP, "k3_e1"), strict=True):
        layer.alpha.data[layer.candidates.index(favourite)] = 9.0
    runner.train()
    assert "alpha collapses" not in log_of(runner)


@pytest.mark.parametrize(
    "loop, message",
    [
        (dict(temperature=dict(start=0, end=1)), "train_cfg.temperature: start 0, end 1"),
        (dict(temperature=dict(begin=1)), "train_cfg.temperature: {'begin': 1}, expected start"),
        (dict(ranking=dict(candidates=0, batches=1)), "train_cfg.ranking: candidates 0, expected"),
        (dict(ranking=dict(count=1)), "train_cfg.ranking: {'count': 1}, expected candidates and"),
        (dict(cost=dict(target=5)), "target 5, but backbones of this search space cost"),
    ],
)
def test_a_wrong_setting_is_told_before_training(tmp_path, loop, message):
    cost = loop.pop("cost", None)
    with pytest.raises(InputError, match=message):
        make_runner(tmp_path, loop=loop, cost=cost).train()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["0.9 seed", "0.25"])
def test_random_architectures_have_the_cost(tmp_path, monkeypatch, capsys, target):
    config = "configs/fna_det/retinanet_arch_adapt_bccd.py"
    arguments = f"--config {config} --count 4 --seed 3 --out {tmp_path}".split()
    monkeypatch.setattr(sys, "argv", ["search", *arguments, "--target", target])
    random_architectures.main()
    files = capsys.readouterr().out.split()
    assert len(set(Path(file).read_text() for file in files)) == 4
    seed = count_madds(FNABackbone(REPO / "configs/net_configs/mobilenetv2.txt"), (240, 320))
    wanted = 0.9 * seed if "seed" in target else 0.25e9
    for file in files:
        assert count_madds(FNABackbone(Path(file)), (240, 320)) == pytest.approx(wanted, rel=0.02)
    random_architectures.main()
    assert capsys.readouterr().out.split() == files  # and the same again


def test_random_architectures_are_equally_likely():
    """Of those of one cost, however many paths each is: skips may stand anywhere in a stage."""
    supernet = FNASuperNet(**{key: value for key, value in SUPERNET.items() if key != "type"})
    prices = torch.ones(4, 3)  # all cost the same but for skips
    prices[[1, 3], 2] = 0
    counts: dict[str, int] = {}
    for seed in range(600):
        generator = torch.Generator().manual_seed(seed)
        drawn = next(draw_within(supernet, prices, 3.0, 0.1, generator))
        counts[str(drawn)] = counts.get(str(drawn), 0) + 1
    assert len(counts) == 16  # one of two stages skips: 2 × 2 for its other layer × 2 × 2
    expected = 600 / 16
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 38  # p = 0.001


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--config configs/fna_det/retinanet_param_adapt_bccd.py --target 1", "is of no architec"),
        (
            "--config configs/fna_det/retinanet_arch_adapt_bccd.py --target x",
            "--target x: expected",
        ),
        ("--config configs/fna_det/retinanet_arch_adapt_bccd.py --target 9", "target 9, but backb"),
        ("--config none.py --target 1", "config none.py: no such file"),
        (
            "--config configs/fna_det/retinanet_arch_adapt_bccd.py --target 0.3 --out README.md",
            "README.md: cannot write there",
        ),
        (
            "--config configs/fna_det/retinanet_arch_adapt_bccd.py --target 1 "
            "--cfg-options model.backbone.no_such=1",
            "no_such",
        ),
    ],
)
def test_random_architectures_refuse(monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["search", *arguments.split()])
    with pytest.raises(InputError, match=message):
        random_architectures.main()
