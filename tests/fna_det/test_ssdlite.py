"""SSDLite as the real configs build it: the paper's numbers, settings, anchors, predictions."""

import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import box_iou

from engine.model import build_model
from models import CostTerm, NetConfig, count_madds, count_params, load_seed
from search.derived import derived_backbone
from search.report import ArchReport
from tests.conftest import REPO, SEEDS_OWN, net_config_file

# the paper's table 4, in millions and billions at 320x320, and what counting by its rules gives
PAPER = {
    ("ssdlite_param_adapt_coco", None): ("4.6", "0.9", 4.630e6, 0.880e9),
    ("ssdlite_param_adapt_coco_legacy", None): ("4.6", "0.9", 4.630e6, 0.880e9),
    ("ssdlite_param_adapt_coco", "mobilenetv2"): ("4.3", "0.8", 4.323e6, 0.808e9),
}
MEAN = [123.675, 116.28, 103.53]
CELLS = [20, 10, 5, 3, 2, 1]  # a side of each map
ANCHORS = [4, 6, 6, 6, 4, 4]  # in each of its cells


@pytest.fixture(autouse=True)
def in_repo(monkeypatch):
    monkeypatch.chdir(REPO)


@pytest.mark.parametrize(("name", "architecture"), PAPER)
def test_cost_is_the_papers(name, architecture):
    options = SEEDS_OWN if architecture else None
    model, cfg = build_model(f"configs/fna_det/{name}.py", options=options)
    params, madds = count_params(model), count_madds(model, cfg.input_size)
    rounded_params, rounded_madds, exact_params, exact_madds = PAPER[name, architecture]
    assert tuple(cfg.input_size) == (320, 320)
    assert (f"{params / 1e6:.1f}", f"{madds / 1e9:.1f}") == (rounded_params, rounded_madds)
    assert params == pytest.approx(exact_params, abs=6e2)
    assert madds == pytest.approx(exact_madds, abs=6e5)


def test_maps_and_their_sizes():
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py")
    maps = model.eval().extract_feat(torch.empty(1, 3, 320, 320, device="meta"))
    assert [tuple(map_.shape[1:]) for map_ in maps] == [
        (576, 20, 20), (1280, 10, 10), (512, 5, 5), (256, 3, 3), (256, 2, 2), (128, 1, 1)
    ]  # fmt: skip
    # depthwise-separable: 1x1 to half, then 3x3 of stride 2 channel by channel, then 1x1
    for layer, (before, after) in zip(
        model.neck.extra_layers, [(1280, 512), (512, 256), (256, 256), (256, 128)], strict=True
    ):
        convs = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        half = after // 2
        assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.groups)
                for c in convs] == [
            (before, half, 1, 1, 1), (half, half, 3, 2, half), (half, after, 1, 1, 1)
        ]  # fmt: skip
    for convs, outputs in ((model.bbox_head.cls_convs, 81), (model.bbox_head.reg_convs, 4)):
        for head, map_, number in zip(convs, maps, ANCHORS, strict=True):
            depthwise, pointwise = (m for m in head.modules() if isinstance(m, nn.Conv2d))
            assert depthwise.groups == map_.shape[1] and depthwise.kernel_size == (3, 3)
            assert pointwise.kernel_size == (1, 1) and pointwise.out_channels == number * outputs
            assert pointwise.bias is None
            last = [m for m in head.modules() if not list(m.children())][-1]
            assert isinstance(last, nn.BatchNorm2d) and last.num_features == number * outputs


