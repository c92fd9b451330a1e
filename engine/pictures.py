"""Pictures of a network's predictions on the test images."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from .data import sources


@HOOKS.register_module()
class DrawPredictions(Hook):
    """Draws every test image twice, side by side: with its annotations, and with the prediction.

    Pictures are in the subfolders in which the images are in their data set's folder. (mmdet's own
    hook takes the file's name only, so that equal names overwrite each other; mmseg's cannot draw
    into a folder.)

    Args:
        draw: Whether to draw at all.
        test_out_dir: Folder of the pictures.
    """

    def __init__(self, draw: bool = False, test_out_dir: str = "pictures"):
        self.draw, self.folder = draw, Path(test_out_dir)
        self.image_folders: list[Path] = []

    def before_test(self, runner: Runner) -> None:
        prefixes = [
            getattr(source, "data_prefix", {}) for source in sources(runner.test_dataloader.dataset)
        ]
        # mmdet's name, and mmseg's
        folders = [prefix.get("img") or prefix.get("img_path") or "" for prefix in prefixes]
        self.image_folders = [Path(folder) for folder in folders]

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        if not self.draw:
            return
        for sample in outputs:
            name = picture_name(Path(sample.img_path), self.image_folders)
            image = mmcv.imfrombytes(get(sample.img_path), channel_order="rgb")
            out_file = str(self.folder / name)
            runner.visualizer.add_datasample(str(name), image, sample, out_file=out_file)


def picture_name(image: Path, folders: Sequence[Path]) -> Path:
    """An image's path inside the first of some folders that it is in, else its name alone.

    With .png appended where OpenCV cannot write the image's own format.
    """
    name = Path(image.name)
    for folder in folders:
        if image.is_relative_to(folder) and ".." not in image.relative_to(folder).parts:
            name = image.relative_to(folder)
            break
    return name if cv2.haveImageWriter(name.name) else name.with_name(f"{name.name}.png")
