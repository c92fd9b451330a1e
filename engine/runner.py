"""mmengine's Runner, careful with what a user gives and with files.

Nothing of how it trains is changed: methods of it are wrapped where they would end in a traceback,
flood the console, or leave half a file.
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from models import InputError
from models.files import write_whole

from .building import building, check_optimizers
from .hooks import loaded_path
from .preface import keep_console_brief

# what mmengine and torch raise where a part of a run's state is not what they expect
_STATE_ERRORS = (
    TypeError, KeyError, ValueError, AttributeError, IndexError, AssertionError, RuntimeError
)  # fmt: skip


class CarefulRunner(Runner):
    """Reports in one line what cannot be built of its config, or not be loaded; writes its config
    whole.

    :class:`engine.run_state.CheckRunState` says what is wrong with a checkpoint;
    :meth:`load_or_resume` is for what it did not foresee.

    Raises:
        InputError: When something cannot be built; the message names its key.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "CarefulRunner":
        with building(cfg):
            return super().from_cfg(cfg)

    def build_train_loop(self, loop):
        with building(self.cfg):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop):
        with building(self.cfg):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop):
        with building(self.cfg):
            return super().build_test_loop(loop)

    def build_optim_wrapper(self, optim_wrapper):
        with building(self.cfg):
            check_optimizers(self.cfg)
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler):
        with building(self.cfg):
            return super().build_param_scheduler(scheduler)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        keep_console_brief(logger)
        return logger

    def dump_config(self) -> None:
        if is_main_process():
            name = Path(self.cfg.filename or f"{self.timestamp}.py").name
            write_whole(Path(self.work_dir) / name, self.cfg.dump().encode())

    def load_or_resume(self) -> None:
        """Load or resume, as mmengine does.

        Raises:
            InputError: The checkpoint's state cannot be taken, or there is none to resume from.
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
        if self._resume and not self._has_loaded:  # mmengine would go on with initial weights
            raise InputError(f"work dir {self.work_dir}: no checkpoint to resume from")