def test_all_norms_have_the_papers_eps():
    for name in ("ssdlite_param_adapt_coco", "ssdlite_arch_adapt_coco"):
        model, _ = build_model(f"configs/fna_det/{name}.py")
        eps = {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
        assert eps == {1e-3}


SHAPES = [  # width and height of each map's anchors, in pixels, to a hundredth
    [(30, 30), (42.43, 42.43), (42.43, 21.21), (21.21, 42.43)],
    [(60, 60), (82.70, 82.70), (84.85, 42.43), (42.43, 84.85), (103.92, 34.64), (34.64, 103.92)],
    [(114, 114), (138.39, 138.39), (161.22, 80.61), (80.61, 161.22), (197.45, 65.82),
     (65.82, 197.45)],
    [(168, 168), (193.12, 193.12), (237.59, 118.79), (118.79, 237.59), (290.98, 96.99),
     (96.99, 290.98)],
    [(222, 222), (247.53, 247.53), (313.96, 156.98), (156.98, 313.96)],
    [(276, 276), (301.79, 301.79), (390.32, 195.16), (195.16, 390.32)],
]  # fmt: skip


@pytest.mark.parametrize("name", ["ssdlite_param_adapt_coco", "ssdlite_arch_adapt_coco"])
def test_anchors_by_hand(name):
    """The authors' sizes, those of mmdet 0.6 for images of 300; centres those of the cells.

    Squares of the level's size and of its geometric mean with the next, then the ratios.
    """
    model, _ = build_model(f"configs/fna_det/{name}.py", device="cpu")
    generator = model.bbox_head.prior_generator
    levels = generator.grid_priors([(n, n) for n in CELLS], device="cpu")
    numbers = zip(levels, [16, 32, 64, 107, 160, 320], CELLS, SHAPES, strict=True)
    for level, stride, count, shapes in numbers:
        expected = [
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            for y in (stride * (row + 0.5) for row in range(count))
            for x in (stride * (column + 0.5) for column in range(count))
            for w, h in shapes
        ]
        torch.testing.assert_close(level, torch.tensor(expected), rtol=0, atol=6e-3)
    assert sum(map(len, levels)) == 1600 + 600 + 150 + 54 + 16 + 4


def test_new_layers_start_as_the_authors():
    """Convs of neck and head at N(0, 0.03), their BN at 1 and 0; predictors have no bias."""
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py", device="cpu")
    torch.manual_seed(0)
    for part in (model.neck, model.bbox_head):
        part.init_weights()
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is None
                assert module.weight.mean().abs() < 6e-3
                assert module.weight.std().item() == pytest.approx(0.03, rel=0.15)
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and (module.bias == 0).all()


def centres_and_sizes(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def test_loss_by_hand():
    """Anchors that overlap a box by half or most of all are its own; each brings 3 negatives."""
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py", device="cpu")
    head, generator = model.bbox_head, torch.Generator().manual_seed(0)
    anchors = torch.cat(head.prior_generator.grid_priors([(n, n) for n in CELLS], device="cpu"))
    truth = [  # boxes and classes; one box is smaller than every anchor
        (torch.tensor([[20.0, 30, 140, 150], [200, 210, 215, 230]]), torch.tensor([3, 79])),
        (torch.tensor([[0.0, 0, 320, 300]]), torch.tensor([0])),
    ]
    scores, deltas = (
        [torch.randn(2, a * outputs, n, n, generator=generator)
         for a, n in zip(ANCHORS, CELLS, strict=True)]
        for outputs in (81, 4)
    )  # fmt: skip
    losses = head.loss_by_feat(
        scores,
        deltas,
        [InstanceData(bboxes=boxes, labels=classes) for boxes, classes in truth],
        [dict(img_shape=(320, 320), pad_shape=(320, 320))] * 2,
    )

    loss_cls = loss_box = number = 0
    for image, (boxes, classes) in enumerate(truth):
        score, delta = (
            torch.cat([m[image].permute(1, 2, 0).reshape(-1, outputs) for m in maps])
            for maps, outputs in ((scores, 81), (deltas, 4))
        )
        overlaps = box_iou(anchors, boxes)
        highest, owner = overlaps.max(1)
        owner[highest < 0.5] = -1
        owner[overlaps.argmax(0)] = torch.arange(len(boxes))
        positive = owner >= 0
        labels = torch.full((len(anchors),), 80)  # background
        labels[positive] = classes[owner[positive]]
        surprise = -score.log_softmax(1)[torch.arange(len(anchors)), labels]
        hardest = surprise[~positive].sort(descending=True).values[: 3 * positive.sum()]
        loss_cls += surprise[positive].sum() + hardest.sum()

        centre, size = centres_and_sizes(anchors[positive])
        to_centre, to_size = centres_and_sizes(boxes[owner[positive]])
        target = [(to_centre - centre) / size / 0.1, (to_size / size).log() / 0.2]
        off = (delta[positive] - torch.cat(target, 1)).abs()
        loss_box += torch.where(off < 1, off.square() / 2, off - 0.5).sum()
        number += positive.sum()
    assert number > 5
    torch.testing.assert_close(sum(losses["loss_cls"]).squeeze(), loss_cls / number)
    torch.testing.assert_close(sum(losses["loss_bbox"]), loss_box / number)


def test_a_search_starts_from_the_seed_wherever_it_has_a_tensor(seed_file):
    """The last 1x1 conv's BN included: all but alpha and what shapes differ in is the seed's."""
    model, _ = build_model("configs/fna_det/ssdlite_arch_adapt_coco.py", device="cpu")
    backbone, seed = model.backbone, load_seed(seed_file)
    initial = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    backbone.init_cfg["seed"] = str(seed_file)
    backbone.init_weights()
    state = backbone.state_dict()
    kept = {key for key in state if torch.equal(state[key], initial[key])}
    assert {key for key in kept if not key.endswith("num_batches_tracked")} == {
        key for key in state if key.endswith(".alpha")
    }
    last = [key for key in state if key.startswith("blocks.8.conv.")]
    assert len(last) == 6 and all(torch.equal(state[key], seed[key]) for key in last)


def test_legacy_anchors_by_hand():
    """Widths are x2 - x1 + 1, centres (stride - 1) / 2, and corners whole pixels."""
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco_legacy.py", device="cpu")
    today, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py", device="cpu")
    generator = model.bbox_head.prior_generator
    levels = generator.base_anchors
    assert levels[0][0].tolist() == [-7, -7, 22, 22]  # 30 wide around 7.5
    assert levels[5][0].tolist() == [22, 22, 297, 297]  # 276 wide around 159.5
    for level, modern in zip(
        levels, today.bbox_head.prior_generator.gen_base_anchors(), strict=True
    ):
        assert torch.equal(level, level.round())
        half = torch.tensor([0.0, 0.0, -1.0, -1.0])
        torch.testing.assert_close(level, modern + half, rtol=0, atol=0.51)
    coder = model.bbox_head.bbox_coder
    anchor = torch.tensor([[10.0, 20.0, 29.0, 59.0]])  # 20 wide and 40 high when counted so
    double = torch.tensor([[0.0, 20.0, 39.0, 59.0]])  # 40 wide
    expected = torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    expected[:, 2:] = expected[:, 2:].log() / 0.2  # the paper's standard deviations
    torch.testing.assert_close(coder.encode(anchor, double), expected)


def test_settings_of_parameter_adaptation():
    _, cfg = build_model("configs/fna_det/ssdlite_param_adapt_coco.py")
    assert cfg.optim_wrapper.optimizer == dict(
        type="RMSprop", lr=0.2, eps=1.0, momentum=0.9, weight_decay=4e-5
    )
    assert "clip_grad" not in cfg.optim_wrapper
    assert cfg.train_cfg.max_epochs == 60 and cfg.sync_bn == "torch"
    assert cfg.train_dataloader.batch_size == 64 and cfg.auto_scale_lr.base_batch_size == 64 * 8
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, warmup.by_epoch) == (500, False)
    assert (steps.milestones, steps.gamma, steps.end) == ([36, 50, 56], 0.1, 60)
    test = cfg.model.test_cfg
    assert (test.score_thr, test.nms.iou_threshold, test.max_per_img) == (0.02, 0.6, 200)
    assert test.nms_pre > 1600 * 80
    train = cfg.model.train_cfg
    assert (train.assigner.pos_iou_thr, train.assigner.neg_iou_thr) == (0.5, 0.5)
    assert train.assigner.gt_max_assign_all is False and train.neg_pos_ratio == 3
    assert cfg.model.bbox_head.bbox_coder.target_stds == [0.1, 0.1, 0.2, 0.2]


def test_settings_of_architecture_adaptation():
    model, cfg = build_model("configs/fna_det/ssdlite_arch_adapt_coco.py")
    weights, arch = cfg.optim_wrapper.weights, cfg.optim_wrapper.arch
    assert weights.optimizer == dict(
        type="RMSprop", lr=0.05, eps=1.0, momentum=0.9, weight_decay=4e-5
    )
    assert arch.optimizer == dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    assert "clip_grad" not in weights and arch.clip_grad.max_norm == 35
    loop = cfg.train_cfg
    assert (loop.max_epochs, loop.arch_start_epoch) == (30, 15)
    assert (loop.arch_steps, loop.weight_steps, loop.split.ratio) == (1, 5, 0.5)
    assert loop.cost == dict(type="MAdds", weight=0.15, base=10, scale=1, input_size=(320, 320))
    assert [step.type for step in loop.arch_pipeline] == [
        "LoadImageFromFile", "LoadAnnotations", "Resize", "PackDetInputs"
    ]  # fmt: skip
    assert cfg.train_dataloader.batch_size == 16 and cfg.auto_scale_lr.base_batch_size == 16 * 8
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, warmup.by_epoch) == (500, False)
    assert (steps.milestones, steps.gamma, steps.end) == ([18, 25, 28], 0.1, 30)
    layers = model.backbone.mixed_layers
    assert [len(layer.candidates) for layer in layers] == [6, 7, 7, 7] * 4 + [3, 7, 7, 7] + [6]
    assert all(layer.temperature == 0.9 for layer in layers)


