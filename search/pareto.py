"""A sweep: searches to several targets, their cost against their loss.

``python -m search.pareto --config C --targets 0.6,0.75,0.9 [--table FILE] [--out DIR]`` runs a
search for each target, times what the seed's architecture costs. In each search's super network the
architecture found, the seed's and the published one are evaluated on the same held-out images.
Run it again to resume after an interruption; finished searches are reused.
"""

import argparse
import gc
import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TextIO

from mmengine.config import Config

import engine.train  # noqa: F401  (the searches are forks: they find it imported)
from engine.config import REPO, OneLineParser, add_options_argument, given, user_path
from engine.progress import ShowProgress, StatusLine
from engine.run import run
from engine.steps import Command, Step, Steps
from engine.tables import format_table
from models import FNASuperNet, InputError, NetConfig, cost_term
from models.cost import counted_in
from models.files import write_whole

from .config import load_search_model
from .pictures import draw_pareto, to_png
from .random_architectures import SEED
from .ranking import likeliest_path

_SCALARS = {
    "train/loss": "loss {:.2f}",
    "train/alpha_undecided": "alpha {:.0%} of uniform",
    "train/arch_cost": "expected cost {:.3g}",
}
_BATCHES = 10  # of the held-out half, to evaluate on, where the config does not say


@dataclass(frozen=True)
class Search:
    """What a search to ``target`` times the seed's cost has found, from the files that it left.

    ``difference`` and ``error`` are of its loss to the seed's in its super network: mean and
    standard error over batches. ``references`` are the rows of ``references.json``.
    """

    target: float
    net_config: NetConfig
    cost: float
    loss: float
    difference: float
    error: float
    undecided: float
    references: Mapping[str, Mapping]

    @classmethod
    def read(cls, target: float, folder: Path) -> "Search":
        found = json.loads((folder / "candidates.json").read_text())[0]
        references = json.loads((folder / "references.json").read_text())
        if "seed" not in references:
            raise InputError(f"{folder}: the loss of the seed's architecture was not finite there")
        return cls(
            target,
            NetConfig.parse(folder / "net_config.txt"),
            found["cost"],
            found["loss"],
            -references["seed"]["difference"],
            references["seed"]["standard_error"] or 0.0,
            json.loads((folder / "alpha.json").read_text())["undecided"],
            references,
        )

    def to_seed(self, name: str) -> float:
        """How much more a reference loses than the seed."""
        return self.references[name]["loss"] - self.references["seed"]["loss"]


class Sweep:
    """The searches, one step each.

    Args:
        config: File of an architecture adaptation's config.
        settings: For ``--cfg-options`` of all searches.
        references: net_config files by name, to evaluate beside what is found.
        folder: Of the results.
        screen: Where to say what happens.
    """

    def __init__(
        self,
        config: str,
        settings: Sequence[str],
        references: Mapping[str, str],
        folder: Path,
        targets: Sequence[float],
        screen: TextIO,
    ):
        self.config, self.folder, self.targets = config, folder, targets
        named = (f"train_cfg.ranking.references.{n}={file}" for n, file in references.items())
        self.settings = [*settings, *named]
        self.steps = Steps(folder, len(targets), screen)

    def run(self, stamp: str) -> list[Search]:
        """Do the searches that are left to do.

        Raises:
            InputError: One failed, or the folder is another's.
        """
        self.steps.claim(stamp)
        for target in self.targets:
            folder = self.folder / _name(target)
            files = "net_config.txt", "alpha.json", "candidates.json", "references.json"
            step = Step(
                _name(target),
                f"search to {target:g} of the seed's cost",
                partial(self._search, target, folder),
                [folder / file for file in files],
            )
            self.steps.do(step)
        return [Search.read(target, self.folder / _name(target)) for target in self.targets]

    def _search(self, target: float, folder: Path, line: StatusLine) -> None:
        options = ["--work-dir", str(folder), "--resume", "--cfg-options", *self.settings]
        options.append(f"train_cfg.cost.target={target:g} seed")
        command = Command.script("arch_adapt", "engine.train", [self.config], options)
        self.steps.call(_name(target), command, ShowProgress(line, _SCALARS))


