"""Small runs that kill themselves at a chosen place, and are resumed and compared.

The four kinds of run are the toy configs', with fewer layers, on eight images. Each is a fork of a
process that has imported everything. In the fork, ``open``, ``os.replace`` and mmengine's hooks are
watched, so a run can be killed (SIGKILL) while it writes a file, or between any two hooks.
"""

import builtins
import io
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine.compat import mmcv_ops

mmcv_ops.install()

import mmdet.utils  # noqa: E402, F401
import mmseg.utils  # noqa: E402, F401
from mmengine.runner import Runner  # noqa: E402

import fna_det  # noqa: E402, F401
import fna_seg  # noqa: E402, F401
from engine import run, train  # noqa: E402
from engine.compat.safe_load import load_checkpoint_file  # noqa: E402
from engine.config import import_scope  # noqa: E402
from tests.processes import run_fork  # noqa: E402

import_scope("mmdet")
import_scope("mmseg")

NET_CONFIG = (
    "[[32,16],['k3_e1'],1]|[[16,24],['k3_e3'],2]|[[24,32],['k3_e3'],2]|[[32,64],['k3_e3'],2]|"
    "[[64,96],['k3_e3'],1]|[[96,160],['k3_e3'],2]|[[160,320],['k3_e3'],1]"
)
COMMON = (
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "default_hooks.logger.interval=1",
)
SEARCH = (
    *COMMON,
    "model.backbone.layers=[1,1,1,1,1,1]",
    "model.backbone.ops=['k3_e3','k5_e3']",
    "train_cfg.max_epochs=3",
    "train_cfg.weight_steps=1",
    "train_cfg.ranking.candidates=4",
    "train_cfg.ranking.batches=3",
)
VALIDATED = (
    *COMMON,
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "train_cfg.val_begin=1",
)
RETINANET = (
    "model.neck.out_channels=16",
    "model.bbox_head.in_channels=16",
    "model.bbox_head.feat_channels=16",
    "model.bbox_head.stacked_convs=1",
)
DEEPLAB = ("model.decode_head.channels=32",)


@dataclass(frozen=True)
class Kind:
    """A kind of run: a config and what is changed in it."""

    config: str
    options: tuple[str, ...]
    net_config: str | None = None


KINDS = {
    "search, detection": Kind(
        "configs/fna_det/retinanet_arch_adapt_toy.py",
        (*SEARCH, *RETINANET, "train_cfg.cost.target=0.049"),
    ),
    "search, segmentation": Kind(
        "configs/fna_seg/deeplabv3_arch_adapt_toy.py",
        (
            *SEARCH,
            *DEEPLAB,
            "train_cfg.cost.target=0.087",
            "default_hooks.checkpoint.by_epoch=False",
            "default_hooks.checkpoint.interval=2",  # in the middle of an epoch
        ),
    ),
    "adaptation, detection": Kind(
        "configs/fna_det/retinanet_param_adapt_toy.py",
        (
            *VALIDATED,
            *RETINANET,
            "train_cfg.max_epochs=2",
            "train_cfg.val_interval=1",
            "default_hooks.checkpoint.by_epoch=False",
            "default_hooks.checkpoint.interval=2",
        ),
        NET_CONFIG,
    ),
    "adaptation, segmentation": Kind(
        "configs/fna_seg/deeplabv3_param_adapt_toy.py",
        (
            *VALIDATED,
            *DEEPLAB,
            "train_cfg.max_iters=6",
            "train_cfg.val_interval=2",
            "default_hooks.checkpoint.interval=2",
            "custom_hooks.2.iterations=1",
        ),
        NET_CONFIG,
    ),
}


@dataclass
class Watch:
    """What a run did, and where it is to be killed.

    ``write`` names a file, which of its writes, and when: 'open', 'half', 'before' or 'after' the
    draft takes the file's name. ``hook`` is the number of a call of mmengine's hooks.
    """

    write: tuple[str, int, str] | None = None
    hook: int | None = None
    writes: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)

    def meets(self, path: str | os.PathLike, when: str, counts: Counter) -> bool:
        """Whether the run is to die now; counts what happens to the file."""
        draft = re.fullmatch(r"\.(.+)\.\d+\.tmp", Path(path).name)
        name = draft[1] if draft else Path(path).name
        counts[name, when] += 1
        if when == "before":
            self.writes.append(name)
        return self.write == (name, counts[name, when], when)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file that takes half of what is written to it, and ends the process."""

    def __init__(self, file):
        self.file = file

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes | str) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """In this process, which ends after it, files and hooks are watched."""
    counts, open_file, replace, call_hook = Counter(), io.open, os.replace, Runner.call_hook

    def watched_open(path, mode="r", *args, **kwargs):
        file = open_file(path, mode, *args, **kwargs)
        if "w" in mode and isinstance(path, str | os.PathLike):
            if watch.meets(path, "open", counts):
                die()
            if watch.meets(path, "half", counts):
                return HalfWritten(file)
        return file

    def watched_replace(source, target):
        if watch.meets(target, "before", counts):
            die()
        replace(source, target)
        if watch.meets(target, "after", counts):
            die()

    def watched_hooks(runner, name, **kwargs):
        watch.hooks.append(name)
        if len(watch.hooks) == watch.hook:
            die()
        call_hook(runner, name, **kwargs)

    builtins.open = io.open = watched_open
    os.replace, Runner.call_hook = watched_replace, watched_hooks
    yield


def _train(arguments: list[str], output: Path, watch: Watch, report: Path | None) -> None:
    """The entry point of training, in a process of its own."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = ["engine.train", *arguments]
    with output.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        with watched(watch):
            run.run(train.main)
    if report:
        report.write_text(json.dumps([watch.writes, watch.hooks]))


