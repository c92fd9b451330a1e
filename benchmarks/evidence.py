"""Evidence: does adaptation pay? A task's grid of networks and random seeds, one core a run.

``python -m benchmarks.evidence TASK [--jobs 2] [--gpu] [--only ROW [--seed S]] [--list]
[--report]``

What the rows are and how to run this: docs/evidence/README.md. Results are in
``docs/evidence/TASK/``, a file a cell, and of these ``docs/evidence/TASK.md`` and ``TASK.png``; all
else is in ``work_dirs/evidence/TASK/``, from where what was interrupted continues.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from engine.config import REPO, OneLineParser, user_path
from engine.progress import StatusLine
from engine.run import run
from engine.work_dir import hold, make_work_dir
from models import InputError
from models.files import locate, write_whole
from models.latency import device_name

from .evidence_grid import Grid
from .evidence_plan import TASKS, Cell, digest, read
from .evidence_report import write_report
from .evidence_running import Failure, Running, environment

# minutes of a core that a kind of cell takes, until one has been done
_MINUTES = dict(table=8, draw=1, search=20, training=12, held_out=3, latency=8)
_PACKAGES = ("torch", "onedl-mmengine", "onedl-mmdetection", "onedl-mmsegmentation", "onnxruntime")
_MOST_FAILURES = 2  # in a row
_POLL_SECONDS = 1


class Evidence:
    """Does cells of a grid, some at a time.

    Args:
        grid: The cells.
        wanted: Names of those to do; what they need is done, too.
        again: Names of those to do even if there is a result already, to compare with it.
        cores: The numbers of the cores to use.
        screen: Where to say what happens.
    """

    def __init__(
        self,
        grid: Grid,
        wanted: Sequence[str],
        again: Sequence[str],
        cores: Sequence[int],
        screen: TextIO,
    ):
        self.grid, self.again, self.cores = grid, set(again), cores
        needed = list(wanted)
        for name in needed:
            needed += [each for each in grid.needs(grid.cells[name]) if each not in needed]
        self.cells = [cell for cell in grid.cells.values() if cell.name in needed]
        self.running: list[Running] = []
        self.failures: dict[str, str] = {}
        self.failed_in_a_row = 0
        self.about = _about()
        self.line = StatusLine(screen, "evidence", seconds=60)

    def run(self) -> None:
        """Do what is left to do.

        Raises:
            InputError: Cells failed. Others have been done, unless too many failed in a row.
        """
        try:
            while True:
                while self.failed_in_a_row < _MOST_FAILURES and (cell := self._next()):
                    self._start(cell)
                if not self.running:
                    break
                self.line.update(self._status())
                time.sleep(_POLL_SECONDS)
                for each in list(self.running):
                    self._advance(each)
        finally:
            for each in self.running:
                each.stop()
        if self.failures:
            raise InputError(f"failed: {'; '.join(self.failures.values())}")

    def _next(self) -> Cell | None:
        """The first cell that can begin now."""
        busy = [each.cell for each in self.running]
        if len(busy) == len(self.cores) or any(cell.alone for cell in busy):
            return None
        for cell in filter(self._is_left, self.cells):
            if not all(map(self.grid.result, self.grid.needs(cell))):
                continue
            if cell.inherits and not self.grid.has_weights(cell.inherits):
                search = self.grid.cells[cell.inherits]
                if search in busy or search.name in self.failures:
                    continue
                self.line.end(f"{search.name}: its weights, which {cell.name} needs, are not here")
                return search
            return None if cell.alone and busy else cell
        return None

    def _is_left(self, cell: Cell) -> bool:
        if cell.name in self.failures or any(each.cell is cell for each in self.running):
            return False
        return cell.name in self.again or not self.grid.is_done(cell)

    def _start(self, cell: Cell) -> None:
        free = list(self.cores)
        for each in self.running:
            free.remove(each.core)
        folder = self._folder(cell)
        commands = self.grid.commands(cell, folder)
        on_gpu = self.grid.gpus != "0" and not cell.alone  # latency is the CPU's
        self.running.append(Running(cell, free[0], folder, commands, time.monotonic(), on_gpu))
        self.running[-1].start_next()

    def _folder(self, cell: Cell) -> Path:
        """Where to do a cell. What is there is deleted if it was made with other settings, or its
        result was there and has been removed: nothing of it may come into the new result."""
        known = self.grid.result(cell.name)
        compares = cell.name in self.again and known
        folder = self.grid.work / ("again" if compares else "") / cell.name
        settings, done, today = folder / "settings", folder / "done", digest(cell)
        others = settings.is_file() and settings.read_text() != today
        if others or (done.is_file() and not known):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        write_whole(settings, today.encode())
        return folder

    def _advance(self, running: Running) -> None:
        """Continue with a cell, if its present command has ended."""
        try:
            if not running.has_ended() or (found := running.start_next()) is None:
                return
        except (Failure, InputError, OSError, KeyError) as error:  # or what it left is not usable
            ours = isinstance(error, Failure)
            failure = str(error) if ours else f"{running.cell.name}: {type(error).__name__} {error}"
            self.failures[running.cell.name] = failure
            self.failed_in_a_row += 1
            self.line.end(f"failed: {failure}")
        else:
            self.failed_in_a_row = 0
            self.again.discard(running.cell.name)
            self._finish(running, found)
        self.running.remove(running)

    def _finish(self, running: Running, found: dict) -> None:
        """Write the result; if there is one already, say whether it is the same."""
        cell, used = running.cell, running.used()
        minutes = {label: round(each["seconds"] / 60, 2) for label, each in used.items()}
        summary, before = _summary(found), self.grid.result(cell.name)
        machine = device_name("cuda" if running.on_gpu else "cpu")
        if before is None or cell.kind == "latency":
            record = dict(
                cell=cell.name, row=cell.row, seed=cell.seed, kind=cell.kind, config=cell.config,
                settings=cell.settings, config_digest=digest(cell), **found, core_minutes=minutes,
                starts={label: each["starts"] for label, each in used.items()}, **self.about,
                machine=machine, finished=datetime.now(UTC).isoformat(timespec="seconds"),
            )  # fmt: skip
            self.grid.write(cell.name, record)
        elif differing := [key for key in found if found[key] != before.get(key)]:
            summary += (
                f"; differs from the result there in {', '.join(differing)} (made on "
                f"{before['machine']}, torch {before['versions']['torch']})"
            )
        else:
            summary += "; equal to the result there, to the last digit"
        write_whole(running.folder / "done", b"done\n")
        if running.folder.parent.name == "again":
            shutil.rmtree(running.folder)
        self.line.end(f"{cell.name}: done in {sum(minutes.values()):.1f} core-minutes  {summary}")

    def _status(self) -> str:
        left = [cell for cell in self.cells if self._is_left(cell)]
        done = len(self.cells) - len(left) - len(self.running)
        now = [(each.cell, (time.monotonic() - each.began) / 60) for each in self.running]
        minutes = sum(map(self._expected, left))
        minutes += sum(max(self._expected(cell) - spent, 1) for cell, spent in now)
        hours, minutes = divmod(round(minutes / len(self.cores)), 60)
        names = ", ".join(f"{cell.name} ({spent:.0f} min)" for cell, spent in now)
        return f"{done}/{len(self.cells)} cells  eta {hours} h {minutes:02d}  {names}"

    def _expected(self, cell: Cell) -> float:
        """Core-minutes, from those cells of its kind that have been done."""
        alike = (each.name for each in self.grid.cells.values() if each.kind == cell.kind)
        found = [sum(r["core_minutes"].values()) for r in map(self.grid.result, alike) if r]
        return sum(found) / len(found) if found else _MINUTES[cell.kind]


def _summary(found: dict) -> str:
    parts = [(split, found[split].items()) for split in ("validation", "test") if split in found]
    return "; ".join(
        f"{split} {', '.join(f'{name} {value:.4g}' for name, value in items)}"
        for split, items in parts
    )


def _about() -> dict:
    """What results say about where they come from."""

    def git(*arguments: str) -> str:
        if not shutil.which("git"):
            return ""
        process = subprocess.run(["git", *arguments], capture_output=True, text=True)
        return process.stdout.strip() if process.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", ":!docs/evidence")
    return dict(
        commit=git("rev-parse", "HEAD") + (" and changes" if changed else ""),
        versions=dict(python=sys.version.split()[0], **{name: version(name) for name in _PACKAGES}),
    )


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="benchmarks.evidence", description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=TASKS)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--jobs", type=int, default=min(cores, 2), help="runs at a time, one core each (2)"
    )
    parser.add_argument("--gpu", action="store_true", help="all runs on the GPU, which they share")
    parser.add_argument("--only", metavar="ROW", help="this row or cell, even if it is done")
    parser.add_argument("--seed", type=int, help="with --only: of the row, this random seed")
    parser.add_argument("--data-root", help="the data set's folder, in place of the configs' own")
    parser.add_argument("--list", action="store_true", help="list the cells and what is done")
    parser.add_argument("--report", action="store_true", help="write the page and picture only")
    args = parser.parse_args()
    if not 1 <= args.jobs <= cores:
        raise InputError(f"--jobs {args.jobs}: expected 1 to {cores}, the cores of this machine")
    if args.gpu and not device_name("cuda"):
        raise InputError("--gpu: there is none at hand")
    if args.seed is not None and not args.only:
        raise InputError("--seed: expected with --only ROW; the grid has random seeds of its own")
    return args


def select(grid: Grid, only: str | None, seed: int | None) -> list[str]:
    """The names of the cells that were asked for.

    Raises:
        InputError: There is none.
    """
    cells = [
        cell.name
        for cell in grid.cells.values()
        if only in (None, cell.row, cell.name) and seed in (None, cell.seed)
    ]
    if not cells:
        of_seed = "" if seed is None else f" of random seed {seed}"
        raise InputError(f"--only {only}: no such row or cell{of_seed}; --list shows all")
    return cells


def show(grid: Grid) -> None:
    """Print the cells, which are done, and which were made with other settings than today's."""
    for cell in grid.cells.values():
        found = grid.result(cell.name)
        state = "done" if grid.is_done(cell) else "partly" if found else "-"
        if found and found["config_digest"] != digest(cell):
            state += ", with other settings"
        print(f"{cell.name:28}{cell.title:36}{state}")


