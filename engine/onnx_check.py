"""Whether an exported file sees in an image what the model sees, and how long either takes."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import onnxruntime
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from models import InputError

from .deployed import Deployed, Detector, RawOutputs

SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 0.1  # pixels
SAME_PIXELS = 0.999  # of an image
REPEATS = 7

Arrays = Sequence[np.ndarray]
# outputs of the file, and of the model
Pair = tuple[Arrays, Arrays]


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """ONNX Runtime with a file's content, on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def predict(
    model: BaseModel, image: np.ndarray, sample: BaseDataElement, mode: str = "predict"
) -> object:
    """What mmdet or mmseg make of an image, as in a test but for the resizing.

    Args:
        image: H×W×3 (red, green, blue).
        sample: What the test pipeline says about an image; its sizes are set to this one's.
        mode: As of mmengine's models.
    """
    size = image.shape[:2]
    sample.set_metainfo(dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0)))
    pixels = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
    with torch.inference_mode():
        data = model.data_preprocessor(dict(inputs=[pixels], data_samples=[sample]), False)
        return model(**data, mode=mode)


def expected(
    model: BaseModel, module: Deployed, image: np.ndarray, sample: BaseDataElement
) -> Arrays:
    """The arrays that a file should give, by mmdet's or mmseg's own code."""
    if isinstance(module, RawOutputs):
        outputs = predict(model, image, sample, "tensor")
        flat = [outputs] if isinstance(outputs, Tensor) else sum(map(list, outputs), [])
        return [output.numpy() for output in flat]
    (found,) = predict(model, image, sample)
    if isinstance(module, Detector):
        boxes = found.pred_instances
        return [boxes.bboxes.numpy(), boxes.scores.numpy(), boxes.labels.numpy()]
    return [found.pred_sem_seg.data[0].numpy()]


def compare(module: Deployed, pairs: Sequence[Pair]) -> str:
    """Compare what a file and the model found in each of some images; in one line the figures.

    Raises:
        InputError: They are not the same; the message says what differed.
    """
    if isinstance(module, RawOutputs):
        return _compare_raw(pairs)
    if isinstance(module, Detector):
        settings = module.settings
        return compare_boxes(pairs, settings.get("score_thr", 0), settings.max_per_img)
    return compare_ids([(one, other) for (one,), (other,) in pairs])


def compare_ids(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """As :func:`compare`, of classes H×W."""
    shares = [(one == other).mean() if one.shape == other.shape else 0.0 for one, other in pairs]
    least = f"{100 * min(shares):.3f} % of the pixels"
    if min(shares) < SAME_PIXELS:
        raise InputError(
            f"ONNX Runtime and PyTorch give the same classes on only {least} of an image"
        )
    return f"The same classes on {least} or more of each of {len(pairs)} images"


def compare_boxes(pairs: Sequence[Pair], threshold: float, most: int) -> str:
    """As :func:`compare`, of boxes N×4, scores and labels.

    What is as good as the last box that is kept may be kept by one of the two only.

    Args:
        threshold: Above which a score must be to be kept.
        most: How many boxes are kept.
    """
    off = np.zeros(2)
    for number, (found, wanted) in enumerate(pairs, 1):
        full = [scores.min() for _, scores, _ in (found, wanted) if len(scores) == most]
        cut = max([threshold, *full])
        partners, off_here = _matched(found, wanted)
        off = np.maximum(off, off_here)
        lonely = [found[1][row] for row, partner in enumerate(partners) if partner is None]
        lonely += [score for row, score in enumerate(wanted[1]) if row not in partners]
        if above := [score for score in lonely if score > cut + SCORE_TOLERANCE]:
            raise InputError(
                f"in image {number} ONNX Runtime finds {len(found[1])} boxes, PyTorch "
                f"{len(wanted[1])}; {len(above)} have no counterpart, the best with a score of "
                f"{max(above):.3f}"
            )
    count = sum(len(scores) for _, (_, scores, _) in pairs)
    if not count:
        raise InputError(f"no box in {len(pairs)} images, so there is nothing to compare")
    return (
        f"The same {count} boxes and labels in {len(pairs)} images; largest difference of a "
        f"coordinate {off[0]:.1e} pixels, of a score {off[1]:.1e}"
    )


def _matched(found: Arrays, wanted: Arrays) -> tuple[list[int | None], np.ndarray]:
    """For each box the row of its counterpart, and the largest differences of the pairs.

    Those are of coordinates and of scores. Equally good boxes may be in another order.
    """
    boxes = np.abs(found[0][:, None] - wanted[0][None]).max(2, initial=0)
    scores = np.abs(found[1][:, None] - wanted[1][None])
    fits = (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
    fits &= found[2][:, None] == wanted[2][None]
    partners: list[int | None] = []
    off = np.zeros(2)
    for row in range(len(found[1])):
        free = [column for column in np.flatnonzero(fits[row]).tolist() if column not in partners]
        partners.append(min(free, key=boxes[row].__getitem__, default=None))
        if free:
            off = np.maximum(off, (boxes[row, partners[-1]], scores[row, partners[-1]]))
    return partners, off


def _compare_raw(pairs: Sequence[Pair]) -> str:
    off = [
        np.abs(one - other).max() / max(np.abs(other).max(), 1)
        for found, wanted in pairs
        for one, other in zip(found, wanted, strict=True)
    ]
    if not max(off) <= SCORE_TOLERANCE:  # of NaN too
        raise InputError(f"ONNX Runtime and PyTorch differ by {max(off):.1e} of the largest output")
    return f"The same outputs for {len(pairs)} images; largest difference {max(off):.1e}"


def median_ms(functions: Sequence[Callable[[], object]], repeats: int = REPEATS) -> list[float]:
    """The median time of a call of each function in ms; the calls alternate, after one of each."""
    times = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                taken.append(1000 * (time.perf_counter() - start))
    return [median(taken) for taken in times]
