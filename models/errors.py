"""The errors that stand for a user's mistake."""


class InputError(ValueError):
    """What the user gave cannot be used; ``str(error)`` is the one line to print."""


class SampleError(InputError):
    """A sample of the data cannot be used; of several processes only the one that has it knows."""