@pytest.mark.parametrize("name", ["ssdlite_param_adapt_coco", "ssdlite_arch_adapt_coco"])
def test_settings_of_the_data(name):
    _, cfg = build_model(f"configs/fna_det/{name}.py")
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.times) == ("RepeatDataset", 5)
    assert dataset.dataset.ann_file == "annotations/instances_train2017.json"
    steps = {step.type: step for step in dataset.dataset.pipeline}
    assert list(steps) == [
        "LoadImageFromFile", "LoadAnnotations", "PhotoMetricDistortion", "Expand",
        "MinIoURandomCrop", "Resize", "RandomFlip", "PackDetInputs",
    ]  # fmt: skip
    assert steps["Expand"].ratio_range == (1, 4) and steps["Expand"].mean == MEAN
    assert steps["Resize"].scale == (320, 320) and not steps["Resize"].keep_ratio
    assert steps["RandomFlip"].prob == 0.5
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == (MEAN, [1, 1, 1]) and preprocessor.bgr_to_rgb
    if cfg.test_dataloader:
        steps = {step.type: step for step in cfg.test_dataloader.dataset.pipeline}
        assert steps["Resize"].scale == (320, 320) and not steps["Resize"].keep_ratio


def test_the_head_predicts_by_softmax():
    """One anchor of one class scores high: it is what comes out, with its score."""
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py", device="cpu")
    head = model.bbox_head
    scores = [torch.zeros(1, a * 81, n, n) for a, n in zip(ANCHORS, CELLS, strict=True)]
    deltas = [torch.zeros(1, a * 4, n, n) for a, n in zip(ANCHORS, CELLS, strict=True)]
    scores[2][0, 81 + 7, 2, 3] = 6.0  # level 2, second anchor, class 7, row 2, column 3
    meta = dict(img_shape=(320, 320), ori_shape=(320, 320), scale_factor=(1.0, 1.0))
    (result,) = head.predict_by_feat(scores, deltas, batch_img_metas=[meta], rescale=True)
    x, y, half = 64 * 3.5, 64 * 2.5, (114 * 168) ** 0.5 / 2
    box = [x - half, y - half, x + half, y + half]
    torch.testing.assert_close(result.bboxes, torch.tensor([box]), rtol=0, atol=1e-2)
    e6 = torch.tensor(6.0).exp()
    torch.testing.assert_close(result.scores, (e6 / (e6 + 80))[None])
    assert result.labels.tolist() == [7]


