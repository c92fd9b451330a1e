"""Released checkpoints, written here key by key, against what plain torch functions make of them.

The files themselves cannot be had in tests. What is built here follows the authors' naming and the
net_config text, and takes nothing from the project's networks.
"""

import ast
import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from engine.compat.safe_load import install_safe_loading
from engine.config import import_scope
from engine.hooks import MatchCheckpoint
from engine.model import build_model
from engine.released import convert
from engine.run import build_runner
from models import FNABackbone, InputError
from models.seed import save_seed
from models.seeds.read import read_foreign_seed
from tests.conftest import REPO, net_config_file
from tests.processes import run_script

CLASSES, ANCHORS = 80, (4, 6, 6, 6, 4, 4)
SSD_CHANNELS = (576, 1280, 512, 256, 256, 128)
SSD_EPS = 1e-3
# convs in the towers of RetinaNet's head: bare in mmdet 0.6.0, inside modules soon after
TOWERS = {"0.6.0": "", "later": ".conv"}


@pytest.fixture(autouse=True)
def in_repo(monkeypatch):
    monkeypatch.chdir(REPO)
    install_safe_loading()


# Files as the authors wrote them


class Writer:
    """A state dict that grows conv by conv, with random numbers of ordinary size."""

    def __init__(self):
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def conv(self, name, *shape, bias=False):
        fan_in = shape[1] * shape[2] * shape[3]
        weight = torch.randn(shape, generator=self.generator) * (2 / fan_in) ** 0.5
        self.state[f"{name}.weight"] = weight
        if bias:
            self.state[f"{name}.bias"] = self.uniform(shape[0]) - 0.5

    def bn(self, name, channels):
        self.state[f"{name}.weight"] = 0.5 + self.uniform(channels)
        self.state[f"{name}.bias"] = 0.3 * (self.uniform(channels) - 0.5)
        self.state[f"{name}.running_mean"] = 0.3 * (self.uniform(channels) - 0.5)
        self.state[f"{name}.running_var"] = 0.5 + self.uniform(channels)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(9)

    def backbone(self, name, last_channels=None, prefix="backbone."):
        self.conv(f"{prefix}blocks.0.0", 32, 3, 3, 3)
        self.bn(f"{prefix}blocks.0.1", 32)
        for stage, ((channels, out), ops, _) in enumerate(rows(name), 1):
            for layer, op in enumerate(ops):
                if op != "skip":
                    kernel, expansion = kernel_and_expansion(op)
                    where, inner = f"{prefix}blocks.{stage}.layers.{layer}.op", channels * expansion
                    if expansion > 1:
                        self.conv(f"{where}.0", inner, channels, 1, 1)
                        self.bn(f"{where}.1", inner)
                    part = 3 if expansion > 1 else 0
                    self.conv(f"{where}.{part}", inner, 1, kernel, kernel)
                    self.bn(f"{where}.{part + 1}", inner)
                    self.conv(f"{where}.{part + 3}", out, inner, 1, 1)
                    self.bn(f"{where}.{part + 4}", out)
                channels = out
        if last_channels:
            self.conv(f"{prefix}blocks.8.conv.0", last_channels, channels, 1, 1)
            self.bn(f"{prefix}blocks.8.conv.1", last_channels)


def rows(name):
    return [ast.literal_eval(row.strip()) for row in net_config_file(name).read_text().split("|")]


def kernel_and_expansion(op):
    return int(op[1]), int(op[4])


