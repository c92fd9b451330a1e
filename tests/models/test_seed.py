import os
import subprocess
import sys

import pytest
import torch

from models import FNABackbone, InputError, load_seed
from models.seed import read_seed, save_seed
from tests.conftest import ARCHITECTURES, REPO, SEED_META, net_config_file, randomize


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("last_channels", [1280, None])
def test_a_seed_of_any_architecture_is_read_back_as_it_was(name, last_channels, tmp_path):
    network = FNABackbone(net_config_file(name), last_channels=last_channels)
    tensors = randomize(network).state_dict()
    meta = SEED_META | {"net_config": str(network.net_config)}
    save_seed(tensors, meta, tmp_path / "seed.pth")
    read, read_meta = read_seed(tmp_path / "seed.pth")
    assert read_meta == meta and list(read) == list(tensors)
    for key, value in tensors.items():
        assert torch.equal(read[key], value) or key.endswith("num_batches_tracked")
    assert [path.name for path in tmp_path.iterdir()] == ["seed.pth"]


def test_a_classifier_comes_along(seed_network, tmp_path):
    classifier = {"classifier.weight": torch.randn(19, 1280), "classifier.bias": torch.randn(19)}
    save_seed(seed_network.state_dict() | classifier, SEED_META, tmp_path / "seed.pth")
    read = load_seed(tmp_path / "seed.pth")
    assert all(torch.equal(read[key], value) for key, value in classifier.items())


def changed(key, value):
    return lambda content: content["state_dict"].update({key: value})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda content: content.pop("meta"), "scripts/get_seed.sh --source .*seed.pth converts"),
        (lambda content: content["meta"].pop("net_config"), "scripts/get_seed.sh --source"),
        (lambda content: content["meta"].update(net_config="[]"), "stage 1: cannot read"),
        (lambda content: content.update(state_dict=[1]), "holds no state dict"),
        (lambda content: content["state_dict"].clear(), "no 'blocks.0.0.weight', expected 32×3×3"),
        (
            changed("blocks.2.layers.0.op.0.weight", torch.zeros(1)),
            "'blocks.2.layers.0.op.0.weight' is no part of the seed's architecture",
        ),
        (
            changed("blocks.1.layers.0.depthwise.0.weight", torch.zeros(32, 1, 5, 5)),
            "'blocks.1.layers.0.depthwise.0.weight' is 32×1×5×5, expected 32×1×3×3",
        ),
        (changed("blocks.0.1.bias", "zero"), "'blocks.0.1.bias' is not an ordinary tensor"),
        (changed("blocks.0.1.bias", torch.full((32,), torch.inf)), "numbers that cannot be"),
        (changed("blocks.0.1.running_var", -torch.ones(32)), "numbers that cannot be"),
    ],
)
def test_what_is_no_seed_is_refused_in_one_line(change, message, seed_network, tmp_path):
    content = {"meta": dict(SEED_META), "state_dict": seed_network.state_dict()}
    change(content)
    torch.save(content, tmp_path / "seed.pth")
    with pytest.raises(InputError, match=message) as error:
        load_seed(tmp_path / "seed.pth")
    assert "\n" not in str(error.value) and str(tmp_path / "seed.pth") in str(error.value)


def test_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match="none.pth: no such file; scripts/get_seed.sh gets one"):
        load_seed(tmp_path / "none.pth")


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, seed_network):
    path = tmp_path / "seed.pth"
    path.write_bytes(b"old")

    def interrupt(descriptor):  # when the content is written, under another name
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_seed(seed_network.state_dict(), SEED_META, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_training_imports_no_reader_of_foreign_files():
    code = (
        "import sys, models; "
        "sys.exit(any(m in sys.modules for m in ('h5py', 'models.seeds.read', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
