"""How long networks take: backends that run them as they are deployed, and a clock.

What is compared is measured in turns: a machine that is slower for a while is so for all of it.
"""

import copy
import ctypes
import io
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Protocol

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn

from models import InputError
from models.errors import shown
from models.latency import device_name

from .progress import StatusLine, clock

NOISY = 0.05  # spread of a measurement, as a share, above which a machine is called noisy
_WARM_UP = 2  # runs
_RUNS = 3, 50  # least and most per round
_SECONDS = 5e-3  # that the runs of one round should take

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """``median`` of rounds in ms, ``spread`` their interquartile range as a share of it, and how
    many they are."""

    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Timing":
        """That of the rounds' own medians, in ms."""
        median, spread = statistics.median(rounds), 0.0
        if len(rounds) > 1 and median > 0:
            low, _, high = statistics.quantiles(rounds, n=4, method="inclusive")
            spread = (high - low) / median
        return cls(median, spread, len(rounds))


class Backend(Protocol):
    """What runs a network. ``kind`` of device: ``'cpu'`` or ``'cuda'``."""

    name: str
    kind: str
    threads: int
    in_context: bool  # whether an op by itself takes longer than as a part of a network

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Run:
        """What runs ``module``, in evaluation mode and with norms folded, once."""

    def milliseconds(self, run: Run, runs: int) -> float:
        """The median time of so many runs."""

    def versions(self) -> dict[str, str]:
        """Of the software."""


class TorchBackend:
    """PyTorch, channels last: on CPU its faster layout for convs."""

    name = "torch"
    in_context = False

    def __init__(self, kind: str, threads: int):
        self.kind, self.threads = kind, threads

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Run:
        module = folded(module).to(self.kind, memory_format=torch.channels_last)
        inputs = [
            each.to(self.kind, memory_format=torch.channels_last) if each.dim() == 4 else each
            for each in inputs
        ]

        @torch.inference_mode()
        def run() -> None:
            module(*inputs)

        return run

    def milliseconds(self, run: Run, runs: int) -> float:
        with _threads(self.threads):
            return _on_gpu(run, runs) if self.kind == "cuda" else _on_cpu(run, runs, self.threads)

    def versions(self) -> dict[str, str]:
        versions = {"torch": torch.__version__}
        return versions | ({"cuda": torch.version.cuda} if self.kind == "cuda" else {})


class OnnxRuntimeBackend:
    """ONNX Runtime on CPU, all optimizations on, as ``scripts/export.sh`` checks its files.

    It computes convs on blocks of channels. A session of one op would first convert its input to
    them and afterwards its output back, which a network does once: see :class:`InContext`.
    """

    name = "onnxruntime"
    kind = "cpu"
    in_context = True

    def __init__(self, threads: int):
        self.threads = threads

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Run:
        import onnxruntime  # which only some need

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            to_onnx(module, inputs), options, providers=["CPUExecutionProvider"]
        )
        feed = {
            node.name: each.numpy() for node, each in zip(session.get_inputs(), inputs, strict=True)
        }
        return lambda: session.run(None, feed)

    def milliseconds(self, run: Run, runs: int) -> float:
        return _on_cpu(run, runs, self.threads)

    def versions(self) -> dict[str, str]:
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__}


def make_backend(name: str | None, threads: int, kind: str | None = None) -> Backend:
    """A backend by its name; by default ONNX Runtime on CPU, where networks are deployed so, and
    PyTorch on a GPU.

    Args:
        kind: Of device; default, a GPU where there is one.

    Raises:
        InputError: It cannot be used here.
    """
    cores = len(os.sched_getaffinity(0))
    if not 1 <= threads <= cores:
        raise InputError(f"{threads} threads: expected 1 to {cores}, the cores at hand")
    kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    if not (here := device_name(kind)):
        raise InputError("no GPU at hand")
    if name == "torch" or (name is None and kind == "cuda"):
        return TorchBackend(kind, threads)
    if name not in (None, "onnxruntime"):
        raise InputError(f"backend {shown(name)}, expected onnxruntime or torch")
    if kind == "cuda":
        raise InputError(f"onnxruntime measures on CPU only, not on {here}: GPUS 0, or torch")
    return OnnxRuntimeBackend(threads)


