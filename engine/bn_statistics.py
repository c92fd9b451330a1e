"""BN statistics of a remapped network, before its parameters are adapted.

Remapping carries a seed layer's statistics along, but layers that were repeated, widened or given
another kernel see other activations than it did.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice

import numpy as np
import torch
from mmengine.dist import all_reduce_params
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from .model import task_losses, unwrapped
from .resume import endless_batches, seeded_dataloader_cfg

# Keeps the random numbers of these passes apart from those of training, which count from 0.
_DATA = 100


@HOOKS.register_module()
class UpdateBNStatistics(Hook):
    """Passes training batches forward before training, which moves BN's running statistics.

    They move by momentum, as in training; no parameter changes. Training then draws the random
    numbers and the data that it would have drawn otherwise. Each process passes its own shard, and
    all end with the mean of their statistics. A run that starts from a checkpoint takes its
    statistics from there and makes no passes.

    Args:
        iterations: Number of batches (paper, section 4.2: 2000).
        interval: Batches between two lines of progress in the log.
    """

    priority = "LOW"  # once others have checked the model

    def __init__(self, iterations: int = 2000, interval: int = 50):
        self.iterations, self.interval = iterations, interval
        self.loaded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.loaded = True

    def before_train(self, runner: Runner) -> None:
        if self.loaded:
            return
        model = unwrapped(runner.model)
        training = model.training
        model.train()
        with _kept_random_states(), torch.no_grad():
            self._pass_batches(runner, model)
        model.train(training)
        all_reduce_params(_running_statistics(model), op="mean")

    def _pass_batches(self, runner: Runner, model: nn.Module) -> None:
        # the training's own loader must not advance, nor its processes
        cfg = {**runner.cfg.train_dataloader, "persistent_workers": False}
        loader = runner.build_dataloader(seeded_dataloader_cfg(cfg, _DATA), seed=runner.seed)
        loader.batch_sampler.set_seed(runner.seed)
        start = time.monotonic()
        for done, batch in enumerate(islice(endless_batches(loader, 0), self.iterations), 1):
            with runner.optim_wrapper.optim_context(model):
                task_losses(model, batch)
            if done % self.interval == 0 or done == self.iterations:
                left = (time.monotonic() - start) / done * (self.iterations - done)
                runner.logger.info(
                    f"BN statistics before training: [{done}/{self.iterations}]  "
                    f"eta: {timedelta(seconds=round(left))}"
                )


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    statistics = ("running_mean", "running_var")
    return [buffer for name, buffer in model.named_buffers() if name.endswith(statistics)]


@contextmanager
def _kept_random_states() -> Iterator[None]:
    """Afterwards, random numbers continue as if nothing had been drawn inside."""
    python, numpy = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
