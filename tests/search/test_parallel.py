"""Two gloo processes against one that sees the joint batch."""

import copy
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import distributed, nn

from engine.compat.cpu import CPUSyncBatchNorm
from search.parallel import average_gradients
from tests.processes import run_processes

from .tools import SHARED, TinyTask, equal, make_runner, skip_pictures

pytestmark = pytest.mark.slow  # whole searches
PROCESSES = 2
# One image per process, so that everything hangs on the synchronization of BN.
PER_PROCESS = dict(batch_size=1, loop=dict(arch_steps=2, weight_steps=1))
# Then architectures are ranked. Resumed in the middle of an epoch, and before the ranking.
RANKING = dict(max_epochs=2, ranking=dict(candidates=4, batches=2))
RESUMED_AT = (7, 8)
# shared weights, to a target, colder and colder; and a ranking at the end
RANKED = PER_PROCESS | SHARED
RANKED["loop"] = SHARED["loop"] | dict(ranking=dict(candidates=3, batches=2))


def search(work_dir: Path, sync_bn: str | None = "torch", **settings: object) -> dict[str, object]:
    """Run a whole search; returns its state dict, paths and images."""
    cfg = dict(sync_bn=sync_bn, model_wrapper_cfg=dict(type="SampledPathParallel"))
    runner = make_runner(work_dir, cfg=cfg, **settings)
    runner.train()
    model = getattr(runner.model, "module", runner.model)
    ranked = work_dir / "candidates.json"
    if distributed.is_initialized():
        distributed.barrier()  # the first process writes it
    norms = {type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return dict(
        state=model.state_dict(),
        paths=[path for _, path in model.seen],
        images=[numbers for numbers, _ in model.seen],
        wrapper=type(runner.model).__name__,
        synchronized=norms == {CPUSyncBatchNorm},
        ranked=json.loads(ranked.read_text()) if ranked.exists() else [],
    )


def process(rank: int, port: int, work_dir: Path) -> None:
    """What each of the processes does; leaves its results in a file."""
    torch.set_num_threads(1)
    skip_pictures(pytest.MonkeyPatch())
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(PROCESSES),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    distributed.init_process_group("gloo")
    with counted_messages() as messages:
        result = search(work_dir / "two", launcher="pytorch", **PER_PROCESS)
    result["messages"] = messages
    with counted_messages() as messages:  # BN as in the real searches
        result["own"] = search(work_dir / "own", None, launcher="pytorch", **PER_PROCESS)
    result["own"]["messages"] = messages
    result["shared"] = search(work_dir / "shared", launcher="pytorch", **RANKED)
    result["averaged"] = averaged_gradients(rank)
    result["scaled"] = search_with_an_overflow(rank, work_dir / "scaled")
    noisy = dict(launcher="pytorch", noise=0.1, dropout=0.5, **PER_PROCESS)
    result["whole"] = search(work_dir / "whole", checkpoint_interval=7, **noisy)["state"]
    middle = dict(load_from=str(work_dir / "whole/iter_7.pth"), resume=True)
    result["resumed"] = search(work_dir / "resumed", **middle, **noisy)["state"]
    ranked = dict(noisy, **SHARED)
    ranked["loop"] = PER_PROCESS["loop"] | SHARED["loop"] | RANKING
    search(work_dir / "ranked", None, checkpoint_interval=1, **ranked)
    for step in RESUMED_AT:
        last = dict(load_from=str(work_dir / f"ranked/iter_{step}.pth"), resume=True)
        search(work_dir / f"ranked_{step}", None, checkpoint_interval=24, **last, **ranked)
    result["work_dir"] = str(work_dir)
    torch.save(result, work_dir / f"rank_{rank}.pth")
    distributed.barrier()
    distributed.destroy_process_group()


@contextmanager
def counted_messages() -> Iterator[Counter]:
    """How often processes add up tensors inside forward and backward passes, and outside."""
    messages, passes = Counter(), []
    all_reduce = distributed.all_reduce

    def counting(*args, **kwargs):
        messages["inside" if passes else "outside"] += 1
        return all_reduce(*args, **kwargs)

    def a_pass(method):
        def wrapped(*args, **kwargs):
            passes.append(method)
            try:
                return method(*args, **kwargs)
            finally:
                passes.pop()

        return wrapped

    with (
        mock.patch.object(distributed, "all_reduce", counting),
        mock.patch.object(TinyTask, "forward", a_pass(TinyTask.forward)),
        mock.patch.object(OptimWrapper, "backward", a_pass(OptimWrapper.backward)),
    ):
        yield messages


class Scales(Hook):
    """After each iteration: scales of both losses, α, weights."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, *args, **kwargs):
        scales = {
            name: wrapper.loss_scaler.get_scale() for name, wrapper in runner.optim_wrapper.items()
        }
        state = runner.model.module.state_dict()
        self.seen.append((scales, copy.deepcopy(state)))


def search_with_an_overflow(rank: int, work_dir: Path) -> list[tuple[dict, dict]]:
    """A search whose losses are scaled; in its second architecture step the second process' scaled
    loss is beyond float32, though the loss itself is not. The scaler is torch's for CPU tensors."""
    wrappers = dict(
        constructor="ArchAdaptOptimWrapperConstructor",
        weights=dict(type="AmpOptimWrapper", optimizer=dict(type="SGD", lr=0.02)),
        arch=dict(type="AmpOptimWrapper", optimizer=dict(type="Adam", lr=0.1)),
    )
    amp = "mmengine.optim.optimizer.amp_optimizer_wrapper"
    with (
        mock.patch(f"{amp}.is_cuda_available", lambda: True),
        mock.patch(f"{amp}.GradScaler", partial(torch.amp.GradScaler, "cpu")),
        mock.patch("mmengine.runner.amp.autocast", lambda **_: nullcontext()),
    ):
        runner = make_runner(
            work_dir, launcher="pytorch", optim_wrapper=wrappers, **PER_PROCESS,
            cfg=dict(model_wrapper_cfg=dict(type="SampledPathParallel")),
        )  # fmt: skip
        model, scales = runner.model.module, Scales()
        forward = model.forward

        def overflowing(*args, **kwargs):
            outputs = forward(*args, **kwargs)
            searching = [path[0] is None for _, path in model.seen]
            if rank == 1 and searching[-1] and sum(searching) == 2:
                outputs["loss"] = outputs["loss"] * 1e35
            return outputs

        model.forward = overflowing
        runner.register_hook(scales)
        runner.train()
    return scales.seen


def averaged_gradients(rank: int) -> list[torch.Tensor | None]:
    """Of parameters that both processes used, only the first, and none; of one of another type.

    Before that, the second process has a loss that is not finite.
    """
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    parameters.append(nn.Parameter(torch.ones(2, 1, 3, dtype=torch.double)))
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    if rank == 0:
        parameters[1].grad = torch.tensor([4.0, 6.0])
    parameters[3].grad = torch.full((2, 1, 3), 1.0 + rank, dtype=torch.double)
    before = [p.grad if p.grad is None else p.grad.clone() for p in parameters]
    assert not average_gradients(parameters, torch.tensor(rank == 0))
    assert equal([p.grad for p in parameters], before)
    assert average_gradients(parameters, torch.tensor(True))
    return [parameter.grad for parameter in parameters]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    work_dir = tmp_path_factory.mktemp("distributed")
    run_processes(process, free_port(), work_dir, count=PROCESSES)
    return [torch.load(work_dir / f"rank_{rank}.pth") for rank in range(PROCESSES)]


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_ranks_stay_equal(results, kind):
    one, other = (result.get(kind, result) for result in results)
    assert one["wrapper"] == "SampledPathParallel"
    assert one["synchronized"]
    assert one["paths"] == other["paths"]
    assert one["images"] != other["images"]
    for key, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][key]), key


