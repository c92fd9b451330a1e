import copy
import math
from collections import Counter

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from engine.config import use_amp
from models import InputError, count_madds, expected_cost
from search.loop import ArchAdaptLoop

from .tools import (
    LAYERS,
    SHARED,
    alphas_of,
    equal,
    make_runner,
    skip_pictures,
    snapshot,
    steps_of,
)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    skip_pictures(monkeypatch)


def compare_around(step: str, compare, monkeypatch) -> list:
    """Let every such step of a loop call ``compare(loop, before, after)``; returns the results."""
    results, original = [], getattr(ArchAdaptLoop, step)

    def watched(loop, batch):
        before = snapshot(loop.runner)
        outputs = original(loop, batch)
        results.append(compare(loop, before, snapshot(loop.runner)))
        return outputs

    monkeypatch.setattr(ArchAdaptLoop, step, watched)
    return results


def test_a_weight_step_moves_only_its_path(tmp_path, monkeypatch):
    def compare(loop, before, after):
        assert equal(before["alphas"], after["alphas"])
        assert equal(before["arch_optimizer"], after["arch_optimizer"])
        index = {id(p): i for i, p in enumerate(optimized(loop.runner, "weights"))}
        names = {name: index.get(id(p)) for name, p in loop.model.named_parameters()}
        moved = set()
        for name, number in names.items():
            if name.endswith("alpha"):
                assert number is None
                continue
            used = on_path(loop.backbone, name)
            same = torch.equal(before["weights"][name], after["weights"][name])
            assert used != same, name
            if not used:
                states = (s["weight_optimizer"].get(number) for s in (before, after))
                assert equal(*states)
            moved.add(used)
        assert all(parameter.grad is None for parameter in loop.model.parameters())
        return moved == {True, False}

    results = compare_around("weight_step", compare, monkeypatch)
    make_runner(tmp_path).train()
    assert len(results) == 12 and all(results)


def optimized(runner, name: str) -> list[torch.nn.Parameter]:
    groups = runner.optim_wrapper[name].optimizer.param_groups
    return [parameter for group in groups for parameter in group["params"]]


def on_path(backbone, name: str) -> bool:
    for layer_name, layer in backbone.named_modules(prefix="backbone"):
        if layer in backbone.mixed_layers and name.startswith(f"{layer_name}.ops."):
            return name.startswith(f"{layer_name}.ops.{layer.candidates[layer.path]}.")
    return True


def test_an_architecture_step_moves_only_alpha(tmp_path, monkeypatch):
    def compare(loop, before, after):
        assert equal(before["weights"], after["weights"])  # BN's running statistics among them
        assert equal(before["weight_optimizer"], after["weight_optimizer"])
        assert all(parameter.grad is None for parameter in loop.model.parameters())
        assert all(parameter.requires_grad for parameter in loop.model.parameters())
        return [
            not torch.equal(old, new)
            for old, new in zip(before["alphas"], after["alphas"], strict=True)
        ]

    results = compare_around("arch_step", compare, monkeypatch)
    make_runner(tmp_path).train()
    assert results == [[True] * LAYERS] * 8


def test_weights_get_no_gradient_in_an_architecture_step(tmp_path, monkeypatch):
    original, graphs = ArchAdaptLoop._update, []

    def watched(loop, loss, wrapper, step):
        if step.startswith("architecture"):
            graphs.append({id(p) for p in leaves(loss.grad_fn)})
        original(loop, loss, wrapper, step)

    monkeypatch.setattr(ArchAdaptLoop, "_update", watched)
    runner = make_runner(tmp_path)
    runner.train()
    assert graphs and all(g == {id(a) for a in runner.model.backbone.alphas()} for g in graphs)


def leaves(node) -> list[torch.Tensor]:
    found, seen, queue = [], set(), [node]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        queue += [inner for inner, _ in node.next_functions]
    return found


def test_frozen_weights_stay_frozen(tmp_path):
    runner = make_runner(tmp_path)
    runner.model.head.requires_grad_(False)
    before = copy.deepcopy(runner.model.head.state_dict())
    runner.train()
    assert not any(p.requires_grad for p in runner.model.head.parameters())
    assert runner.model.backbone.blocks[0][0].weight.requires_grad
    assert equal(before, runner.model.head.state_dict())