def test_a_detector_predicts():
    model, _ = build_model("configs/fna_det/ssdlite_param_adapt_coco.py", device="cpu")
    sample = DetDataSample(
        metainfo=dict(img_shape=(320, 320), ori_shape=(320, 320), scale_factor=(1.0, 1.0))
    )
    with torch.no_grad():
        (result,) = model.eval().predict(torch.randn(1, 3, 320, 320), [sample])
    assert len(result.pred_instances) <= 200


def test_a_search_reports_the_published_sizes():
    model, cfg = build_model("configs/fna_det/ssdlite_arch_adapt_coco.py", device="cpu")
    seed = net_config_file("mobilenetv2")
    report = ArchReport(model, CostTerm.from_cfg(cfg.train_cfg.cost), [], seed, 15, {})
    text = report.compare(NetConfig.parse(net_config_file("ssdlite")))
    derived, seeds = text.split("; the seed's: ")
    assert "whole model 4.630M params 0.880B MAdds, at 320x320" in derived
    assert "whole model 4.323M params 0.808B MAdds" in seeds


def test_a_derived_network_is_the_configs():
    model, _ = build_model("configs/fna_det/ssdlite_arch_adapt_coco.py")
    published = NetConfig.parse(net_config_file("ssdlite"))
    derived = derived_backbone(model.backbone, published)
    target = build_model("configs/fna_det/ssdlite_param_adapt_coco.py")[0].backbone
    for name in ("out_indices", "output_stride", "last_channels", "norm_cfg"):
        assert getattr(derived, name) == getattr(target, name)


def test_a_narrower_first_map_is_not_compared_with_the_seeds():
    """The seed's 576 channels would not fit a head for 288."""
    _, cfg = build_model("configs/fna_det/ssdlite_arch_adapt_coco.py")
    narrow = copy.deepcopy(cfg.model)
    narrow.backbone.layer_ops = {"6.0": ["k3_e3", "k5_e3"]}
    channels = (288, *cfg.map_channels[1:])
    narrow.neck.update(in_channels=channels[:2], out_channels=channels)
    narrow.bbox_head.in_channels = channels
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(narrow)
    text = str(NetConfig.parse(net_config_file("ssdlite"))).replace(
        "[[96, 160], ['k5_e6'", "[[96, 160], ['k5_e3'"
    )
    term, seed = CostTerm.from_cfg(cfg.train_cfg.cost), net_config_file("mobilenetv2")
    report = ArchReport(model, term, [], seed, 15, {})
    derived, seeds = report.compare(NetConfig.parse(text)).split("; the seed's: ")
    assert "whole model" in derived and seeds == "backbone 1.812M params 0.570B MAdds"