def test_bn_sends_messages_only_where_it_is_synchronized(results):
    for result in results:
        assert result["messages"]["inside"] > 0
        assert result["own"]["messages"]["inside"] == 0
        assert result["own"]["messages"]["outside"] == result["messages"]["outside"] > 0


def test_ranks_with_bn_of_their_own_share_all_but_its_statistics(results):
    one, other = (result["own"] for result in results)
    assert not one["synchronized"] and one["paths"] == other["paths"]
    for key, tensor in one["state"].items():
        own = key.endswith(("running_mean", "running_var"))
        assert torch.equal(tensor, other["state"][key]) != own, key


def test_each_rank_resumes_where_it_was(results):
    for result in results:
        for key, tensor in result["whole"].items():
            assert torch.equal(tensor, result["resumed"][key]), key


@pytest.mark.parametrize("file", ["candidates.json", "net_config.txt", "alpha.json"])
def test_a_ranked_search_resumes_where_it_was(results, file):
    folder = Path(results[0]["work_dir"])
    whole, *resumed = (
        (folder / name / file).read_text()
        for name in ("ranked", *(f"ranked_{step}" for step in RESUMED_AT))
    )
    assert resumed == [whole] * len(RESUMED_AT)


@pytest.mark.parametrize("kind, settings", [("separate", PER_PROCESS), ("shared", RANKED)])
def test_two_processes_equal_one_with_the_joint_batch(
    results, kind, settings, tmp_path, monkeypatch
):
    skip_pictures(monkeypatch)
    whole = search(tmp_path, **settings | dict(batch_size=PROCESSES))
    one, other = (result.get(kind, result) for result in results)
    assert whole["paths"] == one["paths"]
    pairs = zip(one["images"], other["images"], strict=True)
    assert whole["images"] == [ours + theirs for ours, theirs in pairs]
    for key, tensor in whole["state"].items():
        torch.testing.assert_close(one["state"][key], tensor, atol=1e-5, rtol=1e-5, msg=key)
    assert [row["loss"] for row in whole["ranked"]] == pytest.approx(
        [row["loss"] for row in one["ranked"]], rel=1e-4
    )
    assert len(whole["ranked"]) == (3 if settings is RANKED else 0)


def test_only_used_parameters_are_averaged(results):
    for result in results:
        used, used_once, unused, double = result["averaged"]
        assert used.tolist() == [1.5, 3.0]
        assert used_once.tolist() == [2.0, 3.0]
        assert unused is None
        assert torch.equal(double, torch.full((2, 1, 3), 1.5, dtype=torch.double))


def test_where_one_process_overflows_both_leave_the_step_out(results):
    """Of two architecture steps an iteration, the second of the first."""
    ours, theirs = (result["scaled"] for result in results)
    assert equal([s for s, _ in ours], [s for s, _ in theirs])
    first = next(i for i, (scales, _) in enumerate(ours) if scales["arch"] < 2**16)
    assert [scales["arch"] for scales, _ in ours] == [2.0**16] * first + [2.0**15] * (
        len(ours) - first
    )
    assert {scales["weights"] for scales, _ in ours} == {2.0**16}
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        for key, tensor in one.items():
            own = key.endswith(("running_mean", "running_var"))  # BN is not synchronized
            assert own or torch.equal(tensor, other[key]), key
            assert tensor.isfinite().all()