def get_seed_network(config: str) -> None:
    """Have the seed's weights, which a config names."""
    seed = read(config).model.backbone.init_cfg["seed"]
    if not locate(seed).is_file():
        command = ["sh", "scripts/get_seed.sh", "--out", seed]
        if subprocess.run(command, env=environment()).returncode:
            raise InputError(f"seed {seed}: is not there; scripts/get_seed.sh gets it")


def main() -> None:
    args = parse_args()
    data_root = args.data_root and user_path(args.data_root)
    os.chdir(REPO)
    stem = Path("docs/evidence") / args.task
    work = Path("work_dirs/evidence") / args.task
    grid = Grid(TASKS[args.task], stem, work, data_root, "1" if args.gpu else "0")
    if args.list:
        return show(grid)
    for folder in (grid.results, grid.work):
        make_work_dir(folder)
    wanted = select(grid, args.only, args.seed)
    try:
        if not args.report:
            hold(grid.work)
            get_seed_network(grid.task.training)
            cores = sorted(os.sched_getaffinity(0))[: args.jobs]
            Evidence(grid, wanted, wanted if args.only else (), cores, sys.stdout).run()
    finally:
        print(f"Results: {', '.join(map(str, write_report(grid, stem)))}")


if __name__ == "__main__":
    run(main)
