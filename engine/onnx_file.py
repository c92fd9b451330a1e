"""What an exported file holds: the graph, what is known about it, and how a program runs it."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from mmengine.model import BaseModel
from torch.export import Dim
from torch.fx.experimental import _config

from models import InputError
from models.errors import printable

from .architecture import own_net_config
from .deployed import Deployed, Detector, RawOutputs

# the packages that made the file, as far as they are installed under these names
_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime")
_PACKAGES += ("onedl-mmengine", "onedl-mmdetection", "onedl-mmsegmentation")
_LEAST_SIDE = 32  # pixels, of images of any size
_ANY_SIZE = (224, 288)  # of the one that an export for any size is traced with


@dataclass(frozen=True)
class Sizing:
    """How an image is brought to the size that the network expects: as in the test pipeline.

    Args:
        scale: The test pipeline's (width, height), None where it resizes nothing.
        keep_ratio: Whether ``scale`` is what the long and the short side must fit into.
        size: (height, width) of the file's images, None for any.
        mean: The images' mean (blue, green, red), of which a border is made.
    """

    scale: tuple[int, int] | None
    keep_ratio: bool
    size: tuple[int, int] | None
    mean: tuple[int, ...]

    def lines(self, image: str) -> list[str]:
        """Three lines of Python: from the image's file to ``sized``, its pixels as OpenCV has them.

        ``size`` there is the (width, height) without the border.
        """
        ratio, border = None, ""
        if self.size and self.keep_ratio:
            height, width = self.size
            ratio = f"min({width} / image.shape[1], {height} / image.shape[0])"
            border = f"0, {height} - size[1], 0, {width} - size[0], cv2.BORDER_CONSTANT"
        elif self.keep_ratio:
            long, short = max(self.scale), min(self.scale)
            ratio = f"min({long} / max(image.shape[:2]), {short} / min(image.shape[:2]))"
        size = self.size[::-1] if self.size else self.scale or "image.shape[1::-1]"
        if ratio:
            size = f"[int(side * {ratio} + 0.5) for side in image.shape[1::-1]]"
        sized = "cv2.resize(image, size)"
        if border:
            sized = f"cv2.copyMakeBorder({sized}, {border}, value={self.mean})"
        return [f"image = cv2.imread({image!r})", f"size = {size}", f"sized = {sized}"]

    def apply(self, image: Path) -> np.ndarray:
        """What those lines make of an image: H×W×3 (red, green, blue), to be given to the file."""
        variables = {"cv2": cv2}
        # the very lines that are printed, so that they are what is checked
        exec("\n".join(self.lines(str(image))), variables)
        return np.ascontiguousarray(variables["sized"][..., ::-1])

    def about(self) -> dict[str, object]:
        """The same in words, for programs that are not written in Python."""
        about = dict(
            scale=self.scale and list(self.scale),
            keep_ratio=self.keep_ratio,
            interpolation="bilinear",
        )
        if self.size and self.keep_ratio:
            about["border"] = dict(where="right and bottom", red_green_blue=list(self.mean[::-1]))
        return about


def sizing_of(model: BaseModel, dynamic: bool) -> Sizing:
    """How the test pipeline of a model's config resizes, for a file of one size or of any.

    Raises:
        InputError: The one size is not known.
    """
    cfg = model.cfg
    steps = [step for step in cfg.test_dataloader.dataset.pipeline if step.type == "Resize"]
    scale = steps[0].get("scale") if steps else None
    scale = (scale, scale) if isinstance(scale, int) else scale and tuple(scale)
    keep_ratio = bool(scale and steps[0].get("keep_ratio"))
    size = None
    if not dynamic:
        size = cfg.get("input_size") if keep_ratio or not scale else scale[::-1]
        if not size:
            raise InputError(
                f"config {Path(cfg.filename).name}: has no input_size, (height, width) of the "
                "images; add it, or give --dynamic"
            )
    mean = getattr(model.data_preprocessor, "mean", torch.zeros(3)).flatten()
    if Deployed(model).takes_rgb:
        mean = mean.flip(0)
    return Sizing(scale, keep_ratio, size and tuple(size), tuple(mean.round().int().tolist()))


def program(file: Path, image: Path, sizing: Sizing, module: Deployed) -> list[str]:
    """Eight lines of Python that run an exported file on an image."""
    run = 'session.run(None, {"image": sized[..., ::-1]})'
    if isinstance(module, RawOutputs):
        last = [
            f"outputs = {run}",
            "print({output.name: array.shape for output, array in "
            "zip(session.get_outputs(), outputs)})",
        ]
    elif isinstance(module, Detector):
        last = [
            f"boxes, scores, labels = {run}",
            "for box, score, label in zip(boxes * np.tile(np.divide(image.shape[1::-1], size), 2), "
            'scores, labels): print(classes[label], f"{score:.2f}", box.round(1))',
        ]
    else:
        last = [
            f"ids = {run}[0][: size[1], : size[0]]",
            'print({name: f"{(ids == place).mean():.3f}" for place, name in enumerate(classes)})',
        ]
    return [
        "import cv2, json, numpy as np, onnxruntime",
        f"session = onnxruntime.InferenceSession({str(file)!r})",
        'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
        *sizing.lines(str(image)),
        *last,
    ]


def to_onnx(module: Deployed, size: tuple[int, int] | None) -> onnx.ModelProto:
    """The graph of a module for images of a (height, width), or of any where that is None.

    Raises:
        InputError: PyTorch cannot export it.
    """
    image = torch.zeros(*(size or _ANY_SIZE), 3, dtype=torch.uint8)
    sides = dict(enumerate((Dim("height", min=_LEAST_SIDE), Dim("width", min=_LEAST_SIDE))))
    try:
        # oblivious: a file for any size then also holds for images that leave a map one pixel
        with _quiet(), _config.patch(backed_size_oblivious=True), torch.inference_mode():
            program = torch.export.export(
                module, (image,), dynamic_shapes=None if size else (sides,)
            )
            graph = torch.onnx.export(
                program, input_names=["image"], output_names=list(module.outputs), verbose=False
            ).model_proto
    except Exception as error:  # torch has many kinds, and a custom op may raise any
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise InputError(f"PyTorch cannot export this network: {printable(reason, 300)}") from None
    _forget_source(graph.graph)
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what torch.onnx says of its own steps, and of operators that it lacks."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _forget_source(graph: onnx.GraphProto) -> None:
    """Take out of a graph which lines of which files of this machine its parts came from."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _forget_source(inner)


def describe(graph: onnx.ModelProto, model: BaseModel, module: Deployed, sizing: Sizing) -> None:
    """Write into a file what its user must know, as ``metadata_props``: texts, most in JSON."""
    about = dict(
        task="segmentation" if hasattr(model, "decode_head") else "detection",
        outputs=list(module.outputs),
        classes=list(model.dataset_meta["classes"]),
        input=dict(
            layout=["height", "width", 3],
            type="uint8",
            channels=["red", "green", "blue"],
            mean_and_std="inside",
        ),
        input_size=sizing.size and list(sizing.size),
        resize=sizing.about(),
        net_config=str(own_net_config(model)),
        config=Path(model.cfg.filename).name,
        versions=dict(_versions()),
    )
    about = {
        key: text if isinstance(text, str) else json.dumps(text) for key, text in about.items()
    }
    onnx.helper.set_model_props(graph, about)
    return about


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)
