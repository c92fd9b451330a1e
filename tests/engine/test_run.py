import os
import sysconfig
import weakref

import pytest
from mmengine.utils.dl_utils import collect_env
from torch import distributed

from engine.run import accept_no_compiler, run
from models import InputError, SampleError


def test_without_a_compiler_a_run_is_silent(monkeypatch, capfd):
    monkeypatch.setitem(sysconfig.get_config_vars(), "CC", "no-such-gcc -pthread")
    accept_no_compiler()
    assert collect_env()["GCC"] == "n/a"
    assert capfd.readouterr().err == ""


def test_a_compiler_that_exists_is_asked(monkeypatch):
    monkeypatch.setitem(sysconfig.get_config_vars(), "CC", "echo -pthread")
    accept_no_compiler()
    assert collect_env()["GCC"] == "--version"


class Left(BaseException):
    """In place of a process that os._exit has ended."""


@pytest.fixture
def group(monkeypatch):
    """A process group of this process alone; returns what befalls it."""
    events = []

    def leave(status):
        events.append(status)
        raise Left

    destroy = distributed.destroy_process_group
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(
        distributed, "destroy_process_group", lambda: (events.append("destroyed"), destroy())
    )
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield events
    if distributed.is_initialized():
        destroy()


ERRORS = [
    (InputError("a mistake"), 2, "error: a mistake\n"),
    (SampleError("a damaged image"), 2, "error: a damaged image\n"),
    (KeyboardInterrupt(), 130, "Interrupted."),
    (MemoryError("out of it"), 1, "MemoryError: out of it\n"),
]


@pytest.mark.parametrize("error, status, message", ERRORS)
def test_an_error_over_nccl_waits_for_nobody(group, monkeypatch, capsys, error, status, message):
    """The others may be waiting for this process; destroying the group would wait for them."""
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")

    def main():
        raise error

    with pytest.raises(Left):
        run(main)
    assert group == [status]
    said = capsys.readouterr().err
    assert said.endswith(message) if status != 130 else message in said
    assert ("Traceback" in said) == (status == 1)


@pytest.mark.parametrize("error, status, message", ERRORS)
def test_an_error_over_gloo_leaves_as_python_does(group, capsys, error, status, message):
    def main():
        raise error

    with pytest.raises(SystemExit if status > 1 else type(error)) as caught:
        run(main)
    assert group == ["destroyed"]
    assert status == 1 or caught.value.code == status


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_a_run_is_freed_before_its_group_is_destroyed(group, monkeypatch, backend):
    """A model's wrapper keeps the group's threads, and a loader its own."""
    monkeypatch.setattr(distributed, "get_backend", lambda: backend)
    runs = []

    class Run:
        def __init__(self):
            self.myself = self

        def __del__(self):
            group.append("freed")

    def main():
        runs.append(weakref.ref(Run()))

    run(main)
    assert group == ["freed", "destroyed"] and runs[0]() is None


def test_one_process_of_a_machine_speaks_under_slurm(monkeypatch, capsys):
    def main():
        raise InputError("a mistake")

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for rank, said in (("0", "error: a mistake\n"), ("3", "")):
        monkeypatch.setenv("SLURM_LOCALID", rank)
        with pytest.raises(SystemExit):
            run(main)
        assert capsys.readouterr().err == said
