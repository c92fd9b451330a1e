"""The grid of benchmarks/evidence.py: its cells, their order, and the commands that do them.

A cell is a search, a training with its evaluations, or a measurement. Its result is a small JSON
file; whatever has one is done.
"""

import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from engine.checkpoints import newest_checkpoint
from engine.compat.safe_load import load_checkpoint_file
from engine.config import REPO
from models import InputError, NetConfig
from models.files import write_whole

MOBILENETV2 = "configs/net_configs/mobilenetv2.txt"
SEEDS = (0, 1, 2)
DRAWN = (1, 2, 3)  # random architectures of each cost
NO_REMAPPING = "model.backbone.init_cfg=None"
# of searches to a target: one that is cheaper is pulled up to it
_TO_TARGET = ("train_cfg.cost.rate=0.05", "train_cfg.cost.negative=True")


@dataclass(frozen=True)
class Task:
    """A data set and a framework.

    Args:
        title: For the page.
        training: Config of all trainings.
        separate, shared: Configs of the searches with each kind of super network.
        longer: Settings of a training that takes as much computing as a search with shared weights
            and a training do.
        loss: Key of what searches take over from the training, if theirs differs.
        ablation: Whether the paper's is repeated, too.
    """

    title: str
    training: str
    separate: str
    shared: str
    longer: tuple[str, ...]
    loss: str = ""
    ablation: bool = False


