"""How far a run is: one line on a terminal that is rewritten, now and then a new one in a file."""

import os
import time
from collections.abc import Mapping
from typing import TextIO

from mmengine.hooks import Hook
from mmengine.runner import Runner


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


class StatusLine:
    """What is known about one piece of work while it is under way.

    Args:
        stream: Where it is shown. A terminal has one line, rewritten. Anything else gets a line
            when the work begins, when it ends, and at most every ``seconds`` between.
        prefix: What each line begins with.
        seconds: See ``stream``.
        only_end: A terminal is shown the last word only, because its line is another work's.
    """

    def __init__(self, stream: TextIO, prefix: str, seconds: float = 30, only_end: bool = False):
        self.stream, self.prefix, self.seconds = stream, prefix, seconds
        self.rewrites = stream.isatty()
        self.only_end = only_end and self.rewrites
        self.wrote = time.monotonic()

    def begin(self) -> None:
        self._write("...")

    def update(self, text: str) -> None:
        """Show ``text``, if it is time for it."""
        if time.monotonic() - self.wrote >= (0.1 if self.rewrites else self.seconds):
            self._write(text)

    def end(self, text: str) -> None:
        """Show ``text`` as the last word, whole, and leave the line."""
        self._write(text, last=True)

    def _write(self, text: str, last: bool = False) -> None:
        if self.only_end and not last:
            return
        line = f"{self.prefix}  {text}"
        if self.rewrites:
            room = (os.get_terminal_size(self.stream.fileno()).columns or 80) - 1
            line = "\r" + (line if last else line[:room]).ljust(room)
        self.stream.write(line + ("\n" if last or not self.rewrites else ""))
        self.stream.flush()
        self.wrote = time.monotonic()


class ShowProgress(Hook):
    """Shows on a :class:`StatusLine` how far training or testing is, and when it will end.

    An entry point's ``main`` takes it in ``hooks``. The time that is left is what mmengine's
    ``IterTimerHook``, a default hook, has worked out.

    Args:
        line: Where to show it.
        scalars: Logged numbers to show, if a run has them: by name, how to format them.
    """

    priority = "LOWEST"  # the numbers of this iteration have been logged

    def __init__(self, line: StatusLine, scalars: Mapping[str, str]):
        self.line, self.scalars = line, scalars

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        self._show(runner, "training", runner.iter + 1, runner.max_iters)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        self._show(runner, "validation", batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        self._show(runner, "evaluation", batch_idx + 1, len(runner.test_dataloader))

    def _show(self, runner: Runner, what: str, done: int, total: int) -> None:
        hub = runner.message_hub
        parts = [f"{what} {done}/{total}", f"eta {clock(hub.get_info('eta', 0))}"]
        if what == "training":
            logged = hub.log_scalars
            parts += [
                text.format(logged[name].current())
                for name, text in self.scalars.items()
                if name in logged
            ]
        self.line.update("  ".join(parts))
