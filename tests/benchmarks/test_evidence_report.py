"""The evidence's page and picture, of fabricated results, against statistics made by hand."""

import json
import re

import pytest
from PIL import Image

from benchmarks.evidence_grid import Grid
from benchmarks.evidence_plan import TASKS
from benchmarks.evidence_report import page, picture, write_report
from benchmarks.evidence_tables import Tables
from tests.conftest import REPO

ABOUT = dict(machine="a machine", versions=dict(torch="2"), config_digest="x")


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    (tmp_path / "bccd").mkdir()
    return Grid(TASKS["bccd_ssdlite"], tmp_path / "bccd", tmp_path / "work")


def write(grid, name, *, starts=1, **found):
    cell = grid.cells[name]
    label = dict(training="training", search="search").get(cell.kind, "evaluation")
    minutes = {label: found.pop("minutes", 10.0)}
    record = dict(
        cell=name, row=cell.row, seed=cell.seed, kind=cell.kind, settings=list(cell.settings),
        core_minutes=minutes, starts={label: starts}, **ABOUT, **found,
    )  # fmt: skip
    (grid.results / f"{name}.json").write_text(json.dumps(record))


def train(grid, name, ap, net_config, madds=0.5e9, **rest):
    write(
        grid, name, net_config=net_config, params=3_000_000, madds=madds, input_size=[320, 320],
        validation=dict(AP=ap + 0.1, AP50=0.7), test=dict(AP=ap, AP50=2 * ap), **rest,
    )  # fmt: skip


@pytest.fixture
def filled(grid):
    """The seed's row and another with three random seeds, some with fewer, a search, latencies."""
    for seed, (own, published) in enumerate([(0.40, 0.41), (0.42, 0.41), (0.44, 0.47)]):
        train(grid, f"seed-{seed}", own, "S", minutes=11 + seed)
        train(grid, f"published-{seed}", published, "P", madds=0.6e9)
    write(grid, "search_shared-0", net_config="F", undecided=0.3, minutes=21.0)
    train(grid, "found_shared-0", 0.43, "F", madds=0.4e9)
    train(grid, "published_random-1", 0.05, "P")
    for number, ap in ((1, 0.38), (2, 0.40)):
        train(grid, f"random_madds_{number}-0", ap, f"R{number}", madds=0.5e9 + number)
    timing = {
        net: {
            part: dict(median=ms * of, spread=0.01) for part, of in (("model", 2), ("backbone", 1))
        }
        for net, ms in dict(S=8.0, P=9.0, F=5.0, R1=8.0, R2=7.0).items()
    }
    how = dict(input_size=[320, 320], device="a core", backend="b", threads=1)
    write(grid, "latency", networks=timing, measurement=how)
    return grid


def rows_of(table):
    head, *rows = table
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_table(filled):
    rows = rows_of(Tables(filled).main())
    seed, published = rows["MobileNetV2, the seed's own"], rows["FNA, published"]
    assert seed["runs"] == "3" and seed["test AP"] == "0.420 ± 0.020"
    assert seed["validation AP"] == "0.520 ± 0.020" and seed["test AP50"] == "0.840 ± 0.040"
    assert seed["test AP less the seed's"] == "+0.000"
    # 0.41, 0.41, 0.47: mean 0.43, deviation sqrt((0.02² + 0.02² + 0.04²) / 2)
    assert published["test AP"] == "0.430 ± 0.035"
    assert published["test AP less the seed's"] == "+0.010 ± 0.020"  # of 0.01, -0.01, 0.03
    assert (published["params, M"], published["MAdds, B"]) == ("3.00", "0.600")
    assert (seed["whole network, ms"], seed["backbone, ms"]) == ("16.00", "8.00")
    assert (seed["search, min"], seed["training, min"]) == ("–", "12.0 ± 1.0")
    found = rows["found, shared weights"]
    assert (found["runs"], found["search, min"], found["test AP"]) == ("1", "21.0", "0.430")
    drawn = rows["random architectures, the seed's MAdds"]
    # 0.38 and 0.40: deviation 0.02 / sqrt(2)
    assert drawn["runs"] == "2" and drawn["test AP"] == "0.390 ± 0.014"
    assert drawn["test AP less the seed's"] == "-0.010 ± 0.014"
    assert drawn["whole network, ms"] == "15.00 ± 1.41"
    assert "found, half the latency" not in rows  # nothing of it has been run
    assert rows["FNA, random weights"]["test AP less the seed's"] == "-0.370"


def test_interrupted_runs_do_not_count_for_time(filled):
    train(filled, "seed-1", 0.42, "S", minutes=99.0, starts=2)
    rows = rows_of(Tables(filled).main())
    assert rows["MobileNetV2, the seed's own"]["training, min"] == "12.0 ± 1.4"  # 11 and 13


def test_comparisons(filled):
    """Of runs with the same random seed, and costs as shares."""
    head, row = Tables(filled).comparisons()
    assert head[2:5] == ["random seeds", "test AP", "deviation of the latter's runs"]
    # 0.43 less the mean of 0.38 and 0.40, which deviate by 0.02 / sqrt(2); latency 10 of 16 and 14;
    # a search of 21 minutes before trainings of 10
    assert row[:2] == ["found, shared weights", "random architectures, the seed's MAdds"]
    assert row[2:] == ["1", "+0.040", "0.014", "× 0.80", "× 0.67", "× 3.10"]
    for seed, ap in ((0, 0.415), (1, 0.425)):
        train(filled, f"found_latency-{seed}", ap, "L", madds=0.25e9)
    filled.known.clear()
    _, _, row = Tables(filled).comparisons()
    assert row[:3] == ["found, half the latency", "MobileNetV2, the seed's own", "2"]
    # 0.415 - 0.40 and 0.425 - 0.42; the seed's third run counts for the deviation alone
    assert row[3:6] == ["+0.010 ± 0.007", "0.020", "× 0.50"]
    assert row[6:] == ["–", "–"]  # neither its latency nor its search is known
    assert "## What a search gains" in page(Tables(filled), None)


