"""Random and crafted net_configs, checkpoints and seeds: refused in one line, or harmless.

The seeds of the random numbers are fixed. A few hundred cases run always, thousands as slow tests.
"""

import io
import os
import pickle
import random
import struct
import time
import zipfile
from collections import Counter, OrderedDict
from functools import reduce

import pytest
import torch

from engine.compat.safe_load import load_checkpoint_file
from models import InputError, NetConfig, load_seed
from models.files import load_tensors
from models.seed import read_seed, save_seed
from models.seeds.read import read_foreign_seed
from tests.conftest import SEED_META, net_config_file

TEXT = net_config_file("retinanet").read_text()
PIECES = (
    "[", "]", "|", ",", "'", '"', "\n", " ", "skip", "k3_e6", "k99_e99", "k4_e1", "0", "-1",
    "9" * 40, "1e9", "٣", "\0", "\ud800", "\x1b[2J", "__import__('os').system('touch ran')", "#",
    "[" * 500, "'a\nb: c'", "True", "None", "./", "../" * 9, "~", "~nobody", "/dev/zero",
)  # fmt: skip
# to a loaded machine, ten times what they take
SECONDS = 0.3


def damaged(content, dice, pieces):
    """A sequence with a few parts cut out, doubled, changed or put in."""
    for _ in range(dice.randint(1, 4)):
        place, length = dice.randrange(len(content) + 1), dice.choice((0, 1, 2, 9, 60))
        part = dice.choice((dice.choice(pieces), content[place : place + length] * 2, content[:0]))
        content = content[:place] + part + content[place + length :]
    return content


# net_config


def check_net_config(source):
    """Parses, in time; what is accepted is read back equal from its text."""
    start = time.process_time()
    try:
        parsed = NetConfig.parse(source)
    except InputError as error:
        assert len(str(error)) < 5000
        parsed = None
    assert time.process_time() - start < SECONDS
    if parsed is not None:
        assert NetConfig.parse(str(parsed)) == parsed
    return parsed is not None


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_text(count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dice = random.Random(0)
    accepted = sum(check_net_config(damaged(TEXT, dice, PIECES)) for _ in range(count))
    assert count / 200 < accepted < count / 2
    assert not list(tmp_path.iterdir())


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value, value]
    return value


ENDLESS = []
ENDLESS.append(ENDLESS)
GOOD_ROW = [[32, 16], ["k3_e1"], 1]


@pytest.mark.parametrize(
    "source",
    [
        None, 5, 1.5, True, b"[[32, 16], ['k3_e1'], 1]", {"a": 1}, {1, 2}, object(), [None],
        [5], ["x"],
        [[[32, 16], ["k3_e1"], True]], [[[True, 16], ["k3_e1"], 1]], [[[32, 16], {"k3_e1": 1}, 1]],
        [[[32, 16.0], ["k3_e1"], 1]], [[[32, 16], [5], 1]], [[[32, -16], ["k3_e1"], 1]],
        [[[10**5000, 16], ["k3_e1"], 1]], [[[32, 16], ["k3_e1" * 10**5], 1]],
        [[[32, 16], ["a\nb: c"], 1]], [[[32, 16], "k3_e1", 1]], [GOOD_ROW] * 10**5,
        [[[32, 16], ["k3_e1"] * 10**5, 1]], nested(3), nested(60), ENDLESS, [ENDLESS],
        [[[32, 16], ENDLESS, 1]], [[ENDLESS, ["k3_e1"], 1]], "[" * 99_000, "|" * 99_000,
        "[['" * 30_000,
        "[[32, 16], [" + "'k3_e1'," * 12_000 + "], 1]", "[[32,16],['k3_e1'],1]|" * 4500,
        "[" + " " * 99_000, "[[32, 16], [" + "'" * 99_000, " " * 10**7, "[" * 10**7, "a" * 10**6,
        "/dev/zero", "~nobody-here/x", "a\0b", "\ud800", "", "/", "/proc/self/mem",
    ],
    ids=lambda source: repr(type(source).__name__),
)  # fmt: skip
def test_sources_that_are_none(source):
    assert not check_net_config(source)


