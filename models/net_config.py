"""net_config text and the architecture it describes.

One stage a row, ``|`` between rows, each row ``[[in, out], ['op', ...], stride]``, the form of the
paper's released files. The text is parsed with a grammar of its own and never evaluated.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InputError, printable, shown
from .files import locate, open_regular
from .ops import SKIP, parse_op

_ROW = re.compile(
    r"""\[\s*\[\s*(?P<in>\d{1,6})\s*,\s*(?P<out>\d{1,6})\s*\]\s*,
        \s*\[(?P<ops>[^\[\]]*)\]\s*,
        \s*(?P<stride>\d{1,6})\s*\]""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"""\s*(?:'([^'"]*)'|"([^'"]*)")\s*""")
_MAX_CHANNELS = 9999  # far more than any network has, and less than fills a memory
_MAX_TEXT = 100_000  # characters; a published architecture has about 400
_MAX_LAYERS = 1000  # of all stages together; a published architecture has about 20
_FORM = "expected [[in, out], ['op', ...], stride]"


@dataclass(frozen=True)
class Stage:
    """One row of a net_config: ``ops`` names its layers in order, the first has the stride."""

    in_channels: int
    out_channels: int
    ops: tuple[str, ...]
    stride: int

    def __str__(self) -> str:
        ops = ", ".join(f"'{op}'" for op in self.ops)
        return f"[[{self.in_channels}, {self.out_channels}], [{ops}], {self.stride}]"


@dataclass(frozen=True)
class NetConfig:
    """The architecture of a backbone: its stages after the stem.

    Within a stage, skips go last and real ops keep their order, as in the released detection code:
    orders that compute the same are equal. ``str(net_config)`` is the released text form;
    :meth:`parse` reads it back.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(map(_skips_last, self.stages)))  # frozen
        check(self.stages)

    def __str__(self) -> str:
        return "|\n".join(map(str, self.stages))

    def without_skips(self) -> "NetConfig":
        """The same network, without the layers that are none."""
        stages = (
            replace(stage, ops=tuple(op for op in stage.ops if op != SKIP)) for stage in self.stages
        )
        return NetConfig(tuple(stages))

    @classmethod
    def parse(cls, source: "NetConfig | str | Path | list") -> "NetConfig":
        """Read an architecture from its text, a file that holds the text, or a list of rows.

        Args:
            source: A NetConfig (returned as it is), text in the released form, the path of a file
                that holds such text (from the current folder or else the repository), or
                ``[[[in, out], [op, ...], stride], ...]``.

        Raises:
            InputError: The text is malformed, names an unknown op, a stage has only skips, or its
                channels do not fit together. The message names the file and the stage.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, list | tuple):
            if len(source) > _MAX_LAYERS:
                raise InputError(
                    f"net_config: {len(source)} stages, expected at most {_MAX_LAYERS}"
                )
            return cls(tuple(_stage_from_list(row, number) for number, row in enumerate(source, 1)))
        if not isinstance(source, str | Path):
            raise InputError(
                f"net_config: is {shown(source)}, expected text, the path of a file, or a list"
            )
        text, where = _read(source)
        try:
            rows = text.strip().strip("|").split("|")
            return cls(tuple(_stage_from_text(row, number) for number, row in enumerate(rows, 1)))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def check(stages: tuple[Stage, ...]) -> None:
    """Check that the stages make a network.

    Raises:
        InputError: They do not; the message names the stage (counted from 1) and the reason.
    """
    if not stages:
        raise InputError("no stage found; expected rows like [[32, 16], ['k3_e1'], 1]")
    if (layers := sum(len(stage.ops) for stage in stages)) > _MAX_LAYERS:
        raise InputError(f"{layers} layers, expected at most {_MAX_LAYERS}")
    for number, stage in enumerate(stages, 1):
        if not all(1 <= n <= _MAX_CHANNELS for n in (stage.in_channels, stage.out_channels)):
            raise InputError(
                f"stage {number}: channels must be 1 to {_MAX_CHANNELS}, got {stage.in_channels} "
                f"and {stage.out_channels}"
            )
        if stage.stride not in (1, 2):
            raise InputError(f"stage {number}: stride {stage.stride}, expected 1 or 2")
        if not stage.ops:
            raise InputError(f"stage {number}: no ops, expected at least one such as 'k3_e6'")
        for op in stage.ops:
            try:
                parse_op(op)
            except InputError as error:
                raise InputError(f"stage {number}: {error}") from None
        if set(stage.ops) == {SKIP}:
            raise InputError(
                f"stage {number}: has only skips, expected at least one real op, which changes "
                "channels or stride"
            )
        previous = stages[number - 2] if number > 1 else None
        if previous and previous.out_channels != stage.in_channels:
            raise InputError(
                f"stage {number}: takes {stage.in_channels} channels, but stage {number - 1} gives "
                f"{previous.out_channels}"
            )


def _skips_last(stage: Stage) -> Stage:
    return replace(stage, ops=tuple(sorted(stage.ops, key=lambda op: op == SKIP)))


def is_text(source: str) -> bool:
    """Whether a string is a net_config's text, which has brackets, rather than a file's path."""
    return not source.strip() or ("[" in source and not os.path.isfile(source))


def _read(source: str | Path) -> tuple[str, str]:
    """The text of ``source`` and what to call it in a message."""
    if isinstance(source, str) and is_text(source):
        text, where = source, "net_config"
    else:
        where = f"net_config file {printable(str(source))}"
        try:
            with open_regular(locate(source)) as file:
                text = file.read(4 * _MAX_TEXT + 1).decode()  # UTF-8 has up to 4 bytes a character
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is not a text file"
            raise InputError(f"{where}: {reason}") from None
    if not text.strip():
        raise InputError(f"{where}: is empty; expected rows like [[32, 16], ['k3_e1'], 1]")
    if len(text) > _MAX_TEXT:
        raise InputError(f"{where}: too long, expected at most {_MAX_TEXT} characters")
    return text, where


def _stage_from_text(row: str, number: int) -> Stage:
    match = _ROW.fullmatch(row.strip())
    if not match:
        raise InputError(f"stage {number}: cannot read {shown(' '.join(row.split()))}; {_FORM}")
    ops = []
    # A comma after the last op is allowed, as in Python's own lists.
    for item in match["ops"].strip().removesuffix(",").split(",") if match["ops"].strip() else []:
        quoted = _QUOTED.fullmatch(item)
        if not quoted:
            raise InputError(
                f"stage {number}: cannot read op {shown(item.strip())}; expected 'k3_e6'"
            )
        ops.append(quoted[1] if quoted[1] is not None else quoted[2])
    return Stage(int(match["in"]), int(match["out"]), tuple(ops), int(match["stride"]))


def _stage_from_list(row: list, number: int) -> Stage:
    try:
        (in_channels, out_channels), ops, stride = row
    except (TypeError, ValueError):
        numbers, ops = (), None
    else:
        numbers = in_channels, out_channels, stride
    # as in text: no truth value for a number, and none of more than 6 digits
    fits = all(type(n) is int and 0 <= n < 10**6 for n in numbers)
    if not fits or not isinstance(ops, list | tuple) or not all(type(op) is str for op in ops):
        raise InputError(f"net_config: stage {number}: cannot read {shown(row)}; {_FORM}")
    return Stage(in_channels, out_channels, tuple(ops), stride)
