"""The schedules of a search: whose turn it is, the weights' or α's, and the temperature."""

import math
from dataclasses import dataclass

from models import InputError


@dataclass(frozen=True)
class Turns:
    """For some epochs the weights' alone; then α's and the weights', so many steps each, in turn.

    Raises:
        InputError: α would never learn, or a number of steps is less than 1.
    """

    max_epochs: int
    arch_start_epoch: int
    arch_steps: int
    weight_steps: int

    def __post_init__(self):
        in_range = 0 <= self.arch_start_epoch < self.max_epochs
        steps = self.arch_steps, self.weight_steps
        if not (in_range and all(type(count) is int and count >= 1 for count in steps)):
            raise InputError(
                f"train_cfg: arch_start_epoch {self.arch_start_epoch}, arch_steps "
                f"{self.arch_steps}, weight_steps {self.weight_steps}; expected 0 <= "
                f"arch_start_epoch < max_epochs {self.max_epochs}, and at least 1 step of each kind"
            )

    def arch_steps_before(self, weight_step: int, epoch_length: int) -> int:
        """How many architecture steps come before a weight step; an epoch has ``epoch_length``."""
        searching = weight_step - self.arch_start_epoch * epoch_length
        return self.arch_steps * math.ceil(max(searching, 0) / self.weight_steps)


@dataclass(frozen=True)
class Temperature:
    """What divides α before the softmax: it falls by the same factor at every architecture step.

    Raises:
        InputError: ``start`` or ``end`` is not above 0.
    """

    start: float
    end: float

    def __post_init__(self):
        if not all(isinstance(t, int | float) and 0 < t < math.inf for t in (self.start, self.end)):
            raise InputError(
                f"train_cfg.temperature: start {self.start!r}, end {self.end!r}; expected numbers "
                "above 0"
            )

    @classmethod
    def from_cfg(cls, cfg: dict | None) -> "Temperature | None":
        """That of a config, None where it has none.

        Raises:
            InputError: A setting is missing, unknown or out of range.
        """
        try:
            return cfg and cls(**cfg)
        except TypeError:
            raise InputError(f"train_cfg.temperature: {dict(cfg)}, expected start, end") from None

    def at(self, step: int, steps: int) -> float:
        """At architecture step number ``step``, from 0, of ``steps``."""
        return self.start * (self.end / self.start) ** (step / max(steps - 1, 1))
