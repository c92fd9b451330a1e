"""Synchronized BN on CPU: two processes against one that has the joint batch."""

import pytest
import torch
from torch import distributed, nn

from engine.compat.cpu import CPUSyncBatchNorm, synchronize_bn_on_cpu
from tests.processes import run_processes

SHAPE = (4, 5, 6, 7)  # the joint batch; each process gets half
DTYPES = (torch.float32, torch.bfloat16)
SETTINGS = {"usual": {}, "a candidate's": dict(affine=False, track_running_stats=False)}


def normalize(norm, x, weights):
    """Output, gradient of the input and of the affine terms, for a loss that weighs outputs."""
    x = x.clone().requires_grad_()
    output = norm(x)
    (output.float() * weights).sum().backward()
    grads = [p.grad for p in norm.parameters()]
    return [output.detach(), x.grad, *grads, *(b.clone() for b in norm.buffers())]


def make(kind, **settings):
    norm = kind(SHAPE[1], **settings)
    if norm.affine:
        norm.weight.data = torch.linspace(0.5, 2, SHAPE[1])
        norm.bias.data = torch.linspace(-1, 1, SHAPE[1])
    return norm


def tensors(dtype):
    torch.manual_seed(0)
    return (3 + 2 * torch.randn(SHAPE)).to(dtype), torch.randn(SHAPE)


def run_rank(rank, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    half, results = slice(2 * rank, 2 * rank + 2), {}
    for dtype in DTYPES:
        for name, settings in SETTINGS.items():
            x, weights = tensors(dtype)
            norm = make(CPUSyncBatchNorm, **settings)
            results[str(dtype), name] = normalize(norm, x[half], weights[half])
    torch.save(results, f"{folder}/rank_{rank}.pth")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes has, for all types and settings."""
    folder = tmp_path_factory.mktemp("ranks")
    run_processes(run_rank, str(folder))
    return [torch.load(folder / f"rank_{rank}.pth") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_processes_normalize_like_one_with_the_joint_batch(ranks, dtype, name):
    settings, ranks = SETTINGS[name], [rank[str(dtype), name] for rank in ranks]
    x, weights = tensors(dtype)
    output, x_grad, *others = normalize(make(nn.BatchNorm2d, **settings), x.float(), weights)
    # bfloat16 holds 8 bits; the statistics are as exact as in float32
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else dict(rtol=1e-2, atol=2e-2)
    assert ranks[0][0].dtype == dtype
    for index, expected in enumerate((output, x_grad)):
        joint = torch.cat([rank[index] for rank in ranks]).float()
        torch.testing.assert_close(joint, expected, **tolerance)
    n_affine = 2 if settings == {} else 0
    for index in range(n_affine):  # each rank has its share; the wrapper sums or averages them
        share = ranks[0][2 + index] + ranks[1][2 + index]
        torch.testing.assert_close(share, others[index], **tolerance)
    for rank in ranks:
        buffers = [b.float() for b in rank[2 + n_affine :]]
        torch.testing.assert_close(
            buffers, [b.float() for b in others[n_affine:]], rtol=1e-4, atol=1e-4
        )


def test_evaluation_needs_no_process_group():
    norm, reference = make(CPUSyncBatchNorm).eval(), make(nn.BatchNorm2d).eval()
    x, _ = tensors(torch.float32)
    assert torch.equal(norm(x), reference(x))


def test_torchs_layers_are_replaced_where_they_are():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(nn.BatchNorm2d(5, eps=0.1))).eval()
    plain = nn.BatchNorm2d(5, affine=False, track_running_stats=False)
    model.append(nn.SyncBatchNorm.convert_sync_batchnorm(plain))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    synchronize_bn_on_cpu(model)
    assert type(model[1][0]) is type(model[2]) is CPUSyncBatchNorm
    assert model[1][0].eps == 0.1 and not model[1][0].training and model[2].training
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert before.keys() == after.keys()
    assert all(before[key] is after[key] for key in before)
