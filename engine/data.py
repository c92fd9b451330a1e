"""What a run's data are: logged at its start, and checked as a whole by engine/check_data.py.

A data set that can tell about itself has these methods, as fna_det's and fna_seg's have:

- ``summary()``: one line;
- ``warnings()``: lines about what was mended or left out;
- ``inspect(results)``, static: what is wrong with a sample that was loaded, or None, and what
  ``details`` needs of it;
- ``details(samples, inspected, model)``: lines about all samples, which were listed and loaded.
"""

from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import Dataset


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


def sources(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets inside of all wrappers which can tell about themselves."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from sources(inner)
    elif hasattr(dataset, "dataset"):
        yield from sources(dataset.dataset)
    elif hasattr(dataset, "summary"):
        yield dataset