def retinanet_file(tower=TOWERS["0.6.0"]):
    w = Writer()
    w.backbone("retinanet")
    for level, channels in enumerate((32, 96, 320)):
        w.conv(f"neck.lateral_convs.{level}.conv", 256, channels, 1, 1, bias=True)
    for level, channels in enumerate((256, 256, 256, 320, 256)):
        w.conv(f"neck.fpn_convs.{level}.conv", 256, channels, 3, 3, bias=True)
    for layer in range(4):
        w.conv(f"bbox_head.cls_convs.{layer}{tower}", 256, 256, 3, 3, bias=True)
        w.conv(f"bbox_head.reg_convs.{layer}{tower}", 256, 256, 3, 3, bias=True)
    w.conv("bbox_head.retina_cls", 9 * CLASSES, 256, 3, 3, bias=True)
    w.conv("bbox_head.retina_reg", 9 * 4, 256, 3, 3, bias=True)
    return dict(meta=dict(mmdet_version="0.6.0"), state_dict=w.state, optimizer=dict(state={}))


def extra_names(layer):
    """Conv, BN, conv, BN, conv, BN of an extra layer: 1x1, then depthwise and 1x1."""
    squeeze, separable = f"backbone.extra.{2 * layer}", f"backbone.extra.{2 * layer + 1}"
    return [f"{squeeze}.0", f"{squeeze}.1", *(f"{separable}.{part}" for part in (0, 1, 3, 4))]


def ssdlite_file():
    w = Writer()
    w.backbone("ssdlite", 1280)
    for layer, (channels, out) in enumerate(zip(SSD_CHANNELS[1:], SSD_CHANNELS[2:], strict=False)):
        names, half = extra_names(layer), out // 2
        shapes = [(half, channels, 1, 1), (half, 1, 3, 3), (out, half, 1, 1)]
        for conv, bn, shape in zip(names[::2], names[1::2], shapes, strict=True):
            w.conv(conv, *shape)
            w.bn(bn, shape[0])
    for kind, outputs in (("cls", CLASSES + 1), ("reg", 4)):
        for level, (channels, anchors) in enumerate(zip(SSD_CHANNELS, ANCHORS, strict=True)):
            head = f"bbox_head.{kind}_convs.{level}"
            w.conv(f"{head}.0", channels, 1, 3, 3)
            w.bn(f"{head}.1", channels)
            w.conv(f"{head}.3", anchors * outputs, channels, 1, 1)
            w.bn(f"{head}.4", anchors * outputs)
    return dict(meta=dict(mmdet_version="0.6.0"), state_dict=w.state, optimizer=dict(state={}))


def deeplabv3_file():
    w = Writer()
    w.backbone("deeplabv3")
    w.conv("head.branch1.0", 256, 320, 1, 1)
    w.bn("head.branch1.1", 256)
    for branch in (2, 3, 4):
        w.conv(f"head.branch{branch}.0.depthwise", 320, 1, 3, 3)
        w.bn(f"head.branch{branch}.0.bn1", 320)
        w.conv(f"head.branch{branch}.0.pointwise", 256, 320, 1, 1)
        w.bn(f"head.branch{branch}.0.bn2", 256)
    w.conv("head.branch5_conv", 256, 320, 1, 1)
    w.bn("head.branch5_bn", 256)
    w.conv("head.conv_cat.0", 256, 5 * 256, 1, 1)
    w.bn("head.conv_cat.1", 256)
    w.conv("cls_conv", 19, 256, 1, 1, bias=True)
    return dict(model=w.state)


# What they compute


def conv(state, name, x, stride=1, dilation=1):
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    groups = x.shape[1] // weight.shape[1]
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def bn(state, name, x, eps):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{n}"] for n in names), eps=eps)


