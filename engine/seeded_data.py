"""Loaders that give a train set, or two halves of it, from any place of a run.

A run that is resumed must see the data that it would have seen, to the bit. So nothing here depends
on what was drawn before: what is random in a sample follows from the run's seed, the epoch and the
sample's place in it, whichever process loads it; batches already used are passed over unloaded.
"""

import copy
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from datasets.split import split_dataset_cfg

PARTS = ("weights", "arch")


def half_dataloader_cfg(
    dataloader: Mapping,
    part: str,
    split: Mapping,
    pipeline: Sequence[dict] | None = None,
    batch_size: int | None = None,
) -> dict:
    """The config of one half's loader, for ``Runner.build_dataloader``.

    Args:
        dataloader: A config's ``train_dataloader``; left as it is.
        part: ``'weights'`` or ``'arch'``.
        split: ``ratio``, α's share of the images, and ``seed``.
        pipeline, batch_size: In place of the config's own.

    Raises:
        ValueError: The split is impossible.
    """
    cfg = copy.deepcopy(dict(dataloader))
    if cfg.get("drop_last") and cfg.get("batch_sampler"):
        # such samplers drop more batches than they count, and a resumed run needs the count
        raise ValueError("train_dataloader: drop_last does not go with a batch_sampler in a search")
    cfg["dataset"] = split_dataset_cfg(cfg["dataset"], part=part, pipeline=pipeline, **split)
    cfg["batch_size"] = batch_size or cfg["batch_size"]
    return seeded_dataloader_cfg(cfg, PARTS.index(part))


def seeded_dataloader_cfg(dataloader: Mapping, part: int) -> dict:
    """The config of a loader whose samples follow from the run's seed, for
    ``Runner.build_dataloader``.

    Args:
        dataloader: A loader's config; left as it is.
        part: A number that tells this loader's seeds from another's.
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
    """The batches of a half from number ``start`` on, epoch after epoch, each in a new order."""
    epoch, skip = divmod(start, len(loader))
    while True:
        loader.batch_sampler.start(epoch, skip)
        yield from loader
        epoch, skip = epoch + 1, 0


def derive_seed(*numbers: int) -> int:
    """A seed below 2**32 from non-negative numbers, such as a run's seed and a step's number."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def set_random_states(seed: int) -> None:
    """Seed Python, numpy and torch (CUDA too) in this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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
        set_random_states(seed)
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
        part: A number that tells this loader's seeds from another's.
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
        """The run's seed: it decides the order and what is random in the samples."""
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