@dataclass(frozen=True)
class Runs:
    """Runs of one kind in a folder.

    Args:
        kind: Its name in :data:`KINDS`.
        folder: Holds a work dir for each run.
        data, seed: The toy city and a seed.
    """

    kind: str
    folder: Path
    data: Path
    seed: Path

    def start(self, name: str, *options: str, watch: Watch | None = None) -> tuple[int, str]:
        """Train in the work dir of a name; the exit status, negative if killed, and the output."""
        kind, output = KINDS[self.kind], self.folder / f"{name}.log"
        arguments = [kind.config, *options, "--data-root", self.data]
        arguments += ["--work-dir", self.folder / name]
        if kind.net_config:
            arguments += ["--net-config", kind.net_config]
        changes = [*kind.options, f"model.backbone.init_cfg.seed={self.seed}"]
        arguments += ["--cfg-options", *changes]
        report = None if watch else self.folder / f"{name}.json"
        arguments = list(map(str, arguments))
        status = run_fork(_train, arguments, output, watch or Watch(), report)
        return status, output.read_text()

    def uninterrupted(self) -> tuple[list[str], list[str]]:
        """Train to the end; returns the files written and the hooks called, in order."""
        status, output = self.start("whole")
        assert status == 0, output
        writes, hooks = json.loads((self.folder / "whole.json").read_text())
        return writes, hooks

    def killed_and_resumed(self, name: str, *watches: Watch) -> list[str]:
        """Kill a run, and its resumptions, and let the last go on to the end.

        Returns what differs from the uninterrupted run; nothing else may.
        """
        for number, watch in enumerate(watches):
            status, output = self.start(name, *["--resume"] * (number > 0), watch=watch)
            if status != -signal.SIGKILL:
                return [f"was not killed but ended with {status}: {output[-500:]}"]
        status, output = self.start(name, "--resume")
        if status != 0:
            return [f"lost: {status}: {output[-1000:]}"]
        return differences(self.folder / name, self.folder / "whole")


def differences(work_dir: Path, expected: Path) -> list[str]:
    """What of a run's results is not, bit for bit, what another run's is."""
    found = []
    for name in sorted(_results(work_dir) | _results(expected)):
        paths = work_dir / name, expected / name
        if not all(path.is_file() for path in paths):
            found.append(f"{name}: is in one only")
        elif name.endswith(".pth"):
            one, other = map(load_checkpoint_file, paths)
            found += [f"{name}: {key}" for key in _differing(_settled(one), _settled(other))]
        elif name == "last_checkpoint":
            if len({Path(path.read_text()).name for path in paths}) > 1:
                found.append(name)
        elif paths[0].read_bytes() != paths[1].read_bytes():
            found.append(name)
    found += [f"logged: {key}" for key in _differing(logged(work_dir), logged(expected))]
    found += [f"left behind: {path.name}" for path in work_dir.glob(".*.tmp")]
    return found


def _results(work_dir: Path) -> set[str]:
    suffixes = (".pth", ".txt", ".json", ".png")
    return {
        path.name
        for path in work_dir.iterdir()
        if path.suffix in suffixes or path.name == "last_checkpoint"
    }


def _settled(checkpoint: dict) -> dict:
    """A checkpoint without times, paths, names of runs and the commit of the code."""
    hub, meta = checkpoint["message_hub"], checkpoint["meta"]
    for name in [name for name in hub["log_scalars"] if name.endswith("time")]:
        del hub["log_scalars"][name]
    for name in ("eta", "experiment_name", "last_ckpt", "best_ckpt", "mmengine_version"):
        hub["runtime_info"].pop(name, None)
    for name in ("time", "experiment_name", "cfg", "mmengine_version"):
        meta.pop(name, None)
    return checkpoint


def logged(work_dir: Path) -> dict[tuple, dict]:
    """The numbers of a run and its resumptions, by step; the later ones count."""
    lines = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # killed while it was written
                continue
            kept = {name: value for name, value in line.items() if not name.endswith("time")}
            lines["loss" in line, line["step"]] = kept
    return lines


def _differing(one: object, other: object, where: str = "") -> list[str]:
    """The places at which two nests differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [
            place
            for key in sorted(keys, key=str)
            for place in _differing(one.get(key), other.get(key), f"{where}.{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        pairs = enumerate(zip(one, other, strict=True))
        return [place for n, pair in pairs for place in _differing(*pair, f"{where}.{n}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    same = one == other or (one != one and other != other)  # nan
    return [] if same else [f"{where}: {one!r} and {other!r}"[:200]]
