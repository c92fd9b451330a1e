"""The error that stands for a user's mistake."""


class InputError(ValueError):
    """What the user gave cannot be used; ``str(error)`` is the one line to print."""
