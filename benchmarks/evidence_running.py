"""A cell of the evidence's grid while it is being done: its commands, one after another."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from engine.steps import end_with_parent, why_it_ended
from models.files import write_whole

from .evidence_grid import Commands
from .evidence_plan import Cell

_GRACE_SECONDS = 20


class Failure(Exception):
    """A cell's command failed; the message is for people."""


@dataclass
class Running:
    """A cell that is being done: on which core, in which folder, what is left of it, and whether
    on the GPU; and the process of the present command, with what its CPU time counts as."""

    cell: Cell
    core: int
    folder: Path
    commands: Commands
    began: float
    on_gpu: bool = False
    process: subprocess.Popen | None = None
    label: str = ""

    def start_next(self) -> dict | None:
        """Start the next command; if there is none, what was found."""
        try:
            self.label, command = next(self.commands)
        except StopIteration as end:
            return end.value
        self._account(starts=1)
        parent = os.getpid()

        def prepare() -> None:
            end_with_parent(parent)
            os.sched_setaffinity(0, {self.core})

        with open(self.folder / "log.txt", "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare,
                env=environment(self.on_gpu),
            )  # fmt: skip
        return None

    def has_ended(self) -> bool:
        """Whether the present command has.

        Raises:
            Failure: It has failed.
        """
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if not pid:
            return False
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        self._account(seconds=usage.ru_utime + usage.ru_stime)
        if code:
            with open(self.folder / "log.txt", "rb") as log:
                raise Failure(f"{self.cell.name}: {why_it_ended(code, log)} ({log.name})")
        return True

    def stop(self) -> None:
        """End the present command; its cell continues another time."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                return
            os.kill(self.process.pid, number)  # Popen's own would wait for it, and lose its time
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline:
                try:
                    if self.has_ended():
                        return
                except Failure:
                    return
                time.sleep(0.05)

    def used(self) -> dict[str, dict]:
        """By label, how often its command was started, and CPU time in seconds."""
        path = self.folder / "used.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def _account(self, **amounts: float) -> None:
        used = self.used()
        of_label = used.setdefault(self.label, dict(starts=0, seconds=0.0))
        for key, amount in amounts.items():
            of_label[key] += amount
        write_whole(self.folder / "used.json", json.dumps(used).encode())


def environment(on_gpu: bool = False) -> dict[str, str]:
    """Of a command: one thread, no GPU unless wanted, and this Python in the scripts, too."""
    variables = os.environ | dict(
        OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", VIRTUAL_ENV=sys.prefix,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )  # fmt: skip
    if not on_gpu:
        variables["CUDA_VISIBLE_DEVICES"] = "-1"
    variables.pop("VENV", None)
    return variables
