"""What an architecture adaptation leaves behind: α over time, the architecture, and pictures."""

import copy
import json
import math
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner
from torch import nn

from engine.hooks import loaded_path
from models import FNABackbone, FNASuperNet, InputError, NetConfig, count_madds, count_params
from models.backbone import first_expansions, total_stride
from models.files import write_whole

from .pictures import draw_alpha, draw_architectures

_KEY = "arch_adapt"  # of the state in a checkpoint


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
    after each epoch so far), and from the first epoch in which α learned ``net_config.txt`` (the
    derived architecture, for parameter adaptation), ``architecture.png`` and ``alpha.png``.

    Args:
        model: A model whose backbone is an FNASuperNet.
        input_size: (height, width) at which MAdds are counted.
        seed_net_config: File of the architecture to compare with.
        arch_start_epoch: Epochs before α learns.
        must_match: Settings that a resumed run must share with the checkpoint's.
    """

    results = ("alpha.json", "architecture.png", "alpha.png", "net_config.txt")

    def __init__(
        self,
        model: nn.Module,
        input_size: Sequence[int],
        seed_net_config: str | Path,
        arch_start_epoch: int,
        must_match: dict[str, int | float],
    ):
        self.model, self.backbone = model, model.backbone
        self.input_size = tuple(input_size)
        self.seed = NetConfig.parse(Path(seed_net_config))
        self.arch_start_epoch = arch_start_epoch
        self.must_match = must_match
        candidates = self.backbone.search_space.candidates
        self.search_space = {layer: list(ops) for layer, ops in candidates.items()}
        self.history: list[list[list[float]]] = []  # α: epoch, layer, candidate
        self.reported = self._choices()

    def log(self, runner: Runner) -> None:
        """Add to the numbers that are about to be logged: how undecided α is, and how many layers
        prefer another op than in the line before."""
        if runner.epoch < self.arch_start_epoch:
            return
        choices = self._choices()
        changed = sum(now != then for now, then in zip(choices, self.reported, strict=True))
        runner.message_hub.update_scalar("train/alpha_entropy", mean_entropy(self.backbone))
        runner.message_hub.update_scalar("train/alpha_changed", changed)
        self.reported = choices

    def after_train_epoch(self, runner: Runner) -> None:
        self.history.append([alpha.detach().tolist() for alpha in self.backbone.alphas()])
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        record = {"search_space": self.search_space, "alpha": self.history}
        write_whole(folder / "alpha.json", (json.dumps(record) + "\n").encode())
        if runner.epoch < self.arch_start_epoch:
            return  # α is still what it was drawn as
        derived = self.backbone.derive()
        drawing = draw_architectures({"derived": derived, "seed": self.seed})
        heat_map = draw_alpha(self.search_space, self._probabilities(), self.arch_start_epoch)
        write_whole(folder / "architecture.png", to_png(drawing))
        write_whole(folder / "alpha.png", to_png(heat_map))
        write_whole(folder / "net_config.txt", f"{derived}\n".encode())
        runner.logger.info(f"Architecture after epoch {runner.epoch + 1}: {self.compare(derived)}")

    def _probabilities(self) -> list[list[list[float]]]:
        """softmax(α) over time: [epoch][layer][candidate]."""
        temperatures = [layer.temperature for layer in self.backbone.mixed_layers]
        return [
            [
                torch.softmax(torch.tensor(alpha) / temperature, dim=0).tolist()
                for alpha, temperature in zip(alphas, temperatures, strict=True)
            ]
            for alphas in self.history
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
        return [alpha.argmax().item() for alpha in self.backbone.alphas()]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[_KEY] = dict(
            search_space=self.search_space,
            settings=self.must_match,
            history=self.history,
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
        state = checkpoint.get(_KEY)
        if not isinstance(state, dict):
            raise InputError(f"checkpoint {path}: is of no architecture adaptation")
        _refuse_other(path, "search space", state.get("search_space", {}), self.search_space)
        _refuse_other(path, "search settings", state.get("settings", {}), self.must_match)
        meta = checkpoint.get("meta")
        epochs = meta.get("epoch") if isinstance(meta, dict) else None
        history, reported = state.get("history"), state.get("reported")
        if not (self._is_history(history, epochs) and self._are_choices(reported)):
            raise InputError(f"checkpoint {path}: the history of its search is damaged")
        self.history, self.reported = history, reported

    def _is_history(self, history: object, epochs: object) -> bool:
        """Whether something is α after so many epochs."""
        counts = list(map(len, self.search_space.values()))
        return (
            isinstance(history, list)
            and len(history) == epochs
            and all(
                isinstance(alphas, list)
                and len(alphas) == len(counts)
                and all(map(_are_numbers, alphas, counts))
                for alphas in history
            )
        )

    def _are_choices(self, reported: object) -> bool:
        """Whether something is the number of a candidate for each layer."""
        candidates = self.search_space.values()
        return (
            isinstance(reported, list)
            and len(reported) == len(candidates)
            and all(
                type(choice) is int and 0 <= choice < len(ops)
                for choice, ops in zip(reported, candidates, strict=True)
            )
        )


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is float and math.isfinite(value) for value in values)
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


def mean_entropy(backbone: FNASuperNet) -> float:
    """Entropy of softmax(α) in nats, averaged over the searched layers."""
    entropies = [
        torch.special.entr(probabilities.detach()).sum()
        for probabilities in backbone.probabilities()
    ]
    return torch.stack(entropies).mean().item()


def derived_backbone(supernet: FNASuperNet, net_config: NetConfig) -> FNABackbone:
    """The network of ``net_config``, giving the maps that ``supernet`` gives."""
    return FNABackbone(
        net_config,
        supernet.out_indices,
        supernet.output_stride,
        supernet.last_channels,
        supernet.norm_cfg,
    )


def with_backbone(model: nn.Module, backbone: nn.Module) -> nn.Module:
    """A copy of ``model`` with another backbone."""
    return copy.deepcopy(model, {id(model.backbone): backbone})


def _format_size(name: str, module: nn.Module, input_size: tuple[int, int]) -> str:
    params, madds = count_params(module), count_madds(module, input_size)
    return f"{name} {params / 1e6:.3f}M params {madds / 1e9:.3f}B MAdds"


def to_png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
