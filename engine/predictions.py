"""What ``--out`` writes of a test: the predictions for each image."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log

from models.files import write_whole


class DumpPredictions(DumpResults):
    """Writes what was predicted for each image, and the image's metainfo, to a pickle file.

    The samples also hold labels and, in mmseg, every class's score at every pixel: 160 MB per image
    of Cityscapes, which ``DumpResults`` would keep in memory for all images. A map of classes is
    kept in bytes where its numbers fit, an eighth of its size.
    """

    default_prefix = ""  # none; without this line mmengine warns of none

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep ``pred_*`` of each sample and its metainfo, which is everything that is no dict."""
        kept = [
            {
                key: _small(value) if key == "pred_sem_seg" else value
                for key, value in sample.items()
                if key.startswith("pred_") or not isinstance(value, dict)
            }
            for sample in predictions
        ]
        super().process(data_batch, kept)

    def compute_metrics(self, results: list) -> dict:
        """Write the file, whole or not at all; there are no metrics."""
        path = Path(self.out_file_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, pickle.dumps(results))
        print_log(f"Predictions are in {path}", logger="current")
        return {}


def _small(prediction: dict) -> dict:
    classes = prediction["data"]
    fits = classes.max() <= torch.iinfo(torch.uint8).max
    return {**prediction, "data": classes.to(torch.uint8) if fits else classes}
