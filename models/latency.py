"""Measured latency as the cost of an op, from a table that scripts/measure_latency.sh wrote."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import nn

from .cost import COSTS, without_norms
from .errors import InputError, printable, shown
from .files import locate, open_regular

FORMAT = "fna latency table 1"
UNIT = "ms"
_MAX_TABLE = 16 * 2**20  # bytes; a search space of 70 ops takes 40 thousand
_LONGEST = 1e9  # ms


def signature(op: nn.Module) -> str:
    """What tells an op from others, whatever its norms are: its modules as text, on one line.

    Norms are folded into convs where networks are deployed. An op whose forward depends on what its
    modules do not show says so by ``extra_repr``.
    """
    return " ".join(str(without_norms(op)).split())


def device_name(kind: str) -> str:
    """The name of this machine's ``'cpu'`` or ``'cuda'`` device; empty where it has none."""
    if kind == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class OpRow:
    """What was measured of an op at one input: ``median`` in ms, ``spread`` as a share of it."""

    op: str
    input: tuple[int, int, int]
    module: str
    median: float
    spread: float
    count: int


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of ops, and on what and how they were measured.

    ``kind`` is ``'cpu'`` or ``'cuda'``, ``device`` the device's name; ``ops`` has one row per op
    and input, in ms for ``batch`` images of ``input_size`` (height, width).
    """

    kind: str
    device: str
    backend: str
    threads: int
    batch: int
    input_size: tuple[int, int]
    ops: tuple[OpRow, ...]

    @classmethod
    def read(cls, path: str | Path) -> "LatencyTable":
        """The table of a file, of which nothing is trusted.

        Raises:
            InputError: There is none, or it is no such table, or one of another unit.
        """
        where = f"latency table {printable(str(path))}"
        try:
            with open_regular(locate(path)) as file:
                content = file.read(_MAX_TABLE + 1)
            table = json.loads(content) if len(content) <= _MAX_TABLE else None
        except OSError as error:
            raise InputError(f"{where}: {error.strerror}") from None
        except (ValueError, RecursionError):
            table = None
        if not isinstance(table, Mapping) or table.get("format") != FORMAT:
            raise InputError(f"{where}: is no table of scripts/measure_latency.sh")
        if table.get("unit") != UNIT:
            raise InputError(f"{where}: its unit is {shown(table.get('unit'))}, expected {UNIT!r}")
        try:
            return cls.from_json(table)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @classmethod
    def from_json(cls, table: Mapping) -> "LatencyTable":
        """The table of what a file holds.

        Raises:
            InputError: A part of it is missing or not what it should be.
        """
        rows = table.get("ops")
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise InputError(f"ops is {shown(rows)}, expected a list of rows")
        return cls(
            kind=_take(table, "kind", lambda v: v in ("cpu", "cuda"), "'cpu' or 'cuda'"),
            device=_take(table, "device", _is_text, "text"),
            backend=_take(table, "backend", _is_text, "text"),
            threads=_take(table, "threads", _is_whole, "a whole number from 1 on"),
            batch=_take(table, "batch", _is_whole, "a whole number from 1 on"),
            input_size=tuple(
                _take(table, "input_size", lambda v: _are_whole(v, 2), "[height, width]")
            ),
            ops=tuple(
                OpRow(
                    op=_take(row, "op", _is_text, "text"),
                    input=tuple(_take(row, "input", lambda v: _are_whole(v, 3), "[C, H, W]")),
                    module=_take(row, "module", _is_text, "text"),
                    median=_take(row, "median", _is_latency, "a number of ms from 0 on"),
                    spread=_take(row, "spread", _is_latency, "a number from 0 on"),
                    count=_take(row, "count", _is_whole, "a whole number from 1 on"),
                )
                for row in rows
            ),
        )

    def to_json(self) -> dict:
        """What a file holds of it."""
        ops = [dict(asdict(row), input=list(row.input)) for row in self.ops]
        content = dict(asdict(self), input_size=list(self.input_size), ops=ops)
        return dict(format=FORMAT, unit=UNIT, **content)

    @cached_property
    def latencies(self) -> dict[tuple[str, tuple[int, int, int]], float]:
        """ms by :func:`signature` and input, of one image: channels, height, width."""
        return {(row.module, row.input): row.median for row in self.ops}

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        height, width = self.input_size
        return (
            f"{self.backend} on {self.device}, {self.threads} "
            f"thread{'s' if self.threads > 1 else ''}, batch {self.batch}, {height}x{width}"
        )


@COSTS.register_module()
class Latency:
    """Milliseconds on a device, for networks whose BN is folded into convs.

    Args:
        table: File of the table, or what it holds.

    Raises:
        InputError: The file is no such table.
    """

    name = "ms of latency"
    unit = 1.0

    def __init__(self, table: str | LatencyTable):
        is_read = isinstance(table, LatencyTable)
        self.table = table if is_read else LatencyTable.read(table)
        self.path = "" if is_read else str(table)
        self.input_size = self.table.input_size
        here = device_name(self.table.kind)
        if here != self.table.device:
            print_log(
                f"latency table {self.path}: was measured on {printable(self.table.device)}; this "
                f"machine has {here or 'no GPU'}, on which networks take another time",
                "current",
                level=30,  # logging.WARNING
            )

    def __call__(self, op: nn.Module, shape: tuple[int, int, int]) -> float:
        """The table's latency; of a skip, which is left out of a network, 0.

        Raises:
            InputError: The table has no such op at this input.
        """
        if isinstance(op, nn.Identity):
            return 0.0
        text = signature(op)
        try:
            return self.table.latencies[text, tuple(shape)]
        except KeyError:
            channels, height, width = shape
            raise InputError(
                f"latency table {self.path}: lacks {printable(text, 160)} at an input of "
                f"{channels}x{height}x{width}: it is of another search space; "
                "scripts/measure_latency.sh CONFIG measures one for this config"
            ) from None


def _take(values: Mapping, key: str, fits, expected: str):
    value = values.get(key)
    if not fits(value):
        raise InputError(f"{key} is {shown(value)}, expected {expected}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100_000


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 < value < 10**9


def _are_whole(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(_is_whole, value))


def _is_latency(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < _LONGEST  # which NaN is not
