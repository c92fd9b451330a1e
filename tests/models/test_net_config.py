import pytest

from models import InputError, NetConfig
from tests.conftest import ARCHITECTURES, net_config_file

GOOD = "[[32, 16], ['k3_e1'], 1]|\n[[16, 24], ['k5_e6', 'skip'], 2]"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_text_survives_a_round_trip(name):
    text = net_config_file(name).read_text().strip()
    net_config = NetConfig.parse(net_config_file(name))
    assert str(net_config) == text
    assert NetConfig.parse(text) == net_config
    assert NetConfig.parse(str(net_config_file(name))) == net_config
    rows = [[[s.in_channels, s.out_channels], list(s.ops), s.stride] for s in net_config.stages]
    assert NetConfig.parse(rows) == net_config
    assert NetConfig.parse(net_config) is net_config


def test_skips_go_last_and_real_ops_keep_their_order():
    mixed, sorted_ops = "'skip', 'k7_e3', 'skip', 'k3_e6', 'k5_e6'", ["k7_e3", "k3_e6", "k5_e6"]
    net_config = NetConfig.parse(GOOD.replace("'k5_e6', 'skip'", mixed))
    rows = [[[32, 16], ["k3_e1"], 1], [[16, 24], [*sorted_ops, "skip", "skip"], 2]]
    assert net_config == NetConfig.parse(rows)
    assert str(net_config).endswith("['k7_e3', 'k3_e6', 'k5_e6', 'skip', 'skip'], 2]")
    rows[1][1] = ["skip", *sorted_ops, "skip"]
    assert NetConfig.parse(rows) == net_config


def test_reads_what_the_text_says():
    first, second = NetConfig.parse(GOOD).stages
    assert (first.in_channels, first.out_channels, first.ops, first.stride) == (
        32,
        16,
        ("k3_e1",),
        1,
    )
    assert (second.in_channels, second.out_channels, second.stride) == (16, 24, 2)
    assert second.ops == ("k5_e6", "skip")


@pytest.mark.parametrize(
    "variant",
    [
        GOOD.replace("\n", ""),
        GOOD.replace(" ", ""),
        GOOD.replace("'", '"'),
        GOOD + "|",
        "\n " + GOOD + " \n",
        GOOD.replace("'skip']", "'skip',]"),
    ],
)
def test_spelling_variants_mean_the_same(variant):
    assert NetConfig.parse(variant) == NetConfig.parse(GOOD)


@pytest.mark.parametrize(
    "text, stage, message",
    [
        (GOOD.replace("k5_e6", "k5e6"), 2, "unknown op 'k5e6'"),
        (GOOD.replace("k5_e6", "k4_e6"), 2, "even kernel size"),
        (GOOD.replace("'k5_e6', 'skip'", "'skip', 'skip'"), 2, "has only skips"),
        (GOOD.replace("[16, 24]", "[24, 24]"), 2, "takes 24 channels, but stage 1 gives 16"),
        (GOOD.replace("[16, 24]", "[16, 24, 3]"), 2, "cannot read"),
        (GOOD.replace("], 2]", "], 3]"), 2, "stride 3"),
        (GOOD.replace("'k5_e6', 'skip'", ""), 2, "no ops"),
        (GOOD.replace("[16, 24]", "[16, 0]"), 2, "channels must be 1 to"),
        (GOOD.replace("'k3_e1'", "__import__('os').system('true')"), 1, "cannot read"),
        (GOOD.replace("32", "2**5"), 1, "cannot read"),
        (GOOD.replace("[16, 24]", "[16, 900000]"), 2, "channels must be 1 to"),
        (GOOD.replace("[16, 24]", f"[16, {'9' * 5000}]"), 2, "cannot read"),
        ("[[32, 16], ['k3_e1'], 1", 1, "cannot read"),
    ],
)
def test_bad_text_names_the_stage(text, stage, message):
    with pytest.raises(InputError, match=f"stage {stage}: .*") as error:
        NetConfig.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_python_in_a_file_is_not_run(tmp_path):
    witness = tmp_path / "witness"
    file = tmp_path / "net_config.txt"
    file.write_text(f"[[32, 16], [open({str(witness)!r}, 'w')], 1]")
    with pytest.raises(InputError, match=str(file)):
        NetConfig.parse(file)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00", b"hello"])
def test_files_without_an_architecture(tmp_path, content):
    file = tmp_path / "net_config.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)):
        NetConfig.parse(file)


@pytest.mark.parametrize("source", ["", "   ", [], [[1, 2]], [[[32, 16], "k3_e1", 1]]])
def test_empty_and_malformed_sources(source):
    with pytest.raises(InputError):
        NetConfig.parse(source)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        NetConfig.parse(tmp_path / "none.txt")
    with pytest.raises(InputError, match="directory"):
        NetConfig.parse(tmp_path)
