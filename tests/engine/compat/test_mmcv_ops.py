import subprocess
import sys
import types
import warnings
from importlib.machinery import ModuleSpec

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmengine.config import Config
from torch.utils._python_dispatch import TorchDispatchMode

from engine.compat import mmcv_ops
from tests.conftest import REPO

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
NUM_CLASSES = 4


@pytest.fixture(scope="module")
def ops():
    mmcv_ops.install()
    import mmcv.ops

    return mmcv.ops


def random_boxes(count: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes with whole coordinates, exact in half precision, and scores that are all different."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 60, (count, 2), generator=generator)
    sizes = torch.randint(0, 40, (count, 2), generator=generator)
    scores = torch.randperm(count, generator=generator) / 256
    return torch.cat([corners, corners + sizes], dim=1).float().to(device), scores.to(device)


def slow_nms(boxes, scores, threshold: float, offset: int) -> list[int]:
    """Keeps, best first, each box that overlaps no kept box by more than the threshold."""
    boxes = boxes.double().tolist()

    def area(x1, y1, x2, y2):
        return max(x2 - x1 + offset, 0) * max(y2 - y1 + offset, 0)

    def iou(a, b):
        inner = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        union = area(*a) + area(*b) - inner
        return inner / union if union else 0

    kept = []
    for index in scores.argsort(descending=True).tolist():
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nms_keeps_what_the_definition_keeps(ops, device, offset, dtype):
    boxes, scores = random_boxes(150, device)
    expected = slow_nms(boxes, scores, 0.437, offset)
    assert 10 < len(expected) < 140
    dets, kept = ops.nms(boxes.to(dtype), scores.to(dtype), 0.437, offset=offset)
    assert kept.tolist() == expected
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept].to(dtype))


def test_offset_decides_between_two_boxes(ops):
    # Overlap 4 / 8 in lengths without the offset, 5 / 9 with it.
    boxes = torch.tensor([[0.0, 0.0, 6.0, 9.0], [2.0, 0.0, 8.0, 9.0]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.53, offset=0)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.53, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize("name, shift", [("retinanet", 4.1), ("ssdlite", 3.1)])
def test_legacy_configs_count_widths_with_one_more(ops, name, shift):
    """12 wide, moved by 4.1: overlap 7.9 / 16.1, less than 0.5, but 8.9 / 17.1 counted so.

    By 3.1: 8.9 / 15.1, less than 0.6, but 9.9 / 16.1. A third box is of another class, and stays.
    """
    cfg = Config.fromfile(REPO / f"configs/fna_det/{name}_param_adapt_coco_legacy.py")
    nms = cfg.model.test_cfg.nms
    boxes = torch.tensor([[0.0, 0.0, 12.0, 9.0], [shift, 0.0, 12.0 + shift, 9.0]])[[0, 1, 1]]
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1])
    assert ops.batched_nms(boxes, scores, classes, nms)[1].tolist() == [0, 2]
    today = dict(nms, offset=0)
    assert ops.batched_nms(boxes, scores, classes, today)[1].tolist() == [0, 1, 2]


def test_nms_score_threshold_and_limit(ops):
    boxes, scores = random_boxes(150, "cpu")
    expected = [i for i in slow_nms(boxes, scores, 0.5, 0) if scores[i] > 0.3]
    kept = ops.nms(boxes, scores, 0.5, score_threshold=0.3, max_num=7)[1]
    assert kept.tolist() == expected[:7]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("split_thr", [10000, 20])
def test_batched_nms_works_class_by_class(ops, device, split_thr):
    boxes, scores = random_boxes(150, device)
    classes = torch.arange(150, device=device) % 3
    expected = []
    for c in range(3):
        rows = (classes == c).nonzero()[:, 0]
        expected += rows[slow_nms(boxes[rows], scores[rows], 0.4, 0)].tolist()
    expected.sort(key=lambda i: -scores[i])
    cfg = {"type": "nms", "iou_threshold": 0.4, "split_thr": split_thr}
    dets, kept = ops.batched_nms(boxes, scores, classes, cfg)
    assert kept.tolist() == expected
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])


