"""Whether the parts of a detection config fit each other."""

from collections.abc import Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from engine.distributed import unwrapped
from models import InputError


@HOOKS.register_module()
class CheckModel(Hook):
    """Refuses a model whose parts do not fit each other or the data set, before it runs.

    Of a head with too few classes mmdet would take the first that it lacks for background, without
    a word.

    Raises:
        InputError: The neck expects other channels than the backbone gives, or the head another
            number of classes than the data set has.
    """

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader.dataset.metainfo["classes"])

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader.dataset.metainfo["classes"])

    def _check(self, runner: Runner, classes: Sequence[str]) -> None:
        model = unwrapped(runner.model)
        given, expected = list(model.backbone.out_channels), list(runner.cfg.model.neck.in_channels)
        if given != expected:
            raise InputError(
                f"model.neck.in_channels is {expected}, but the backbone gives {given} channels"
            )
        if model.bbox_head.num_classes != len(classes):
            raise InputError(
                f"model.bbox_head.num_classes is {model.bbox_head.num_classes}, but the data set "
                f"has {len(classes)} classes: {', '.join(classes)}"
            )
