"""The script that compares the configs' models with the paper."""

import dataclasses

import pytest

from engine import paper_tables


def test_every_row_is_the_papers(capsys):
    paper_tables.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(paper_tables.ROWS) + 2
    fna = next(line for line in lines if "DeepLabv3+, OS 8" in line)
    assert fna.split() == (
        "FNA DeepLabv3+, OS 8 1024x2048 5.714M 5.71M +0.004M 313.870B 313.87B +0.000B".split()
    )
    assert "to the last digit" in lines[-1]


@pytest.mark.parametrize("figure", [dict(params="2.48"), dict(madds="24.18"), dict(params="2")])
def test_another_figure_is_an_error(figure, capsys, monkeypatch):
    """2.47 M and 24.17 B; 2.466 rounds to 2, too."""
    row = next(r for r in paper_tables.ROWS if r.params == "2.47")
    monkeypatch.setattr(paper_tables, "ROWS", (dataclasses.replace(row, **figure),))
    if figure == dict(params="2"):
        return paper_tables.main()
    with pytest.raises(SystemExit) as ending:
        paper_tables.main()
    assert ending.value.code == 1
    assert "FNA DeepLabv3, OS 16" in capsys.readouterr().err
