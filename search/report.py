"""What an architecture adaptation leaves behind: α over time, the architecture, and pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner
from torch import Tensor, nn

from engine.hooks import loaded_path
from models import (
    BudgetTerm,
    CostTerm,
    FNABackbone,
    InputError,
    NetConfig,
    count_madds,
    count_params,
    expected_cost,
)
from models.backbone import first_expansions, total_stride
from models.cost import counted_in
from models.files import write_whole
from models.inherit import STATE
from models.ops import SKIP

from .derived import derived_backbone, with_backbone
from .entropy import alpha_shares, mean_entropy, share_of_uniform, undecided
from .latency_report import compare_latency
from .pictures import draw_alpha, draw_architectures, draw_cost, to_png
from .ranking import Candidate, references_to_json, to_json


@LOG_PROCESSORS.register_module()
class ArchLogProcessor(LogProcessor):
    """mmengine's, for lines that also say what α prefers: see :meth:`ArchReport.log`."""

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        if mode == "train":
            runner.train_loop.report.log(runner)
        return super().get_log_after_iter(runner, batch_idx, mode)


class ArchReport(Hook):
    """Logs and writes the search's results, and keeps its state in checkpoints.

    It writes into the work dir, each file whole or not at all: after every epoch ``alpha.json`` (α
    after each epoch so far, and how undecided it is now), and from the first epoch in which α
    learned ``net_config.txt`` (the derived architecture, for parameter adaptation),
    ``architecture.png``, ``alpha.png`` and ``cost.png``.

    Args:
        model: A model whose backbone is an FNASuperNet.
        term: What the search adds to its loss; its ``input_size`` is that of all counts.
        prices: Of every candidate, as the term counts.
        seed_net_config: File of the architecture to compare with.
        arch_start_epoch: Epochs before α learns.
        must_match: Settings that a resumed run must share with the checkpoint's.
    """

    results = (
        *("alpha.json", "architecture.png", "alpha.png", "cost.png"),
        *("net_config.txt", "candidates.json", "references.json", "latency.json"),
    )

    def __init__(
        self,
        model: nn.Module,
        term: CostTerm | BudgetTerm,
        prices: Tensor,
        seed_net_config: str | Path,
        arch_start_epoch: int,
        must_match: dict[str, int | float | None],
    ):
        self.model, self.backbone = model, model.backbone
        self.term, self.prices = term, prices
        self.input_size = tuple(term.input_size)
        self.seed = NetConfig.parse(Path(seed_net_config))
        self.arch_start_epoch = arch_start_epoch
        self.must_match = must_match
        candidates = self.backbone.search_space.candidates
        self.search_space = {layer: list(ops) for layer, ops in candidates.items()}
        self.history: list[list[list[float]]] = []  # α: epoch, layer, candidate
        self.temperatures: list[float] = []  # after each epoch
        self.costs: list[list[float]] = []  # iteration, backbone's expected cost in units, λ
        self.found: NetConfig | None = None
        self.warned = False
        self.reported = self._choices()

    def log(self, runner: Runner) -> None:
        """Add to the numbers that are about to be logged: how undecided α is, in nats and as a
        share of uniform, and how many layers prefer another op than in the line before."""
        if runner.epoch < self.arch_start_epoch:
            return
        step, alphas = runner.train_loop.alphas_of or (None, None)
        if step != runner.iter:
            alphas = self.backbone.alpha_values()
        choices = [alpha.argmax().item() for alpha in alphas]
        changed = sum(now != then for now, then in zip(choices, self.reported, strict=True))
        runner.message_hub.update_scalar("train/alpha_entropy", mean_entropy(self.backbone, alphas))
        runner.message_hub.update_scalar("train/alpha_undecided", undecided(self.backbone, alphas))
        runner.message_hub.update_scalar("train/alpha_changed", changed)
        self.reported = choices
        with torch.no_grad():
            expected = expected_cost(self.backbone, self.prices).item() + self.term.fixed
        self.costs.append([runner.iter + 1, expected / self.term.cost.unit, self.term.weight])
        if self.term.target:
            runner.message_hub.update_scalar("train/arch_lambda", self.term.weight)
            runner.message_hub.update_scalar(
                "train/arch_target", self.term.target / self.term.cost.unit
            )

    def after_train_epoch(self, runner: Runner) -> None:
        self.history.append([alpha.tolist() for alpha in self.backbone.alpha_values()])
        self.temperatures.append(self.backbone.mixed_layers[0].temperature)
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        record = {
            "search_space": self.search_space,
            "undecided": undecided(self.backbone),
            "alpha": self.history,
        }
        write_whole(folder / "alpha.json", (json.dumps(record) + "\n").encode())
        if runner.epoch < self.arch_start_epoch:
            return  # α is still what it was drawn as
        heat_map = draw_alpha(self.search_space, self._probabilities(), self.arch_start_epoch)
        write_whole(folder / "alpha.png", to_png(heat_map))
        if self.costs:
            unit = self.term.cost.unit
            target = self.term.target and self.term.target / unit
            curve = draw_cost(self.costs, target, counted_in(self.term.cost))
            write_whole(folder / "cost.png", to_png(curve))
        self._watch(runner)
        derived = self.backbone.derive(self.prices, self.term.budget)
        self._write_architecture(runner, derived)
        message = f"Architecture after epoch {runner.epoch + 1}: {self.compare(derived)}"
        if self.term.budget is not None and derived != (preferred := self.backbone.derive()):
            message += f"; without the budget alpha would prefer {self._size(preferred)}"
        runner.logger.info(message)

    def _write_architecture(self, runner: Runner, derived: NetConfig) -> None:
        drawing = draw_architectures({"derived": derived, "seed": self.seed})
        write_whole(Path(runner.work_dir) / "architecture.png", to_png(drawing))
        write_whole(Path(runner.work_dir) / "net_config.txt", f"{derived}\n".encode())
        self.found = derived

    def write_ranking(
        self, runner: Runner, ranked: Sequence[Candidate], references: Mapping[str, Candidate]
    ) -> None:
        """Write ``candidates.json`` and, if there are any, ``references.json``; the best of the
        ranked candidates becomes the result."""
        if not is_main_process():
            return
        content = to_json(ranked, self.term.cost.unit)
        write_whole(Path(runner.work_dir) / "candidates.json", content.encode())
        if references:
            content = references_to_json(references, ranked[0], self.term.cost.unit)
            write_whole(Path(runner.work_dir) / "references.json", content.encode())
        self._write_architecture(runner, ranked[0].net_config)
        runner.logger.info(
            f"Best of {len(ranked)} ranked architectures: {self.compare(ranked[0].net_config)}"
        )

    def write_latency(self, runner: Runner) -> None:
        """Write ``latency.json``: what was asked for, and of what was found and of the seed's
        architecture the table's sum and what is measured."""
        if not is_main_process():
            return
        # of a run that was resumed when all its epochs were done
        found = self.found or self.backbone.derive(self.prices, self.term.budget)
        networks = {
            name: derived_backbone(self.backbone, net_config)
            for name, net_config in {"found": found, "seed": self.seed}.items()
            if self._interface(net_config) == self._interface(found)
        }
        whole = {name: with_backbone(self.model, each) for name, each in networks.items()}
        record, line = compare_latency(self.term, networks, whole)
        content = json.dumps(record, indent=1) + "\n"
        write_whole(Path(runner.work_dir) / "latency.json", content.encode())
        runner.logger.info(line)

    def _watch(self, runner: Runner) -> None:
        """Say per stage how undecided α is and how much of it skips; warn of a collapse."""
        stages: dict[str, list[tuple[str, Tensor]]] = {}
        for layer, share in zip(self.search_space, alpha_shares(self.backbone), strict=True):
            stages.setdefault(layer.split(".")[0], []).append((layer, share))
        lines, scalars = [], {}
        for stage, layers in stages.items():
            entropy = share_of_uniform([share for _, share in layers])
            scalars[f"alpha_undecided/stage_{stage}"] = entropy
            line = f"stage {stage} {100 * entropy:.0f} %"
            if skips := self._skip_shares(layers):
                scalars[f"alpha_skip/stage_{stage}"] = sum(skips) / len(skips)
                line += f" (skip {100 * scalars[f'alpha_skip/stage_{stage}']:.0f} %)"
            lines.append(line)
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        runner.logger.info(f"Entropy of alpha, of uniform: {', '.join(lines)}")
        choices = zip(self.search_space.values(), self._choices(), strict=True)
        can_skip = [ops[choice] == SKIP for ops, choice in choices if SKIP in ops]
        searched = runner.epoch + 1 - self.arch_start_epoch
        late = 3 * searched >= runner.max_epochs - self.arch_start_epoch
        if late and not self.warned and sum(can_skip) > len(can_skip) / 2:
            self.warned = True
            runner.logger.warning(
                f"alpha collapses to skip: {sum(can_skip)} of the {len(can_skip)} layers that can "
                "prefer it; expected are a few. A cost target keeps the network from getting "
                "smaller than asked for; a later arch_start_epoch lets the ops learn first."
            )

    def _skip_shares(self, layers: Sequence[tuple[str, Tensor]]) -> list[float]:
        """softmax(α) of skip in those layers that have it."""
        return [
            share[ops.index(SKIP)].item()
            for layer, share in layers
            if SKIP in (ops := self.search_space[layer])
        ]

    def _probabilities(self) -> list[list[list[float]]]:
        """softmax(α) over time: [epoch][layer][candidate]."""
        return [
            [torch.softmax(torch.tensor(alpha) / temperature, dim=0).tolist() for alpha in alphas]
            for alphas, temperature in zip(self.history, self.temperatures, strict=True)
        ]

    def compare(self, derived: NetConfig) -> str:
        """Params and MAdds of an architecture, alone and in the model, against the seed's."""
        height, width = self.input_size
        return f"{self._size(derived)}, at {height}x{width}; the seed's: {self._seed_size}"

    @cached_property
    def _seed_size(self) -> str:
        if self._interface(self.backbone.derive()) == self._interface(self.seed):
            return self._size(self.seed)
        # neck and head of this model do not fit the seed's maps
        with torch.device("meta"):
            backbone = FNABackbone(self.seed, (0,), output_stride=total_stride(self.seed.stages))
        return _format_size("backbone", backbone, self.input_size)

    def _size(self, net_config: NetConfig) -> str:
        with torch.device("meta"):  # it is only counted
            backbone = derived_backbone(self.backbone, net_config)
        parts = {"backbone": backbone, "whole model": with_backbone(self.model, backbone)}
        return ", ".join(_format_size(*part, self.input_size) for part in parts.items())

    def _interface(self, net_config: NetConfig) -> list[tuple]:
        """What decides which maps an architecture gives: channels and strides of its stages, and
        how wide a first layer expands whose expanded activation is one of the maps."""
        return [
            (
                stage.in_channels,
                stage.out_channels,
                stage.stride,
                first_expansions(stage)
                if f"{number}.expand" in self.backbone.out_indices
                else None,
            )
            for number, stage in enumerate(net_config.stages, 1)
        ]

    def _choices(self) -> list[int]:
        return [alpha.argmax().item() for alpha in self.backbone.alpha_values()]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[STATE] = dict(
            search_space=self.search_space,
            settings=self.must_match,
            history=self.history,
            temperatures=self.temperatures,
            costs=self.costs,
            weight=self.term.weight,  # λ
            warned=self.warned,
            reported=self.reported,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the checkpoint's state.

        Raises:
            InputError: A run is resumed from a checkpoint of another search space, of other
                settings that its state depends on, or of no architecture adaptation at all.
        """
        if not runner.cfg.get("resume"):
            return
        path = loaded_path(runner)
        state = checkpoint.get(STATE)
        if not isinstance(state, dict):
            raise InputError(f"checkpoint {path}: is of no architecture adaptation")
        _refuse_other(path, "search space", state.get("search_space", {}), self.search_space)
        _refuse_other(path, "search settings", state.get("settings", {}), self.must_match)
        if not self._fits(state, checkpoint.get("meta")):
            raise InputError(f"checkpoint {path}: the state of its search is damaged")
        self.history, self.reported = state["history"], state["reported"]
        self.temperatures, self.costs = state["temperatures"], state["costs"]
        self.warned = state["warned"]
        if self.term.target:
            self.term.weight = state["weight"]

    def _fits(self, state: dict, meta: object) -> bool:
        """Whether a state is that of this search after the epochs that ``meta`` says."""
        counts = list(map(len, self.search_space.values()))
        epochs = meta.get("epoch") if isinstance(meta, dict) else None
        history, reported, costs = (state.get(key) for key in ("history", "reported", "costs"))
        return (
            isinstance(history, list)
            and len(history) == epochs
            and all(
                isinstance(alphas, list)
                and len(alphas) == len(counts)
                and all(map(_are_numbers, alphas, counts))
                for alphas in history
            )
            and _are_numbers(reported, len(counts))
            and all(choice in range(count) for choice, count in zip(reported, counts, strict=True))
            and _are_numbers(state.get("temperatures"), epochs)
            and isinstance(costs, list)
            and all(_are_numbers(point, 3) for point in costs)
            and _are_numbers([state.get("weight")], 1)
            and isinstance(state.get("warned"), bool)
        )


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


def _refuse_other(path: str, what: str, found: object, expected: dict) -> None:
    if not isinstance(found, dict):
        raise InputError(f"checkpoint {path}: its {what} is damaged")
    for key in expected | found:
        if found.get(key) != expected.get(key):
            raise InputError(
                f"checkpoint {path}: is of another {what}; {key}: expected "
                f"{expected.get(key, 'none')}, found {found.get(key, 'none')}"
            )


def _format_size(name: str, module: nn.Module, input_size: tuple[int, int]) -> str:
    params, madds = count_params(module), count_madds(module, input_size)
    return f"{name} {params / 1e6:.3f}M params {madds / 1e9:.3f}B MAdds"
