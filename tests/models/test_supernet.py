import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from models import (
    FNABackbone,
    FNASuperNet,
    InputError,
    MAdds,
    NetConfig,
    count_madds,
    expected_cost,
    load_seed,
    price_list,
    remap,
)
from models.supernet import MixedLayer
from tests.conftest import REPO, net_config_file, randomize

# One searched stage keeps its channels, so at a small output stride its first layer is residual.
SMALL = dict(
    fixed_stage="[[8, 8], ['k3_e1'], 1]",
    channels=[8, 12, 16, 16],
    layers=[3, 2, 4, 1],
    strides=[2, 2, 2, 2],
    ops=["k3_e3", "k5_e2", "k7_e6", "skip"],
    out_indices=(2, 3, 4, 5),
)
# As SSDLite has it: one map is an expanded activation, another comes from a last 1x1 conv.
EXPANDED = dict(
    ops=["k3_e3", "k5_e2", "k7_e6", "skip"],
    layer_ops={"4.0": ["k3_e6", "k5_e6", "k7_e6"], "4.2": ["k5_e1", "skip"]},
    temperature=0.9,
    out_indices=("4.expand", 3, 6),
    last_channels=20,
    norm_cfg=dict(type="BN", eps=1e-3),
)
SIX_OPS = ["k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6"]
DETECTION = Config.fromfile(REPO / "configs/_base_/search_space_detection.py").search_space
SEED_DEPTHS = (2, 3, 4, 3, 3, 1)
PARTS = ("expand", "depthwise", "project")


def build(seed: int = 0, **changes) -> FNASuperNet:
    return randomize(FNASuperNet(**{**SMALL, **changes}), generator_seed=seed)


def random_path(supernet: FNASuperNet, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(layer.candidates) for layer in supernet.mixed_layers]
    return [torch.randint(n, (), generator=generator).item() for n in sizes]


def set_alphas(supernet: FNASuperNet, values: list) -> None:
    for alpha, value in zip(supernet.alphas(), values, strict=True):
        alpha.data = torch.as_tensor(value, dtype=alpha.dtype)


def one_hot_alphas(supernet: FNASuperNet, path: list[int]) -> list[torch.Tensor]:
    """So far apart that the softmax is 1 and 0 exactly."""
    alphas = []
    for choice, layer in zip(path, supernet.mixed_layers, strict=True):
        alphas.append(torch.randn(len(layer.candidates)))
        alphas[-1][choice] = 1e4
    return alphas


def rows_of(path: list[int], space: dict) -> list:
    """The net_config of a path, by the paper's words: skips last, real ops in their order."""
    rows, choices = NetConfig.parse(space["fixed_stage"]), iter(path)
    rows = [[[s.in_channels, s.out_channels], list(s.ops), s.stride] for s in rows.stages]
    for number, (channels, depth, stride) in enumerate(
        zip(space["channels"], space["layers"], space["strides"], strict=True), len(rows) + 1
    ):
        ops = []
        for layer in range(depth):
            candidates = space.get("layer_ops", {}).get(f"{number}.{layer}", space["ops"])
            candidates = [op for op in candidates if op != "skip" or layer > 0]
            ops.append(candidates[next(choices)])
        kept = [op for op in ops if op != "skip"]
        rows.append([[rows[-1][0][1], channels], kept + ["skip"] * (depth - len(kept)), stride])
    return rows


