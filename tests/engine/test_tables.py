"""The tables of the paper's networks and of tested ones."""

import dataclasses

import pytest

from engine import tables
from models import InputError


def test_every_row_is_the_papers(capsys):
    tables.paper()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(tables.ROWS) + 2
    fna = next(line for line in lines if "DeepLabv3+, OS 8" in line)
    assert fna.split() == (
        "FNA DeepLabv3+, OS 8 1024x2048 5.714M 5.71M +0.004M 313.870B 313.87B +0.000B".split()
    )
    assert "to the last digit" in lines[-1]


@pytest.mark.parametrize("figure", [dict(params="2.48"), dict(madds="24.18"), dict(params="2")])
def test_another_figure_is_an_error(figure, capsys, monkeypatch):
    """2.47 M and 24.17 B; 2.466 rounds to 2, too."""
    row = next(r for r in tables.ROWS if r.params == "2.47")
    monkeypatch.setattr(tables, "ROWS", (dataclasses.replace(row, **figure),))
    if figure == dict(params="2"):
        return tables.paper()
    with pytest.raises(SystemExit) as ending:
        tables.paper()
    assert ending.value.code == 1
    assert "FNA DeepLabv3, OS 16" in capsys.readouterr().err


def test_summary_of_a_tested_network(tmp_path):
    (tmp_path / "metrics.json").write_text(
        '{"params": 11732244, "madds": 133029704376, "coco/bbox_mAP": 0.339, '
        '"headline": {"AP": 0.339, "AP50": 0.5}}'
    )
    row = tables.read_row("FNA", str(tmp_path))
    assert row == {
        "network": "FNA", "params": "11.73M", "MAdds": "133.03B", "AP": "0.339", "AP50": "0.500"
    }  # fmt: skip
    head, line = tables.format_table([row]).splitlines()
    assert head.split() == list(row) and line.split() == list(row.values())
    assert len(head) == len(line)
    other = tables.format_table([row, {"network": "x", "params": "1M", "mIoU": "0.5"}]).splitlines()
    assert other[2].split() == ["x", "1M", "-", "-", "-", "0.5"]
    (tmp_path / "metrics.json").write_text('{"params": 1000000, "headline": {"AP": null}}')
    assert tables.read_row("FNA", str(tmp_path))["AP"] == "-"  # nothing was detected
    with pytest.raises(InputError, match="no metrics there"):
        tables.read_row("FNA", str(tmp_path / "none"))


def test_networks_to_show(tmp_path, monkeypatch, capsys):
    (tmp_path / "metrics.json").write_text('{"params": 2466000, "headline": {"mIoU": 72.34}}')
    monkeypatch.setattr("sys.argv", ["tables", "tested", f"A network={tmp_path}"])
    tables.main()
    assert capsys.readouterr().out.split() == "network params mIoU A network 2.47M 72.3".split()
    for arguments in ([], ["tested"], ["tested", "name"], ["paper", "more"]):
        monkeypatch.setattr("sys.argv", ["tables", *arguments])
        with pytest.raises(InputError, match="expected .*NAME=WORK_DIR"):
            tables.main()
