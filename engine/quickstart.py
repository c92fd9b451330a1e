"""The quickstart: the whole method on the embedded street scenes, in minutes on two CPU cores.

``python -m engine.quickstart [det | ssdlite | seg | all] [options]``
"""

import argparse
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TextIO

import torch

from datasets import toy_city
from models import InputError
from models.files import write_whole

from .checkpoints import newest_checkpoint
from .compat import mmcv_ops
from .config import REPO, OneLineParser, given, import_scope, user_path
from .contact_sheet import ContactSheet
from .progress import ShowProgress, StatusLine, clock
from .run import run
from .steps import Command, Step, Steps
from .tables import format_table, read_row

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
_TOY_CITY = "data/toy_city"
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
_STEPS = ("data", "seed", "search", *(network.name for network in NETWORKS))


class Quickstart:
    """The steps of one task.

    Args:
        task: What to run.
        results: Folder of the results.
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
        self.settings = list(settings)
        self.title = f"{task.title} on {data_root or 'the embedded street scenes'}"
        self.steps = Steps(results, len(_STEPS), screen)
        self.about_data = ""
        self.search_dir = results / "search"
        self.sheet = results / "predictions.png"

    def claim(self) -> None:
        """Take possession of the folder of the results.

        Networks that were not trained alike shall not stand in one table, so it is emptied if its
        content was made with other configs, settings or scenes.

        Raises:
            InputError: Another run is using it, or it holds something else.
        """
        configs = (f"configs/{name}" for name in ("_base_", self.task.package, "net_configs"))
        files = [path for folder in ("datasets", *configs) for path in Path(folder).rglob("*.*")]
        digest = hashlib.sha256(repr((self.data_root, self.settings)).encode())
        for path in sorted(path for path in files if path.suffix in (".py", ".txt")):
            digest.update(f"{path}\n".encode() + path.read_bytes())
        self.steps.claim(digest.hexdigest())

    def run(self) -> None:
        """Do what is left to do, and print the table.

        Raises:
            InputError: A step failed.
        """
        began = time.monotonic()
        do = self.steps.do
        self.steps.say(f"{self.title}, in {len(_STEPS)} steps")
        do(Step("data", "data set", self._draw_data, about=lambda: self.about_data))
        do(Step("seed", "seed network", self._get_seed))
        found = [self.search_dir / name for name in ("net_config.txt", "alpha.json")]
        title = "search (architecture adaptation)"
        do(Step("search", title, self._search, found, self._decision))
        drawing = (self.search_dir / "architecture.png").read_bytes()
        write_whole(self.results / "architecture.png", drawing)
        adaptations = [self._adaptation(network) for network in NETWORKS]
        at_once = 1 if torch.cuda.is_available() else min(2, len(os.sched_getaffinity(0)))
        for start in range(0, len(adaptations), at_once):
            self.steps.do_together(adaptations[start : start + at_once])
        self._report()
        self.steps.say(f"Finished in {clock(time.monotonic() - began)} min.")

    def _draw_data(self, line: StatusLine) -> None:
        if self.data_root is None:
            if toy_city.is_outdated(_TOY_CITY):
                self.about_data = f"drawn anew: {_TOY_CITY} was of another version"
            module, out = "datasets.toy_city", ["--out", _TOY_CITY]
            self.steps.call("data", Command(module, out, ["python", "-m", module, *out]))

    def _get_seed(self, line: StatusLine) -> None:
        if not any(setting.startswith(_SEED_SETTING) for setting in self.settings):
            command = Command("models.seeds.fetch", [], ["sh", "scripts/get_seed.sh"])
            self.steps.call("seed", command)

    def _search(self, line: StatusLine) -> None:
        if (found := self.results / "found").exists():
            shutil.rmtree(found)  # it trained what another search had found
        config = f"{self.task.configs}_arch_adapt_toy.py"
        options = ["--work-dir", str(self.search_dir), "--resume", *self._options()]
        command = Command.script("arch_adapt", "engine.train", [config], options)
        self.steps.call("search", command, ShowProgress(line, _SCALARS))

    def _adaptation(self, network: Network) -> Step:
        return Step(
            network.name,
            f"{network.title}: parameter adaptation",
            partial(self._adapt, network),
            [self.results / network.name / "metrics.json"]
            + ([self.sheet] if network.name == "fna" else []),
            partial(self._accuracy, network),
        )

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
        self.steps.call(network.name, command, progress)
        checkpoint, _ = newest_checkpoint(work_dir)
        if checkpoint is None:
            raise InputError(f"{network.title}: no checkpoint in {work_dir} after its training")
        command = Command.script("test", "engine.test", [config, str(checkpoint)], options)
        pictures = [ContactSheet(self.sheet)] if network.name == "fna" else []
        self.steps.call(network.name, command, progress, *pictures)

    def _options(self, *settings: str) -> list[str]:
        """The options that all steps share."""
        options = ["--data-root", self.data_root] if self.data_root else []
        settings = *self.settings, *settings
        return [*options, "--cfg-options", *settings] if settings else options

    def _decision(self) -> str:
        share = self._undecided()
        return f"alpha at {share:.0%} of uniform{', undecided' if share > UNDECIDED else ''}"

    def _undecided(self) -> float:
        return json.loads((self.search_dir / "alpha.json").read_text())["undecided"]

    def _accuracy(self, network: Network) -> str:
        row = read_row(network.row, str(self.results / network.name))
        for head in ("network", "params", "MAdds"):
            row.pop(head)
        return ", ".join(f"{head} {figure}" for head, figure in row.items())

    def _report(self) -> None:
        """Print the table, what to make of the search, and where everything is."""
        share = self._undecided()
        undecided = f", search undecided ({share:.0%} of uniform)" if share > UNDECIDED else ""
        madds, rows = {}, []
        for network in NETWORKS:
            folder = self.results / network.name
            madds[network.name] = json.loads((folder / "metrics.json").read_text())["madds"]
            rows.append(read_row(network.row.format(undecided=undecided), str(folder)))
        self.steps.say(f"\n{self.title}, equal training for each network:")
        self.steps.say(f"\n{format_table(rows)}\n")
        within = "within" if madds["found"] <= madds["fna"] else "more than"
        self.steps.say(
            f"Multiply-adds of the architecture found: {madds['found'] / 1e9:.3f}B, {within} the "
            f"published one's {madds['fna'] / 1e9:.3f}B."
        )
        if undecided:
            self.steps.say(
                f"The search ended undecided: its alpha has {share:.0%} of the entropy of no "
                f"preference at all,\nwhere at most {UNDECIDED:.0%} would be a decision; the "
                "architecture found is little more than a guess."
            )
        configs, data_set = self.task.configs, self.task.data_set
        self.steps.say(
            f"""
Ground truth and predictions:  {self.sheet}
Architecture found:            {self.results}/architecture.png, {self.search_dir}/net_config.txt
All else:                      {self.results} (each *.log begins with the command that wrote it)
Next: put your data into data/{data_set} (docs/usage.md says how) and run
  sh scripts/arch_adapt.sh {configs}_arch_adapt_{data_set}.py
or write a config for your own data: docs/new_dataset.md"""
        )


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
        "--work-dir",
        type=given,
        help="folder of the results (default work_dirs/quickstart[_TASK][_seedN])",
    )
    parser.add_argument(
        "--data-root", type=given, help="a data set of the same layout, instead of drawing one"
    )
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
