"""Several processes in a test, and the scripts, as users run them."""

import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.multiprocessing import start_processes

from tests.conftest import REPO

# what a process that serves all tests has imported once
PRELOAD = ["tests.search.tools", "tests.kills"]
_TIMEOUT = 300  # seconds


def run_processes(function: Callable, *args: object, count: int = 2) -> None:
    """Call ``function(rank, *args)`` in so many processes, and wait for them.

    They are forks of one process that has imported, once for all tests, what they need.
    """
    multiprocessing.set_forkserver_preload(PRELOAD)
    start_processes(function, args, nprocs=count, start_method="forkserver")


def run_script(
    name: str, *args: object, cwd: Path = REPO, new: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """A script, as a user runs it; returns the finished process.

    It runs in a fork of a process that has imported the libraries, which takes seconds. As a shell
    would run it, with this test's Python, it does with ``new``, or with an environment of its own.
    """
    words = [str(arg) for arg in args]
    if not (new or environment):
        return run_module(*command_of(name, words), cwd=cwd)
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"} | environment
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("VENV", None)
    return subprocess.run(
        ["sh", str(REPO / f"scripts/{name}.sh"), *words],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=_TIMEOUT,
    )  # fmt: skip


def command_of(script: str, arguments: Sequence[str], repository: Path = REPO) -> tuple:
    """The module that a script runs, and its arguments.

    A script's last line is ``exec "$PYTHON" -m MODULE [ARGUMENTS] "$@"``.
    """
    text = (REPO / f"scripts/{script}.sh").read_text().replace("\\\n", " ")
    (called,) = re.findall(r'^exec "\$PYTHON" -m (.*) "\$@"$', text, re.MULTILINE)
    module, *first = shlex.split(called.replace("$REPO", str(repository)))
    return module, [*first, *arguments]


def run_module(
    module: str, arguments: Sequence[str], cwd: Path, repository: Path = REPO
) -> subprocess.CompletedProcess:
    """``python -m MODULE ARGUMENTS`` in a fork; a folder may take the place of the repository."""
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        status = run_fork(_run_module, module, arguments, cwd, repository, outputs)
        texts = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess([module, *arguments], status, *texts)


def run_fork(function: Callable, *args: object) -> int:
    """Call a function in a process of its own, for 5 minutes at most; returns its exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=function, args=args)
    process.start()
    process.join(_TIMEOUT)
    # it may still run; a status of -SIGKILL is left to those that kill themselves
    process.terminate()
    process.join(10)
    process.kill()
    process.join()
    return process.exitcode


def _run_module(
    module: str, arguments: Sequence[str], cwd: Path, repository: Path, outputs: Sequence[Path]
) -> None:
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    torch.set_num_threads(1)
    # as it is where the command is typed; workers need not import everything again
    multiprocessing.set_start_method("fork", force=True)
    if repository != REPO:
        for loaded in list(sys.modules.values()):
            for name in ("REPO", "_REPO"):
                if vars(loaded).get(name) == REPO:
                    setattr(loaded, name, repository)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