@pytest.mark.parametrize(
    ("arch_steps", "weight_steps", "start", "expected"),
    [
        (1, 1, 1, "WWWW" + "AW" * 8),
        (1, 5, 1, "WWWW" + "AWWWWW" + "AWWW"),
        (5, 1, 2, "WWWWWWWW" + "AAAAAW" * 4),
        (1, 2, 0, "AWW" * 6),
    ],
)
def test_steps_alternate(arch_steps, weight_steps, start, expected, tmp_path):
    loop = dict(arch_steps=arch_steps, weight_steps=weight_steps, arch_start_epoch=start)
    runner = make_runner(tmp_path, loop=loop)
    runner.train()
    assert steps_of(runner) == expected
    assert runner.iter == runner.max_iters == 12


def test_each_half_is_passed_again_and_again_in_new_orders(tmp_path):
    loop = dict(arch_steps=2, arch_batch_size=4, split=dict(ratio=0.5, seed=1))
    runner = make_runner(tmp_path, loop=loop)
    runner.train()
    weights, alpha = (
        [n for numbers, path in runner.model.seen if (path[0] is None) == arch for n in numbers]
        for arch in (False, True)
    )
    assert len(weights) == 24 and len(alpha) == 64
    assert sorted(set(weights) | set(alpha)) == list(range(16))
    for numbers in (weights, alpha):
        passes = [tuple(numbers[i : i + 8]) for i in range(0, len(numbers), 8)]
        assert all(sorted(p) == sorted(passes[0]) for p in passes)
        assert len(set(passes)) == len(passes)


def test_the_held_out_half_has_its_own_pipeline(tmp_path):
    """The pipeline takes the noise away: then an image is the same every time."""
    runner = make_runner(tmp_path, noise=1.0, loop=dict(arch_pipeline=[]))
    loop = runner.build_train_loop(runner._train_loop)
    for loader, same in ((loop.dataloader, False), (loop.arch_dataloader, True)):
        first, again = (loader.dataset[0, seed]["image"] for seed in (1, 2))
        assert torch.equal(first, again) == same
        assert torch.equal(first, loader.dataset[0, 1]["image"])


def test_paths_are_uniform_first_and_by_alpha_later(tmp_path):
    runner = make_runner(tmp_path, loop=dict(max_epochs=60, arch_start_epoch=50))
    with torch.no_grad():
        for alpha in runner.model.backbone.alphas():
            alpha[1] = 30
    runner.train()
    paths = [path for _, path in runner.model.seen if path[0] is not None]
    for layer, candidates in enumerate((2, 3, 2, 3)):
        counts = Counter(path[layer] for path in paths[:200])
        expected = 200 / candidates
        chi_square = sum((counts[c] - expected) ** 2 / expected for c in range(candidates))
        assert chi_square < 12, counts
    assert paths[200:] == [[1] * LAYERS] * 40


