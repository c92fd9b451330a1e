"""Training counted in iterations, that goes on exactly where it was interrupted."""

from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from models import InputError

from .seeded_data import derive_seed, endless_batches, seeded_dataloader_cfg, set_random_states

# What tells the random numbers of the data from those of a step.
_DATA, _STEP = 0, 1


@LOOPS.register_module()
class SeededIterLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, every random number of which follows from the run's seed,
    the process's rank and the iteration.

    mmengine itself resumes at the right image, but with other crops, flips and dropped features
    than an uninterrupted run would have seen. Here the loader goes through the train set epoch
    after epoch, so ``sampler`` is ``DefaultSampler``, as in training by epochs.

    Args:
        runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals: As mmengine's.

    Raises:
        InputError: The train set does not fill one batch.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ):
        cfg = seeded_dataloader_cfg(dataloader, _DATA)
        super().__init__(runner, cfg, max_iters, val_begin, val_interval, dynamic_intervals)
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
        set_random_states(derive_seed(self.runner.seed, _STEP, self._iter, get_rank()))
        super().run_iter(data_batch)


class _EndlessBatches:
    """What ``IterBasedTrainLoop`` takes its batches from, and passes over the used ones of."""

    def __init__(self, loader: DataLoader):
        self.loader = loader
        self.skip_iter(0)

    def skip_iter(self, count: int) -> None:
        self.batches = endless_batches(self.loader, count)  # loads nothing yet

    def __next__(self) -> dict | tuple | list:
        return next(self.batches)