def test_a_pipe_is_not_waited_for_and_a_long_file_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not check_net_config(tmp_path / "pipe")
    with open(tmp_path / "long.txt", "wb") as file:
        file.truncate(2**40)  # a hole: takes no place on the disk
    assert not check_net_config(tmp_path / "long.txt")


# Checkpoints and seeds


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(content, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def archive(data_pkl):
    """A file like torch.save's, with a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", data_pkl), ("version", b"3"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def deflated(content):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            for member in old.infolist():
                new.writestr(member.filename, old.read(member))
    return file.getvalue()


def with_large_storage():
    content = saved({"a": torch.zeros(7)}, zipped=False)
    place = content.index(b"K\x07", content.index(b"cpu"))  # the count of its numbers
    return content[:place] + b"\x8a\x05" + struct.pack("<Q", 10**11)[:5] + content[place + 2 :]


def calls(function, *arguments):
    return saved({"state_dict": {}, "meta": Call(function, *arguments)})


def dictionary_copies():
    large = {number: number for number in range(20_000)}
    return saved([large] + [Call(OrderedDict, large) for _ in range(2000)])


HOSTILE = {
    "nested lists": lambda: saved({"state_dict": {}, "meta": {"source": nested(60)}}),
    "nested bn_eps": lambda: saved({"state_dict": {}, "meta": {"bn_eps": nested(40)}}),
    "nested names of files": lambda: saved(
        {"state_dict": {}, "message_hub": {"runtime_info": {"keep_ckpt_ids": nested(40)}}}
    ),
    "nested settings": lambda: saved({"state_dict": {}, "arch_adapt": {"settings": nested(35)}}),
    "nested key": lambda: saved({"state_dict": {(nested(1)[0], "x"): 1, 5: 2}}),
    "a list inside itself": lambda: saved({"state_dict": ENDLESS}),
    "a deep list": lambda: saved(reduce(lambda inner, _: [inner], range(60), [])),
    "expanded": lambda: saved({"state_dict": {"classifier.bias": torch.zeros(1).expand(10**9)}}),
    "meta": lambda: saved({"state_dict": {"a": torch.zeros(9, device="meta")}}),
    "sparse": lambda: saved({"state_dict": {"a": torch.zeros(9).to_sparse()}}),
    "complex": lambda: saved({"state_dict": {"a": torch.zeros(9, dtype=torch.complex64)}}),
    "deflated": lambda: deflated(saved({"state_dict": {"a": torch.zeros(10**7)}})),
    "large storage": with_large_storage,
    "large bytes": lambda: calls(bytearray, 10**11),
    "copied bytes": lambda: saved([b := bytearray(10**5)] + [Call(bytearray, b)] * 9),
    "copied dictionaries": dictionary_copies,
    "large tensor": lambda: archive(
        data_pkl=b"\x80\x02ctorch\nFloatTensor\n\x8a\x05\x00\xe8vH\x17\x85R."
    ),
    "os.system": lambda: calls(os.system, "touch ran"),
    "eval": lambda: calls(eval, "open('ran', 'w')"),
    "exec, old form": lambda: saved(Call(exec, "open('ran', 'w')"), zipped=False),
    "os.mkdir by INST": lambda: archive(data_pkl=b"(S'ran'\nios\nmkdir\n."),
    "os.mkdir by OBJ": lambda: archive(data_pkl=b"(cos\nmkdir\nS'ran'\no."),
    "os.mkdir by name on the stack": lambda: archive(
        data_pkl=b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x03ran\x85R."
    ),
    "attributes": lambda: calls(getattr, torch.nn.Parameter, "__init__"),
    "BUILD on a class": lambda: archive(
        data_pkl=b"\x80\x02ctorch\nTensor\n}X\x01\x00\x00\x00aK\x01sb."
    ),
    "called through a tensor": lambda: calls(
        torch._tensor._rebuild_from_type_v2, OrderedDict, OrderedDict, ({},), {}
    ),
    "plain pickle": lambda: pickle.dumps({"state_dict": {}}),
    "no end": lambda: archive(data_pkl=b"\x80\x02]" + b"]" * 10**5),
    "brackets": lambda: b"PK\x03\x04" + b"(" * 10**6,
    "nothing": lambda: b"",
}  # fmt: skip


def loads_all_ways(path):
    """What each of the loaders says to a file, after it has said it in time."""
    said = []
    for load in (load_checkpoint_file, load_seed, read_foreign_seed):
        start = time.process_time()
        try:
            load(path)
        except InputError as error:
            message = str(error)
            assert "\n" not in message and len(message) < 3000, message[:99]
            said.append(message)
        else:
            said.append(None)
        assert time.process_time() - start < 3
    return said


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pth").write_bytes(HOSTILE[name]())
    resident = _resident()
    assert None not in loads_all_ways(tmp_path / "file.pth")
    assert _resident() - resident < 600 * 2**20
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_opened(kind, tmp_path):
    path = tmp_path / "file.pth"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    for message in loads_all_ways(path):
        assert ("Is a directory" if kind == "folder" else "is no regular file") in message


def test_what_torch_writes_is_read(tmp_path):
    content = {
        "state_dict": OrderedDict(a=torch.zeros(2, 3), b=torch.nn.Parameter(torch.ones(4))),
        "optimizer": {"milestones": Counter({8: 1}), "size": torch.Size([2, 3]), "bytes": b"xy"},
        "half": torch.ones(3, dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "shared": [torch.arange(9)[2:5], torch.arange(9)],
        "empty": [torch.zeros(0), {}, [], (), None],
    }
    content["shared"][1] = content["shared"][0]
    for zipped in (True, False):
        (tmp_path / "file.pth").write_bytes(saved(content, zipped))
        read = load_tensors(tmp_path / "file.pth", "checkpoint")
        assert repr(read) == repr(content)


@pytest.mark.parametrize("value", [None, 5, [1], nested(3), "x" * 10**6, "a\nb\x1b[2J"])
def test_source_and_licence_are_short_texts(value, seed_network, tmp_path):
    save_seed(seed_network.state_dict(), SEED_META | {"source": value}, tmp_path / "seed.pth")
    for read in (read_foreign_seed, read_seed):
        source = read(tmp_path / "seed.pth")[1]["source"]
        assert source.isprintable() and len(source) < 510
        assert isinstance(value, str) or source == "unknown"


def test_number_of_classes_is_limited(seed_network, tmp_path):
    zeros = torch.zeros(200_000)
    tensors = seed_network.state_dict() | {"classifier.weight": zeros, "classifier.bias": zeros}
    save_seed(tensors, SEED_META, tmp_path / "seed.pth")
    with pytest.raises(InputError, match="200000 classes, expected at most"):
        load_seed(tmp_path / "seed.pth")


BYTES = (
    b"",
    b"\0",
    b"\xff",
    b".",
    b"R",
    b"cos\nsystem\n",
    b"PK\x05\x06",
    b"(",
    b"]" * 99,
    b"\x8a\xff",
)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(zipped, count, tmp_path, monkeypatch):
    """Bytes changed anywhere, and files cut off: read or refused, and nothing is executed."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(1)
    content = {"meta": {"net_config": TEXT, "bn_eps": 1e-5}, "state_dict": {"a": torch.arange(9.0)}}
    whole = saved(content, zipped)
    refused = 0
    for number in range(count):
        damage = (
            whole[: dice.randrange(len(whole))] if number % 3 == 0 else damaged(whole, dice, BYTES)
        )
        (tmp_path / "file.pth").write_bytes(damage)
        refused += loads_all_ways(tmp_path / "file.pth")[0] is not None
    assert count / 3 <= refused <= count
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]
