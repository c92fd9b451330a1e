"""Boxes in Pascal VOC's XML files."""

import xml.sax
from pathlib import Path

from models import InputError

from .boxes import Box, Boxes
from .fields import annotation_files, class_name, one_line, root_of, to_number
from .source import Findings, Images


def read_voc(source: Path, images: Images, findings: Findings, first_pixel: int = 1) -> Boxes:
    """The XML files of a folder, one per image.

    Args:
        first_pixel: 1: as in Pascal VOC itself, a box has the pixels from xmin to xmax, and the
            first pixel is 1. 0: xmin and xmax are a box's edges, and the image's left edge is 0.
    """
    boxes = Boxes()
    for file in annotation_files(source, ".xml"):
        handler = _VOCHandler()
        try:
            xml.sax.parse(str(file), handler)
            path = images.find(handler.texts.get("filename", ""), file, root_of(source))
            if path in boxes.of:
                raise InputError(f"image {path} has another annotation file, too")
            size = handler.texts.get("size/width"), handler.texts.get("size/height")
            images.check_size(path, [to_number(side) if side else None for side in size])
        except (xml.sax.SAXException, ValueError, OSError) as error:
            findings.mistakes.append(f"{file}: {one_line(error)}")
            continue
        boxes.of[path] = []
        for line, item in handler.objects:
            where = f"{file}:{line}"
            try:
                x1, y1, x2, y2 = (
                    to_number(item.get(f"bndbox/{edge}"), edge)
                    for edge in ("xmin", "ymin", "xmax", "ymax")
                )
                name = class_name(item.get("name"))
            except InputError as error:
                findings.mistakes.append(f"{where}: {error}")
                continue
            # a box of one corner twice has no area, although it has a pixel
            more = first_pixel if x2 > x1 and y2 > y1 else 0
            edges = (x1 - first_pixel, y1 - first_pixel, x2 - first_pixel, y2 - first_pixel)
            edges = (*edges[:2], edges[2] + more, edges[3] + more)
            boxes.of[path].append(Box(name, edges, where))
    return boxes


class _VOCHandler(xml.sax.ContentHandler):
    """The texts of an annotation file by their path, and its objects, each with its line."""

    def __init__(self):
        super().__init__()
        self.texts: dict[str, str] = {}
        self.objects: list[tuple[int, dict[str, str]]] = []
        self._path: list[str] = []
        self._text = ""
        self._lines = None

    def setDocumentLocator(self, locator):
        self._lines = locator

    def startElement(self, name, attributes):
        self._path.append(name)
        self._text = ""
        if self._path[1:] == ["object"]:
            self.objects.append((self._lines.getLineNumber(), {}))

    def characters(self, content):
        self._text += content

    def endElement(self, name):
        inside = self._path[1:]
        if inside[:1] == ["object"] and self.objects:
            self.objects[-1][1]["/".join(inside[1:])] = self._text.strip()
        else:
            self.texts["/".join(inside)] = self._text.strip()
        self._path.pop()
        self._text = ""
