import sysconfig

from mmengine.utils.dl_utils import collect_env

from engine.run import accept_no_compiler


def test_without_a_compiler_a_run_is_silent(monkeypatch, capfd):
    monkeypatch.setitem(sysconfig.get_config_vars(), "CC", "no-such-gcc -pthread")
    accept_no_compiler()
    assert collect_env()["GCC"] == "n/a"
    assert capfd.readouterr().err == ""


def test_a_compiler_that_exists_is_asked(monkeypatch):
    monkeypatch.setitem(sysconfig.get_config_vars(), "CC", "echo -pthread")
    accept_no_compiler()
    assert collect_env()["GCC"] == "--version"
