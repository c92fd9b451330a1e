"""Whose turn it is in a search: the weights' or α's."""

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
        if not (in_range and self.arch_steps >= 1 and self.weight_steps >= 1):
            raise InputError(
                f"train_cfg: arch_start_epoch {self.arch_start_epoch}, arch_steps "
                f"{self.arch_steps}, weight_steps {self.weight_steps}; expected 0 <= "
                f"arch_start_epoch < max_epochs {self.max_epochs}, and at least 1 step of each kind"
            )

    def arch_steps_before(self, weight_step: int, epoch_length: int) -> int:
        """How many architecture steps come before a weight step; an epoch has ``epoch_length``."""
        searching = weight_step - self.arch_start_epoch * epoch_length
        return self.arch_steps * math.ceil(max(searching, 0) / self.weight_steps)
