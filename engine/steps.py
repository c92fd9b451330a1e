"""Work in steps that survives interruptions: each step in its own process, done or resumed.

A step runs one of the project's entry points with the arguments that a user would type, in a
process forked from this one: importing the libraries takes seconds, so this process does it for all
of them. For the forks' sake it computes nothing itself, and asks CUDA for nothing
(scripts/quickstart.sh sees to that).
"""

import ctypes
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO, TextIO

import torch
from mmengine.hooks import Hook

from models import InputError
from models.files import write_whole

from .progress import StatusLine, clock
from .run import run
from .work_dir import hold, make_work_dir

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5
_LONGEST_LINE = 10_000  # bytes
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Step:
    """A step of the work.

    Args:
        name: Of the step.
        title: For its line.
        work: Does it.
        products: The files that it leaves; a step without any knows itself whether it is done.
        about: What its line says of them.
    """

    name: str
    title: str
    work: Callable[[StatusLine], object]
    products: Sequence[Path] = ()
    about: Callable[[], str] = str


@dataclass(frozen=True)
class Command:
    """An entry point with its arguments, and what a user types for it."""

    module: str
    arguments: Sequence[str]
    typed: Sequence[str]

    @classmethod
    def script(cls, name: str, module: str, files: Sequence[str], options: Sequence[str]):
        """A script on one GPU or, where there is none, on the CPU."""
        return cls(module, [*files, *options], ["sh", f"scripts/{name}.sh", *files, "1", *options])


class Steps:
    """Steps, and their results in a folder.

    A step is done when its products are there and, written after them, ``NAME/done``.

    Args:
        folder: Of the results. Step ``NAME`` has a log, ``NAME.log``, and may have a folder.
        total: How many steps there will be.
        screen: Where their progress is shown.
    """

    def __init__(self, folder: Path, total: int, screen: TextIO):
        self.folder, self.total, self.screen = folder, total, screen
        self.number = 0
        self.only_end = False  # show no progress

    def claim(self, stamp: str) -> None:
        """Hold the folder, and empty it if what is in it was made under another stamp.

        Raises:
            InputError: Another run is using it, or it holds what no such steps have left.
        """
        make_work_dir(self.folder)
        hold(self.folder)
        path, content = self.folder / "stamp", f"steps {stamp}\n".encode()
        there = [entry for entry in self.folder.iterdir() if not entry.name.startswith(".")]
        found = path.read_bytes() if path.is_file() else b""
        if there and not found.startswith(b"steps "):
            raise InputError(
                f"work dir {self.folder}: holds other things; remove it, or choose another"
            )
        if found == content:
            return
        if there:
            self.say(f"Configs or options have changed since {self.folder} was made: starting anew")
            for entry in sorted(there, key=path.__eq__):  # the stamp last: it says whose they are
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_whole(path, content)

    def say(self, text: str) -> None:
        print(text, file=self.screen, flush=True)

    def do(self, step: Step) -> None:
        """Do the next step, unless it is done.

        Raises:
            InputError: A product is missing afterwards, or what ``work`` raises.
        """
        self.number += 1
        line = StatusLine(
            self.screen, f"{self.number}/{self.total}  {step.title}", only_end=self.only_end
        )
        if self._is_done(step):
            line.end(f"already there: {step.about()}")
            return
        began = time.monotonic()
        line.begin()
        try:
            step.work(line)
            for path in step.products:
                if not path.is_file():
                    raise InputError(f"{step.title}: {path} is missing after it")
            if step.products:  # not empty: a full disk has room for that
                write_whole(self._marker(step), b"done\n")
        except BaseException:
            line.end("stopped")
            raise
        line.end(f"done in {clock(time.monotonic() - began)}  {step.about()}".rstrip())

    def do_together(self, steps: Sequence[Step]) -> None:
        """Do the next steps at the same time, each in a process with its share of the threads.

        Threads of one step wait for each other; two steps with half of them each take less time. A
        terminal has one line for progress: it shows the first step's.

        Raises:
            InputError: One failed; the others are stopped.
        """
        threads = max(1, torch.get_num_threads() // len(steps))
        running: dict[BaseProcess, tuple[Step, Connection]] = {}
        try:
            for step in steps:
                if self._is_done(step):
                    self.do(step)
                    continue
                told, tells = _FORK.Pipe(duplex=False)
                process = _FORK.Process(
                    target=self._do_apart, args=(step, bool(running), threads, tells, os.getpid())
                )
                process.start()
                running[process] = step, told
                self.number += 1
            while running:
                wait(process.sentinel for process in running)
                for process in [process for process in running if not process.is_alive()]:
                    step, told = running.pop(process)
                    if process.exitcode:
                        why = (
                            f"{step.title}: {_status(process.exitcode)}; the same command continues"
                        )
                        raise InputError(told.recv() if told.poll() else why)
        finally:  # it may be an interruption
            for process in running:
                process.terminate()
            for process in running:
                _stop(process)

    def _do_apart(
        self, step: Step, only_end: bool, threads: int, tells: Connection, parent: int
    ) -> None:
        end_with_parent(parent)
        torch.set_num_threads(threads)
        self.only_end = only_end
        try:
            self.do(step)
        except InputError as error:
            tells.send(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    def _is_done(self, step: Step) -> bool:
        files = (self._marker(step), *step.products)
        return bool(step.products) and all(path.is_file() for path in files)

    def _marker(self, step: Step) -> Path:
        return self.folder / step.name / "done"

    def call(self, name: str, command: Command, *hooks: Hook) -> None:
        """Run an entry point for a step, whose log gets the command and all output.

        Args:
            name: Of the step.
            command: What to run.
            hooks: For its ``main``.

        Raises:
            InputError: It failed.
        """
        path = self.folder / f"{name}.log"
        with open(path, "a+b") as log:
            start = log.seek(0, os.SEEK_END)
            process = _FORK.Process(
                target=_run_command, args=(command, log.fileno(), hooks, os.getpid())
            )
            process.start()
            try:
                process.join()
            finally:  # it may be an interruption
                _stop(process)
            why = why_it_ended(process.exitcode, log, start)
        if process.exitcode:
            raise InputError(f"{name}: {why}; all of it is in {path}; the same command continues")


def why_it_ended(status: int, log: BinaryIO, start: int = 0) -> str:
    """What to say of a process that has failed.

    Args:
        status: Its exit status, or the negative of the signal that killed it.
        log: Its output, from ``start`` on.
    """
    log.seek(max(start, log.seek(0, os.SEEK_END) - _LONGEST_LINE))
    *_, last = [b"", *log.read().splitlines()]
    if last.startswith(b"error: "):
        return last.removeprefix(b"error: ").decode(errors="replace")
    return _status(status)


def end_with_parent(parent: int) -> None:
    """Let this process end when the one that has started it does, however that is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _run_command(command: Command, log: int, hooks: Sequence[Hook], parent: int) -> None:
    """What the process of a step's command does."""
    end_with_parent(parent)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(log, descriptor)
        setattr(sys, name, open(descriptor, "w", buffering=1, closefd=False))
    print(f"$ {shlex.join(command.typed)}")
    sys.argv = [command.module, *command.arguments]
    main = import_module(command.module).main
    run(lambda: sys.exit(main(hooks) if hooks else main()))


def _stop(process: BaseProcess) -> None:
    process.terminate()
    process.join(_GRACE_SECONDS)
    process.kill()
    process.join()


def _status(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
