"""The quickstart: the whole method on the embedded street scenes, in minutes on two CPU cores.

``python -m engine.quickstart [det | ssdlite | seg | all] [options]``. Each step is one of the
project's entry points with the arguments that a user would type, in a process forked from this
one: importing the libraries takes seconds, so this process does it for all of them. For the forks'
sake it computes nothing, and asks no driver for GPUs (scripts/quickstart.sh sees to that).
"""

import argparse
import ctypes
import gc
import hashlib
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TextIO

from mmengine.hooks import Hook
from mmengine.runner import find_latest_checkpoint

from models import InputError
from models.files import write_whole

from .compat import mmcv_ops
from .config import REPO, OneLineParser, import_scope, user_path
from .contact_sheet import ContactSheet
from .progress import ShowProgress, StatusLine, clock
from .run import run
from .tables import format_table, read_row
from .work_dir import hold, make_work_dir

# Of uniform's entropy: a search whose alpha ends above it has not decided.
UNDECIDED = 0.7
_SCALARS = {
    "train/loss": "loss {:.2f}",
    "train/alpha_undecided": "alpha {:.0%} of uniform",
    "train/arch_cost": "expected {:.2f}B MAdds",
}
_MODULES = (
    "datasets.images", "datasets.toy_city", "engine.test", "engine.train", "models.seeds.fetch",
    "search", "torch.utils.tensorboard",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5
_SEED_SETTING = "model.backbone.init_cfg.seed="


@dataclass(frozen=True)
class Task:
    """A framework, its configs, and the packages that they need."""

    title: str
    configs: str
    scope: str
    package: str
    data_set: str


TASKS = {
    "det": Task("RetinaNet", "configs/fna_det/retinanet", "mmdet", "fna_det", "coco"),
    "ssdlite": Task("SSDLite", "configs/fna_det/ssdlite", "mmdet", "fna_det", "coco"),
    "seg": Task("DeepLabv3", "configs/fna_seg/deeplabv3", "mmseg", "fna_seg", "cityscapes"),
}


@dataclass(frozen=True)
class Network:
    """A row of the table: an architecture, by default the config's own, and settings."""

    name: str
    title: str
    row: str
    net_config: str | None = None
    settings: tuple[str, ...] = ()


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


NETWORKS = (
    Network(
        "mobilenetv2",
        "MobileNetV2, remapped",
        "MobileNetV2 (the seed's architecture), remapped",
        "configs/net_configs/mobilenetv2.txt",
    ),
    Network("fna", "FNA, remapped", "FNA (published architecture), remapped"),
    Network(
        "found", "found, remapped", "found here{undecided}, remapped", "{search}/net_config.txt"
    ),
    Network(
        "fna_random",
        "FNA, random weights",
        "FNA (published architecture), random weights",
        settings=("model.backbone.init_cfg=None",),
    ),
)
_STEPS = 3 + len(NETWORKS)


class Quickstart:
    """The steps of one task, and their results in a folder.

    A step is done when its products are there and, written after them, its file ``done``. One that
    was interrupted is resumed.

    Args:
        task: What to run.
        results: The folder.
        data_root: A data set in the layout of the embedded one; by default, that one is drawn.
        settings: For ``--cfg-options`` of all steps.
        screen: Where to say what happens.
    """

    def __init__(
        self,
        task: Task,
        results: Path,
        data_root: str | None,
        settings: Sequence[str],
        screen: TextIO,
    ):
        self.task, self.results, self.data_root = task, results, data_root
        self.settings, self.screen = list(settings), screen
        self.search_dir = results / "search"
        self.sheet = results / "predictions.png"
        self.number = 0

    def claim(self) -> None:
        """Hold the folder, empty if what is in it was made with other configs or settings.

        Only networks that were trained alike may stand in one table.

        Raises:
            InputError: Another run is using the folder, or it holds something else.
        """
        make_work_dir(self.results)
        hold(self.results)
        path, stamp = self.results / "stamp", self._stamp()
        there = [entry for entry in self.results.iterdir() if not entry.name.startswith(".")]
        if there and not path.is_file():
            raise InputError(f"work dir {self.results}: holds other things, and no quickstart's")
        if there and path.read_text() != stamp:
            self._say(
                f"Configs or options have changed since {self.results} was made: starting anew"
            )
            for entry in sorted(there, key=path.__eq__):  # the stamp last: it says whose they are
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_whole(path, stamp.encode())

    def run(self) -> None:
        """Do what is left to do, and print the table.

        Raises:
            InputError: A step failed.
        """
        began = time.monotonic()
        self._say(f"{self.task.title} on the embedded street scenes, in {_STEPS} steps")
        self._step("data", "data set", self._draw_data)
        self._step("seed", "seed network", self._get_seed)
        found = [self.search_dir / name for name in ("net_config.txt", "alpha.json")]
        self._step("search", "search (architecture adaptation)", self._search, found, self._alpha)
        drawing = (self.search_dir / "architecture.png").read_bytes()
        write_whole(self.results / "architecture.png", drawing)
        for network in NETWORKS:
            title = f"{network.title}: parameter adaptation"
            products = [self.results / network.name / "metrics.json"]
            products += [self.sheet] if network.name == "fna" else []
            work, about = partial(self._adapt, network), partial(self._accuracy, network)
            self._step(network.name, title, work, products, about)
        self._report()
        self._say(f"Finished in {clock(time.monotonic() - began)} min.")

    def _say(self, text: str) -> None:
        print(text, file=self.screen, flush=True)

    def _stamp(self) -> str:
        """What the results depend on, in short."""
        folders = (
            "configs/_base_",
            f"configs/{self.task.package}",
            "configs/net_configs",
            "datasets",
        )
        files = [path for folder in folders for path in Path(folder).rglob("*.[pt][yx]*")]
        digest = hashlib.sha256(repr((self.data_root, self.settings)).encode())
        for path in sorted(path for path in files if path.suffix in (".py", ".txt")):
            digest.update(f"{path}\n".encode() + path.read_bytes())
        return digest.hexdigest()

    def _step(
        self,
        name: str,
        title: str,
        work: Callable[[StatusLine], str | None],
        products: Sequence[Path] = (),
        about: Callable[[], str] = str,
    ) -> None:
        """Do a step, unless it is done; a step without products looks itself.

        Args:
            name: Of its log, and of its folder if it has products.
            title: For its line.
            work: Does it.
            products: The files that it leaves.
            about: What they say, for the line.
        """
        self.number += 1
        line = StatusLine(self.screen, f"{self.number}/{_STEPS}  {title}")
        marker = self.results / name / "done"
        if products and all(path.is_file() for path in (marker, *products)):
            return line.end(f"already there: {about()}")
        began = time.monotonic()
        line.begin()
        try:
            work(line)
            for path in products:
                if not path.is_file():
                    raise InputError(f"{title}: {path} is missing after it")
            if products:
                write_whole(marker, b"done\n")  # not empty: a full disk has room for that
        except BaseException:
            line.end("stopped")
            raise
        line.end(f"done in {clock(time.monotonic() - began)}  {about()}".rstrip())

    def _draw_data(self, line: StatusLine) -> None:
        if self.data_root is None:
            module, arguments = "datasets.toy_city", ["--out", "data/toy_city"]
            self._call("data", Command(module, arguments, ["python", "-m", module, *arguments]))

    def _get_seed(self, line: StatusLine) -> None:
        if not any(setting.startswith(_SEED_SETTING) for setting in self.settings):
            self._call("seed", Command("models.seeds.fetch", [], ["sh", "scripts/get_seed.sh"]))

    def _search(self, line: StatusLine) -> None:
        shutil.rmtree(self.results / "found", ignore_errors=True)  # what another search had found
        config = f"{self.task.configs}_arch_adapt_toy.py"
        options = ["--work-dir", str(self.search_dir), "--resume", *self._options()]
        command = Command.script("arch_adapt", "engine.train", [config], options)
        self._call("search", command, ShowProgress(line, _SCALARS))

    def _adapt(self, network: Network, line: StatusLine) -> None:
        """Train and evaluate a network."""
        work_dir = self.results / network.name
        config = f"{self.task.configs}_param_adapt_toy.py"
        options = ["--work-dir", str(work_dir)]
        if network.net_config:
            options += ["--net-config", network.net_config.format(search=self.search_dir)]
        options += self._options(*network.settings)
        progress = ShowProgress(line, _SCALARS)
        command = Command.script("param_adapt", "engine.train", [config], ["--resume", *options])
        self._call(network.name, command, progress)
        checkpoint = find_latest_checkpoint(str(work_dir))
        if checkpoint is None:
            raise InputError(f"{network.title}: no checkpoint in {work_dir} after its training")
        command = Command.script("test", "engine.test", [config, checkpoint], options)
        pictures = [ContactSheet(self.sheet)] if network.name == "fna" else []
        self._call(network.name, command, progress, *pictures)

    def _options(self, *settings: str) -> list[str]:
        """The options that all steps share."""
        options = ["--data-root", self.data_root] if self.data_root else []
        settings = *self.settings, *settings
        return [*options, "--cfg-options", *settings] if settings else options

    def _call(self, name: str, command: Command, *hooks: Hook) -> None:
        """Run an entry point in a process of its own; its output goes to the step's log.

        Raises:
            InputError: It failed.
        """
        path = self.results / f"{name}.log"
        with open(path, "a+b") as log:
            process = multiprocessing.get_context("fork").Process(
                target=_run_command, args=(command, log.fileno(), hooks, os.getpid())
            )
            start = log.seek(0, os.SEEK_END)
            process.start()
            try:
                process.join()
            finally:  # it may be an interruption
                process.terminate()
                process.join(_GRACE_SECONDS)
                process.kill()
                process.join()
            log.seek(start)
            *_, last = [b"", *log.read().splitlines()]
        if process.exitcode:
            why = f"process ended with status {process.exitcode}"
            if last.startswith(b"error: "):
                why = last.removeprefix(b"error: ").decode(errors="replace")
            raise InputError(f"{name}: {why}; its log is {path}; the same command tries again")

    def _alpha(self) -> str:
        share = self._undecided()
        return f"alpha at {share:.0%} of uniform{', undecided' if share > UNDECIDED else ''}"

    def _undecided(self) -> float:
        return json.loads((self.search_dir / "alpha.json").read_text())["undecided"]

    def _accuracy(self, network: Network) -> str:
        row = read_row(network.row, str(self.results / network.name))
        figures = [f"{k} {v}" for k, v in row.items() if k not in ("network", "params", "MAdds")]
        return ", ".join(figures)

    def _report(self) -> None:
        """Print the table, what to make of the search, and where everything is."""
        share = self._undecided()
        undecided = f", search undecided ({share:.0%} of uniform)" if share > UNDECIDED else ""
        madds, rows = {}, []
        for network in NETWORKS:
            folder = self.results / network.name
            madds[network.name] = json.loads((folder / "metrics.json").read_text())["madds"]
            rows.append(read_row(network.row.format(undecided=undecided), str(folder)))
        self._say(
            f"\n{self.task.title} on the embedded street scenes, equal training for each network:"
        )
        self._say(f"\n{format_table(rows)}\n")
        within = "within" if madds["found"] <= madds["fna"] else "more than"
        self._say(
            f"Multiply-adds of the architecture found: {madds['found'] / 1e9:.3f}B, {within} the "
            f"published one's {madds['fna'] / 1e9:.3f}B."
        )
        if undecided:
            self._say(
                f"The search ended undecided: its alpha has {share:.0%} of the entropy of no "
                f"preference at all,\nwhere at most {UNDECIDED:.0%} would be a decision; the "
                "architecture found is little more than a guess."
            )
        configs, data_set = self.task.configs, self.task.data_set
        self._say(
            f"""
Ground truth and predictions:  {self.sheet}
Architecture found:            {self.results}/architecture.png, {self.search_dir}/net_config.txt
All else:                      {self.results} (each *.log begins with the command that wrote it)
Next: put your data into data/{data_set} (docs/usage.md says how) and run
  sh scripts/arch_adapt.sh {configs}_arch_adapt_{data_set}.py
or write a config for your own data: docs/new_dataset.md"""
        )


def _run_command(command: Command, log: int, hooks: Sequence[Hook], parent: int) -> None:
    """What a step's process does; it ends when its parent does, however that is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(log, descriptor)
        setattr(sys, name, open(descriptor, "w", buffering=1, closefd=False))
    print(f"$ {shlex.join(command.typed)}")
    sys.argv = [command.module, *command.arguments]
    main = import_module(command.module).main
    run(lambda: sys.exit(main(hooks) if hooks else main()))


def import_libraries(task: Task) -> None:
    """Import all that the steps of a task import."""
    with mmcv_ops.quiet_imports():
        import_scope(task.scope)
        for name in (*_MODULES, task.package):
            import_module(name)
    gc.collect()
    gc.freeze()  # mmengine collects garbage often; what was imported need not be looked through


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="scripts/quickstart.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("task", nargs="?", default="det", choices=[*TASKS, "all"])
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument(
        "--work-dir", help="folder of the results (default work_dirs/quickstart[_TASK][_seedN])"
    )
    parser.add_argument("--data-root", help="a data set of the same layout, instead of drawing one")
    parser.add_argument("--cfg-options", nargs="+", default=[], help="settings of all steps")
    args = parser.parse_args()
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: expected 0 or more")
    if args.task == "all" and args.work_dir:
        raise InputError("--work-dir: the three tasks of all cannot share a folder")
    return args


def default_work_dir(task: str, seed: int) -> Path:
    """The folder of the results; another random seed than the usual 0 has another."""
    name = "work_dirs/quickstart" + ("" if task == "det" else f"_{task}")
    return Path(f"{name}_seed{seed}" if seed else name)


def main() -> None:
    args = parse_args()
    work_dir = args.work_dir and Path(args.work_dir).expanduser().absolute()
    data_root = args.data_root and user_path(args.data_root)
    settings = [*([f"randomness.seed={args.seed}"] if args.seed else []), *args.cfg_options]
    os.chdir(REPO)
    screen = open(os.dup(1), "w")  # a step's own stdout is its log
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for task in TASKS if args.task == "all" else [args.task]:
            results = work_dir or default_work_dir(task, args.seed)
            quickstart = Quickstart(TASKS[task], results, data_root, settings, screen)
            quickstart.claim()
            import_libraries(TASKS[task])
            quickstart.run()
    except KeyboardInterrupt:
        print("Interrupted. The same command continues.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        raise InputError(f"{error.filename or 'quickstart'}: {error.strerror}") from None


if __name__ == "__main__":
    run(main)
