"""mmengine's Runner, careful with files."""

from pathlib import Path

from mmengine.dist import is_main_process

from models import InputError
from models.files import write_whole

from .building import CheckedRunner
from .hooks import loaded_path

# what mmengine and torch raise where a part of a run's state is not what they expect
_STATE_ERRORS = (
    TypeError, KeyError, ValueError, AttributeError, IndexError, AssertionError, RuntimeError
)  # fmt: skip


class CarefulRunner(CheckedRunner):
    """Writes its config whole, and refuses a checkpoint that it cannot continue from in one line.

    :class:`engine.run_state.CheckRunState` says what is wrong with a checkpoint; this is for what
    it did not foresee.
    """

    def dump_config(self) -> None:
        if is_main_process():
            name = Path(self.cfg.filename or f"{self.timestamp}.py").name
            write_whole(Path(self.work_dir) / name, self.cfg.dump().encode())

    def load_or_resume(self) -> None:
        """Load or resume, as mmengine does.

        Raises:
            InputError: The checkpoint's state cannot be taken.
        """
        try:
            super().load_or_resume()
        except InputError:
            raise
        except _STATE_ERRORS as error:
            raise InputError(
                f"checkpoint {loaded_path(self)}: no run can continue from it: "
                f"{type(error).__name__}: {error}"
            ) from error
