import pytest
import torch
from torch import Tensor, nn

from models import (
    FNABackbone,
    FNASuperNet,
    InputError,
    MAdds,
    NetConfig,
    cost_term,
    expected_cost,
    price_list,
    remap,
)
from models.ops import parse_op
from models.shared_layer import ScaledRings, SharedLayer
from tests.conftest import net_config_file, randomize
from tests.models.test_supernet import (
    EXPANDED,
    SMALL,
    one_hot_alphas,
    random_path,
    rows_of,
    set_alphas,
)

SPACES = {
    "stride 32": {},
    "stride 8": dict(output_stride=8),
    "expanded map": EXPANDED,
    "any sizes": dict(ops=["k3_e4", "k9_e2", "k5_e3", "skip", "k3_e2"], temperature=0.5),
    "no expansion": dict(ops=["k3_e1", "k5_e1", "skip"]),
}


def build(seed: int = 0, **changes) -> FNASuperNet:
    supernet = FNASuperNet(**{**SMALL, **changes}, share_weights=True)
    return randomize(supernet, generator_seed=seed)


def sliced(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first channels and the centre of the kernel."""
    cut = (tensor.shape[2] - shape[2]) // 2
    end = tensor.shape[2] - cut
    return tensor[: shape[0], : shape[1], cut:end, cut:end]


def derived_twin(supernet: FNASuperNet, path: list[int], space: dict) -> FNABackbone:
    """The network of a path, with its slices of the super network's weights."""
    twin = FNABackbone(
        rows_of(path, space), supernet.out_indices, space.get("output_stride", 32),
        space.get("last_channels"), space.get("norm_cfg"),
    ).train()  # fmt: skip
    weights, choices = twin.state_dict(), iter(path)
    given = supernet.state_dict()
    weights |= {k: v for k, v in given.items() if k in weights and v.shape == weights[k].shape}
    for stage, block in enumerate(supernet.blocks[2 : 2 + len(space["layers"])], 2):
        chosen = [(layer, layer.candidates[next(choices)]) for layer in block.layers]
        real = [number for number, (_, op) in enumerate(chosen) if op != "skip"]
        for place, number in enumerate(real):
            for part in ("expand", "depthwise", "project"):
                key = f"blocks.{stage}.layers.{place}.{part}.0.weight"
                if key in weights:
                    large = given[f"blocks.{stage}.layers.{number}.{part}.0.weight"]
                    weights[key] = sliced(large, weights[key].shape)
    twin.load_state_dict(weights)
    return twin


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(2))
def test_one_path_and_one_hot_are_the_derived_network(name, seed):
    space = {**SMALL, **SPACES[name]}
    supernet = build(seed, **SPACES[name])
    path, image = random_path(supernet, seed), torch.randn(2, 3, 64, 96)
    expected = derived_twin(supernet, path, space)(image)
    supernet.set_path(path)
    for ours, derived in zip(supernet(image), expected, strict=True):
        assert torch.equal(ours, derived)
    supernet.set_path(None)
    set_alphas(supernet, one_hot_alphas(supernet, path))
    for ours, derived in zip(supernet(image), expected, strict=True):
        assert torch.equal(ours, derived)


def test_in_mixed_precision_too():
    """One path and a one-hot are no further from float32 than the derived network is."""
    supernet, image = build(), torch.randn(2, 3, 64, 96)
    path = random_path(supernet, 0)
    twin = derived_twin(supernet, path, SMALL)
    exact = twin(image)

    def error(network: nn.Module) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            maps = network(image)
        assert {m.dtype for m in maps} == {torch.bfloat16}
        return sum((m - e).norm().item() for m, e in zip(maps, exact, strict=True))

    expected = error(twin)
    supernet.set_path(path)
    assert error(supernet) < 1.3 * expected
    supernet.set_path(None)
    set_alphas(supernet, one_hot_alphas(supernet, path))
    assert 0 < error(supernet) < 1.3 * expected