def backbone_maps(state, name, image, eps=1e-5, output_stride=32, prefix="backbone."):
    """Block → its output; ``'expanded'``, the activation inside the layer that goes to 160."""

    def block(conv_name, bn_name, x, stride=1, dilation=1):
        return bn(
            state, prefix + bn_name, conv(state, prefix + conv_name, x, stride, dilation), eps
        )

    x = block("blocks.0.0", "blocks.0.1", image, 2).clamp(0, 6)
    maps, reached, dilation = {0: x}, 2, 1
    for stage, (_, ops, stage_stride) in enumerate(rows(name), 1):
        if reached >= output_stride:
            dilation, stage_stride = dilation * stage_stride, 1
        reached *= stage_stride
        for layer, op in enumerate(ops):
            if op == "skip":
                continue
            where, y = f"blocks.{stage}.layers.{layer}.op", x
            part = 0 if op.endswith("_e1") else 3
            if part:
                y = block(f"{where}.0", f"{where}.1", y).clamp(0, 6)
                if (stage, layer) == (6, 0):
                    maps["expanded"] = y
            stride = stage_stride if layer == 0 else 1
            y = block(f"{where}.{part}", f"{where}.{part + 1}", y, stride, dilation).clamp(0, 6)
            y = block(f"{where}.{part + 3}", f"{where}.{part + 4}", y)
            x = x + y if layer else y
        maps[stage] = x
    if f"{prefix}blocks.8.conv.0.weight" in state:
        maps[8] = block("blocks.8.conv.0", "blocks.8.conv.1", x).clamp(0, 6)
    return maps


def retinanet_outputs(state, image, tower):
    """Scores and deltas of each level."""
    maps = backbone_maps(state, "retinanet", image)
    levels = [conv(state, f"neck.lateral_convs.{i}.conv", maps[s]) for i, s in enumerate((3, 5, 7))]
    for i in (1, 0):
        levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[2:])
    levels = [conv(state, f"neck.fpn_convs.{i}.conv", level) for i, level in enumerate(levels)]
    levels.append(conv(state, "neck.fpn_convs.3.conv", maps[7], stride=2))
    levels.append(conv(state, "neck.fpn_convs.4.conv", levels[-1], stride=2))
    outputs = []
    for kind in ("cls", "reg"):
        towers = levels
        for layer in range(4):
            name = f"bbox_head.{kind}_convs.{layer}{tower}"
            towers = [conv(state, name, x).relu() for x in towers]
        outputs += [[conv(state, f"bbox_head.retina_{kind}", x) for x in towers]]
    return outputs


def ssdlite_outputs(state, image):
    """Scores, the background's first, and deltas of each level."""
    backbone = backbone_maps(state, "ssdlite", image, SSD_EPS)
    maps = [backbone["expanded"], backbone[8]]
    for layer in range(4):
        names = extra_names(layer)
        x = maps[-1]
        for conv_name, bn_name, stride in zip(names[::2], names[1::2], (1, 2, 1), strict=True):
            x = bn(state, bn_name, conv(state, conv_name, x, stride), SSD_EPS).clamp(0, 6)
        maps.append(x)
    outputs = []
    for kind in ("cls", "reg"):
        of_kind = []
        for level, x in enumerate(maps):
            head = f"bbox_head.{kind}_convs.{level}"
            x = bn(state, f"{head}.1", conv(state, f"{head}.0", x), SSD_EPS).clamp(0, 6)
            of_kind.append(bn(state, f"{head}.4", conv(state, f"{head}.3", x), SSD_EPS))
        outputs.append(of_kind)
    return outputs


def deeplabv3_scores(state, image):
    """Scores at stride 16."""
    x = backbone_maps(state, "deeplabv3", image, output_stride=16)[7]

    def block(conv_name, bn_name, x, dilation=1):
        return bn(state, bn_name, conv(state, conv_name, x, dilation=dilation), 1e-5).relu()

    branches = [block("head.branch1.0", "head.branch1.1", x)]
    for number, dilation in ((2, 6), (3, 12), (4, 18)):
        branch = f"head.branch{number}.0"
        y = block(f"{branch}.depthwise", f"{branch}.bn1", x, dilation)
        branches.append(block(f"{branch}.pointwise", f"{branch}.bn2", y))
    pooled = block("head.branch5_conv", "head.branch5_bn", x.mean((2, 3), keepdim=True))
    branches.append(pooled.expand(-1, -1, *x.shape[2:]))
    joined = block("head.conv_cat.0", "head.conv_cat.1", torch.cat(branches, 1))
    return conv(state, "cls_conv", joined)


