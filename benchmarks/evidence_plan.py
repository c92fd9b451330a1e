"""The cells of benchmarks/evidence.py, in their order.

A cell is a search, a training with its evaluations, or a measurement.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

MOBILENETV2 = "configs/net_configs/mobilenetv2.txt"
SEEDS = (0, 1, 2)
DRAWN = (1, 2, 3)  # random architectures of each cost
NO_REMAPPING = "model.backbone.init_cfg=None"
# what of a config decides about a result
_DECISIVE = (
    *("model", "train_dataloader", "test_dataloader", "train_cfg", "optim_wrapper"),
    *("param_scheduler", "custom_hooks", "randomness", "test_evaluator"),
)
# of searches to a target: one that is cheaper is pulled up to it
_TO_TARGET = ("train_cfg.cost.rate=0.05", "train_cfg.cost.negative=True")
# in passes over the images, of BCCD's searches and of CamVid's
_TWICE = (
    *("train_cfg.max_epochs=40", "train_cfg.arch_start_epoch=16"),
    *("param_scheduler.1.end=40", "param_scheduler.1.milestones=[24,32]"),
)
_TWICE_STREETS = (
    *("train_cfg.max_epochs=20", "train_cfg.arch_start_epoch=8"),
    "param_scheduler.1.end=720",
)
# 22 steps a pass in place of 36, so as many steps as otherwise, and all of the held-out half
_HALVES = (
    *("train_cfg.split.ratio=0.5", "train_cfg.max_epochs=16", "train_cfg.arch_start_epoch=6"),
    *("param_scheduler.1.end=352", "train_cfg.ranking.batches=22"),
)


@dataclass(frozen=True)
class Task:
    """A data set and a framework.

    Args:
        title: For the page.
        training: Config of all trainings.
        separate, shared: Configs of the searches with each kind of super network.
        longer: Settings of a training that takes as much computing as a search with shared weights
            and a training do.
        tries: Name, title and settings of other searches to half the latency, for one random seed.
        ablation: Whether the paper's is repeated, too.
    """

    title: str
    training: str
    separate: str
    shared: str
    longer: tuple[str, ...]
    tries: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    ablation: bool = False


TASKS = {
    "bccd_ssdlite": Task(
        "Blood cells (BCCD), SSDLite",
        "configs/fna_det/ssdlite_param_adapt_bccd_evidence.py",
        "configs/fna_det/ssdlite_arch_adapt_bccd.py",
        "configs/fna_det/ssdlite_arch_adapt_bccd_shared.py",
        longer=("train_cfg.max_epochs=42", "param_scheduler.1.end=1050"),
        tries=(
            ("twice", "search twice as long", _TWICE),
            # as many steps as otherwise, but passes over a quarter of the images are short
            ("more", "α on three quarters", (*_TWICE, "train_cfg.split.ratio=0.75")),
            ("less", "0.4 of the latency", ("train_cfg.cost.target=0.4 seed",)),
        ),
    ),
    "camvid_deeplabv3": Task(
        "Streets (CamVid), DeepLabv3",
        "configs/fna_seg/deeplabv3_param_adapt_camvid_evidence.py",
        "configs/fna_seg/deeplabv3_arch_adapt_camvid.py",
        "configs/fna_seg/deeplabv3_arch_adapt_camvid_shared.py",
        longer=("train_cfg.max_iters=2400", "param_scheduler.1.end=2400"),
        tries=(
            ("twice", "search twice as long", _TWICE_STREETS),
            ("more", "α on half", _HALVES),
        ),
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


def plan(task: Task, training: Config, table: Path) -> list[Cell]:
    """All cells of a task, in the order in which they begin: one random seed after the other, and
    soon after a search what needs its weights, which are not kept in the repository.

    Args:
        training: The config of all trainings, which says at what size costs are counted.
        table: File of the latency table.
    """
    height, width = training.input_size
    at = (*_TO_TARGET, f"train_cfg.cost.input_size=({height},{width})")
    madds = ("train_cfg.cost.target=1.0 seed", *at)
    fast = ("train_cfg.cost.target=0.5 seed", *at, "train_cfg.cost._delete_=True")
    fast = (*fast, "train_cfg.cost.type=Latency", f"train_cfg.cost.table={table}")
    loss = _loss(training)
    draw = dict(kind="draw", title="random architectures", config=task.shared)
    return [
        Cell("table", "table", "latency of every op", config=task.shared, alone=True),
        Cell("draw_madds", settings=madds, **draw),
        Cell("draw_latency", settings=fast, after=("table",), **draw),
        *(cell for seed in SEEDS for cell in _of_seed(task, seed, loss + madds, loss + fast)),
        *(cell for seed in SEEDS if task.ablation for cell in _ablation(task, seed, loss + madds)),
        *(cell for seed in SEEDS for cell in _longer(task, seed)),
        *(cell for each in task.tries for cell in _try(task, loss + fast, *each)),
        Cell("latency", "latency", "latency of every network", config=task.training, alone=True),
    ]


def _loss(training: Config) -> tuple[str, ...]:
    """Settings that give a search the loss of a segmentor's training."""
    loss = training.model.get("decode_head", {}).get("loss_decode", {})
    return tuple(
        f"model.decode_head.loss_decode.{key}={value}"
        for key, value in loss.items()
        if key != "type"
    )


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


def _longer(task: Task, seed: int) -> list[Cell]:
    """At half the latency, what was found and another random architecture for each random seed,
    trained for as long as the seed's own."""
    return [
        _train(
            task, seed, "found_latency_longer", "found, half the latency, longer",
            f"search_latency-{seed}", settings=task.longer,
        ),
        _train(
            task, seed, "random_latency_longer", "random, half its latency, longer",
            "draw_latency", number=DRAWN[seed], settings=task.longer,
        ),
    ]  # fmt: skip


def _try(
    task: Task, fast: tuple[str, ...], name: str, title: str, settings: tuple[str, ...]
) -> list[Cell]:
    settings, search = (*fast, *settings), f"search_{name}"
    return [
        Cell(search, "search", title, 0, task.shared, settings, after=("table",)),
        _train(task, 0, f"found_{name}", f"found, {title}", f"{search}-0"),
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


def digest(cell: Cell, cfg: Config | None = None) -> str:
    """What tells settings apart that decide about a cell's result.

    Args:
        cfg: The cell's config, where it has been read.
    """
    values = (cfg or read(cell.config)).to_dict()
    decisive = [cell.settings, *((key, values.get(key)) for key in _DECISIVE)]
    return hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:16]


def read(config: str) -> Config:
    """A config, without importing what it names."""
    return Config.fromfile(config, import_custom_modules=False)