TASKS = {
    "bccd_ssdlite": Task(
        "Blood cells (BCCD), SSDLite",
        "configs/fna_det/ssdlite_param_adapt_bccd_evidence.py",
        "configs/fna_det/ssdlite_arch_adapt_bccd.py",
        "configs/fna_det/ssdlite_arch_adapt_bccd_shared.py",
        longer=("train_cfg.max_epochs=42", "param_scheduler.1.end=1050"),
    ),
    "camvid_deeplabv3": Task(
        "Streets (CamVid), DeepLabv3",
        "configs/fna_seg/deeplabv3_param_adapt_camvid_evidence.py",
        "configs/fna_seg/deeplabv3_arch_adapt_camvid.py",
        "configs/fna_seg/deeplabv3_arch_adapt_camvid_shared.py",
        longer=("train_cfg.max_iters=2400", "param_scheduler.1.end=2400"),
        loss="model.decode_head.loss_decode",
        ablation=True,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    Args:
        row: What it belongs to; with the random seed, if it has one, its name.
        kind: Which method of :class:`Grid` does it.
        title: For tables.
        seed: Its random seed.
        config, settings: What it runs, and what it adds to ``--cfg-options``.
        architecture: A net_config's file, or the name of the cell that found it; by default the
            config's own.
        number: Which of the architectures that cell drew.
        inherits: The search whose weights it starts from, or looks at.
        after: Other cells whose results it needs.
        alone: Whether nothing else may run at the same time, because it measures time.
    """

    row: str
    kind: str
    title: str
    seed: int | None = None
    config: str = ""
    settings: tuple[str, ...] = ()
    architecture: str = ""
    number: int = 1
    inherits: str = ""
    after: tuple[str, ...] = ()
    alone: bool = False

    @property
    def name(self) -> str:
        return self.row if self.seed is None else f"{self.row}-{self.seed}"


def plan(task: Task, size: Sequence[int], table: Path) -> list[Cell]:
    """All cells of a task, in the order in which they begin: one random seed after the other, and
    soon after a search what needs its weights, which are not kept in the repository.

    Args:
        size: (height, width) at which costs are counted and measured.
        table: File of the latency table.
    """
    at = (*_TO_TARGET, f"train_cfg.cost.input_size=({size[0]},{size[1]})")
    madds = ("train_cfg.cost.target=1.0 seed", *at)
    fast = ("train_cfg.cost.target=0.5 seed", *at, "train_cfg.cost._delete_=True")
    fast = (*fast, "train_cfg.cost.type=Latency", f"train_cfg.cost.table={table}")
    loss = _loss(task)
    draw = dict(kind="draw", title="random architectures", config=task.shared)
    return [
        Cell("table", "table", "latency of every op", config=task.shared, alone=True),
        Cell("draw_madds", settings=madds, **draw),
        Cell("draw_latency", settings=fast, after=("table",), **draw),
        *(cell for seed in SEEDS for cell in _of_seed(task, seed, loss + madds, loss + fast)),
        *(cell for seed in SEEDS if task.ablation for cell in _ablation(task, seed, loss + madds)),
        Cell("latency", "latency", "latency of every network", config=task.training, alone=True),
    ]


def _loss(task: Task) -> tuple[str, ...]:
    """Settings that give a search the training's loss."""
    part = read(task.training).to_dict() if task.loss else {}
    for key in filter(None, task.loss.split(".")):
        part = part[key]
    return tuple(f"{task.loss}.{key}={value}" for key, value in part.items() if key != "type")


def _of_seed(task: Task, seed: int, madds: tuple[str, ...], fast: tuple[str, ...]) -> list[Cell]:
    paper, shared, latency = (f"search_{name}-{seed}" for name in ("paper", "shared", "latency"))
    searches = [
        Cell("search_paper", "search", "separate candidates", seed, task.separate, madds),
        Cell("search_shared", "search", "shared weights", seed, task.shared, madds),
        Cell("search_latency", "search", "to latency", seed, task.shared, fast, after=("table",)),
    ]
    held_out = [
        Cell(
            f"held_out_{name}", "held_out", "held-out losses", seed, config, madds,
            inherits=search, after=("draw_madds", "draw_latency", paper, shared, latency),
        )
        for name, search, config in (
            ("paper", paper, task.separate), ("shared", shared, task.shared)
        )
    ]  # fmt: skip
    return [
        _train(task, seed, "seed", "MobileNetV2, the seed's own", MOBILENETV2),
        *searches,
        _train(task, seed, "found_shared_inherited", "found, shared, inherited", shared, True),
        _train(task, seed, "found_latency_inherited", "found, latency, inherited", latency, True),
        *held_out,
        _train(task, seed, "seed_longer", "MobileNetV2, longer", MOBILENETV2, settings=task.longer),
        _train(task, seed, "published", "FNA, published"),
        _train(task, seed, "found_paper", "found, separate candidates", paper),
        _train(task, seed, "found_shared", "found, shared weights", shared),
        _train(task, seed, "found_latency", "found, half the latency", latency),
        *(
            _train(task, seed, f"random_{cost}_{n}", f"random {n}, {of}", f"draw_{cost}", number=n)
            for cost, of in (("madds", "the seed's MAdds"), ("latency", "half its latency"))
            for n in DRAWN
        ),
        _train(task, seed, "published_random", "FNA, random weights", settings=(NO_REMAPPING,)),
    ]


def _ablation(task: Task, seed: int, madds: tuple[str, ...]) -> list[Cell]:
    """The paper's tables 6 and 5, as far as their rows are not among the others."""
    paper, blind = f"search_paper-{seed}", f"search_blind-{seed}"
    no = dict(settings=(NO_REMAPPING,))
    rules = ("width=bn", "width=std", "width=l1", "kernel=dilate")
    return [
        *(
            _train(
                task, seed, rule.replace("=", "_"), f"FNA, {rule}",
                settings=(f"model.backbone.init_cfg.{rule}",),
            )
            for rule in rules
        ),
        _train(task, seed, "found_paper_random", "found, random weights", paper, **no),
        Cell("search_blind", "search", "no remapping", seed, task.separate, (*madds, NO_REMAPPING)),
        _train(task, seed, "found_blind", "found without remapping", blind),
        _train(task, seed, "found_blind_random", "the same, random weights", blind, **no),
    ]  # fmt: skip


def _train(
    task: Task,
    seed: int,
    row: str,
    title: str,
    architecture: str = "",
    inherits: bool = False,
    **rest: object,
) -> Cell:
    return Cell(
        row, "training", title, seed, task.training, architecture=architecture,
        inherits=architecture if inherits else "", **rest,
    )  # fmt: skip


# What a cell's method yields: what a command's CPU time counts as, and the command. It returns what
# was found.
Commands = Generator[tuple[str, list[str]], None, dict]


class Grid:
    """A task's cells: what is known of each, and what has to be run for it.

    Args:
        task: What to run.
        results: Folder of the results.
        work: Folder of all else.
        data_root: A data set's folder, in place of the configs' own.
        gpus: For the scripts, "0" or "1"; latency is measured on the CPU in any case.
    """

    def __init__(
        self,
        task: Task,
        results: Path,
        work: Path,
        data_root: str | None = None,
        gpus: str = "0",
    ):
        self.task, self.results, self.work, self.gpus = task, results, work, gpus
        self.data = ["--data-root", data_root] if data_root else []
        self.size = tuple(read(task.training).input_size)
        self.table = results / "latency_table.json"
        cells = plan(task, self.size, self.table)
        self.cells = {cell.name: cell for cell in cells}
        self.known: dict[str, dict | None] = {}  # results that have been read

    def result(self, name: str) -> dict | None:
        """What is known of a cell, None where it has not been done."""
        if name not in self.known:
            path = self._file(name)
            try:
                self.known[name] = json.loads(path.read_text()) if path.is_file() else None
            except ValueError:
                raise InputError(f"{path}: is no result; once removed, it is made again") from None
        return self.known[name]

    def write(self, name: str, result: dict) -> None:
        """Keep what a cell has found."""
        write_whole(self._file(name), (json.dumps(result, indent=1) + "\n").encode())
        self.known.pop(name, None)

    def _file(self, name: str) -> Path:
        return self.results / f"{name}.json"

    def is_done(self, cell: Cell) -> bool:
        found = self.result(cell.name)
        if found and cell.kind == "latency":  # of all that has been trained by now
            return set(self._trained()) <= set(found["networks"])
        return found is not None

    def needs(self, cell: Cell) -> list[str]:
        """The cells whose results a cell needs."""
        names = [*cell.after, cell.architecture, cell.inherits]
        return list(dict.fromkeys(name for name in names if name in self.cells))

    def has_weights(self, search: str) -> bool:
        """Whether a search's last checkpoint is on this machine."""
        folder = self.work / search
        return (folder / "done").is_file() and newest_checkpoint(folder)[0] is not None

    def commands(self, cell: Cell, folder: Path) -> Commands:
        """What has to be run for a cell, in a folder of its own."""
        return getattr(self, f"_{cell.kind}")(cell, folder)

    def _table(self, cell: Cell, folder: Path) -> Commands:
        out = folder / self.table.name
        options = ["--out", str(out), "--input-size", *map(str, self.size)]
        yield "measuring", _script("measure_latency", cell.config, "0", *options)
        content = out.read_bytes()
        if not self.table.is_file():
            write_whole(self.table, content)
        table = json.loads(content)
        check = {key: value for key, value in table["check"].items() if key != "networks"}
        return dict(check=check, noise=table["noise"])

    def _draw(self, cell: Cell, folder: Path) -> Commands:
        target = cell.settings[0].partition("=")[2]
        options = ["--config", cell.config, "--target", target, "--count", str(len(DRAWN))]
        options += ["--out", str(folder), "--cfg-options", *cell.settings]
        yield "drawing", _module("search.random_architectures", *options)
        files = [folder / f"random_{number}.txt" for number in DRAWN]
        return dict(net_configs=[file.read_text().strip() for file in files])

    def _search(self, cell: Cell, folder: Path) -> Commands:
        yield "search", _script("arch_adapt", cell.config, self.gpus, *self._options(cell, folder))
        undecided = json.loads((folder / "alpha.json").read_text())["undecided"]
        return dict(net_config=(folder / "net_config.txt").read_text().strip(), undecided=undecided)

    def _training(self, cell: Cell, folder: Path) -> Commands:
        options = self._options(cell, folder)
        if cell.inherits:
            options[:0] = ["--inherit", str(self.work / cell.inherits)]
        elif cell.architecture:
            options[:0] = ["--net-config", self._architecture(cell)]
        yield "training", _script("param_adapt", cell.config, self.gpus, *options)
        checkpoint, _ = newest_checkpoint(folder)
        metrics = {}
        for split in ("val", "test"):
            options = [
                "--work-dir",
                str(folder / split),
                *self.data,
                *_on_split(cell.config, split),
            ]
            yield "evaluation", _script("test", cell.config, str(checkpoint), self.gpus, *options)
            metrics[split] = json.loads((folder / split / "metrics.json").read_text())
        return dict(
            net_config=load_checkpoint_file(checkpoint)["meta"]["net_config"],
            # of COCO's metric, None where nothing was detected
            validation={name: value or 0.0 for name, value in metrics["val"]["headline"].items()},
            test={name: value or 0.0 for name, value in metrics["test"]["headline"].items()},
            **{key: metrics["test"][key] for key in ("params", "madds", "input_size")},
        )

    def _held_out(self, cell: Cell, folder: Path) -> Commands:
        """What a super network loses, on images that its weights have not seen, with each of the
        architectures that are trained with its random seed: the search's ranking of references."""
        own = read(self.task.training).model.backbone.net_config
        known = [str(NetConfig.parse(Path(file))) for file in (MOBILENETV2, own)]
        found = [each for name in cell.after for each in self._found(name)]
        texts = dict(enumerate(dict.fromkeys([*known, *found])))
        files = {number: folder / f"{number}.txt" for number in texts}
        for number, text in texts.items():
            write_whole(files[number], text.encode())
        batches = read(self.task.shared).train_cfg.ranking.batches  # the held-out images, once
        options = self._options(cell, folder, str(newest_checkpoint(self.work / cell.inherits)[0]))
        options += ["train_cfg.ranking.candidates=1", f"train_cfg.ranking.batches={batches}"]
        options += [f"train_cfg.ranking.references.{n}={file}" for n, file in files.items()]
        yield "evaluation", _script("arch_adapt", cell.config, self.gpus, *options)
        rows = json.loads((folder / "references.json").read_text())
        return dict(
            architectures=[
                dict(net_config=text, loss=rows[str(n)]["loss"], score=rows[str(n)]["score"])
                for n, text in texts.items()
            ]
        )

    def _latency(self, cell: Cell, folder: Path) -> Commands:
        asked, out = folder / "net_configs.json", folder / "latency.json"
        write_whole(asked, json.dumps(self._trained()).encode())
        options = ["--net-configs", str(asked), "--out", str(out)]
        yield "measuring", _module("benchmarks.network_latency", cell.config, *options)
        return json.loads(out.read_text())

    def _options(self, cell: Cell, folder: Path, checkpoint: str | None = None) -> list[str]:
        """Of a training of any kind, which resumes from what is there."""
        resume = ["--resume", *([checkpoint] if checkpoint else [])]
        options = [*resume, "--work-dir", str(folder), *self.data, "--cfg-options", *cell.settings]
        return [
            *options,
            f"randomness.seed={cell.seed}",
            "default_hooks.checkpoint.max_keep_ckpts=1",
        ]

    def _architecture(self, cell: Cell) -> str:
        if cell.architecture in self.cells:
            return self._found(cell.architecture)[cell.number - 1]
        return cell.architecture

    def _found(self, name: str) -> list[str]:
        """What a search or a draw found."""
        found = self.result(name)
        return found.get("net_configs") or [found["net_config"]]

    def _trained(self) -> list[str]:
        """The different architectures that have been trained."""
        results = (
            self.result(cell.name) for cell in self.cells.values() if cell.kind == "training"
        )
        return list(dict.fromkeys(found["net_config"] for found in results if found))


def read(config: str) -> Config:
    """A config, without importing what it names."""
    return Config.fromfile(config, import_custom_modules=False)


def _on_split(config: str, split: str) -> list[str]:
    """Options that evaluate on another split than the config's test set: the data file names it."""
    if split == "test":
        return []
    settings = read(config).splits[split]
    options = [
        f"test_dataloader.dataset.{key}={value}"
        for key, value in settings.items()
        if not isinstance(value, dict)
    ]
    options += [
        f"test_dataloader.dataset.{key}.{inner}={value}"
        for key, parts in settings.items()
        if isinstance(parts, dict)
        for inner, value in parts.items()
    ]
    return ["--cfg-options", *options]


def _script(name: str, *arguments: str) -> list[str]:
    return ["sh", str(REPO / f"scripts/{name}.sh"), *arguments]


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]