# Loading


def load(content, config, tmp_path, **changes):
    """The model of a config after a run has loaded a file, by the way that a test does."""
    torch.save(content, tmp_path / "released.pth")
    cfg = Config.fromfile(REPO / f"configs/{config}.py")
    runner_cfg = dict(
        model=cfg.model,
        work_dir=str(tmp_path / "run"),
        load_from=str(tmp_path / "released.pth"),
        default_scope=cfg.default_scope,
        experiment_name=f"{tmp_path.name}-{config}",
    )
    import_scope(cfg.default_scope)
    runner_cfg = Config(runner_cfg)
    runner_cfg.merge_from_dict(changes)
    runner = build_runner(runner_cfg)
    runner.register_hook(MatchCheckpoint())
    runner.load_or_resume()
    return runner.model.cpu().eval()


def assert_equal(ours, expected):
    for level, (our_map, their_map) in enumerate(zip(ours, expected, strict=True)):
        assert their_map.std() > 1e-2, f"level {level} is dead"
        torch.testing.assert_close(our_map, their_map, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_retinanet(prefix, tower, tmp_path):
    content = retinanet_file(tower)
    state = content["state_dict"]
    content["state_dict"] = {prefix + key: tensor for key, tensor in state.items()}
    model = load(content, "fna_det/retinanet_param_adapt_coco_legacy", tmp_path)
    image = torch.randn(1, 3, 192, 256)
    with torch.no_grad():
        scores, deltas = model(image, mode="tensor")
        expected_scores, expected_deltas = retinanet_outputs(state, image, tower)
    assert_equal(scores, expected_scores)
    assert_equal(deltas, expected_deltas)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ssdlite(prefix, tmp_path):
    content = ssdlite_file()
    state = content["state_dict"]
    content["state_dict"] = {prefix + key: tensor for key, tensor in state.items()}
    model = load(content, "fna_det/ssdlite_param_adapt_coco_legacy", tmp_path)
    image = torch.randn(1, 3, 320, 320)
    with torch.no_grad():
        scores, deltas = model(image, mode="tensor")
        expected_scores, expected_deltas = ssdlite_outputs(state, image)
    assert_equal(deltas, expected_deltas)
    for ours, theirs, anchors in zip(scores, expected_scores, ANCHORS, strict=True):
        ours = ours.reshape(anchors, CLASSES + 1, *ours.shape[2:])
        theirs = theirs.reshape(anchors, CLASSES + 1, *theirs.shape[2:])
        assert_equal([ours[:, :CLASSES], ours[:, CLASSES]], [theirs[:, 1:], theirs[:, 0]])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_deeplabv3(prefix, tmp_path):
    content = deeplabv3_file()
    state = content["model"]
    content["model"] = {prefix + key: tensor for key, tensor in state.items()}
    model = load(content, "fna_seg/deeplabv3_param_adapt_cityscapes", tmp_path)
    image = torch.randn(1, 3, 193, 225)
    with torch.no_grad():
        assert_equal([model(image, mode="tensor")], [deeplabv3_scores(state, image)])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_seed_through_remapping(prefix, tmp_path):
    """The released seed's BN was trained with eps 1e-3, the networks' here have 1e-5."""
    w = Writer()
    w.backbone("mobilenetv2", 1280, prefix="")
    state = {**w.state, "classifier.weight": w.uniform(1000, 1280)}
    state["classifier.bias"] = w.uniform(1000)
    path = tmp_path / "seed_mbv2.pt"
    torch.save({prefix + key: tensor for key, tensor in state.items()}, path)
    save_seed(*read_foreign_seed(path), path)  # as scripts/get_seed.sh --source does
    network = FNABackbone(
        net_config_file("mobilenetv2"), (2, 3, 5, 7, 8), last_channels=1280,
        init_cfg=dict(type="Remap", seed=str(path)),
    )  # fmt: skip
    network.init_weights()
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        maps = network.eval()(image)
    for eps, same in ((1e-3, True), (1e-5, False)):
        expected = backbone_maps(w.state, "mobilenetv2", image, eps, prefix="")
        for ours, block in zip(maps, network.out_indices, strict=True):
            assert torch.allclose(ours, expected[block], rtol=1e-4, atol=1e-4) == same


# Reports and mistakes

FILES: dict[str, tuple[Callable, str, str]] = {
    "ssdlite": (ssdlite_file, "state_dict", "fna_det/ssdlite_param_adapt_coco"),
    "deeplabv3": (deeplabv3_file, "model", "fna_seg/deeplabv3_param_adapt_cityscapes"),
    "retinanet": (retinanet_file, "state_dict", "fna_det/retinanet_param_adapt_coco"),
}


@pytest.mark.parametrize("name", FILES)
def test_report_counts_every_tensor(name):
    make, inner, config = FILES[name]
    content = make()
    tensors = [key for key in content[inner] if not key.endswith("num_batches_tracked")]
    content[inner] |= {"fc.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}
    model, _ = build_model(f"configs/{config}.py")
    state_dict, report = convert(content, model, "checkpoint some.pth")
    assert report.startswith("checkpoint some.pth: released ")
    assert f"{len(tensors)} tensors used, 0 missing; 2 unused: 'fc.weight', 'fc.bias'" in report
    assert "\n" not in report
    assert state_dict.keys() == {
        key for key in model.state_dict() if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", FILES)
def test_other_checkpoints_are_left_alone(name):
    """What is trained here, and what holds no tensors."""
    model, _ = build_model(f"configs/{FILES[name][2]}.py")
    ours = dict(meta={}, state_dict=dict(model.state_dict()), message_hub={})
    assert convert(ours, model, "checkpoint") is None
    assert convert(dict(model="text"), model, "checkpoint") is None


def without(key):
    return lambda state: state.pop(key)


def with_shape(key, *shape):
    return lambda state: state.update({key: torch.zeros(shape)})


MISTAKES = {
    "backbone key missing": (
        "ssdlite", without("backbone.blocks.3.layers.2.op.3.weight"),
        "has no backbone.blocks.3.layers.2.op.3.weight, expected (192, 1, 3, 3)",
    ),
    "BN of a head missing": (
        "ssdlite", without("bbox_head.cls_convs.4.4.running_var"),
        "has no bbox_head.cls_convs.4.4.running_var, expected (324,)",
    ),
    "conv of a head missing": (
        "ssdlite", without("bbox_head.reg_convs.0.3.weight"),
        "has no bbox_head.reg_convs.0.3.weight, expected (16, 576, 1, 1)",
    ),
    "statistics of an extra layer missing": (
        "ssdlite", without("backbone.extra.2.1.running_mean"),
        "has no backbone.extra.2.1.running_mean, expected (128,)",
    ),
    "conv of an extra layer missing": (
        "ssdlite", without("backbone.extra.3.3.weight"),
        "has no backbone.extra.3.3.weight, expected (256, 128, 1, 1)",
    ),
    "conv of an extra layer of another shape": (
        "ssdlite", with_shape("backbone.extra.3.0.weight", 128, 1, 5, 5),
        "backbone.extra.3.0.weight is (128, 1, 5, 5), expected (128, 1, 3, 3)",
    ),
    "head of another shape": (
        "ssdlite", with_shape("bbox_head.cls_convs.0.3.weight", 84, 576, 1, 1),
        "bbox_head.cls_convs.0.3.weight is (84, 576, 1, 1), expected (324, 576, 1, 1)",
    ),
    "no tensor": (
        "ssdlite", lambda state: state.update({"bbox_head.cls_convs.0.4.bias": "text"}),
        "bbox_head.cls_convs.0.4.bias is str, expected (324,)",
    ),
    "a layer more": (
        "ssdlite", with_shape("backbone.blocks.2.layers.1.op.0.weight", 144, 24, 1, 1),
        "has backbone.blocks.2.layers.1.op.0.weight, for which the network has no use",
    ),
    "an extra layer more": (
        "ssdlite", with_shape("backbone.extra.8.0.weight", 64, 128, 1, 1),
        "has backbone.extra.8.0.weight, for which the network has no use",
    ),
    "a level more": (
        "ssdlite", with_shape("bbox_head.cls_convs.6.0.weight", 64, 1, 3, 3),
        "has bbox_head.cls_convs.6.0.weight, for which the network has no use",
    ),
    "branch missing": (
        "deeplabv3", without("head.branch3.0.bn1.bias"),
        "has no head.branch3.0.bn1.bias, expected (320,)",
    ),
    "classes of another data set": (
        "deeplabv3", with_shape("cls_conv.weight", 21, 256, 1, 1),
        "cls_conv.weight is (21, 256, 1, 1), expected (19, 256, 1, 1)",
    ),
    "a part that DeepLabv3 lacks": (
        "deeplabv3", with_shape("head.low_level.0.weight", 48, 24, 1, 1),
        "has head.low_level.0.weight, for which the network has no use",
    ),
    "RetinaNet, key missing": (
        "retinanet", without("neck.fpn_convs.3.conv.bias"),
        "has no neck.fpn_convs.3.conv.bias, expected (256,)",
    ),
    "RetinaNet, key more": (
        "retinanet", with_shape("neck.fpn_convs.5.conv.bias", 256),
        "has neck.fpn_convs.5.conv.bias, for which the network has no use",
    ),
    "RetinaNet, shape": (
        "retinanet", with_shape("bbox_head.retina_cls.bias", 729),
        "bbox_head.retina_cls.bias is (729,), expected (720,)",
    ),
}  # fmt: skip


def assert_refused(message, load_it):
    with pytest.raises(InputError) as error:
        load_it()
    assert message in str(error.value) and "\n" not in str(error.value)
    assert "released.pth" in str(error.value)


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_in_one_line(case, tmp_path):
    name, change, message = MISTAKES[case]
    make, inner, config = FILES[name]
    content = make()
    change(content[inner])
    assert_refused(message, lambda: load(content, config, tmp_path))


RETINANET, SSDLITE = FILES["retinanet"][2], FILES["ssdlite"][2]
ELSEWHERE = {
    "another framework": (
        RETINANET,
        {"net_config": str(net_config_file("ssdlite")), "last_channels": 1280},
        {},
        "released SSDLite: has nothing for neck.lateral_convs.0.conv.weight",
    ),
    "another architecture": (
        SSDLITE,
        {"net_config": str(net_config_file("mobilenetv2"))},
        {},
        "blocks.2.layers.0.op.3.weight is (96, 1, 5, 5), expected (96, 1, 3, 3)",
    ),
    "another data set": (
        SSDLITE,
        {},
        {"num_classes": 9},
        "bbox_head.cls_convs.0.3 scores COCO's 80 classes",
    ),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_file_in_another_model(case, tmp_path):
    config, backbone, head, message = ELSEWHERE[case]
    changes = {f"model.backbone.{key}": value for key, value in backbone.items()}
    changes |= {f"model.bbox_head.{key}": value for key, value in head.items()}
    assert_refused(message, lambda: load(ssdlite_file(), config, tmp_path, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_script_takes_the_files_as_they_are(name, toy_city, tmp_path):
    make, _, _ = FILES[name]
    torch.save(make(), tmp_path / "released.pth")
    process = run_script(
        "test", f"configs/fna_det/{name}_param_adapt_coco_legacy.py", tmp_path / "released.pth", 0,
        "--net-config", net_config_file(name), "--data-root", toy_city, "--work-dir", tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["coco/bbox_mAP"] <= 1
    assert "0 missing; 0 unused" in process.stdout