def about(backend: Backend) -> dict[str, object]:
    """What a file of measurements says about how they were made."""
    return dict(
        kind=backend.kind,
        device=device_name(backend.kind),
        backend=backend.name,
        versions=backend.versions() | {"python": platform.python_version()},
        threads=backend.threads,
    )


class InContext(nn.Module):
    """An op between two cheap convs, as a network has it.

    Before it a 1x1 conv of few channels, unless it takes images, and after it one that computes a
    single pixel. Their own time is that of the same without the op.

    Args:
        op: What to measure.
        shape: Channels, height and width of its input.
    """

    channels = 8

    def __init__(self, op: nn.Module, shape: tuple[int, int, int]):
        super().__init__()
        channels, *size = shape
        self.before = nn.Sequential()
        if channels != 3:
            self.before.extend([nn.Conv2d(self.channels, channels, 1), nn.ReLU6()])
        self.op = op
        with torch.no_grad():
            _, channels, *size = op(torch.zeros(1, channels, *size)).shape
        self.after = nn.Conv2d(channels, self.channels, 1, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """N×8×H×W, or N×3×H×W → N×8×1×1."""
        return self.after(self.op(self.before(x)))


class RawOutputs(nn.Module):
    """A detector or segmentor up to its raw outputs: without preprocessing, NMS and resizing."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Images N×3×H×W, or what stands in for a backbone takes → all outputs."""
        given = inputs[0] if len(inputs) == 1 else inputs
        return tuple(_tensors(self.model(given, mode="tensor")))


class GivenMaps(nn.Module):
    """In a backbone's place: the maps are the input."""

    def forward(self, maps: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps as they are."""
        return (maps,) if isinstance(maps, Tensor) else tuple(maps)


def measure(
    backend: Backend,
    networks: Mapping[Hashable, tuple[nn.Module, Sequence[Tensor]]],
    repeats: int,
    line: StatusLine | None = None,
) -> dict[Hashable, list[float]]:
    """Time several networks in turns.

    Args:
        networks: Each with its inputs.
        repeats: Rounds; in each every network runs a few times, of which the median counts.
        line: Is told the progress.

    Returns:
        For each network a number of ms per round.
    """
    _keep_freed_memory()
    say = line.update if line else lambda text: None
    began, runs = time.monotonic(), {}
    for number, (key, (module, inputs)) in enumerate(networks.items()):
        left = _left(began, number, len(networks))
        say(f"preparing [{number + 1}/{len(networks)}]  eta of this: {left}")
        runs[key] = backend.prepare(module, inputs)
    counts = {}
    for key, run in runs.items():
        backend.milliseconds(run, _WARM_UP)
        needed = math.ceil(_SECONDS / max(backend.milliseconds(run, _WARM_UP) / 1e3, 1e-9))
        counts[key] = min(max(needed, _RUNS[0]), _RUNS[1])
    began, times = time.monotonic(), {key: [] for key in runs}
    for number in range(repeats):
        say(f"measuring [{number + 1}/{repeats}]  eta: {_left(began, number, repeats)}")
        for key, run in runs.items():
            times[key].append(backend.milliseconds(run, counts[key]))
    return times


def _keep_freed_memory() -> None:
    """Let this process keep memory that it has freed, where its C library is glibc.

    Otherwise a large activation is memory anew from the system in each run, or is not, depending on
    what else the process has allocated; to get it takes as long as to compute it.
    """
    trim_threshold, mmap_max = -1, -4  # numbers of malloc.h
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _left(began: float, done: int, total: int) -> str:
    return clock((time.monotonic() - began) / done * (total - done)) if done else "?"


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode, with norms folded into the convs before them."""
    return fuse_conv_bn(copy.deepcopy(module).eval())


def to_onnx(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """An ONNX file of a module for inputs of these sizes."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own, on what it does not miss
        program = torch.onnx.export(folded(module).cpu(), tuple(inputs), dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value:
            yield from _tensors(part)


def _on_cpu(run: Run, runs: int, threads: int) -> float:
    # one thread's own time leaves out what other programs do on its core meanwhile
    now = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    times = []
    for _ in range(runs):
        start = now()
        run()
        times.append(now() - start)
    return statistics.median(times) / 1e6


def _on_gpu(run: Run, runs: int) -> float:
    """By events around runs that follow each other: only the first waits for the CPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / runs


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
