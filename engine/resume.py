"""Training that resumes exactly where it was interrupted.

A resumed run must see exactly the data that it would have seen. So nothing here depends on what was
drawn before: the random numbers of a sample follow from the run's seed, the epoch and the sample's
place in it, whichever process loads it, and those of a step from the run's seed, the process's rank
and the step. Batches that were already used are skipped without being loaded.
"""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS, DATASETS, LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from models import InputError

# Keeps the random numbers of the data apart from those of a step.
_DATA, _STEP = 0, 1


def seeded_dataloader_cfg(dataloader: Mapping, part: int) -> dict:
    """The config of a loader whose samples follow from the run's seed, for
    ``Runner.build_dataloader``.

    Args:
        dataloader: A loader's config; left as it is.
        part: A number that keeps this loader's seeds apart from another's.
    """
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
        for number, batch in itertools.islice(enumerate(self.batches), self.skip, None):
            yield [(index, derive_seed(*where, number, place)) for place, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batches)


@LOOPS.register_module()
class SeededIterLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, resumed with the random numbers it would have drawn.

    mmengine itself resumes at the right image, but with other crops, flips and dropped features
    than an uninterrupted run would have seen. Here the loader goes through the train set epoch
    after epoch, so ``sampler`` is ``DefaultSampler``, as in training by epochs.

    Args:
        runner, dataloader, max_iters, validation: As mmengine's.

    Raises:
        InputError: The train set does not fill one batch.
    """

    def __init__(self, runner: Runner, dataloader: dict, max_iters: int, **validation: object):
        super().__init__(runner, seeded_dataloader_cfg(dataloader, _DATA), max_iters, **validation)
        if len(self.dataloader) == 0:
            raise InputError(
                f"train_dataloader: {len(self.dataloader.dataset)} images do not fill one batch"
            )
        self.dataloader_iterator = _EndlessBatches(self.dataloader)

    def run(self) -> nn.Module:
        """Run what is left of the iterations, and return the model."""
        self.dataloader.batch_sampler.set_seed(self.runner.seed)  # a resumed run's is known now
        return super().run()

    def run_iter(self, data_batch: dict | tuple | list) -> None:
        """One step of the optimizer."""
        set_random_seed(derive_seed(self.runner.seed, _STEP, self.iter, get_rank()))
        super().run_iter(data_batch)


class _EndlessBatches:
    """The iterator from which ``IterBasedTrainLoop`` takes batches and skips used ones."""

    def __init__(self, loader: DataLoader):
        self.loader = loader
        self.skip_iter(0)

    def skip_iter(self, count: int) -> None:
        self.batches = endless_batches(self.loader, count)  # loads nothing yet

    def __next__(self) -> dict | tuple | list:
        return next(self.batches)