def test_nms_of_mixed_types_numpy_and_nothing(ops):
    boxes, scores = random_boxes(30, "cpu")
    expected = slow_nms(boxes, scores, 0.5, 0)
    assert ops.nms(boxes, scores.half(), 0.5)[1].tolist() == expected
    assert ops.nms(boxes.numpy(), scores.numpy(), 0.5)[1].tolist() == expected
    dets, kept = ops.nms(boxes[:0], scores[:0], 0.5)
    assert dets.shape == (0, 5) and kept.shape == (0,)


@pytest.mark.parametrize("device", DEVICES)
def test_nms_under_autocast(ops, device):
    boxes, scores = random_boxes(60, device)
    with torch.autocast(device, torch.bfloat16):
        kept = ops.nms(boxes, scores, 0.437)[1]
    assert kept.tolist() == slow_nms(boxes, scores, 0.437, 0)


def logits_and_targets(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(12, 4) float64 logits, and targets with every class and both kinds of background."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(12, NUM_CLASSES, dtype=torch.float64, generator=generator)
    targets = torch.arange(12) % (NUM_CLASSES + 2) - 1
    return logits.to(device), targets.to(device)


def plain_focal_loss(logits, targets, gamma, alpha, weight):
    """The formula of the paper, term by term, with the weight of each row's class."""
    rows = []
    for x, target in zip(logits, targets.tolist(), strict=True):
        row = []
        for c in range(NUM_CLASSES):
            p = 1 / (1 + torch.exp(-x[c]))
            if c == target:
                row.append(-alpha * (1 - p) ** gamma * torch.log(p))
            else:
                row.append(-(1 - alpha) * p**gamma * torch.log(1 - p))
        inside = weight is not None and 0 <= target < NUM_CLASSES
        rows.append(torch.stack(row) * (weight[target] if inside else 1))
    return torch.stack(rows)


REDUCE = {"none": lambda x: x, "sum": torch.sum, "mean": lambda x: x.sum() / len(x)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma, alpha", [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_focal_loss_and_gradient(ops, device, weighted, gamma, alpha, reduction):
    logits, targets = logits_and_targets(device)
    weight = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64, device=device)
    weight = weight if weighted else None
    expected_in = logits.clone().requires_grad_()
    expected = REDUCE[reduction](plain_focal_loss(expected_in, targets, gamma, alpha, weight))
    given = logits.clone().requires_grad_()
    loss = ops.sigmoid_focal_loss(given, targets, gamma, alpha, weight, reduction)
    torch.testing.assert_close(loss, expected)
    upstream = torch.rand_like(expected)
    expected.backward(upstream)
    loss.backward(upstream)
    torch.testing.assert_close(given.grad, expected_in.grad)


def test_focal_loss_gradient_by_finite_differences(ops):
    logits, targets = logits_and_targets("cpu")

    def loss(x):
        return ops.sigmoid_focal_loss(x, targets, 2.0, 0.25, None, "none")

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 5e-3)]
)
def test_focal_loss_types(ops, device, dtype, tolerance):
    logits, targets = logits_and_targets(device)
    given = logits.to(dtype).requires_grad_()
    exact = given.detach().double().requires_grad_()
    loss = ops.sigmoid_focal_loss(given, targets, 2.0, 0.25, None, "none")
    expected = plain_focal_loss(exact, targets, 2.0, 0.25, None)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_focal_loss_of_extreme_logits_is_exact(ops):
    logits = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, torch.tensor([[0.75 * 300, 0.25 * 300]]))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.75, -0.25]]))


def many_logits_and_targets(classes: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """(500, 80) float32 logits of -16 to 16, and targets, of which a few are background."""
    generator = torch.Generator().manual_seed(2)
    logits = (4 * torch.randn(500, classes, generator=generator)).clamp(-16, 16)
    return logits, torch.randint(-1, classes + 1, (len(logits),), generator=generator)


@pytest.mark.parametrize("gamma, alpha", [(2.0, 0.25), (0.0, 0.5), (0.5, 0.9), (3.0, 0.0)])
def test_focal_loss_is_torchvisions(ops, gamma, alpha):
    logits, targets = many_logits_and_targets()
    one_hot = F.one_hot(targets % 81, 81)[:, :80].double()
    given, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    factors = torch.rand(logits.shape)
    loss = ops.sigmoid_focal_loss(given, targets, gamma, alpha, None, "none")
    expected = torchvision.ops.sigmoid_focal_loss(exact, one_hot, alpha, gamma)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    (loss * factors).sum().backward()
    (expected * factors).sum().backward()
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=2e-6, atol=1e-6)


