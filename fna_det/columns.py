"""Columns of a COCO file's lists, checked, and what messages call their entries and values."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.errors import shown


@dataclass
class Notes:
    """What checks found: errors forbid that a file is used, warnings say what was mended."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def whole_numbers(
    items: list[dict], key: str, name: Callable[[dict], str], errors: list[str]
) -> np.ndarray | None:
    """A column of ids; None, and an error, where one is no whole number."""
    values = [item.get(key) for item in items]
    if set(map(type, values)) - {int}:
        wrong = []
        for item, value in zip(items, values, strict=True):
            if type(value) is float and value.is_integer():
                item[key] = int(value)
            elif type(value) is not int:
                wrong.append((item, value))
        if wrong:
            item, value = wrong[0]
            given = f"has no {key}" if value is None else f"has {key} {what_it_is(value)}"
            errors.append(f"{name(item)} {given}, expected a number{more(wrong)}")
            return None
        values = [item[key] for item in items]
    try:
        return np.array(values, np.int64)
    except OverflowError:
        errors.append(f"an {key} has more than 18 digits")
        return None


def all_texts(items: list[dict], key: str, name: Callable[[dict], str], errors: list[str]) -> bool:
    """Whether all have a text there; if not, an error says so."""
    for item in items:
        if not isinstance(item.get(key), str) or not item[key]:
            given = what_it_is(item[key]) if key in item else "missing"
            errors.append(f"{name(item)}: {key} is {given}, expected a text")
            return False
    return True


def annotation_name(item: dict) -> str:
    """What messages call an annotation."""
    return f"annotation {shown(item.get('id'))}" if "id" in item else "an annotation without id"


def image_name(item: dict) -> str:
    """What messages call an image."""
    return f"image {shown(item.get('file_name', item.get('id')))}"


def entry_name(what: str) -> Callable[[dict], str]:
    """Names for entries that may lack what they are called by: all that they hold."""
    return lambda item: f"{what} {shown(item)}"


def what_it_is(value: object) -> str:
    """A value, and where it is surprising its type."""
    text = ", which is text" if isinstance(value, str) else ""
    if isinstance(value, list) and any(isinstance(inner, str) for inner in value):
        text = ", with text in it"
    return f"{shown(value)}{text}"


def repeated(values: Iterable) -> list:
    """Each value that occurs more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def more(wrong: Sequence, of: int | None = None) -> str:
    """How many, of all that are wrong, are not told of."""
    if len(wrong) < 2:
        return ""
    return f" ({len(wrong) - 1} more like it{f' of {of}' if of else ''})"


def counted(items: Sequence, what: str) -> str:
    """The number of items and what they are, in the plural where there are more."""
    return f"{len(items)} {what}{'s' if len(items) != 1 else ''}"
