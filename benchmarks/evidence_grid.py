"""The grid of benchmarks/evidence.py: what is known of its cells, and the commands that do them.

A cell's result is a small JSON file; whatever has one is done.
"""

import json
import sys
from collections.abc import Generator
from pathlib import Path

from engine.checkpoints import newest_checkpoint
from engine.compat.safe_load import load_checkpoint_file
from engine.config import REPO
from models import InputError, NetConfig
from models.files import write_whole

from .evidence_plan import DRAWN, MOBILENETV2, Cell, Task, plan, read

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
        training = read(task.training)
        self.size = tuple(training.input_size)
        self.table = results / "latency_table.json"
        cells = plan(task, training, self.table)
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
        if folder.parent.name != "again":  # which compares, and keeps what is there
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
                if str(n) in rows  # a loss may be not finite
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
