"""One picture of what a network makes of a few test images: ground truth above predictions."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image, ImageDraw, ImageFont

from models.files import write_whole

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

_COLUMNS, _WIDTH, _GAP = 3, 640, 8  # images in a row; pixels of one, and between two
_FONT, _LINE = ImageFont.load_default(size=22), 34  # the height of a line of text
_LEAST_SCORE = 0.4
_BOX_COLOURS = [tuple(round(255 * c) for c in rgb) for rgb in matplotlib.colormaps["tab10"].colors]


class ContactSheet(Hook):
    """Draws a few of the test images into one file: rows of ground truth, predictions below.

    An entry point's ``main`` takes it in ``hooks``. Boxes are drawn where the score is above 0.4; a
    segmentor's classes are blended into the image, and a legend names them.

    Args:
        path: The file to write, a PNG.
        images: How many, evenly spaced over the test set.
    """

    def __init__(self, path: Path, images: int = 6):
        self.path, self.images = path, images

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        self.classes, self.palette = (dataset.metainfo.get(k) for k in ("classes", "palette"))
        count = min(self.images, len(dataset))
        self.chosen = {index * len(dataset) // count for index in range(count)}
        self.seen = 0
        self.pairs: list[tuple[Image.Image, Image.Image]] = []
        self.captions, self.legend = ("ground truth", f"predicted, score > {_LEAST_SCORE}"), {}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence[BaseDataElement] = (),
    ) -> None:
        for number, sample in enumerate(outputs, self.seen):
            if number in self.chosen:
                image = Image.fromarray(mmcv.imread(sample.img_path, channel_order="rgb"))
                draw = self._draw_classes if "pred_sem_seg" in sample else self._draw_boxes
                self.pairs.append(draw(image, sample))
        self.seen += len(outputs)

    def after_test(self, runner: Runner) -> None:
        png = BytesIO()
        arrange(self.pairs, self.captions, self.legend).save(png, "png")
        write_whole(self.path, png.getvalue())

    def _draw_classes(
        self, image: Image.Image, sample: BaseDataElement
    ) -> tuple[Image.Image, Image.Image]:
        colours = [tuple(colour) for colour in self.palette]
        self.captions = "ground truth", "predicted"
        self.legend = dict(zip(self.classes, colours, strict=True))
        truth, predicted = (
            blend_classes(image, maps.data[0].cpu().numpy(), colours)
            for maps in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        return truth, predicted

    def _draw_boxes(
        self, image: Image.Image, sample: BaseDataElement
    ) -> tuple[Image.Image, Image.Image]:
        predicted = sample.pred_instances.cpu()
        predicted = predicted[predicted.scores > _LEAST_SCORE]
        return (
            draw_boxes(image, sample.gt_instances.cpu(), self.classes),
            draw_boxes(image, predicted, self.classes),
        )


def enlarge(image: Image.Image) -> Image.Image:
    """The image in the width that it has on a sheet."""
    return image.resize((_WIDTH, round(_WIDTH * image.height / image.width)), Image.BICUBIC)


def blend_classes(
    image: Image.Image, classes: np.ndarray, colours: Sequence[Colour]
) -> Image.Image:
    """An image under the colours of its pixels' classes, H×W; black is no class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return enlarge(Image.blend(image, Image.fromarray(palette[classes]), 0.65))


def draw_boxes(image: Image.Image, instances: InstanceData, classes: Sequence[str]) -> Image.Image:
    """An image with boxes (N×4: left, top, right, bottom in its pixels), labels, and scores.

    A label for which there is no room is left out: the colour says the class, too.
    """
    scale = _WIDTH / image.width
    image = enlarge(image)
    draw = ImageDraw.Draw(image)
    boxes = (getattr(instances.bboxes, "tensor", instances.bboxes) * scale).tolist()
    labels = instances.labels.tolist()
    colours = [_BOX_COLOURS[label % len(_BOX_COLOURS)] for label in labels]
    texts = [classes[label] for label in labels]
    if "scores" in instances:
        texts = [f"{t} {score:.2f}" for t, score in zip(texts, instances.scores, strict=True)]
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(box, outline=colour, width=3)
    taken: list[Box] = []
    for box, colour, text in zip(boxes, colours, texts, strict=True):
        size = draw.textlength(text, _FONT) + 6, _FONT.size + 6
        if place := _place(size, box, image.size, taken):
            taken.append(place)
            draw.rectangle(place, fill=colour)
            draw.text((place[0] + 3, place[1]), text, "white", _FONT)
    return image


def _place(
    size: tuple[float, float], box: Sequence[float], image: tuple[int, int], taken: list[Box]
) -> Box | None:
    """Where to write a box's label: at one of its edges, where no other label is."""
    (width, height), (left, top, _, bottom) = size, box
    left = max(0, min(left, image[0] - width))
    edges = (top - height, bottom, top, bottom - height)
    inside = [edge for edge in edges if 0 <= edge <= image[1] - height]
    places = ((left, edge, left + width, edge + height) for edge in inside)
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    return next(free, None)


def _overlap(one: Box, other: Box) -> bool:
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def arrange(
    pairs: Sequence[tuple[Image.Image, Image.Image]],
    captions: tuple[str, str],
    legend: Mapping[str, Colour],
) -> Image.Image:
    """The sheet: a row of the first of each pair, a row of the second, and so on; then a legend."""
    rows = [
        (caption, images)
        for first in range(0, len(pairs), _COLUMNS)
        for caption, images in zip(
            captions, zip(*pairs[first : first + _COLUMNS], strict=True), strict=True
        )
    ]
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    heights = [max(image.height for image in images) + _LINE for _, images in rows]
    per_line = 6
    height = sum(heights) + _LINE * -(-len(legend) // per_line) + 2 * _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (caption, images), room in zip(rows, heights, strict=True):
        draw.text((_GAP, top + _GAP), caption, "black", _FONT)
        for column, image in enumerate(images):
            sheet.paste(image, (_GAP + column * (_WIDTH + _GAP), top + _LINE))
        top += room
    for index, (name, colour) in enumerate(legend.items()):
        left = _GAP + index % per_line * (width // per_line)
        line = top + _GAP + index // per_line * _LINE
        draw.rectangle((left, line, left + 40, line + _LINE - 8), fill=colour, outline="black")
        draw.text((left + 48, line), name, "black", _FONT)
    return sheet
