"""Pictures of a network's predictions on the test images."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample


@HOOKS.register_module()
class SegmentationPictures(Hook):
    """Draws every test image twice, side by side: under its labels, and under the prediction.

    mmseg's own hook cannot draw into a folder.

    Args:
        draw: Whether to draw at all.
        test_out_dir: Folder of the pictures.
    """

    def __init__(self, draw: bool = False, test_out_dir: str = "pictures"):
        self.draw, self.folder = draw, Path(test_out_dir)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        if not self.draw:
            return
        for sample in outputs:
            name = Path(sample.img_path).name
            image = mmcv.imfrombytes(get(sample.img_path), channel_order="rgb")
            out_file = str(self.folder / name)
            runner.visualizer.add_datasample(name, image, sample, out_file=out_file)