def _name(target: float) -> str:
    return f"target_{target:g}"


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(
        prog="search.pareto", description="Search to several targets, compare what is found"
    )
    parser.add_argument("--config", required=True, help="config of an architecture adaptation")
    parser.add_argument(
        "--targets", type=given, required=True, help="times the seed's cost, such as 0.6,0.75,0.9"
    )
    parser.add_argument(
        "--table", type=given, help="latency table: the cost is latency, not the config's own"
    )
    parser.add_argument(
        "--published",
        type=given,
        help="net_config to compare with (default: the paper's for the config's framework)",
    )
    parser.add_argument("--out", type=given, help="folder (default work_dirs/pareto_CONFIG)")
    add_options_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    targets = read_targets(args.targets)
    config = user_path(args.config)
    out = Path(args.out or REPO / "work_dirs" / f"pareto_{Path(config).stem}")
    out = out.expanduser().absolute()
    settings = list(args.cfg_options_given)
    if args.table:
        table = user_path(args.table)
        if not os.path.isfile(table):
            raise InputError(f"--table {args.table}: no such file")
        latency = {"train_cfg.cost.type": "Latency", "train_cfg.cost.table": table}
        args.cfg_options = (args.cfg_options or {}) | latency
        settings += [f"{key}={value}" for key, value in latency.items()]
    published = args.published and user_path(args.published)
    # the searches are forks, and CUDA does not survive one once it has been asked for its GPUs
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    model, cfg = load_search_model(args)
    supernet = model.backbone
    references = find_references(supernet, cfg, config, published)
    seed = NetConfig.parse(Path(references["seed"]))
    cost = cost_term(dict(cfg.train_cfg.cost, target="1.0 seed"), supernet, seed).cost
    ranking = cfg.train_cfg.get("ranking") or {}
    for key, default in (("candidates", 1), ("batches", _BATCHES)):
        settings.append(f"train_cfg.ranking.{key}={ranking.get(key, default)}")
    gc.collect()
    gc.freeze()

    screen = open(os.dup(1), "w")  # a search's own stdout is its log
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sweep = Sweep(config, settings, references, out, targets, screen)
        searches = sweep.run(_stamp(cfg, settings, references, args.table and table))
    except KeyboardInterrupt:
        print("Interrupted. The same command continues.", file=sys.stderr)
        sys.exit(130)
    write_results(out, searches, counted_in(cost))


def read_targets(text: str) -> list[float]:
    """Numbers above 0, ascending.

    Raises:
        InputError: It has others, or one twice.
    """
    try:
        targets = sorted(float(part) for part in text.split(","))
    except ValueError:
        targets = []
    if len(set(targets)) < len(targets) or not all(0 < t < math.inf for t in targets or [0]):
        raise InputError(f"--targets {text}: expected different numbers such as 0.6,0.75,0.9")
    return targets


def find_references(
    supernet: FNASuperNet, cfg: Config, config: str, published: str | None
) -> dict[str, str]:
    """The files of the seed's architecture and of the published one, if there is one here.

    Raises:
        InputError: The search space does not hold one that it must hold: a super network can
            evaluate its own paths only.
    """
    references = {"seed": str(REPO / cfg.train_cfg.get("seed_net_config", SEED))}
    framework = Path(config).stem.partition("_arch_adapt")[0]
    default = REPO / "configs/net_configs" / f"{framework}.txt"
    if published or default.is_file():
        references["published"] = published or str(default)
    for name, file in dict(references).items():
        try:
            likeliest_path(supernet, NetConfig.parse(Path(file)))
        except InputError as error:
            if name == "seed" or published:
                raise InputError(f"{name} {file}: {error}") from None
            del references[name]
            print(f"Without the published architecture: {error}")
    return references


def _stamp(
    cfg: Config, settings: Sequence[str], references: Mapping[str, str], table: str | None
) -> str:
    """Equal for sweeps whose searches are the same."""
    content = [cfg.pretty_text, *settings, *(Path(f).read_text() for f in references.values())]
    if table:
        content.append(Path(table).read_text(errors="replace"))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def write_results(out: Path, searches: Sequence[Search], unit: str) -> None:
    """Write ``pareto.md`` and ``pareto.png``, and print the table."""
    rows = tabulate(searches, unit)
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row.get(h, "") for h in heads] for row in rows)]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_whole(out / "pareto.md", markdown.encode())
    references = {
        name: (searches[0].references[name]["cost"], mean(s.to_seed(name) for s in searches))
        for name in searches[0].references
    }
    found = [(s.cost, s.difference, s.error) for s in searches]
    write_whole(out / "pareto.png", to_png(draw_pareto(found, references, unit)))
    print(f"\n{format_table(rows)}\n\nTable and picture: {out}/pareto.md, {out}/pareto.png")
    print(f"Architectures found: {out}/target_*/net_config.txt")


def tabulate(searches: Sequence[Search], unit: str) -> list[dict[str, str]]:
    """A row for each search, then one for each reference, which every search has evaluated."""
    head = f"cost, {unit}"
    rows = [
        {
            "network": f"found, target {search.target:g}",
            head: f"{search.cost:.4g}",
            "of the seed's": f"{search.cost / search.references['seed']['cost']:.3f}",
            "loss": f"{search.loss:.4f}",
            "to the seed's": f"{search.difference:+.4f} ± {search.error:.4f}",
            "alpha, of uniform": f"{search.undecided:.0%}",
        }
        for search in searches
    ]
    for name, reference in searches[0].references.items():
        losses = [search.references[name]["loss"] for search in searches]
        share = reference["cost"] / searches[0].references["seed"]["cost"]
        rows.append(
            {
                "network": name,
                head: f"{reference['cost']:.4g}",
                "of the seed's": f"{share:.3f}",
                "loss": " to ".join(f"{loss:.4f}" for loss in sorted({min(losses), max(losses)})),
                "to the seed's": f"{mean(s.to_seed(name) for s in searches):+.4f}",
                "alpha, of uniform": "-",
            }
        )
    return rows


if __name__ == "__main__":
    run(main)
