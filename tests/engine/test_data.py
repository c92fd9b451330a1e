"""What a run says about its data, and which batches it refuses."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import ConcatDataset
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from engine import CheckBatches, ReportData, SeededDataset
from engine.data import sources
from models import InputError
from tests.search.tools import RandomImages


class Told(RandomImages):
    def summary(self):
        return f"{len(self)} images"

    def warnings(self):
        return ["one is blurred"]


class Logger:
    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)

    def warning(self, line):
        self.lines.append(f"warning: {line}")


def loader(images, batch_size, drop_last):
    dataset = list(range(images))
    sampler = BatchSampler(SequentialSampler(dataset), batch_size, drop_last)
    return DataLoader(dataset, batch_sampler=sampler)


def before_first_step(images, batch_size, drop_last, pixels):
    """The hook, and a forward pass of a network whose last map has so many pixels a side."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(pixels), nn.BatchNorm2d(3))
    runner = SimpleNamespace(train_dataloader=loader(images, batch_size, drop_last), model=model)
    hook = CheckBatches()
    hook.before_train(runner)
    model(torch.rand(max(2, batch_size), 3, 8, 8))
    hook.after_train_iter(runner, 0)
    assert not model[1]._forward_pre_hooks


@pytest.mark.parametrize(
    "images, batch_size, drop_last, pixels",
    [(8, 2, False, 1), (9, 2, True, 1), (9, 2, False, 2), (9, 1, True, 4)],
)
def test_batches_that_bn_can_take(images, batch_size, drop_last, pixels):
    before_first_step(images, batch_size, drop_last, pixels)


@pytest.mark.parametrize("images, batch_size, drop_last", [(9, 2, False), (9, 1, True)])
def test_single_images_where_a_map_has_one_pixel(images, batch_size, drop_last):
    with pytest.raises(InputError, match="batch_size of 2 or more and drop_last=True"):
        before_first_step(images, batch_size, drop_last, pixels=1)


def test_an_epoch_without_a_batch():
    with pytest.raises(InputError, match="9 images do not fill one batch of 16"):
        before_first_step(9, 16, True, pixels=4)


def test_data_are_told_once_through_all_wrappers():
    two = [Told(3), Told(2)]
    wrapped = SimpleNamespace(dataset=ConcatDataset(two))  # as RepeatDataset wraps
    assert list(sources(wrapped)) == two
    seeded = SeededDataset(dict(type="RandomImages", length=1))
    seeded.dataset = wrapped
    assert list(sources(seeded)) == two
    assert list(sources(RandomImages(2))) == []
    logger = Logger()
    runner = SimpleNamespace(
        logger=logger, val_loop=None, train_dataloader=SimpleNamespace(dataset=wrapped)
    )
    ReportData().before_train(runner)
    assert logger.lines == [
        "Data, train: 3 images",
        "warning: one is blurred",
        "Data, train: 2 images",
        "warning: one is blurred",
    ]