def test_correlations(filled):
    """Of S, P, F, R1, R2 with 0.40, 0.41, 0.43, 0.38, 0.40 (S and R2 tie)."""
    known = dict(S=(2.0, -9), P=(1.5, -8), F=(1.0, -1), R1=(3.0, -2), R2=(2.0, -3))
    rows = [dict(net_config=n, loss=x, score=s) for n, (x, s) in known.items()]
    write(filled, "held_out_shared-0", architectures=rows)
    head, row = Tables(filled).correlations()
    assert row[:3] == ["shared weights", "1", "5"]
    # ranks of accuracy 2.5 4 5 1 2.5; of -loss the same; of score 1 2 5 4 3; of MAdds 2 5 1 3 4
    assert row[3] == "+1.00"
    # Pearson of the ranks: covariance 1.5·... by hand: sum (a-3)(s-3) = 1 - 1 + 4 - 2 + 0 = 2, of
    # squares 9.5 and 10
    assert float(row[4]) == pytest.approx(2 / (9.5 * 10) ** 0.5, abs=0.005)
    # sum (a-3)(m-3) = 0.5 + 2 - 4 + 0 - 0.5 = -2
    assert float(row[5]) == pytest.approx(-2 / (9.5 * 10) ** 0.5, abs=0.005)


def test_page_of_a_partial_grid(filled, tmp_path):
    train(filled, "published-2", 0.47, "P", madds=0.6e9, starts=2)
    names = write_report(filled, tmp_path / "bccd")
    text = (tmp_path / "bccd.md").read_text()
    assert "found_latency-0" in text.partition("Not done yet, ")[2].partition("\n")[0]
    assert "core-minutes are not counted: published-2." in text
    # what is fabricated here
    assert "Made with other settings than today's:** seed-0, " in text
    assert "![accuracy and latency](bccd.png)" in text and "a core, b, 1 thread" in text
    assert "The paper's ablation" not in text and "What rankings are worth" not in text
    (table,) = re.findall(r"(?:^\|.*\n)+", text.partition("!")[0], re.MULTILINE)
    lines = table.splitlines()
    assert len(lines) == 2 + 7 and len({line.count("|") for line in lines}) == 1
    assert Image.open(tmp_path / "bccd.png").size[0] > 500 and len(names) == 2


def test_picture_names_every_row(filled, monkeypatch):
    labels = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.errorbar", lambda *args, label, **rest: labels.append(label)
    )
    for name in ("savefig", "legend"):
        monkeypatch.setattr(f"matplotlib.figure.Figure.{name}", lambda *args, **rest: None)
    picture(Tables(filled))
    assert labels == [
        "MobileNetV2, the seed's own", "FNA, published", "FNA, random weights: 0.050, not shown",
        "found, shared weights", "random architectures, the seed's MAdds",
        "random 1, the seed's MAdds", "random 2, the seed's MAdds",
    ]  # fmt: skip


def test_page_of_nothing(grid, tmp_path):
    assert write_report(grid, tmp_path / "bccd") == [tmp_path / "bccd.md"]
    assert f"Not done yet, {len(grid.cells)} cells" in (tmp_path / "bccd.md").read_text()


def test_ablation_and_percentages(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    grid = Grid(TASKS["camvid_deeplabv3"], tmp_path, tmp_path / "work")
    for row, values in dict(seed=(38.0, 40.0), width_bn=(37.0, 39.0), found_blind=(30.0,)).items():
        for seed, value in enumerate(values):
            write(
                grid, f"{row}-{seed}", net_config="N", params=1, madds=1, input_size=[1, 1],
                validation=dict(mIoU=value), test=dict(mIoU=value - 1),
            )  # fmt: skip
    text = page(Tables(grid), "p.png")
    assert '| `width="bn"` | 2 | 38.0 ± 1.4 | 37.0 ± 1.4 | 75.8 |' in text
    assert "| no | yes | 1 | 30.0 | 29.0 | 76.0 |" in text
    assert "| yes | yes | 0 | – | – | 76.6 |" in text
    assert "width" not in text.partition("## The paper's ablation")[0].partition("| row")[2]


def test_what_searches_agree_on(grid):
    """2 of 4 searched layers (one is skipped in both), 1 of 2 stages; of the 2 layers that neither
    skips, 1 kernel size and both expansions."""
    first = "[[32, 16], ['k3_e1'], 1] | "
    texts = (
        first + "[[16, 24], ['k3_e3', 'k5_e6'], 2] | [[24, 32], ['k7_e6', 'skip'], 2]",
        first + "[[16, 24], ['k3_e3', 'skip'], 2] | [[24, 32], ['k5_e6', 'skip'], 2]",
    )
    for seed, text in enumerate(texts):
        write(grid, f"search_shared-{seed}", net_config=text, undecided=0.3 + 0.1 * seed)
    write(grid, "search_paper-0", net_config=texts[0], undecided=0.9)
    table = Tables(grid).stability()
    assert table[1:] == [["shared weights", "2", "0.35 ± 0.07", "50 %", "50 %", "50 %", "100 %"]]
    assert "| shared weights | 2 |" in page(Tables(grid), None)
