import json
import math

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from fna_seg import ClassIoUMetric

CLASSES = ("road", "car", "sky", "train")


def evaluate(pairs, classes=CLASSES):
    """Metrics of pairs of a label and a prediction, each H×W."""
    metric = ClassIoUMetric()
    metric.dataset_meta = dict(classes=classes)
    for label, prediction in pairs:
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.as_tensor(np.array(label))[None]),
            pred_sem_seg=PixelData(data=torch.as_tensor(np.array(prediction))[None]),
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(pairs))


def test_a_hand_counted_example():
    """Two images. Without the pixels of 255:

    road: labelled 3 + 2, predicted 2 + 2, both 2 + 1: 3 / 6
    car: labelled 2 + 1, predicted 2 + 2, both 1 + 1: 2 / 5
    sky: labelled 0 + 1, predicted 1 + 0, both 0: 0 / 2
    train: neither
    """
    pairs = [
        ([[0, 0, 0], [1, 1, 255]], [[0, 0, 1], [1, 2, 0]]),
        ([[0, 0, 1], [2, 255, 255]], [[0, 1, 1], [0, 3, 2]]),
    ]
    metrics = evaluate(pairs)
    assert metrics["IoU.road"] == 50 and metrics["IoU.car"] == 40 and metrics["IoU.sky"] == 0
    assert metrics["mIoU"] == 30 and "IoU.train" not in metrics
    assert metrics["aAcc"] == pytest.approx(100 * 5 / 9, abs=0.005)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_against_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 255], (5, 6, 7))
    predictions = rng.integers(0, 4, (5, 6, 7))
    metrics = evaluate(list(zip(labels, predictions, strict=True)))
    ious = []
    for id, name in enumerate(CLASSES):
        both = either = 0
        for label, prediction in zip(labels.flat, predictions.flat, strict=True):
            if label != 255:
                both += label == prediction == id
                either += label == id or prediction == id
        ious.append(100 * both / either)
        assert metrics[f"IoU.{name}"] == pytest.approx(ious[-1], abs=0.005)
    assert ious[3] == 0  # predicted, never labelled: it counts
    assert metrics["mIoU"] == pytest.approx(sum(ious) / 4, abs=0.005)


def test_a_formatting_run_has_no_metrics(tmp_path):
    metric = ClassIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=CLASSES)
    prediction = dict(data=torch.zeros(1, 2, 3, dtype=torch.uint8))
    metric.process({}, [dict(img_path="a.jpg", pred_sem_seg=prediction)])
    assert metric.evaluate(1) == {}
    assert (tmp_path / "a.png").is_file()


def test_absent_classes_are_named(monkeypatch):
    said = []
    monkeypatch.setattr("mmengine.logging.MMLogger.info", lambda _, text: said.append(text))
    metrics = evaluate([([[0, 0]], [[0, 1]])])
    assert metrics["mIoU"] == 25 and not any(math.isnan(value) for value in metrics.values())
    assert said[-1] == "mIoU leaves out what is neither labelled nor predicted: sky, train"


def test_counts_beyond_float32():
    """Many images of 2**20 pixels; in float32, from 2**24 on, single pixels would be lost."""
    metric = ClassIoUMetric()
    metric.dataset_meta = dict(classes=("a", "b"))
    one, many = torch.tensor([1.0, 1.0]), torch.tensor([2.0**24, 0.0])
    results = [(many, many, many, many)] + [(one, one, one, one)] * 2**12
    miss = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(2), one
    metrics = metric.compute_metrics(results + [miss] * 2**12)
    assert metrics["IoU.b"] == 50
    assert metrics["aAcc"] == pytest.approx(100 * (2**24 + 2**13) / (2**24 + 2**14), abs=0.005)
