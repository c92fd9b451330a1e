"""Training that resumes exactly where it was interrupted.

A resumed run must see exactly the data that it would have seen. So nothing here depends on what was
drawn before: the random numbers of a sample follow from the run's seed, the epoch and the sample's
place in it, whichever process loads it, and those of a step from the run's seed, the process's rank
and the step. Batches that were already used are skipped without being loaded.
"""

import bisect
import copy
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, LOOPS
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
    set_random_seed,
)
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from models import InputError

from .data import refuse_empty

# Keeps the random numbers of the data apart from those of a step.
_DATA, _STEP = 0, 1
# what a checkpoint's message hub keeps: batches per epoch; the epoch that began last, and at which
# iteration; the step of the last evaluation
_LENGTH, _BEGAN, _EVALUATED = "batches_per_epoch", "epoch_began", "evaluated"


def seeded_dataloader_cfg(dataloader: Mapping, part: int) -> dict:
    """The config of a loader whose samples follow from the run's seed, for
    ``Runner.build_dataloader``.

    Args:
        dataloader: A loader's config; left as it is.
        part: A number that keeps this loader's seeds apart from another's.

    Raises:
        InputError: ``drop_last`` meets a ``batch_sampler``.
    """
    if dataloader.get("drop_last") and dataloader.get("batch_sampler"):
        # such samplers drop more batches than they count, but a resumed run needs the count
        raise InputError("train_dataloader: drop_last does not go with a batch_sampler")
    cfg = dict(dataloader)
    cfg["dataset"] = dict(type="SeededDataset", dataset=cfg["dataset"])
    cfg["batch_sampler"] = dict(
        type="SeededBatchSampler",
        part=part,
        inner=cfg.get("batch_sampler"),
        drop_last=cfg.pop("drop_last", False),
    )
    return cfg


def endless_batches(loader: DataLoader, start: int) -> Iterator:
    """A seeded loader's batches from number ``start`` on, every epoch in a new order."""
    epoch, skip = divmod(start, len(loader))
    while True:
        loader.batch_sampler.start(epoch, skip)
        yield from loader
        epoch, skip = epoch + 1, 0


def derive_seed(*numbers: int) -> int:
    """A seed below 2**32 from non-negative numbers, such as a run's seed and a step's number."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A data set whose samples do not depend on what was loaded before.

    Args:
        dataset: Config of the data set, whose attributes (``metainfo`` …) this one also has.
    """

    def __init__(self, dataset: dict):
        self.dataset = DATASETS.build(dataset)

    def __getitem__(self, item: tuple[int, int]) -> object:
        """(index, seed) → the sample; reseeds the process that loads it."""
        index, seed = item
        set_random_seed(seed)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


@DATA_SAMPLERS.register_module()
class SeededBatchSampler(Sampler):
    """Batches of (index, seed) for a :class:`SeededDataset`, from any place of any epoch.

    A pass does not depend on those before it, even if one of them was left in the middle.

    Args:
        sampler: Gives the indices of one epoch.
        batch_size: Samples in a batch.
        part: A number that keeps this loader's seeds apart from another's.
        inner: Config of the batch sampler that forms the batches; default, torch's.
        drop_last: Leave out a last batch that is not full.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        part: int,
        inner: dict | None = None,
        drop_last: bool = False,
    ):
        self.sampler, self.part = sampler, part
        self.batch_size, self.drop_last = batch_size, drop_last
        if inner is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            arguments = dict(sampler=sampler, batch_size=batch_size, drop_last=drop_last)
            self.batches = DATA_SAMPLERS.build(inner, default_args=arguments)
        self.seed = self.epoch = self.skip = 0

    def set_seed(self, seed: int) -> None:
        """Set the run's seed, from which the order and the samples' random numbers follow."""
        self.seed = self.sampler.seed = seed

    def start(self, epoch: int, skip: int = 0) -> None:
        """Let the next pass be that of ``epoch``, without its first ``skip`` batches."""
        self.epoch, self.skip = epoch, skip
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        where = self.seed, self.part, self.epoch, get_rank()
        # mmdet's keeps what a pass that was left in the middle had begun to collect
        fresh = copy.deepcopy(self.batches, {id(self.sampler): self.sampler})
        for number, batch in itertools.islice(enumerate(fresh), self.skip, None):
            yield [(index, derive_seed(*where, number, place)) for place, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batches)


class _SeededLoop:
    """What mmengine's two training loops lack, to resume with the random numbers they would have
    drawn: a base before one of them.

    mmengine itself resumes with other crops, flips and dropped features than an uninterrupted run
    would have seen. Here the loader goes through the train set epoch after epoch, so ``sampler`` is
    ``DefaultSampler``, whether training counts epochs or iterations.
    """

    images = "train_dataloader"  # what to call them in a message

    def __init__(self, runner: Runner, dataloader: dict, *counts: int, **settings: object):
        cfg = seeded_dataloader_cfg(dataloader, _DATA)
        super().__init__(runner, cfg, *counts, **settings)
        refuse_empty(self.dataloader, self.images)

    def run(self) -> nn.Module:
        """Run what is left, and return the model."""
        self.dataloader.batch_sampler.set_seed(self.runner.seed)  # a resumed run's is known now
        return super().run()

    def _passes_are_as_before(self) -> bool:
        """Whether a pass has as many batches as in the run that this one resumes; warns if not."""
        hub, length = self.runner.message_hub, len(self.dataloader)
        before = hub.get_info(_LENGTH, length)
        hub.update_info(_LENGTH, length)
        if before != length:
            self.runner.logger.warning(
                f"A pass over the train set has {length} batches, and had {before} when the run "
                "was interrupted: it does not continue exactly as it would have"
            )
        return before == length

    def run_iter(self, *batch: object) -> None:
        """One step of the optimizer."""
        set_random_seed(derive_seed(self.runner.seed, _STEP, self.iter, get_rank()))
        super().run_iter(*batch)


@LOOPS.register_module()
class SeededIterLoop(_SeededLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, resumed exactly.

    A run that is resumed with another number of batches per pass continues from the iteration that
    it had reached.

    Args:
        runner, dataloader, max_iters, val_begin, val_interval ...: As mmengine's.

    Raises:
        InputError: The train set does not fill one batch.
    """

    def __init__(self, runner: Runner, dataloader: dict, max_iters: int, **settings: object):
        super().__init__(runner, dataloader, max_iters, **settings)
        self.dataloader_iterator = _EndlessBatches(self.dataloader)

    def run(self) -> nn.Module:
        """Run what is left, and return the model."""
        self._passes_are_as_before()
        return super().run()