class FullSizePasses(TorchDispatchMode):
    """Counts the ops that write as many numbers as there are logits."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.size, self.count = logits.numel(), 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not op.is_view:
            self.count += result.numel() >= self.size
        return result


def test_focal_loss_passes_few_times_over_all_logits(ops):
    """Written down term by term, with mmcv's function around it, it took 33 passes."""
    logits, targets = many_logits_and_targets()
    logits.requires_grad_()
    with FullSizePasses(logits) as passes:
        loss = ops.sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, "none")
        loss.backward(torch.ones_like(logits))
    assert 5 <= passes.count - 1 <= 11  # the ones are this test's
    with torch.no_grad(), FullSizePasses(logits) as forward:
        ops.sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, "none")
    assert forward.count <= 5


def test_focal_loss_of_half_precision_has_the_gradient_of_sure_backgrounds(ops):
    """Its own size, about 2e-9, float16 does not have; scaled as mmengine does, it has."""
    logits = torch.full((1, 1), -7.0, dtype=torch.float16, requires_grad=True)
    exact = logits.detach().double().requires_grad_()
    scale = 2.0**16
    (scale * ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, "sum")).backward()
    torchvision.ops.sigmoid_focal_loss(exact, torch.zeros_like(exact)).sum().backward()
    assert exact.grad.half() == 0 < exact.grad
    torch.testing.assert_close(logits.grad.double(), scale * exact.grad, rtol=1e-2, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_mmdet_loss_on_gpu_is_its_loss_on_cpu(ops, device):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    logits, targets = logits_and_targets(device)
    logits, targets = logits.float(), targets % (NUM_CLASSES + 1)
    weight = torch.rand(len(targets), device=device)
    one_hot = F.one_hot(targets, NUM_CLASSES + 1)[:, :NUM_CLASSES]
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, weight, avg_factor=5.0),
        py_sigmoid_focal_loss(logits, one_hot, weight, avg_factor=5.0),
    )


def test_other_ops_say_how_to_get_them(ops):
    boxes, scores = random_boxes(5, "cpu")
    with pytest.raises(RuntimeError, match="'softnms'.*MMCV_WITH_OPS=1") as caught:
        ops.soft_nms(boxes, scores)
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="'roi_align_forward'"):
        ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)


def test_installing_twice_is_harmless(ops):
    before = sys.modules["mmcv._ext"]
    mmcv_ops.install()
    assert sys.modules["mmcv._ext"] is before


def test_compiled_ops_stay(monkeypatch):
    compiled = types.ModuleType("mmcv._ext")
    compiled.__spec__ = ModuleSpec("mmcv._ext", loader=None)
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    mmcv_ops.install()
    assert sys.modules["mmcv._ext"] is compiled
    assert not hasattr(compiled, "nms")


@pytest.mark.slow
def test_importing_says_nothing(pytestconfig):
    """Models by themselves, data sets and the rest as quiet_imports has it."""
    code = (
        "from engine.compat import mmcv_ops\n"
        "mmcv_ops.install()\n"
        "import mmdet.models, mmseg.models\n"
        "with mmcv_ops.quiet_imports():\n"
        "    import mmdet.datasets, mmdet.evaluation, mmdet.engine, mmdet.visualization\n"
        "    import mmseg.datasets, mmseg.evaluation, mmseg.engine, mmseg.visualization\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_quiet_imports_keeps_what_others_say(capsys):
    with pytest.warns(UserWarning, match="of mine"):
        with mmcv_ops.quiet_imports():
            print("a line")
            print("Could not import OneDL")
            warnings.warn("of mine", stacklevel=1)
    assert capsys.readouterr().out == "a line\n"