def test_nothing_depends_on_the_global_random_state(tmp_path):
    class Disturb(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            torch.rand(batch_idx + 1)

    ends = []
    for hook in (Hook(), Disturb()):
        runner = make_runner(tmp_path, dropout=0.5, noise=0.1)
        runner.register_hook(hook)
        runner.train()
        ends.append(snapshot(runner))
    assert equal(*ends)


def test_schedulers_act_on_weights_only(tmp_path):
    runner = make_runner(tmp_path)
    runner.train()
    rates = runner.optim_wrapper.get_lr()
    assert rates["arch.lr"] == [0.1]
    assert rates["weights.lr"] == [pytest.approx(0.002)]


def test_the_loss_of_an_architecture_step(tmp_path, monkeypatch):
    original, losses = ArchAdaptLoop._update, []

    def watched(loop, loss, wrapper, step):
        if step.startswith("architecture"):
            task = runner.model(*last_batch(loop), mode="loss")["loss"]
            cost = sum(
                p * madds
                for layer, shape in zip(loop.backbone.mixed_layers, SHAPES, strict=True)
                for p, madds in zip(
                    torch.softmax(layer.alpha, 0).tolist(),
                    [count_madds(op, *shape) for op in layer.ops.values()],
                    strict=True,
                )
            )
            expected = task.item() + 0.3 * math.log(2 * cost / 1e5) / math.log(7)
            losses.append((loss.item(), expected))
        original(loop, loss, wrapper, step)

    batches = []
    forward = ArchAdaptLoop.arch_step

    def remember(loop, batch):
        batches.append(batch)
        forward(loop, batch)

    def last_batch(loop):
        batch = batches[-1]
        return batch["image"], batch["target"]

    # (height, width), channels of what the searched layers get from images of 16×16
    SHAPES = [((8, 8), 8), ((4, 4), 8), ((4, 4), 8), ((4, 4), 12)]
    monkeypatch.setattr(ArchAdaptLoop, "_update", watched)
    monkeypatch.setattr(ArchAdaptLoop, "arch_step", remember)
    runner = make_runner(tmp_path, cost=dict(weight=0.3, base=7))
    runner.train()
    assert len(losses) == 8
    for loss, expected in losses:
        assert loss == pytest.approx(expected, abs=1e-5)


def test_a_larger_lambda_gives_a_smaller_network(tmp_path):
    madds = []
    for weight in (0, 100):
        runner = make_runner(
            tmp_path / str(weight), cost=dict(weight=weight), loop=dict(arch_steps=3)
        )
        runner.train()
        madds.append(expected_cost(runner.model.backbone, runner.train_loop.prices).item())
        assert all(alpha.isfinite().all() for alpha in alphas_of(runner))
    assert madds[1] < 0.8 * madds[0]
    assert str(runner.model.backbone.derive()).count("skip") == 2


@pytest.mark.parametrize(
    ("bad", "message"), [("W", "weight step 7 "), ("A", "architecture step 3 ")]
)
def test_a_loss_that_is_not_finite_stops_the_run(bad, message, tmp_path):
    runner = make_runner(tmp_path, checkpoint_interval=2)
    calls, forward = Counter(), runner.model.forward

    def broken(*args, mode="tensor", **kwargs):
        outputs = forward(*args, mode=mode, **kwargs)
        calls[steps_of(runner)[-1]] += 1
        if calls[bad] == {"W": 7, "A": 3}[bad]:
            outputs["loss"] = outputs["loss"] * math.nan
        return outputs

    runner.model.forward = broken
    with pytest.raises(InputError, match=message) as caught:
        runner.train()
    assert "last good checkpoint: " + str(tmp_path / "iter_6.pth") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in runner.model.state_dict().values())
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "iter_2.pth",
        "iter_4.pth",
        "iter_6.pth",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(loop=dict(split=dict(ratio=1.5, seed=0))), "ratio 1.5"),
        (dict(loop=dict(split=dict(ratio=0.01, seed=0))), "none in the 'arch' half"),
        (dict(loop=dict(arch_start_epoch=3)), "arch_start_epoch 3"),
        (dict(loop=dict(arch_steps=0)), "arch_steps 0"),
        (dict(loop=dict(arch_steps=1.5)), "arch_steps 1.5"),
        (dict(loop=dict(arch_batch_size=0)), "arch_batch_size: 0, expected 1 or more"),
        (dict(cost=dict(base=1)), "base 1"),
        (dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1))), "weights and arch"),
    ],
)
def test_bad_settings_are_one_line(settings, message, tmp_path):
    if "optim_wrapper" in settings:
        settings["optim_wrapper"]["constructor"] = "ArchAdaptOptimWrapperConstructor"
    with pytest.raises(InputError, match=message) as caught:
        make_runner(tmp_path, **settings).train()
    assert "\n" not in str(caught.value)


def test_each_optimizer_has_its_own_settings(tmp_path):
    wrappers = dict(
        constructor="ArchAdaptOptimWrapperConstructor",
        weights=dict(
            optimizer=dict(type="SGD", lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
        arch=dict(type="CPUAmpOptimWrapper", optimizer=dict(type="Adam", lr=0.3)),
    )
    runner = make_runner(tmp_path, optim_wrapper=wrappers)
    built = runner.build_optim_wrapper(wrappers)
    alphas = runner.model.backbone.alphas()
    groups = built["weights"].optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.5}
    learning = [parameter for group in groups for parameter in group["params"]]
    everything = {id(p) for p in runner.model.parameters()}
    assert {id(p) for p in learning} == everything - {id(alpha) for alpha in alphas}
    assert [id(p) for g in built["arch"].optimizer.param_groups for p in g["params"]] == list(
        map(id, alphas)
    )
    assert type(built["arch"]).__name__ == "CPUAmpOptimWrapper"


@pytest.mark.parametrize("kind", [{}, SHARED], ids=["separate", "shared"])
def test_mixed_precision_by_bfloat16_on_cpu(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runner = make_runner(tmp_path / "plain", **kind)
    cfg = Config(dict(optim_wrapper=runner.optim_wrapper))
    use_amp(cfg)
    amp = make_runner(tmp_path / "amp", optim_wrapper=cfg.optim_wrapper, **kind)
    types = Counter()
    amp.model.backbone.blocks[2].register_forward_hook(
        lambda module, args, output: types.update([output.dtype] if output.is_cpu else [])
    )
    for each in (runner, amp):
        each.train()
    assert types == {torch.bfloat16: len(amp.model.seen)}
    assert all(p.dtype == torch.float32 for p in amp.model.parameters())
    for one, other in zip(alphas_of(runner), alphas_of(amp), strict=True):
        assert one.isfinite().all() and not torch.equal(one, other)
