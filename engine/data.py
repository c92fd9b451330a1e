"""What a run's data are: logged at its start, and checked as a whole by engine/check_data.py.

A data set that can tell about itself has these methods, as fna_det's and fna_seg's have:

- ``summary()``: one line;
- ``warnings()``: lines about what was mended or left out;
- ``inspect(results)``, static: what is wrong with a sample that was loaded, or None, and what
  ``details`` needs of it;
- ``details(samples, inspected, model)``: lines about all samples, which were listed and loaded.
"""

from collections.abc import Iterator

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from models import InputError


@HOOKS.register_module()
class ReportData(Hook):
    """Logs at the start what each split holds, and what is left out of it and why."""

    priority = "VERY_HIGH"  # before anything is evaluated

    def before_train(self, runner: Runner) -> None:
        self._report(runner, "train", runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self._report(runner, "val", runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        self._report(runner, "test", runner.test_dataloader.dataset)

    def _report(self, runner: Runner, split: str, dataset: Dataset) -> None:
        for source in sources(dataset):
            runner.logger.info(f"Data, {split}: {source.summary()}")
            for warning in source.warnings():
                runner.logger.warning(warning)


@HOOKS.register_module()
class CheckBatches(Hook):
    """Refuses a train set that fills no batch, and single images where BN cannot take them.

    Where a map has one pixel, as in SSDLite and in DeepLabv3's image pooling, BN finds one value
    per channel in a batch of one image. Some batch of an epoch may be such: the first step shows
    whether the network has such a map.

    Raises:
        InputError: An epoch has no batch, or one of a single image is not enough for BN.
    """

    def before_train(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        refuse_empty(loader, "train_dataloader")
        self.probes = []
        if _may_be_single(loader):
            self.probes = [
                module.register_forward_pre_hook(_refuse_one_pixel)
                for module in runner.model.modules()
                if isinstance(module, nn.modules.batchnorm._BatchNorm)
                and not (isinstance(module, nn.SyncBatchNorm) and get_world_size() > 1)
            ]

    def after_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        while self.probes:
            self.probes.pop().remove()


def refuse_empty(loader: DataLoader, name: str) -> None:
    """Raise InputError where an epoch of a loader has no batch."""
    if len(loader) == 0:
        raise InputError(no_batch(name, len(loader.dataset), loader.batch_sampler.batch_size))


def no_batch(name: str, images: int, batch_size: int) -> str:
    """What to say of a loader that leaves out its only batch, which is not full."""
    return (
        f"{name}: {images} images do not fill one batch of {batch_size} in each process "
        f"(drop_last=True leaves it out); expected more images or a smaller batch_size"
    )


def _may_be_single(loader: DataLoader) -> bool:
    """Whether some batch of an epoch may hold one image."""
    batches = loader.batch_sampler
    return batches.batch_size == 1 or (
        not batches.drop_last and len(batches.sampler) % batches.batch_size == 1
    )


def _refuse_one_pixel(module: nn.Module, inputs: tuple[Tensor]) -> None:
    if module.training and inputs[0].shape[2:].numel() == 1:
        raise InputError(
            "train_dataloader: a batch would hold a single image, and this network's BN needs two, "
            "because it has a map of one pixel; expected batch_size of 2 or more and drop_last=True"
        )


def sources(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets inside of all wrappers which can tell about themselves."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from sources(inner)
    elif hasattr(dataset, "dataset"):
        yield from sources(dataset.dataset)
    elif hasattr(dataset, "summary"):
        yield dataset
