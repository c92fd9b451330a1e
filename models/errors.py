"""The errors that stand for a user's mistake."""

from collections.abc import Sequence


class InputError(ValueError):
    """What the user gave cannot be used; ``str(error)`` is the one line to print."""


class SampleError(InputError):
    """A sample of the data cannot be used; of several processes only the one that has it knows."""


class DataError(InputError):
    """A part of the data cannot be used, for several reasons; its message is the first."""

    def __init__(self, reasons: Sequence[str]):
        self.reasons = list(reasons)
        more = len(self.reasons) - 1
        hint = f" ({more} more: scripts/check_data.sh CONFIG lists all)" if more else ""
        super().__init__(f"{self.reasons[0]}{hint}")
