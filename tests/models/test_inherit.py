import pytest
import torch
from torch import nn

from models import FNABackbone, FNASuperNet, Inherit, InputError, NetConfig
from models.inherit import InheritHeads, find_path
from tests.conftest import randomize
from tests.models.test_supernet import EXPANDED, SMALL, one_hot_alphas, random_path, set_alphas

SPACES = {"plain": {}, "stride 8": dict(output_stride=8), "expanded map": EXPANDED}


def searched(tmp_path, share_weights: bool, seed: int = 0, **changes):
    """A super network with a path, and the checkpoint of a search that decided for it."""
    space = {**SMALL, **changes}
    supernet = randomize(FNASuperNet(**space, share_weights=share_weights), seed).train()
    path = random_path(supernet, seed)
    if seed == 0 and not changes:  # skips between real ops, which the text has last
        path = [1, 3, 0, 2, 3, 0, 3, 2, 1, 1]
    set_alphas(supernet, one_hot_alphas(supernet, path))
    checkpoint = dict(
        state_dict={f"backbone.{k}": v for k, v in supernet.state_dict().items()},
        arch_adapt=dict(
            search_space={k: list(v) for k, v in supernet.search_space.candidates.items()}
        ),
    )
    torch.save(checkpoint, tmp_path / "epoch_1.pth")
    return supernet, path, tmp_path / "epoch_1.pth"


def derived(supernet: FNASuperNet, net_config: NetConfig, checkpoint) -> FNABackbone:
    network = FNABackbone(
        net_config, supernet.out_indices, supernet.output_stride, supernet.last_channels,
        supernet.norm_cfg, init_cfg=dict(type="Inherit", checkpoint=str(checkpoint)),
    )  # fmt: skip
    network.init_weights()
    return network.train()


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(2))
def test_the_network_computes_what_the_path_computes(tmp_path, name, seed, share_weights):
    supernet, path, checkpoint = searched(tmp_path, share_weights, seed, **SPACES[name])
    network = derived(supernet, supernet.derive(), checkpoint)
    image = torch.randn(2, 3, 64, 96)
    supernet.set_path(path)
    for ours, theirs in zip(network(image), supernet(image), strict=True):
        assert torch.equal(ours, theirs)


def test_where_skips_stood_is_found_by_alpha():
    candidates = {"2.0": ("a", "b"), "2.1": ("a", "skip"), "2.2": ("a", "b", "skip")}
    net_config = NetConfig.parse("[[8, 8], ['k3_e1'], 1]|[[8, 8], ['k3_e3', 'k3_e3', 'skip'], 1]")
    names = {"a": "k3_e3", "b": "k5_e3", "skip": "skip"}
    candidates = {k: tuple(names[op] for op in ops) for k, ops in candidates.items()}
    for likes, place in ((-1.0, "2.2"), (1.0, "2.1")):
        scores = {"2.0": [0.0, 0.0], "2.1": [likes, 0.0], "2.2": [0.0, 0.0, 0.0]}
        path = find_path(net_config, candidates, scores)
        assert path == {(2, 0): ("2.0", "k3_e3"), (2, 1): (place, "k3_e3")}


def test_another_space_or_no_search_is_told(tmp_path):
    supernet, _, checkpoint = searched(tmp_path, True)
    stages = [[[8, 8], ["k3_e1"], 1], [[8, 8], ["k3_e3"], 2]]
    for number, change, message in (
        (1, ["k9_e3"], "epoch_1.pth: net_config: stage 2: k9_e3 is not in the search space"),
        (0, ["k3_e1", "k3_e1"], "epoch_1.pth: lacks blocks.1.layers.1.depthwise.0.weight"),
        (0, ["k5_e1"], r"blocks.1.layers.0.depthwise.0.weight is \(8, 1, 3, 3\), expected"),
    ):
        other = [[*stages[0]], [*stages[1]]]
        other[number][1] = change
        with pytest.raises(InputError, match=message):
            Inherit(checkpoint)(FNABackbone(other, (0,), 4))
    for space in ({"2.0": 5}, {"2": ["k3_e3"]}, {2: ["k3_e3"]}, {"2.0": [3]}):
        torch.save(dict(state_dict={}, arch_adapt=dict(search_space=space)), tmp_path / "bad.pth")
        with pytest.raises(InputError, match="bad.pth: its search space is damaged"):
            Inherit(tmp_path / "bad.pth")(FNABackbone(supernet.derive(), (0,)))
    torch.save(dict(state_dict={}), tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth: is of no architecture adaptation"):
        Inherit(tmp_path / "other.pth")(FNABackbone(supernet.derive(), (0,)))


def test_a_head_for_other_classes_keeps_its_initial_values(tmp_path):
    learned = Heads(3)
    space = dict(search_space={"2.0": ["k3_e1"]})
    torch.save(dict(state_dict=learned.state_dict(), arch_adapt=space), tmp_path / "search.pth")
    model = Heads(5)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    InheritHeads(tmp_path / "search.pth")(model)
    for key, value in model.state_dict().items():
        source = learned.state_dict() if key.startswith("neck") else initial
        assert torch.equal(value, source[key]), key


class Heads(nn.Module):
    """A neck, and a head for so many classes."""

    def __init__(self, classes: int):
        super().__init__()
        self.neck, self.head = nn.Linear(4, 4), nn.Linear(4, classes)
