"""How long networks take: backends that run them as they are deployed, and a clock.

What is compared is measured in turns: a machine that is slower for a while is so for all of it.
"""

import copy
import ctypes
import io
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
_WARM_UP, _RUNS = 2, 3  # runs before all rounds, and per round

Run = Callable[[], object]
Job = tuple[nn.Module, Sequence[Tensor]]  # with its inputs


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

    def prepare(self, module: nn.Module, inputs: Sequence[Tensor]) -> Run:
        """What runs ``module``, in evaluation mode and with norms folded, once."""

    def milliseconds(self, run: Run, before: Run, runs: int) -> float:
        """The median time of so many runs, each after one of ``before`` that is not timed."""

    def versions(self) -> dict[str, str]:
        """Of the software."""


class TorchBackend:
    """PyTorch, channels last: on CPU its faster layout for convs."""

    name = "torch"

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

    def milliseconds(self, run: Run, before: Run, runs: int) -> float:
        with _threads(self.threads):
            if self.kind == "cuda":
                return _on_gpu(run, before, runs)
            return _on_cpu(run, before, runs, self.threads)

    def versions(self) -> dict[str, str]:
        versions = {"torch": torch.__version__}
        return versions | ({"cuda": torch.version.cuda} if self.kind == "cuda" else {})


class OnnxRuntimeBackend:
    """ONNX Runtime on CPU, with all its optimizations."""

    name = "onnxruntime"
    kind = "cpu"

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

    def milliseconds(self, run: Run, before: Run, runs: int) -> float:
        return _on_cpu(run, before, runs, self.threads)

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
    single pixel. Their own time is that of the same without the op. So an op finds its input in the
    cache, and in ONNX Runtime, which computes convs on blocks of channels, nothing is converted to
    them and back, as it would be for an op alone.

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
    networks: Mapping[Hashable, Job],
    repeats: int,
    line: StatusLine | None = None,
    parts: Mapping[Hashable, Job] | None = None,
) -> dict[Hashable, list[float]]:
    """Time networks, and parts of networks, in turns.

    Each timed run of a network follows another run of it, and each of a part a run of one of the
    networks: then a part's weights are as far from the cache as in a network.

    Args:
        networks: Modules with their inputs.
        repeats: Rounds; in each everything runs a few times, of which the median counts.
        line: Is told the progress.
        parts: As ``networks``.

    Returns:
        For each network and part a number of ms per round.
    """
    _keep_freed_memory()
    say = line.update if line else lambda text: None
    jobs = {**networks, **(parts or {})}
    began, runs = time.monotonic(), {}
    for number, (key, (module, inputs)) in enumerate(jobs.items()):
        left = _left(began, number, len(jobs))
        say(f"preparing [{number + 1}/{len(jobs)}]  eta of this: {left}")
        runs[key] = backend.prepare(module, inputs)
    for run in runs.values():
        backend.milliseconds(run, run, _WARM_UP)
    whole = [runs[key] for key in networks]
    began, times = time.monotonic(), {key: [] for key in runs}
    for number in range(repeats):
        say(f"measuring [{number + 1}/{repeats}]  eta: {_left(began, number, repeats)}")
        for key, run in runs.items():
            before = run if key in networks else whole[number % len(whole)]
            times[key].append(backend.milliseconds(run, before, _RUNS))
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


def _on_cpu(run: Run, before: Run, runs: int, threads: int) -> float:
    # one thread's own time leaves out what other programs do on its core meanwhile
    now = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    times = []
    for _ in range(runs):
        before()
        start = now()
        run()
        times.append(now() - start)
    return statistics.median(times) / 1e6


def _on_gpu(run: Run, before: Run, runs: int) -> float:
    """By events around runs that follow each other, so that the CPU is ahead of the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before()
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
