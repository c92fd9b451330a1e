"""What annotation files of all forms hold: where they are, names, numbers, outlines."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from models import InputError

from .source import files_in


def annotation_files(source: Path, suffix: str) -> list[Path]:
    """A file, or those of a folder. Raises InputError if it holds none."""
    if source.is_file():
        return [source]
    files = files_in(source, suffix)
    if not files:
        raise InputError(f"{source}: holds no file NAME{suffix}")
    return files


def root_of(source: Path) -> Path:
    """The folder of all annotations, of a file of them or of itself."""
    return source.parent if source.is_file() else source


def read_json(file: Path) -> object:
    """The content of a JSON file. Raises InputError if it is none."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"no JSON file: {one_line(error)}") from None


def class_name(text: object) -> str:
    """A name without space around it. Raises InputError if nothing is left."""
    name = str(text or "").strip()
    if not name:
        raise InputError("has no class name")
    return name


def to_number(text: object, what: str = "number") -> float:
    """A finite number. Raises InputError, which says ``what`` it should be, if it is none."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"has the {what} {text!r}, expected a number")
    return number


def box_around(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    """The edges (x1, y1, x2, y2) of the smallest box with points (x, y) in it."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def one_line(error: Exception) -> str:
    """What an error says; of those that are not ours, its kind, too."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
