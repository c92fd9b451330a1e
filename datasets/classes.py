"""The names of a data set's classes, of either task."""

from collections import Counter
from collections.abc import Mapping, Sequence

from models import InputError


def check_classes(classes: Sequence[str] | None, where: str) -> None:
    """Check the names that ``metainfo`` gives.

    Args:
        where: What to call the data set in a message.

    Raises:
        InputError: There are none, they are no list of names, or a name is there twice.
    """
    if not classes:
        raise InputError(f"{where}: metainfo has no classes")
    if isinstance(classes, str):
        raise InputError(
            f"{where}: metainfo has classes={classes!r}, which is a text; expected a tuple of "
            f"names, and one name needs its comma: classes=({classes!r},)"
        )
    if not isinstance(classes, list | tuple) or not all(isinstance(n, str) for n in classes):
        raise InputError(f"{where}: metainfo has classes={classes!r}, expected a tuple of names")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise InputError(f"{where}: metainfo lists the class {twice[0]!r} twice")


def listed(counts: Mapping[str, int], classes: Sequence[str], shown: int = 20) -> str:
    """How many there are of each class, in a line; of many classes only the ends of the scale."""
    if len(classes) <= shown:
        return ", ".join(f"{name} {counts.get(name, 0)}" for name in classes)
    ordered = sorted(classes, key=lambda name: -counts.get(name, 0))
    ends = [f"{name} {counts.get(name, 0)}" for name in (*ordered[:3], *ordered[-3:])]
    return f"{len(classes)} classes: {', '.join(ends[:3])} ... {', '.join(ends[3:])}"
