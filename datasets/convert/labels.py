"""Labels: PNGs of colours or of other ids into PNGs of class ids."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from models import InputError

from .source import Findings, Images

IGNORED_ID = 255


@dataclass(frozen=True)
class Table:
    """The classes of colour labels, in the order of their ids, and each colour's id."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: dict[tuple[int, int, int], int]


def read_table(file: Path, ignored: Sequence[str] = ()) -> Table:
    """A table of colours: lines ``R G B NAME``, or ``NAME:R,G,B::`` as CVAT writes them.

    Colours of one name are one class. What follows # is a comment.

    Args:
        ignored: Names that are no class: 255.

    Raises:
        InputError: A line is neither of these, or has another's colour, or an ignored name is not
            there.
    """
    ids: dict[tuple[int, int, int], int] = {}
    classes: dict[str, tuple[int, int, int]] = {}
    names = set()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"table of colours {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        try:
            if ":" in line:
                name, numbers = line.split(":")[:2]
                colour = tuple(int(value) for value in numbers.split(","))
            else:
                *numbers, name = line.split(maxsplit=3)
                colour = tuple(int(value) for value in numbers)
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError
        except ValueError:
            raise InputError(f"{file}:{number}: {line!r}, expected R G B NAME") from None
        name = name.strip()
        if colour in ids:
            raise InputError(f"{file}:{number}: the colour {colour} is there twice")
        names.add(name)
        if name not in ignored:
            classes.setdefault(name, colour)
        ids[colour] = IGNORED_ID if name in ignored else list(classes).index(name)
    if unknown := [name for name in ignored if name not in names]:
        raise InputError(f"--ignore {unknown[0]}: {file} has no such name")
    if not classes or len(classes) > IGNORED_ID:
        raise InputError(f"{file}: has {len(classes)} classes, expected 1 to {IGNORED_ID}")
    return Table(tuple(classes), tuple(classes.values()), ids)


def ids_of_colours(label: Image.Image, table: Table) -> np.ndarray:
    """Each colour of a table becomes the id of its class, from 0.

    Returns (height, width) ids of a label.

    Raises:
        InputError: It has a colour that is not in the table.
    """
    pixels = np.asarray(label.convert("RGB")).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    found, places = np.unique(codes, return_inverse=True)
    colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found]
    unknown = [place for place, colour in enumerate(colours) if colour not in table.ids]
    if unknown:
        y, x = np.argwhere(codes == found[unknown[0]])[0]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"has the colour {colours[unknown[0]]} (at x {x}, y {y}){more}, which the table lacks"
        )
    ids = np.array([table.ids[colour] for colour in colours], np.uint8)
    return ids[places].reshape(codes.shape)


def ids_of_ids(label: Image.Image, renumbered: dict[int, int]) -> np.ndarray:
    """Ids, such as 11 for none, get other numbers, or stay.

    Returns (height, width) ids of a label.

    Raises:
        InputError: It has no ids of one byte, or one that is neither renumbered nor below 256.
    """
    if label.mode not in ("L", "P", "1", "I;16", "I"):
        raise InputError(f"has pixels of kind {label.mode} (as Pillow names them), expected ids")
    ids = np.asarray(label).astype(np.int64)
    result = ids.copy()
    for old, new in renumbered.items():
        result[ids == old] = new
    if result.min() < 0 or result.max() > IGNORED_ID:
        wrong = min(result.min(), 0) or result.max()
        raise InputError(f"has the id {wrong}, expected 0 to {IGNORED_ID}; --map it")
    return result.astype(np.uint8)


def label_files(images: Images, folder: Path, pattern: str) -> dict[str, Path]:
    """The label of each image that has one.

    Args:
        pattern: Its path inside ``folder``, of the image's ``{folder}`` and ``{stem}``.
    """
    found = {}
    for path in images.paths:
        place = PurePosixPath(path)
        try:
            name = pattern.format(folder=place.parent.as_posix(), stem=place.stem)
        except (AttributeError, KeyError, IndexError, ValueError):
            raise InputError(f"--label {pattern}: expected {{folder}} and {{stem}} in it") from None
        file = folder / name
        if file.is_file() and file.resolve() != (images.folder / path).resolve():
            found[path] = file
    if not found:
        example = PurePosixPath(images.paths[0])
        name = pattern.format(folder=example.parent.as_posix(), stem=example.stem)
        raise InputError(
            f"{images.folder}: no image has a label; that of {example} would be {folder / name}; "
            "--label says how labels are called"
        )
    return found


def reader_of(
    file: Path, path: str, images: Images, convert: Callable[[Image.Image], np.ndarray]
) -> Callable[[], np.ndarray]:
    """A function that gives the (height, width) ids of a label, or raises InputError."""

    def read() -> np.ndarray:
        try:
            with Image.open(file) as label:
                ids = convert(label)
            images.check_size(path, ids.shape[::-1])
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
        return ids

    return read


def write_labels(
    makers: dict[str, Callable[[], np.ndarray]], target: Path, findings: Findings
) -> None:
    """Write the label of each image, at the image's path in a folder, as a PNG of ids."""

    def write(path: str) -> str | None:
        place = (target / path).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            Image.fromarray(makers[path]()).save(place)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings.mistakes += [mistake for mistake in pool.map(write, makers) if mistake]