@LOOPS.register_module()
class SeededEpochLoop(_SeededLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, resumed exactly, and in the middle of an epoch too.

    A run that is resumed with another number of batches per epoch, because processes or images have
    become more or fewer, begins its epoch anew.

    Args:
        runner, dataloader, max_epochs, val_begin, val_interval ...: As mmengine's.

    Raises:
        InputError: The train set does not fill one batch.
    """

    def run(self) -> nn.Module:
        """Run what is left, and return the model."""
        self._done = self._used_batches()
        return super().run()

    def _used_batches(self) -> int:
        """Batches of the current epoch that an interrupted run has used."""
        length = len(self.dataloader)
        epoch, start = self.runner.message_hub.get_info(_BEGAN, [self.epoch, self.epoch * length])
        if self._passes_are_as_before() and epoch == self.epoch:
            return self.iter - start
        return 0

    def run_epoch(self) -> None:
        """One pass over the train set, or what an interrupted run left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self.run_batches()
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1  # mmengine's loops have no setter

    def run_batches(self) -> None:
        """The steps of :meth:`run_epoch`."""
        done, self._done = self._done, 0
        self.runner.message_hub.update_info(_BEGAN, [self.epoch, self.iter - done])
        self.dataloader.batch_sampler.start(self.epoch, done)
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)


class _EndlessBatches:
    """The iterator from which ``IterBasedTrainLoop`` takes batches and skips used ones."""

    def __init__(self, loader: DataLoader):
        self.loader = loader
        self.skip_iter(0)

    def skip_iter(self, count: int) -> None:
        self.batches = endless_batches(self.loader, count)  # loads nothing yet

    def __next__(self) -> dict | tuple | list:
        return next(self.batches)


@HOOKS.register_module()
class DueEvaluation(Hook):
    """Makes up for an evaluation during which a run was interrupted.

    A loop writes its checkpoint first and evaluates then, and mmengine resumes behind both. Here
    the checkpoint says of which step the last evaluation was.
    """

    priority = "LOWEST"  # when all is ready for training

    def before_val(self, runner: Runner) -> None:
        runner.message_hub.update_info(_EVALUATED, _step(runner))

    def before_train(self, runner: Runner) -> None:
        step, loop = _step(runner), runner.train_loop
        if not step or runner.val_loop is None:
            return
        if runner.message_hub.get_info(_EVALUATED) == step or not _is_due(loop, step):
            return
        runner.logger.info("Evaluation that was due when the run was interrupted:")
        runner.val_loop.run()


def _step(runner: Runner) -> int:
    """In what the run counts: epochs or iterations that it has made."""
    return runner.iter if _by_iterations(runner.train_loop) else runner.epoch


def _by_iterations(loop: BaseLoop) -> bool:
    return isinstance(loop, IterBasedTrainLoop)


def _is_due(loop: BaseLoop, step: int) -> bool:
    """Whether mmengine's loop evaluates after this step."""
    last = loop.max_iters if _by_iterations(loop) else loop.max_epochs
    at = bisect.bisect(loop.dynamic_milestones, step + 1)
    interval = loop.dynamic_intervals[at - 1]
    return step >= loop.val_begin and (step % interval == 0 or step == last)