@pytest.mark.parametrize("name", SPACES)
def test_a_slice_gets_the_derived_networks_gradient_and_the_rest_none(name):
    space = {**SMALL, **SPACES[name]}
    supernet = build(3, **SPACES[name])
    path, image = random_path(supernet, 3), torch.randn(2, 3, 64, 64)
    twin = derived_twin(supernet, path, space)
    for network in (supernet, twin):
        if network is supernet:
            network.set_path(path)
        sum(m.square().mean() for m in network(image)).backward()
    choices = iter(path)
    for stage, block in enumerate(supernet.blocks[2 : 2 + len(space["layers"])], 2):
        place = 0
        for layer in block.layers:
            op = layer.candidates[next(choices)]
            assert layer.alpha.grad is None
            if op == "skip":
                assert layer.project[0].weight.grad is None
                continue
            for part in ("expand", "depthwise", "project"):
                if getattr(layer, part) is None:
                    continue
                ours = getattr(layer, part)[0].weight.grad
                theirs = twin.get_parameter(f"blocks.{stage}.layers.{place}.{part}.0.weight").grad
                assert torch.equal(sliced(ours, theirs.shape), theirs)
                assert ours.count_nonzero() == theirs.count_nonzero()
            place += 1


def mixture(layer: SharedLayer, x: Tensor) -> Tensor:
    """What the layer's text says, entry by entry, with loops."""
    p = dict(zip(layer.candidates, layer.probabilities().tolist(), strict=True))
    ops = {name: parse_op(name) for name in p}
    real = sum(share for name, share in p.items() if name != "skip")
    depthwise, project = (
        part[0].weight.detach().clone() for part in (layer.depthwise, layer.project)
    )
    kernel, channels = depthwise.shape[-1], depthwise.shape[0]
    for row in range(kernel):
        for column in range(kernel):
            size = 2 * max(abs(row - kernel // 2), abs(column - kernel // 2)) + 1
            depthwise[:, :, row, column] *= (
                sum(p[name] for name, op in ops.items() if op.kernel_size >= size) / real
            )
    for channel in range(channels):
        expansion = channel // layer.in_channels + 1
        project[:, channel] *= (
            sum(p[name] for name, op in ops.items() if op.expansion >= expansion) / real
        )

    def norm(t: Tensor) -> Tensor:
        variance, mean = torch.var_mean(t, (0, 2, 3), correction=0, keepdim=True)
        return (t - mean) / (variance + 1e-5).sqrt()

    conv = nn.functional.conv2d
    y = norm(conv(x, layer.expand[0].weight)).clamp(0, 6)
    y = norm(conv(y, depthwise, padding=kernel // 2, groups=channels)).clamp(0, 6)
    return x + real * norm(conv(y, project))


@pytest.mark.parametrize("seed", range(3))
def test_all_candidates_are_mixed_as_described(seed):
    torch.manual_seed(seed)
    ops = ["k3_e3", "k7_e2", "skip", "k5_e6", "k3_e6"]
    layer = randomize(SharedLayer(ops, 8, 8, 1, 1, temperature=0.7), seed)
    layer.alpha.data = torch.randn(len(ops))
    x = torch.randn(2, 8, 14, 12)
    torch.testing.assert_close(layer(x), mixture(layer, x), rtol=1e-4, atol=1e-5)


def test_gradients_of_alpha_by_finite_differences():
    """Of the task's loss and of the cost, in double."""
    supernet = build(1, temperature=0.9).double()
    image = torch.randn(2, 3, 32, 32, dtype=torch.double)
    set_alphas(supernet, [0.5 * torch.randn(len(a)).double() for a in supernet.alphas()])
    term = cost_term(
        dict(type="MAdds", unit=1e6, target=0.6, input_size=(32, 32)),
        supernet,
        [[[8, 8], ["k3_e1"], 1]],
    )
    term.weight = 0.3
    prices = price_list(supernet, term.cost, term.input_size)

    def loss() -> Tensor:
        maps = supernet(image)
        return sum(m.square().mean() for m in maps) + term(expected_cost(supernet, prices))

    loss().backward()
    for alpha in supernet.alphas():
        for index in range(len(alpha)):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    alpha[index] += step
                    values.append(loss().item())
                    alpha[index] -= step
            slope = (values[0] - values[1]) / 2e-5
            assert alpha.grad[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_scaled_rings_have_the_gradients_of_a_conv(stride, dilation, dtype, tolerance):
    """Those that autograd finds of scaling the kernel; in mixed precision, too."""
    torch.manual_seed(0)
    layer = randomize(SharedLayer(["k3_e3", "k9_e3", "k5_e3"], 4, 6, stride, dilation))
    conv, x = layer.depthwise[0], torch.randn(2, 12, 14, 11, requires_grad=True)
    rings = torch.rand(3, requires_grad=True)
    settings = conv.stride, conv.padding, conv.dilation, conv.groups
    gradients = []
    for scaled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            if scaled:
                y = ScaledRings.apply(x, rings, conv.weight, layer._ring, conv, layer._kernels)
            else:
                y = nn.functional.conv2d(x, conv.weight * rings[layer._ring], None, *settings)
        assert y.dtype == dtype
        loss = (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
        gradients.append(torch.autograd.grad(loss, (x, rings, conv.weight)))
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() < tolerance * theirs.norm()


def test_a_layer_that_skips_for_certain_is_the_identity_with_finite_gradients():
    layer = randomize(SharedLayer(["k3_e3", "k5_e6", "skip"], 8, 8, 1, 1))
    layer.alpha.data = torch.tensor([0.0, 0.0, 1e4])
    x = torch.randn(2, 8, 6, 6)
    output = layer(x)
    assert torch.equal(output, x)
    output.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("name", SPACES)
def test_alphas_paths_and_prices_are_those_of_separate_candidates(name):
    space = {**SMALL, **SPACES[name]}
    shared, separate = build(**SPACES[name]), FNASuperNet(**space)
    size = (64, 96)
    for ours, theirs in zip(
        price_list(shared, MAdds(), size), price_list(separate, MAdds(), size), strict=True
    ):
        assert torch.equal(ours, theirs)
    set_alphas(shared, [a.tolist() for a in separate.alphas()])
    draw = [net.sample_path(torch.Generator().manual_seed(1)) for net in (shared, separate)]
    assert draw[0] == draw[1] and shared.derive() == separate.derive()
    assert shared.out_channels == separate.out_channels


@pytest.mark.parametrize("name", ["retinanet", "ssdlite", "deeplabv3", "mobilenetv2"])
def test_remapping_is_that_onto_the_largest_network(seed_network, name):
    """On the stages of each architecture: every layer k7_e6, but the first of each as deep."""
    stages = NetConfig.parse(net_config_file(name)).stages
    space = dict(
        fixed_stage=[[[32, 16], ["k3_e1"], 1]],
        channels=[stage.out_channels for stage in stages[1:]],
        layers=[len(stage.ops) for stage in stages[1:]],
        strides=[stage.stride for stage in stages[1:]],
        ops=["k3_e3", "k5_e6", "k7_e3", "k3_e6", "skip"],
    )
    torch.manual_seed(0)
    shared = FNASuperNet(**space, share_weights=True)
    largest = FNABackbone(
        [space["fixed_stage"][0]]
        + [
            [[before, stage.out_channels], ["k7_e6"] * len(stage.ops), stage.stride]
            for before, stage in zip([16, *space["channels"]], stages[1:], strict=False)
        ]
    )
    seed = seed_network.state_dict()
    onto_shared, onto_largest = (remap(seed, net.state_dict()) for net in (shared, largest))
    for key, tensor in onto_shared.items():
        if not key.endswith("alpha"):
            assert torch.equal(tensor, onto_largest[key]), key


@pytest.mark.parametrize(
    "ops, message",
    [
        (["k3_e1", "k3_e6"], "k3_e1, k3_e6: an op without expansion is no slice"),
        (["k3_e6", "k3_e6_se"], "'k3_e6_se' is no slice of a larger op"),
    ],
)
def test_what_does_not_nest_is_refused(ops, message):
    import models.squeeze_excite  # noqa: F401

    with pytest.raises(InputError, match=message):
        build(ops=ops)
