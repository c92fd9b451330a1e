"""The errors that stand for a user's mistake, and what of foreign text is shown in them."""

import reprlib


class InputError(ValueError):
    """What the user gave cannot be used; ``str(error)`` is the one line to print."""


class SampleError(InputError):
    """A sample of the data cannot be used; of several processes only the one that has it knows."""


class DataError(InputError):
    """A part of the data cannot be used, for one or more reasons; its message is the first.

    The reasons are all that it is made of, so that it comes whole out of another process, by pickle
    and by torch's loaders, which make an error anew of its text.
    """

    @property
    def reasons(self) -> list[str]:
        return list(self.args)

    def __str__(self) -> str:
        more = len(self.args) - 1
        hint = f" ({more} more: scripts/check_data.sh CONFIG lists all)" if more else ""
        return f"{self.args[0]}{hint}"


def printable(text: str, limit: int = 2000) -> str:
    """A text on one line and as a terminal may have it.

    Unprintable characters are escaped (a line break as ``\\n``); of more than ``limit`` characters
    the middle is left out.
    """
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]} ... {text[-(limit // 4) :]}"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def shown(value: object) -> str:
    """A value from outside for a message: as ``repr``, but short however large or nested it is."""
    try:
        return printable(_REPR.repr(value), 100)
    except Exception:  # repr is the value's own; of a number of thousands of digits it fails, too
        return f"a {type(value).__name__}"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlevel = 4