def derived_twin(supernet: FNASuperNet, path: list[int], space: dict) -> FNABackbone:
    """The network of a path with the super network's weights; its searched BN is 1 and 0."""
    twin = FNABackbone(
        rows_of(path, space), supernet.out_indices, space.get("output_stride", 32),
        space.get("last_channels"), space.get("norm_cfg"),
    ).train()  # fmt: skip
    weights = {k: v for k, v in supernet.state_dict().items() if k in twin.state_dict()}
    choices = iter(path)
    stages = supernet.blocks[2 : 2 + len(space["layers"])]
    for stage, block in enumerate(stages, 2):
        layers = ((mixed, mixed.candidates[next(choices)]) for mixed in block.layers)
        real = [mixed.ops[op] for mixed, op in layers if op != "skip"]
        for number, op in enumerate(real):
            prefix = f"blocks.{stage}.layers.{number}."
            weights |= {prefix + key: tensor for key, tensor in op.state_dict().items()}
    own = twin.state_dict()
    missing = own.keys() - weights.keys()
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert weights.keys() <= own.keys() and all(key.endswith(norms) for key in missing)
    assert not any(own[key].dim() > 1 for key in missing if key.endswith("weight"))
    twin.load_state_dict(own | weights)
    return twin


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("seed", range(4))
def test_one_path_and_one_hot_compute_the_derived_network(seed, output_stride):
    space = {**SMALL, "output_stride": output_stride}
    supernet = build(seed, output_stride=output_stride)
    path = random_path(supernet, seed)
    if seed == 0:  # skips between real ops, which derive() moves
        path = [1, 3, 0, 2, 3, 0, 3, 2, 1, 1]
    twin = derived_twin(supernet, path, space)
    image = torch.randn(2, 3, 64, 96)
    expected = twin(image)
    assert [tuple(m.shape[2:]) for m in expected] == [
        (64 // s, 96 // s) for s in (min(s, output_stride) for s in (4, 8, 16, 32))
    ]

    supernet.set_path(path)
    torch.testing.assert_close(supernet(image), expected)
    supernet.set_path(None)
    set_alphas(supernet, one_hot_alphas(supernet, path))
    torch.testing.assert_close(supernet(image), expected)
    assert supernet.derive() == twin.net_config


@pytest.mark.parametrize("output_stride", [32, 16])
@pytest.mark.parametrize("seed", range(3))
def test_one_path_and_one_hot_give_the_derived_networks_expanded_map(seed, output_stride):
    space = {**SMALL, **EXPANDED, "output_stride": output_stride}
    supernet = build(seed, **space)
    path = random_path(supernet, seed)
    twin = derived_twin(supernet, path, space)
    image = torch.randn(2, 3, 64, 96)
    expected = twin(image)
    last = (2, 20, 64 // output_stride, 96 // output_stride)
    assert [m.shape for m in expected] == [(2, 72, 8, 12), (2, 12, 8, 12), last]

    supernet.set_path(path)
    torch.testing.assert_close(supernet(image), expected)
    supernet.set_path(None)
    set_alphas(supernet, one_hot_alphas(supernet, path))
    torch.testing.assert_close(supernet(image), expected)
    assert supernet.derive() == twin.net_config
    searched = FNABackbone(supernet.derive(), (5,), output_stride)  # without the last conv
    assert expected_madds(supernet, (61, 50)).item() == searched_madds(searched, (61, 50))


def test_expanded_map_is_the_weighted_sum_of_what_the_candidates_expand():
    supernet = build(**EXPANDED)
    layer = supernet.blocks[4].layers[0]
    set_alphas(supernet, [torch.randn(len(a)) for a in supernet.alphas()])
    seen = []
    for op in layer.ops.values():
        op.expand[2].register_forward_hook(lambda *args: seen.append(args[2].clone()))
    expanded, _, _ = supernet(torch.randn(2, 3, 64, 96))
    powers = [math.exp(a / 0.9) for a in layer.alpha.tolist()]
    assert len(seen) == 3  # each is computed once
    total = sum(power / sum(powers) * map_ for power, map_ in zip(powers, seen, strict=True))
    torch.testing.assert_close(expanded, total)
    expanded.square().mean().backward()  # the map alone teaches its layer's alpha
    assert layer.alpha.grad.abs().max() > 0
    assert supernet.blocks[4].layers[1].alpha.grad is None


def test_layer_ops_take_the_place_of_ops_in_their_layers():
    supernet = build(**EXPANDED)
    candidates = iter(layer.candidates for layer in supernet.mixed_layers)
    for stage, depth in enumerate(SMALL["layers"], 2):
        for layer in range(depth):
            ops = EXPANDED["layer_ops"].get(f"{stage}.{layer}", SMALL["ops"])
            assert next(candidates) == tuple(op for op in ops if op != "skip" or layer > 0)
    assert build(layer_ops={"2.0": ["skip", "k3_e1"]}).mixed_layers[0].candidates == ("k3_e1",)


def test_all_ops_are_the_weighted_sum():
    layer = MixedLayer(SMALL["ops"], 8, 8, stride=1, dilation=2, temperature=0.5)
    layer.alpha.data = torch.tensor([0.3, -0.2, 0.1, 0.6])
    x = torch.randn(2, 8, 9, 7)
    powers = [math.exp(a / 0.5) for a in (0.3, -0.2, 0.1, 0.6)]
    expected = sum(
        power / sum(powers) * layer.ops[op](x)
        for power, op in zip(powers, SMALL["ops"], strict=True)
    )
    torch.testing.assert_close(layer(x), expected)


# Cost


def expected_madds(supernet: FNASuperNet, size: tuple[int, int]) -> torch.Tensor:
    return expected_cost(supernet, price_list(supernet, MAdds(), size))


def searched_madds(backbone: FNABackbone, size: tuple[int, int]) -> int:
    fixed = nn.Sequential(backbone.blocks[0], backbone.blocks[1])
    return count_madds(backbone, size) - count_madds(fixed, size)


@pytest.mark.parametrize("output_stride", [32, 8])
@pytest.mark.parametrize("size", [(97, 131), (64, 64), (32, 31), (1, 1)])
def test_expected_madds_at_one_hot_are_the_derived_networks(size, output_stride):
    supernet = build(output_stride=output_stride)
    for seed in range(4):
        path = random_path(supernet, seed)
        set_alphas(supernet, one_hot_alphas(supernet, path))
        derived = FNABackbone(supernet.derive(), supernet.out_indices, output_stride)
        assert expected_madds(supernet, size).item() == searched_madds(derived, size)


@pytest.mark.parametrize("name", ["retinanet", "mobilenetv2"])
def test_expected_madds_of_published_architectures(name):
    """In the real search space, at the size of the paper's cost."""
    supernet = FNASuperNet(**DETECTION)
    rows, path = NetConfig.parse(net_config_file(name)).stages[1:], []
    for row, depth in zip(rows, DETECTION["layers"], strict=True):
        ops = [*row.ops, *["skip"] * (depth - len(row.ops))]
        path += [DETECTION["ops"].index(op) for op in ops]
    set_alphas(supernet, one_hot_alphas(supernet, path))
    derived = FNABackbone(net_config_file(name))
    assert expected_madds(supernet, (800, 1088)).item() == searched_madds(derived, (800, 1088))


def test_expected_madds_are_the_double_loop():
    supernet = build(temperature=0.7)
    total, height, width = 0.0, math.ceil(97 / 2), math.ceil(131 / 2)
    layers = iter(supernet.mixed_layers)
    before = 8
    for channels, depth in zip(SMALL["channels"], SMALL["layers"], strict=True):
        for number in range(depth):
            layer = next(layers)
            old, new = height * width, height * width
            if number == 0:
                height, width = math.ceil(height / 2), math.ceil(width / 2)
                new = height * width
            powers = [math.exp(a / 0.7) for a in layer.alpha.tolist()]
            for power, op in zip(powers, layer.candidates, strict=True):
                if op != "skip":
                    kernel, expansion = int(op[1]), int(op[4])
                    hidden = expansion * before
                    madds = old * before * hidden + new * hidden * (kernel**2 + channels)
                    total += power / sum(powers) * madds
            before = channels
    assert expected_madds(supernet, (97, 131)).item() == pytest.approx(total, rel=1e-6)


def test_price_list_asks_the_cost_once_for_each_candidate():
    supernet, asked = build(), []

    class Outputs:
        """A custom cost: numbers that an op gives for one input."""

        def __call__(self, op, shape):
            asked.append(shape)
            return float(op(torch.zeros(1, *shape)).numel())

    prices = price_list(supernet.eval(), Outputs(), (64, 96))
    sizes = [len(alpha) for alpha in supernet.alphas()]
    assert prices.shape == (len(sizes), max(sizes)) and prices.dtype == torch.double
    assert len(asked) == sum(sizes)
    assert asked[0] == (8, 32, 48) and asked[-1] == (16, 4, 6)
    assert prices[0].tolist() == [8 * 16 * 24] * 3 + [0]
    assert prices[-1].tolist() == [16 * 6] * 3 + [0]
    for row, size in zip(prices.tolist(), sizes, strict=True):
        assert all(row[:size]) and not any(row[size:])


def test_price_list_computes_no_image_and_changes_nothing():
    supernet = build()
    supernet.set_path(random_path(supernet, 0))
    paths = [layer.path for layer in supernet.mixed_layers]
    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    rng = torch.get_rng_state()
    # the stem's output alone would be 80 gigabytes
    madds = price_list(supernet, MAdds(), (100_000, 50_000)).sum()
    assert torch.equal(torch.get_rng_state(), rng)
    assert madds > 1e12 and supernet.training
    assert [layer.path for layer in supernet.mixed_layers] == paths
    for key, tensor in supernet.state_dict().items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, before[key])


def test_prices_are_where_alpha_is(monkeypatch):
    """But on the CPU, where a super network has no numbers. No second device is here to try."""
    supernet = build()
    assert not price_list(supernet.to("meta"), MAdds(), (64, 64)).is_meta
    elsewhere = SimpleNamespace(device="meta", is_meta=False)
    monkeypatch.setattr(supernet, "alphas", lambda: [elsewhere])
    assert price_list(supernet, MAdds(), (64, 64)).is_meta


def test_cost_under_autocast_is_the_same():
    supernet = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = expected_madds(supernet, (64, 64))
    assert mixed.dtype == torch.double and torch.equal(mixed, expected_madds(supernet, (64, 64)))


# Gradients

TINY = dict(
    fixed_stage="[[4, 4], ['k3_e1'], 1]",
    channels=[4, 6],
    layers=[2, 1],
    strides=[1, 2],
    ops=["k3_e2", "k5_e1", "skip"],
    output_stride=4,
    out_indices=(2, 3),
)


class Cost(nn.Module):
    def __init__(self, supernet: FNASuperNet):
        super().__init__()
        self.supernet = supernet

    def forward(self, prices):
        return expected_cost(self.supernet, prices) / 1e5


@pytest.mark.parametrize("what", ["cost", "features"])
def test_gradients_in_alpha_agree_with_finite_differences(what):
    supernet = build(temperature=0.8, **TINY).double().requires_grad_(False)
    prices = price_list(supernet, MAdds(), (33, 47))
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    model, argument = (Cost(supernet), prices) if what == "cost" else (supernet, image)
    names = [name for name, _ in model.named_parameters() if name.endswith("alpha")]
    alphas = [torch.randn(n).double().requires_grad_() for n in (2, 3, 2)]

    def result(*values):
        output = functional_call(model, dict(zip(names, values, strict=True)), (argument,))
        return output if what == "cost" else sum(m.square().mean() + m[0, 0].sum() for m in output)

    assert torch.autograd.gradcheck(result, alphas)
    result(*alphas).backward()
    assert all(alpha.grad.abs().max() > 1e-3 for alpha in alphas)


def names_with_gradient(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("seed", range(3))
def test_one_path_gives_gradients_to_the_chosen_weights_only(seed):
    supernet = build(seed)
    path = random_path(supernet, seed)
    supernet.set_path(path)
    sum(m.square().mean() for m in supernet(torch.randn(2, 3, 64, 64))).backward()
    expected = {k for k, _ in supernet.named_parameters() if k.startswith(("blocks.0", "blocks.1"))}
    for name, module in supernet.named_modules():
        if isinstance(module, MixedLayer):
            chosen = f"{name}.ops.{module.candidates[path.pop(0)]}."
            expected |= {k for k, _ in supernet.named_parameters() if k.startswith(chosen)}
    assert names_with_gradient(supernet) == expected


def test_all_ops_give_gradients_to_alpha_and_all_weights():
    supernet = build()
    sum(m.square().mean() for m in supernet(torch.randn(2, 3, 64, 64))).backward()
    assert names_with_gradient(supernet) == {name for name, _ in supernet.named_parameters()}
    assert all(alpha.grad.abs().max() > 0 for alpha in supernet.alphas())


@pytest.mark.parametrize("best", range(4))
def test_a_layer_finds_the_op_that_its_task_prefers(best):
    torch.manual_seed(best)
    layer = MixedLayer(SMALL["ops"], 8, 8, stride=1, dilation=1, temperature=1.0)
    optimizer = torch.optim.Adam([layer.alpha], lr=0.1)
    for _ in range(40):
        x = torch.randn(4, 8, 12, 12)
        with torch.no_grad():
            wanted = layer.ops[SMALL["ops"][best]](x)
        loss = (layer(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.alpha.argmax() == best and layer.probabilities()[best] > 0.8


def alpha_gradients(supernet: FNASuperNet, image: torch.Tensor) -> list[torch.Tensor]:
    """As in an architecture step: of a loss of the features, for α alone."""
    supernet.zero_grad()
    alphas = {id(alpha) for alpha in supernet.alphas()}
    for parameter in supernet.parameters():
        parameter.requires_grad = id(parameter) in alphas
    sum(m.square().mean() + m[0, 0].sum() for m in supernet(image)).backward()
    return [alpha.grad for alpha in supernet.alphas()]


def kept_bytes(supernet: FNASuperNet, image: torch.Tensor) -> int:
    """What forward keeps for backward, each storage once."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = supernet(image)
    assert all(m.requires_grad for m in maps)
    return sum(kept.values())


SPACES = {
    "small": (SMALL, (2, 3, 48, 80)),
    "expanded": ({**SMALL, **EXPANDED}, (2, 3, 64, 64)),
    "dilated": ({**SMALL, "output_stride": 8}, (2, 3, 48, 48)),
    "retinanet": ("fna_det/retinanet_arch_adapt_coco.py", (1, 3, 64, 96)),
    "ssdlite": ("fna_det/ssdlite_arch_adapt_coco.py", (2, 3, 64, 64)),
    "deeplabv3": ("fna_seg/deeplabv3_arch_adapt_cityscapes.py", (1, 3, 65, 65)),
}


@pytest.mark.parametrize(
    "space, dtype", [*((name, None) for name in SPACES), ("ssdlite", torch.bfloat16)]
)
def test_checkpointed_candidates_give_equal_gradients_and_keep_less(space, dtype):
    space, shape = SPACES[space]
    if isinstance(space, str):
        space = dict(Config.fromfile(REPO / "configs" / space).model.backbone, init_cfg=None)
        space.pop("type")
    torch.manual_seed(0)
    usual = randomize(FNASuperNet(**space))
    sparing = randomize(FNASuperNet(**space, with_cp=True))
    image = torch.randn(shape)
    set_alphas(usual, [torch.randn(len(a)) for a in usual.alphas()])
    sparing.load_state_dict(usual.state_dict())
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        gradients = [alpha_gradients(supernet, image) for supernet in (usual, sparing)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.abs().max() > 0 and torch.equal(ours, theirs)
    for (name, one), other in zip(usual.named_buffers(), sparing.buffers(), strict=True):
        assert torch.equal(one, other), name  # no statistics were taken twice
    assert kept_bytes(sparing, image) < 0.4 * kept_bytes(usual, image)


def test_one_path_is_not_checkpointed():
    usual, sparing = build(seed=3), build(seed=3, with_cp=True)
    image = torch.randn(2, 3, 64, 64)
    for supernet in (usual, sparing):
        supernet.set_path(random_path(supernet, 1))
    assert kept_bytes(usual, image) == kept_bytes(sparing, image)


def test_alpha_of_all_layers_at_once():
    supernet = build(seed=1, layer_ops={"3.1": ["k3_e1", "skip"]})
    set_alphas(supernet, [torch.randn(len(a)) for a in supernet.alphas()])
    for value, alpha in zip(supernet.alpha_values(), supernet.alphas(), strict=True):
        assert torch.equal(value, alpha) and not value.requires_grad
    matrix = supernet.probability_matrix()
    for row, layer in zip(matrix, supernet.mixed_layers, strict=True):
        size = len(layer.candidates)
        assert torch.equal(row[:size], layer.probabilities()) and not row[size:].any()
    generator, other = (torch.Generator().manual_seed(0) for _ in range(2))
    path = supernet.sample_path(generator, alphas=supernet.alpha_values())
    assert path == supernet.sample_path(other)


# Sampling

CHI_SQUARE = {3: 13.82, 4: 16.27, 5: 18.47, 6: 20.52, 7: 22.46}  # exceeded once in 1000, by choices


@pytest.mark.parametrize("uniform", [False, True])
def test_sampling_follows_the_softmax_without_temperature(uniform):
    supernet, draws = build(seed=5, temperature=0.6), 3000
    set_alphas(supernet, [0.5 * torch.randn(len(a)) for a in supernet.alphas()])
    generator = torch.Generator().manual_seed(0)
    paths = [supernet.sample_path(generator, uniform=uniform) for _ in range(draws)]
    statistics = []
    for layer, choices in zip(supernet.mixed_layers, zip(*paths, strict=True), strict=True):
        powers = [1 if uniform else math.exp(a) for a in layer.alpha.tolist()]
        expected = [draws * power / sum(powers) for power in powers]
        counts = [choices.count(i) for i in range(len(powers))]
        assert sum(counts) == draws
        statistic = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))
        assert statistic < CHI_SQUARE[len(powers)]
        statistics.append(statistic)
    assert max(statistics) > 0.1  # counts that fit too well are not drawn


def test_layers_are_drawn_independently():
    supernet = build()
    set_alphas(supernet, [torch.zeros(len(a)) for a in supernet.alphas()])
    generator = torch.Generator().manual_seed(0)
    paths = [supernet.sample_path(generator) for _ in range(2000)]
    pairs = [(path[1], path[2]) for path in paths]  # two layers of four candidates each
    expected = len(pairs) / 16
    counts = [pairs.count((i, j)) for i in range(4) for j in range(4)]
    assert sum((c - expected) ** 2 / expected for c in counts) < 37.70  # 15 degrees of freedom


def test_equal_generators_draw_equal_paths_and_global_state_stays():
    first, second = build(), build()
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    ours = [first.sample_path(generators[0]) for _ in range(20)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert ours == [second.sample_path(generators[1]) for _ in range(20)]
    assert len(set(map(tuple, ours))) > 10
    assert first.sample_path(torch.Generator().manual_seed(4)) not in ours[:1]


def test_temperature_divides_alpha():
    alphas = [torch.randn(len(a)) for a in build().alphas()]
    for temperature in (0.25, 1, 4.0):
        supernet = build(temperature=temperature)
        set_alphas(supernet, alphas)
        for alpha, probabilities in zip(alphas, supernet.probabilities(), strict=True):
            powers = [math.exp(a / temperature) for a in alpha.tolist()]
            expected = torch.tensor([power / sum(powers) for power in powers])
            torch.testing.assert_close(probabilities, expected)
        assert supernet.derive() == NetConfig.parse(
            rows_of([alpha.argmax().item() for alpha in alphas], SMALL)
        )


# Derived architecture


@pytest.mark.parametrize(
    "path, ops",
    [
        ([0, 3, 2], ["k3_e3", "k7_e6", "skip"]),
        ([1, 3, 3], ["k5_e2", "skip", "skip"]),
        ([2, 0, 1], ["k7_e6", "k3_e3", "k5_e2"]),
        ([2, 1, 3], ["k7_e6", "k5_e2", "skip"]),
    ],
)
def test_derived_stage(path, ops):
    supernet = build(channels=[10], layers=[3], strides=[2], output_stride=4, out_indices=(2,))
    # margins as small as a search may leave
    alphas = [torch.full((n,), -0.1) for n in (3, 4, 4)]
    for alpha, choice in zip(alphas, path, strict=True):
        alpha[choice] += 1e-6
    set_alphas(supernet, alphas)
    derived = supernet.derive()
    text = f"[[8, 8], ['k3_e1'], 1]|\n[[8, 10], {ops}, 2]"
    assert str(derived) == text and NetConfig.parse(text) == derived


def test_first_layers_never_skip():
    supernet = build()
    layers = iter(supernet.mixed_layers)
    for depth in SMALL["layers"]:
        assert "skip" not in next(layers).candidates
        assert all(next(layers).candidates == tuple(SMALL["ops"]) for _ in range(depth - 1))
    # every later layer prefers skip, which is the last candidate
    set_alphas(supernet, [torch.arange(float(len(a))) for a in supernet.alphas()])
    derived = supernet.derive()
    assert NetConfig.parse(str(derived)) == derived
    for stage in derived.stages[1:]:
        assert stage.ops == ("k7_e6", *["skip"] * (len(stage.ops) - 1))
    FNABackbone(derived, supernet.out_indices)(torch.randn(2, 3, 64, 64))


# Remapping


def test_every_candidate_holds_the_seeds_tensors(seed_network):
    supernet, seed = FNASuperNet(**DETECTION), seed_network.state_dict()
    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    remapped = remap(seed, before)
    assert set(remapped) == set(before)
    for key in remapped:
        if key.startswith(("blocks.0", "blocks.1")):
            assert torch.equal(remapped[key], seed[key])
        if key.endswith("alpha"):
            assert torch.equal(remapped[key], before[key])
    checked = 0
    for stage, (depth, seed_depth) in enumerate(
        zip(DETECTION["layers"], SEED_DEPTHS, strict=True), 2
    ):
        for layer in range(depth):
            for op in SIX_OPS:
                kernel, expansion = int(op[1]), int(op[4])
                theirs = f"blocks.{stage}.layers.{min(layer, seed_depth - 1)}."
                ours = f"blocks.{stage}.layers.{layer}.ops.{op}."
                expand, depthwise, project = (remapped[f"{ours}{part}.0.weight"] for part in PARTS)
                hidden, margin = len(expand), (kernel - 3) // 2
                assert hidden == expansion * expand.shape[1]
                assert torch.equal(expand, seed[f"{theirs}expand.0.weight"][:hidden])
                assert torch.equal(project, seed[f"{theirs}project.0.weight"][:, :hidden])
                centre = depthwise[..., margin : margin + 3, margin : margin + 3]
                assert torch.equal(centre, seed[f"{theirs}depthwise.0.weight"][:hidden])
                assert depthwise.count_nonzero() == centre.count_nonzero()
                checked += 3
    convs = [k for k in remapped if ".ops." in k]
    assert checked == len(convs)  # and no candidate owns anything but its three convs


def test_the_seeds_path_of_a_remapped_super_network_is_the_seed(seed_network):
    """Up to BN's terms, which a candidate lacks."""
    supernet = FNASuperNet(**DETECTION)
    supernet.load_state_dict(remap(seed_network.state_dict(), supernet.state_dict()))
    seed = FNABackbone(net_config_file("mobilenetv2")).train()
    for key, parameter in seed.named_parameters():
        if key.startswith(("blocks.0", "blocks.1.")) or parameter.dim() == 4:
            parameter.data = seed_network.state_dict()[key].clone()
    kept = [layer < depth for depth, n in zip(SEED_DEPTHS, DETECTION["layers"], strict=True)
            for layer in range(n)]  # fmt: skip
    skip, image = DETECTION["ops"].index("skip"), torch.randn(2, 3, 64, 64)
    for op in ("k3_e6", "k7_e6"):
        real = DETECTION["ops"].index(op)
        supernet.set_path([real if keep else skip for keep in kept])
        torch.testing.assert_close(supernet(image), seed(image), rtol=1e-3, atol=1e-3)


def test_remap_initializes_a_super_network(seed_file):
    init_cfg = dict(type="Remap", seed=str(seed_file))
    supernet = MODELS.build(dict(type="FNASuperNet", **DETECTION, init_cfg=init_cfg))
    expected = remap(load_seed(seed_file), supernet.state_dict())
    supernet.init_weights()
    for key, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


# What a step costs


def bytes_saved(network: nn.Module, image: torch.Tensor) -> int:
    """Bytes kept for the backward pass, each storage once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor  # held, so no address comes twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = network(image)
    assert maps
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def flops(network: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        sum(m.mean() for m in network(image)).backward()
    return counter.get_total_flops()


def test_one_path_costs_as_much_as_the_derived_network():
    space = {**SMALL, "ops": [*SIX_OPS, "skip"]}
    supernet, image = build(ops=space["ops"]), torch.randn(2, 3, 64, 64)
    for seed in range(3):
        path = random_path(supernet, seed)
        twin = derived_twin(supernet, path, space)
        supernet.set_path(path)
        memory, arithmetic = bytes_saved(supernet, image), flops(supernet, image)
        assert memory <= 1.2 * bytes_saved(twin, image)
        assert arithmetic == flops(twin, image)
        supernet.set_path(None)
        assert bytes_saved(supernet, image) >= 3 * memory
        assert flops(supernet, image) >= 3 * arithmetic


# A network like any other


def test_searched_norms_have_no_terms_and_the_fixed_ones_keep_theirs():
    supernet = build()
    for name, norm in supernet.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            searched = ".ops." in name
            assert (norm.weight is None) == (norm.bias is None) == searched
            assert (norm.running_mean is None) == (norm.running_var is None) == searched
            assert norm.affine == norm.track_running_stats == (not searched)
    assert not any(".ops." in key and ".weight" not in key for key in supernet.state_dict())

    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    image = 3 * torch.randn(2, 3, 64, 64)
    supernet(image)
    changed = {key for key, t in supernet.state_dict().items() if not torch.equal(t, before[key])}
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {key for key in before if key.endswith(running)} != set()

    # evaluation, too, normalizes by the batch
    layer, x = supernet.mixed_layers[1], torch.randn(2, 8, 16, 16)
    in_training = layer(x)
    assert torch.equal(supernet.eval().mixed_layers[1](x), in_training)


def test_state_dict_round_trip():
    first, second = build(seed=1), build(seed=2)
    image = torch.randn(2, 3, 64, 64)
    keys = set(first.state_dict())
    assert {f"blocks.2.layers.1.ops.k5_e2.{part}.0.weight" for part in PARTS} <= keys
    assert {"blocks.2.layers.1.alpha", "blocks.1.layers.0.depthwise.1.running_var"} <= keys
    assert not any("skip" in key for key in keys)
    second.load_state_dict(first.state_dict())
    assert second.derive() == first.derive()
    for ours, theirs in zip(first(image), second(image), strict=True):
        assert torch.equal(ours, theirs)


def test_initialization_is_near_uniform_and_keeps_the_signal():
    torch.manual_seed(0)
    supernet = FNASuperNet(**SMALL)
    supernet.init_weights()
    alphas = torch.cat([alpha.detach() for alpha in supernet.alphas()])
    assert 3e-4 < alphas.std() < 3e-3 and alphas.abs().max() < 5e-3
    supernet.set_path(random_path(supernet, 0))
    assert all(0.05 < m.std() < 20 for m in supernet(torch.randn(2, 3, 64, 64)))


@pytest.mark.parametrize(
    "changes",
    [
        dict(ops=["k9_e4", "k1_e1", "skip"]),
        dict(ops=["k5_e6"]),
        dict(ops=["skip", "k3_e3"]),
        dict(layers=[1, 1, 5, 2], channels=[6, 20, 9, 33], strides=[1, 2, 2, 2], output_stride=16),
        dict(channels=[12], layers=[2], strides=[2], output_stride=4, out_indices=(2,)),
        dict(channels=[8] * 6, layers=[2] * 6, strides=[2, 1, 2, 1, 2, 2], out_indices=(0, 7)),
        dict(
            fixed_stage="[[8, 6], ['k5_e2', 'skip'], 2]", strides=[2, 2, 1, 2], out_indices=(1, 5)
        ),
        dict(last_channels=40, out_indices=(6,)),
    ],
)
def test_edited_search_spaces(changes):
    space = {**SMALL, **changes}
    supernet = build(**changes)
    assert len(supernet.mixed_layers) == sum(space["layers"])
    image = torch.randn(2, 3, 64, 64)
    path = supernet.sample_path(torch.Generator().manual_seed(0), uniform=True)
    supernet.set_path(path)
    one = supernet(image)
    supernet.set_path(None)
    both = supernet(image)
    assert [m.shape for m in one] == [m.shape for m in both]
    assert all(m.isfinite().all() for m in (*one, *both))
    set_alphas(supernet, one_hot_alphas(supernet, path))
    derived = supernet.derive()
    assert derived == NetConfig.parse(rows_of(path, space)) == NetConfig.parse(str(derived))
    backbone = FNABackbone(derived, (1,), space.get("output_stride", 32))
    assert expected_madds(supernet, (61, 50)).item() == searched_madds(backbone, (61, 50))


def test_config_builds_the_detection_search_space():
    supernet = MODELS.build(dict(type="FNASuperNet", **DETECTION))
    assert [m.shape[1:] for m in supernet(torch.randn(1, 3, 64, 96))] == [
        (24, 16, 24), (32, 8, 12), (96, 4, 6), (320, 2, 3)
    ]  # fmt: skip
    assert [len(a) for a in supernet.alphas()] == [6, 7, 7, 7] * 5 + [6]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(ops=["k3_e3", "k4_e3"]), "k4_e3"),
        (dict(ops=["k3_e3", "conv"]), "unknown op 'conv'"),
        (dict(ops=["k3_e3", 5]), "unknown op '5'"),
        (dict(ops="k3_e3"), "unknown op 'k'"),
        (dict(ops=[]), "ops"),
        (dict(ops=["skip"]), "real"),
        (dict(ops=["k3_e3", "k3_e3"]), "different"),
        (dict(layers=[3, 2, 4]), "unequal lengths"),
        (dict(channels=[8, 12, 16, 16, 16]), "unequal lengths"),
        (dict(strides=[2]), "unequal lengths"),
        (dict(channels=[], layers=[], strides=[]), "one entry per stage"),
        (dict(layers=[3, 2, 0, 1]), "at least 1 layer"),
        (dict(layers=[3, 2, 1.5, 1]), "whole numbers"),
        (dict(channels=24), "whole numbers"),
        (dict(channels=[8, 12, 0, 16]), "1 channel"),
        (dict(strides=[2, 2, 3, 2]), "stride 1 or 2"),
        (dict(temperature=0), "temperature 0"),
        (dict(temperature=-1.0), "temperature"),
        (dict(temperature=math.nan), "temperature"),
        (dict(temperature=math.inf), "temperature"),
        (dict(temperature="1"), "temperature"),
        (dict(fixed_stage="[[8, 8], ['skip'], 1]"), "skip"),
        (dict(output_stride=64), "output_stride"),
        (dict(out_indices=(2, 6)), "out_indices"),
        (dict(out_indices=("4.expand",)), "'4.expand' needs one expansion .* got e2, e3, e6"),
        (dict(out_indices=("4.expand",), layer_ops={"4.0": ["k3_e1", "k5_e1"]}), "got e1 "),
        (dict(out_indices=("1.expand",)), "'1.expand' needs one expansion .* got e1 "),
        (dict(out_indices=("6.expand",)), "no map '6.expand', expected .* 1 to 5"),
        (dict(layer_ops={"4.4": ["k3_e3"]}), "no searched layer '4.4'"),
        (dict(layer_ops={"1.0": ["k3_e3"]}), "no searched layer '1.0'"),
        (dict(layer_ops={"4.0": ["skip"]}), r"layer_ops '4\.0': \['skip'\], .* real"),
        (dict(layer_ops={"4.0": ["k2_e3"]}), r"layer_ops '4\.0': op 'k2_e3'"),
        (dict(layer_ops={"4.0": 3}), r"layer_ops '4\.0': 3, expected a list"),
        (dict(layer_ops=["4.0"]), r"layer_ops \['4\.0'\], expected a dict"),
        (dict(norm_cfg=dict(type="GN")), "norm_cfg"),
    ],
)
def test_bad_search_spaces(changes, message):
    with pytest.raises(InputError, match=message) as error:
        FNASuperNet(**{**SMALL, **changes})
    assert "\n" not in str(error.value)


def test_a_path_of_another_length_is_refused():
    with pytest.raises(ValueError):
        build().set_path([0])
