"""Architecture adaptation: weights and architecture parameters α learn in turn.

Paper, section 3.3. Only the loop differs from an ordinary training run: the super network is a
backbone like any other; data, optimizers, schedulers and hooks are what a config names.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
from mmengine.dist import broadcast, broadcast_object_list, get_rank
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from engine.data import refuse_empty
from engine.hooks import loaded_path
from engine.model import task_losses, unwrapped
from engine.resume import (
    SeededEpochLoop,
    derive_seed,
    endless_batches,
    seeded_dataloader_cfg,
)
from models import FNASuperNet, InputError, Latency, cost_term, expected_cost, price_list

from .halves import half_dataloader_cfgs
from .optimizers import parameters_of, schedule_weights_only
from .parallel import average_gradients
from .ranking import Candidate, Ranking, evaluate, find_references, propose
from .report import ArchReport
from .turns import Temperature, Turns

# What tells the random numbers of one use from another's; 0 are those of the weights' loader.
_ARCH_DATA, _PATH, _WEIGHT_STEP, _ARCH_STEP, _PROPOSE, _RANK = 1, 2, 3, 4, 5, 6


@LOOPS.register_module()
class ArchAdaptLoop(SeededEpochLoop):
    """Epochs over the weights' half of the train set; from ``arch_start_epoch`` on, α learns too.

    A weight step draws one path: uniformly before ``arch_start_epoch``, by softmax(α) after; only
    the path's weights, the fixed part, neck and head learn. An architecture step computes all ops
    on a batch of the held-out half; only α learns, and buffers (BN's running statistics) are put
    back as they were. Iterations, and with them schedules and logs, count weight steps. Given as a
    list, ``param_scheduler`` acts on the weights' optimizer only.

    Every random number follows from the run's seed, the process's rank and the step, so a resumed
    run continues exactly as the interrupted one would have.

    Args:
        max_epochs, validation: As mmengine's loop.
        arch_start_epoch: Epochs before α learns.
        split: ``ratio``, α's share of the train set, and ``seed``.
        cost: What :func:`models.cost_term` takes.
        arch_steps, weight_steps: From then on, so many architecture steps, then so many weight
            steps, in turn.
        arch_pipeline: Pipeline of the held-out half; default, the train set's.
        arch_batch_size: Its batch size; default, the train loader's.
        temperature: ``start`` and ``end``: what divides α before the softmax falls from one to the
            other over the architecture steps. Default: the super network's own, throughout.
        ranking: What :class:`search.ranking.Ranking` takes: at the end, some architectures that α
            proposes are evaluated on batches of the held-out half, and the best becomes
            ``net_config.txt``. Default: the architecture that α prefers, without evaluation.
        seed_net_config: The architecture that reports compare with.

    Raises:
        InputError: A number is out of its range, a half is empty, the backbone is no FNASuperNet,
            or a step's loss is not finite.
    """

    images = "train_cfg: the weights' half"

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        max_epochs: int,
        arch_start_epoch: int,
        split: dict,
        cost: dict,
        arch_steps: int = 1,
        weight_steps: int = 1,
        arch_pipeline: Sequence[dict] | None = None,
        arch_batch_size: int | None = None,
        temperature: dict | None = None,
        ranking: dict | None = None,
        seed_net_config: str = "configs/net_configs/mobilenetv2.txt",
        **validation: object,
    ):
        self.turns = Turns(max_epochs, arch_start_epoch, arch_steps, weight_steps)
        self.temperature = Temperature.from_cfg(temperature)
        self.ranking = Ranking.from_cfg(ranking)
        self.model: BaseModel = unwrapped(runner.model)
        self.backbone = _supernet(self.model)
        halves = half_dataloader_cfgs(dataloader, split, arch_pipeline, arch_batch_size)
        super().__init__(runner, halves[0], max_epochs, **validation)
        arch_half = seeded_dataloader_cfg(halves[1], _ARCH_DATA)
        self.arch_dataloader = runner.build_dataloader(arch_half, seed=runner.seed)
        refuse_empty(self.arch_dataloader, "train_cfg: the held-out half")
        runner.param_schedulers = schedule_weights_only(runner.param_schedulers)
        self.cost = cost_term(cost, self.backbone, seed_net_config)
        # α on the CPU, and the weight step of which it is: an architecture step comes before that
        self.alphas_of: tuple[int, list[Tensor]] | None = None
        self.prices = price_list(self.backbone, self.cost.cost, self.cost.input_size)
        self.report = ArchReport(
            self.model,
            self.cost,
            self.prices,
            seed_net_config,
            arch_start_epoch,
            self._must_match(split),
        )
        runner.register_hook(self.report, priority="ABOVE_NORMAL")  # before logs and checkpoints
        if self.ranking:
            self._references()  # refused now rather than after the training

    def _must_match(self, split: dict) -> dict[str, int | float | None]:
        """What a resumed run must share with the interrupted one, so that it is the same search."""
        return dict(
            split_ratio=split["ratio"],
            split_seed=split["seed"],
            arch_start_epoch=self.turns.arch_start_epoch,
            arch_steps=self.turns.arch_steps,
            weight_steps=self.turns.weight_steps,
            weight_batches_per_epoch=len(self.dataloader),
            arch_batches_per_epoch=len(self.arch_dataloader),
            target=self.cost.target,
        )

    def run(self) -> nn.Module:
        """Run what is left of the epochs, and return the model."""
        runner = self.runner
        self.arch_dataloader.batch_sampler.set_seed(runner.seed)  # a resumed run's is known now
        self._arch_iter = self._arch_steps_before(self.iter)
        self._arch_batches = endless_batches(self.arch_dataloader, self._arch_iter)
        if self._arch_iter:
            self._set_temperature(self._arch_iter - 1)  # as the interrupted run had it
        alphas = {id(alpha) for alpha in self.backbone.alphas()}
        self._learning_weights = [
            p for p in self.model.parameters() if p.requires_grad and id(p) not in alphas
        ]
        # OptimWrapperDict leaves to its owner what gradient accumulation counts
        for name, done, end in (
            ("weights", self.iter, self.max_iters),
            ("arch", self._arch_iter, self._arch_steps_before(self.max_iters)),
        ):
            runner.optim_wrapper[name].initialize_count_status(self.model, done, end)
        runner.logger.info(
            f"Architecture adaptation: {self.cost}; weights learn from "
            f"{len(self.dataloader.dataset)} images, alpha from "
            f"{len(self.arch_dataloader.dataset)}, after {self.turns.arch_start_epoch} epochs, "
            f"{self.turns.arch_steps} steps to the weights' {self.turns.weight_steps}"
        )
        model = super().run()
        if self.ranking:
            self.rank_candidates()
        if isinstance(self.cost.cost, Latency):
            self.report.write_latency(runner)
        return model

    def run_batches(self) -> None:
        """The steps of an epoch, or what an interrupted run left of them."""
        super().run_batches()
        self.backbone.set_path(None)

    def run_iter(self, idx: int, data_batch: dict | tuple | list) -> None:
        """The architecture steps that are due, then one weight step."""
        self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        for _ in range(self._arch_steps_before(self.iter + 1) - self._arch_iter):
            self.arch_step(next(self._arch_batches))
        outputs = self.weight_step(data_batch)
        self.runner.call_hook(
            "after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def _set_temperature(self, step: int) -> None:
        """To that of an architecture step, where the config has a schedule."""
        if self.temperature:
            steps = self._arch_steps_before(self.max_iters)
            self.backbone.set_temperature(self.temperature.at(step, steps))

    def _arch_steps_before(self, iteration: int) -> int:
        return self.turns.arch_steps_before(iteration, len(self.dataloader))

    def weight_step(self, batch: dict | tuple | list) -> dict[str, Tensor]:
        """One step of the weights on one path; α is not in its graph. Returns what to log."""
        step = self.iter
        # all ranks draw the same path: their generators and their α are equal
        generator = torch.Generator().manual_seed(derive_seed(self.runner.seed, _PATH, step))
        uniform = self.epoch < self.turns.arch_start_epoch
        if uniform:
            path = self.backbone.sample_path(generator, uniform=True)
        else:
            self.alphas_of = step, self.backbone.alpha_values()
            path = torch.tensor(self.backbone.sample_path(generator, alphas=self.alphas_of[1]))
            broadcast(path)  # unlike processors round softmax(α) differently
            path = path.tolist()
        self.backbone.set_path(path)
        set_random_seed(derive_seed(self.runner.seed, _WEIGHT_STEP, step, get_rank()))
        wrapper = self.runner.optim_wrapper["weights"]
        loss, log_vars = self._task_loss(batch, wrapper)
        self._update(loss, wrapper, f"weight step {step + 1}")
        return log_vars

    def arch_step(self, batch: dict | tuple | list) -> None:
        """One step of α with all ops active; weights and buffers stay as they are."""
        step = self._arch_iter
        self.backbone.set_path(None)
        self._set_temperature(step)
        set_random_seed(derive_seed(self.runner.seed, _ARCH_STEP, step, get_rank()))
        wrapper = self.runner.optim_wrapper["arch"]
        with self._fixed_weights():
            task_loss, _ = self._task_loss(batch, wrapper)
            expected = expected_cost(self.backbone, self.prices)
            term = self.cost(expected).to(task_loss)
            loss = task_loss + term
            self._update(loss, wrapper, f"architecture step {step + 1}")
        self._arch_iter += 1
        scalars = dict(
            arch_loss=loss,
            arch_task_loss=task_loss,
            arch_cost=(expected + self.cost.fixed) / self.cost.cost.unit,
            arch_cost_share=term / loss,
        )
        # one copy from a GPU for all of them
        values = torch.stack([v.detach().double() for v in (*scalars.values(), expected)]).tolist()
        self.cost.learn(values.pop())
        for name, value in zip(scalars, values, strict=True):
            self.runner.message_hub.update_scalar(f"train/{name}", value)

    def rank_candidates(self) -> None:
        """Evaluate what α proposes on the same held-out batches; the best becomes the result."""
        seed = self.runner.seed
        generator = torch.Generator().manual_seed(derive_seed(seed, _PROPOSE))
        count = self.ranking.candidates
        proposed = propose(self.backbone, self.prices, self.cost, count, generator)
        message = [proposed, self._references()]
        broadcast_object_list(message)  # see weight_step: all ranks rank the same
        proposed, references = message
        batches = list(
            itertools.islice(endless_batches(self.arch_dataloader, 0), self.ranking.batches)
        )

        def loss_of(path: list[int], number: int, batch: dict | tuple | list) -> Tensor:
            self.backbone.set_path(path)
            set_random_seed(derive_seed(seed, _RANK, number, get_rank()))
            return self._task_loss(batch, self.runner.optim_wrapper["arch"])[0]

        self.runner.model.train()  # an evaluation may have come last, or no step in a resumed run
        with torch.no_grad(), self._fixed_weights():
            ranked = evaluate(proposed, batches, loss_of, self.runner.logger.info)
            finite = evaluate(list(references.values()), batches, loss_of, self.runner.logger.info)
        self.backbone.set_path(None)
        references = {name: each for name, each in references.items() if each in finite}
        self.report.write_ranking(self.runner, ranked, references)

    def _references(self) -> dict[str, Candidate]:
        return find_references(self.backbone, self.prices, self.cost, self.ranking.references)

    def _task_loss(
        self, batch: dict | tuple | list, wrapper: OptimWrapper
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The model's own loss of a batch, a scalar, and its parts to log."""
        with wrapper.optim_context(self.model):
            losses = task_losses(self.model, batch)
        return self.model.parse_losses(losses)

    def _update(self, loss: Tensor, wrapper: OptimWrapper, step: str) -> None:
        """Backward, and a step of one optimizer with gradients averaged over all processes."""
        wrapper.backward(wrapper.scale_loss(loss))
        learning = parameters_of(wrapper) if wrapper.should_update() else []
        # only here does a GPU have to be waited for
        if not average_gradients(learning, torch.isfinite(loss.detach())):
            self._stop(step)
        if learning:
            wrapper.step()
            wrapper.zero_grad()

    def _stop(self, step: str) -> NoReturn:
        resumed = loaded_path(self.runner) if self.runner.cfg.get("resume") else None
        last = self.runner.message_hub.runtime_info.get("last_ckpt") or resumed
        raise InputError(
            f"{step} (epoch {self.epoch + 1}): the loss is not finite; stopped, last good "
            f"checkpoint: {last or 'none was saved'}"
        )

    @contextmanager
    def _fixed_weights(self) -> Iterator[None]:
        """Inside, only α gets gradients; after it, buffers are what they were before."""
        buffers = list(self.model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        for parameter in self._learning_weights:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter in self._learning_weights:
                parameter.requires_grad = True
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)


def _supernet(model: nn.Module) -> FNASuperNet:
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, FNASuperNet):
        raise InputError("ArchAdaptLoop: expected a model whose backbone is an FNASuperNet")
    return backbone
