"""--inherit, before anything is built; what then happens is tested in tests/search."""

import os

import pytest
import torch

from engine.inherit import inherit_from
from models import InputError, NetConfig
from tests.conftest import net_config_file
from tests.engine.test_mistakes import SEARCH, TOY, load, refusal

FOUND = NetConfig.parse(net_config_file("retinanet"))


@pytest.fixture(autouse=True)
def stay_here(monkeypatch):
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setenv("LOCAL_RANK", "0")


@pytest.fixture
def search(tmp_path):
    """The work dir of a search in whose space the published architecture is."""
    ops = {"k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6", "skip"}
    space = {
        f"{number}.{layer}": sorted(ops)
        for number, stage in enumerate(FOUND.stages[1:], 2)
        for layer in range(len(stage.ops))
    }
    folder = tmp_path / "search"
    folder.mkdir()
    write(folder, space)
    (folder / "net_config.txt").write_text(f"{FOUND}\n")
    return folder


def write(folder, space):
    state = dict(arch_adapt=dict(search_space=space)) if space else {}
    torch.save(dict(state_dict={}, meta={}, **state), folder / "epoch_2.pth")


@pytest.mark.parametrize("given", ["", "epoch_2.pth"])
def test_architecture_and_weights_come_from_the_search(search, given):
    cfg = load(TOY)
    inherit_from(cfg, str(search / given))
    checkpoint = str(search / "epoch_2.pth")
    assert NetConfig.parse(cfg.model.backbone.net_config) == FOUND
    assert cfg.model.backbone.init_cfg == dict(type="Inherit", checkpoint=checkpoint)
    assert cfg.model.init_cfg == dict(type="InheritHeads", checkpoint=checkpoint)


def test_an_architecture_asked_for_must_be_the_one_found(search):
    for asked, fits in (("retinanet", True), ("mobilenetv2", False)):
        cfg = load(TOY, "--net-config", net_config_file(asked))
        if fits:
            inherit_from(cfg, str(search), "--net-config")
        else:
            line = refusal(inherit_from, cfg, str(search), "--net-config")
            assert "net_config.txt: is of another architecture than --net-config: its st" in line


def spoil(search, how):
    if how == "no folder":
        return search / "none"
    if how == "empty folder":
        (search / "epoch_2.pth").unlink()
    elif how == "training":
        write(search, None)
    elif how == "another space":
        write(search, {"2.0": ["k3_e3"]})
    elif how == "nothing found":
        (search / "net_config.txt").unlink()
    elif how == "damaged":
        (search / "epoch_2.pth").write_bytes(b"PK\x03\x04 no archive")
    return search


@pytest.mark.parametrize(
    "how, message",
    [
        ("no folder", "none: no such folder or checkpoint"),
        ("empty folder", "search: holds no checkpoint of a search"),
        ("damaged", "search: holds no checkpoint of a search; checkpoint"),
        ("training", "epoch_2.pth: is of no architecture adaptation"),
        ("another space", "net_config: stage 2: k3_e6, .* is not in the search space of .*epoch_2"),
        ("nothing found", "search: the search has found no architecture yet: no net_config.txt"),
    ],
)
def test_what_is_no_search_is_told(search, how, message):
    source = str(spoil(search, how))
    with pytest.raises(InputError, match=message) as error:
        inherit_from(load(TOY), source)
    assert "\n" not in str(error.value)


def test_a_search_inherits_nothing(search):
    assert "takes no net_config" in refusal(inherit_from, load(SEARCH), str(search))
