"""The exported file: as mmdet and mmseg predict, in a process that has neither them nor torch."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmseg.apis import inference_model

from engine import export, init_model
from engine.deployed import Detector, Segmentor, deployed
from engine.model import build_model
from engine.onnx_check import compare_boxes, compare_ids, expected
from engine.onnx_file import Sizing
from models import InputError, NetConfig
from tests.conftest import REPO, net_config_file, randomize
from tests.docs.test_pages import blocks
from tests.engine.models import CONFIGS, write_checkpoint
from tests.processes import run_script

pytestmark = pytest.mark.filterwarnings(
    "ignore:Default ``avg_non_ignore`` is False", "ignore:When align_corners=True"
)

CONFIG_TEXTS = {
    "small": """
_base_ = "{repo}/configs/fna_det/retinanet_param_adapt_toy.py"
model = dict(bbox_head=dict(stacked_convs=1))
""",
    "plus": """
_base_ = "{repo}/configs/fna_seg/deeplabv3_param_adapt_toy.py"
model = dict(
    backbone=dict(out_indices=(2, 7)),
    decode_head=dict(type="ASPPDecoderHead", in_channels=(24, 320), low_level_channels=48),
    test_cfg=dict(crop_size=(97, 161), stride=(65, 97), windows_per_batch=2),
)
""",
}

# one layer a stage, which is exported in a fraction of the time
SHALLOW = NetConfig.parse(
    "[[32, 16], ['k3_e1'], 1] | [[16, 24], ['k5_e3'], 2] | [[24, 32], ['k3_e6'], 2] | "
    "[[32, 64], ['k3_e6'], 2] | [[64, 96], ['k5_e6'], 1] | [[96, 160], ['k3_e6'], 2] | "
    "[[160, 320], ['k7_e6'], 1]"
)


def picture(size=(96, 64), seed=0) -> np.ndarray:
    """Red, green, blue; large blobs, on which the classes of neighbours agree."""
    blobs = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(blobs, size, interpolation=cv2.INTER_CUBIC)


def sample(scope: str):
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample

    return DetDataSample() if scope == "mmdet" else SegDataSample()


def toy_model(config: str, **options):
    model, cfg = build_model(config, device="cpu", options=options)
    randomize(model.backbone)
    model.cfg = cfg
    return model.eval()


# ---- the module that is exported, next to mmdet's and mmseg's own code


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model.test_cfg.nms.class_agnostic": True, "model.test_cfg.max_per_img": 7},
        {"model.test_cfg.nms_pre": 20, "model.test_cfg.min_bbox_size": 20},
        {"model.test_cfg.score_thr": 0.99},
        {"model.data_preprocessor.bgr_to_rgb": False, "model.data_preprocessor.pad_value": 3},
        {
            "model.bbox_head.bbox_coder.type": "LegacyDeltaXYWHBBoxCoder",
            "model.test_cfg.nms.offset": 1,
        },
    ],
)
@pytest.mark.parametrize("name", ["retinanet", "ssdlite"])
def test_detectors(name, options):
    model = toy_model(CONFIGS[name], **options)
    module = deployed(model)
    image = picture((139, 101))
    with torch.inference_mode():
        found = [output.numpy() for output in module(torch.from_numpy(image))]
    wanted = expected(model, module, image, sample("mmdet"))
    if "model.test_cfg.score_thr" in options:
        assert len(found[0]) == len(wanted[0]) == 0
    else:
        assert len(wanted[0]) > 3
        settings = model.test_cfg
        assert compare_boxes([(found, wanted)], settings.score_thr, settings.max_per_img)


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("classes", [1, 19])
def test_segmentors(classes, slide):
    options = {"model.test_cfg.crop_size": (65, 81), "model.test_cfg.stride": (33, 40)}
    if classes == 1:
        options |= {
            "model.decode_head.num_classes": 2,
            "model.decode_head.out_channels": 1,
            "model.decode_head.threshold": 0.5,
            "model.decode_head.loss_decode": dict(type="CrossEntropyLoss", use_sigmoid=True),
        }
    model = toy_model(CONFIGS["deeplabv3"], **options)
    image = picture((139, 101))
    module = deployed(model, image.shape[:2] if slide else None)
    assert isinstance(module, Segmentor) and module.slide == slide
    if not slide:
        model.test_cfg.mode = "whole"
    with torch.inference_mode():
        (ids,) = module(torch.from_numpy(image))
    assert ids.dtype == torch.uint8 and ids.shape == image.shape[:2]
    wanted = expected(model, module, image, sample("mmseg"))
    assert compare_ids([(ids.numpy(), wanted[0])])


@pytest.mark.parametrize("name", list(CONFIGS))
def test_raw_outputs_are_the_heads(name):
    model = toy_model(CONFIGS[name])
    module, image = deployed(model, raw=True), picture()
    with torch.inference_mode():
        found = module(torch.from_numpy(image))
    scope = "mmseg" if name == "deeplabv3" else "mmdet"
    wanted = expected(model, module, image, sample(scope))
    assert len(found) == len(wanted) == len(module.outputs)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one.numpy(), other)


def test_what_cannot_be_exported_whole():
    model = toy_model(CONFIGS["retinanet"], **{"model.test_cfg.nms.type": "soft_nms"})
    with pytest.raises(InputError, match=r"test_cfg.nms is .*soft_nms.*--raw exports"):
        Detector(model)
    model.bbox_head = torch.nn.Identity()
    with pytest.raises(InputError, match="RetinaNet: no detector with anchors"):
        Detector(model)


# ---- sizes


RESIZES = [
    (dict(type="Resize", scale=(160, 96), keep_ratio=True), None),
    (dict(type="Resize", scale=(160, 96), keep_ratio=True), (96, 144)),  # of the first image
    (dict(type="Resize", scale=(160, 96)), (96, 160)),
    (dict(type="Resize", scale=(160, 96)), None),
    (None, None),
]


@pytest.mark.parametrize("resize, size", RESIZES)
def test_images_are_sized_as_in_the_test_pipeline(resize, size, tmp_path):
    """Which is the reference; where an image does not fit the one size, it gets a border."""
    load, pack = dict(type="LoadImageFromFile"), dict(type="PackDetInputs", meta_keys=())
    with DefaultScope.overwrite_default_scope("mmdet"):
        pipeline = Compose([load, *([resize] if resize else []), pack])
    keep_ratio = bool(resize and resize.get("keep_ratio"))
    sizing = Sizing(resize and resize["scale"], keep_ratio, size, (1, 2, 3))
    for number, shape in enumerate([(90, 60), (61, 90), (47, 201)]):
        path = tmp_path / f"it's {number}.png"
        cv2.imwrite(str(path), picture(shape))
        tested = pipeline(dict(img_path=str(path)))["inputs"].numpy()[::-1].transpose(1, 2, 0)
        image = sizing.apply(path)
        if size and keep_ratio and number:
            assert image.shape[:2] == size and image.flags.c_contiguous
            rows, columns = (image != (3, 2, 1)).any(2).nonzero()
            height, width = rows.max() + 1, columns.max() + 1
            assert height == size[0] or width == size[1]
            assert width / height == pytest.approx(shape[0] / shape[1], rel=0.03)
        else:
            assert np.array_equal(image, tested)


# ---- what counts as the same


BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20], [1, 2, 3, 4]], np.float32)
FOUND = [BOXES, np.array([0.9, 0.8, 0.3], np.float32), np.array([1, 0, 1])]


def changed(index: int, row: int, value: float) -> list[np.ndarray]:
    arrays = [array.copy() for array in FOUND]
    arrays[index][row] += value
    return arrays


def test_boxes_that_are_the_same():
    order = [2, 0, 1]
    line = compare_boxes([(FOUND, [array[order] for array in FOUND])] * 2, 0.05, 100)
    assert line.startswith("The same 6 boxes and labels in 2 images")
    assert "5.0e-02 pixels" in compare_boxes([(FOUND, changed(0, 1, 0.05))], 0.05, 100)
    # the last one is only just above the threshold, or the worst of as many as are kept
    less = [array[:2] for array in FOUND]
    assert compare_boxes([(FOUND, less)], 0.29999, 100)
    assert compare_boxes([(changed(0, 2, 9), FOUND)], 0.05, 3)


@pytest.mark.parametrize(
    "other, words",
    [
        (changed(0, 1, 0.2), "2 have no counterpart, the best with a score of 0.800"),
        (changed(1, 0, 2e-4), "2 have no counterpart, the best with a score of 0.900"),
        (changed(2, 2, 1), "2 have no counterpart, the best with a score of 0.300"),
        ([array[:2] for array in FOUND], "finds 3 boxes, PyTorch 2; 1 have no counterpart"),
        ([array[[0, 0, 1, 2]] for array in FOUND], "finds 3 boxes, PyTorch 4; 1 have no"),
    ],
)
def test_boxes_that_are_not(other, words):
    with pytest.raises(InputError, match=f"in image 2 .*{words}"):
        compare_boxes([(FOUND, FOUND), (FOUND, other)], 0.05, 100)


def test_no_box_proves_nothing():
    none = [array[:0] for array in FOUND]
    with pytest.raises(InputError, match="no box in 1 images"):
        compare_boxes([(none, none)], 0.05, 100)


def test_classes_of_pixels():
    ids = np.zeros((100, 100), np.uint8)
    ids[0, :10] = 1
    assert "99.900 %" in compare_ids([(ids, np.zeros_like(ids)), (ids, ids)])
    ids[0, 10] = 1
    with pytest.raises(InputError, match="the same classes on only 99.890 %"):
        compare_ids([(ids, ids), (ids, np.zeros_like(ids))])
    with pytest.raises(InputError, match="on only 0.000 %"):
        compare_ids([(ids, ids[1:])])


# ---- mistakes


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["engine.export", *map(str, arguments)])
    export.main()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    for name in CONFIGS:
        write_checkpoint(folder / f"{name}.pth", name, SHALLOW)
    (folder / "broken.pth").write_bytes((folder / "ssdlite.pth").read_bytes()[:5000])
    for name, text in CONFIG_TEXTS.items():
        (folder / f"{name}.py").write_text(text.format(repo=REPO))
        write_checkpoint(folder / f"{name}.pth", str(folder / f"{name}.py"), SHALLOW)
    return folder


SEED = str(net_config_file("mobilenetv2"))
SEARCH = "configs/fna_det/ssdlite_arch_adapt_toy.py"


@pytest.mark.parametrize(
    "config, name, options, message",
    [
        ("ssdlite", "ssdlite", ["--out", "none/a.onnx"], "there is no folder .*/none"),
        ("ssdlite", "ssdlite", ["--out", "a.pt"], "expected a name that ends in .onnx"),
        ("ssdlite", "none", [], "none.pth: no such file"),
        ("ssdlite", "broken", [], "broken.pth: truncated, or not a checkpoint"),
        ("ssdlite", "ssdlite", ["--net-config", SEED], "of another architecture than --net-config"),
        ("ssdlite", "retinanet", [], "is another model's"),
        (SEARCH, "ssdlite", [], "is a search's; expected that of a training"),
        ("ssdlite", "ssdlite", ["--images", "none.jpg"], "none.jpg: no such file"),
        ("ssdlite", "ssdlite", ["--data-root", "none"], "data root .*none: is no folder"),
        ("ssdlite", "ssdlite", ["--cfg-options", "data_root=/none"], "or --images FILE"),
    ],
)
def test_mistakes(config, name, options, message, checkpoints, toy_city, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if options[:1] == ["--cfg-options"]:
        options = ["--cfg-options", "test_dataloader.dataset.data_root=/none/"]
    elif "--images" not in options and "--data-root" not in options:
        options = [*options, "--data-root", toy_city]
    if "--out" not in options:
        options = [*options, "--out", tmp_path / "a.onnx"]
    with pytest.raises(InputError, match=message):
        call(monkeypatch, CONFIGS.get(config, config), checkpoints / f"{name}.pth", *options)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_does_more_is_refused(checkpoints, toy_city, tmp_path, monkeypatch):
    options = ["test_dataloader.dataset.pipeline.1.interpolation=nearest"]
    model = init_model(CONFIGS["ssdlite"], checkpoints / "ssdlite.pth", "cpu")
    model.cfg.merge_from_dict(dict(option.split("=") for option in options))
    sizing = Sizing((256, 128), False, (128, 256), (0, 0, 0))
    images = sorted((toy_city / "val2017").iterdir())
    with pytest.raises(InputError, match="test pipeline does more than to resize it bilinearly"):
        export.as_tested(model.cfg, sizing, images)


# ---- whole exports


# the others are of one size
DYNAMIC = ("small", "deeplabv3")


@pytest.fixture(scope="module")
def exported(checkpoints, toy_city):
    """A function: (what was printed, the program's lines, the file) of an export, made once."""
    made = {}

    def export_once(name: str) -> tuple[str, str, Path]:
        if name not in made:
            config = CONFIGS.get(name, checkpoints / f"{name}.py")
            out = checkpoints / f"{name}.onnx"
            arguments = [config, checkpoints / f"{name}.pth", "--data-root", toy_city]
            printed = io.StringIO()
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
                call(patch, *arguments, "--out", out, *["--dynamic"] * (name in DYNAMIC))
            said, _, program = printed.getvalue().partition("\n\n")
            made[name] = said, program, out
        return made[name]

    return export_once


ALONE = """
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "mmdet", "mmseg", "models", "engine"):
    sys.modules[name] = None  # importing it fails
"""


def run_alone(program: str, folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """What a program prints, and the arrays that it saves, without torch and this project."""
    environment = {key: v for key, v in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.run(
        [sys.executable, "-c", ALONE + program],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert process.returncode == 0 and process.stderr == "", process.stderr
    return process.stdout, dict(np.load(folder / "found.npz"))


def first_image(program: str) -> str:
    return re.search(r"imread\('(.*)'\)", program)[1]


SAVE_BOXES = """
np.savez("found.npz", boxes=boxes, scores=scores, labels=labels, size=size)
"""


def same_boxes(found: dict, wanted) -> None:
    """mmdet's, in pixels of the same image; equally good ones may be in another order."""
    pair = (
        [found["boxes"], found["scores"], found["labels"]],
        [wanted.bboxes.numpy(), wanted.scores.numpy(), wanted.labels.numpy()],
    )
    assert len(wanted) > 3 and compare_boxes([pair], 0, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "ssdlite"])
def test_exported_detector(name, exported, checkpoints, tmp_path):
    said, program, out = exported(name)
    assert re.search(r"^The same \d+ boxes and labels in (4|8) images; ", said, re.MULTILINE)
    assert re.search(r"^One thread, .*PyTorch [\d.]+ ms, ONNX Runtime [\d.]+ ms$", said, re.M)
    assert f"Done. The network is in {out} (" in said
    assert len(program.splitlines()) == 8
    shown, found = run_alone(program + SAVE_BOXES, tmp_path)

    config = CONFIGS.get(name, checkpoints / f"{name}.py")
    model = init_model(config, checkpoints / f"{name}.pth", "cpu")
    image = first_image(program)
    wanted = inference_detector(model, image).pred_instances
    factors = np.array(cv2.imread(image).shape[1::-1]) / found["size"]
    found["boxes"] *= np.tile(factors, 2).astype(np.float32)
    same_boxes(found, wanted)
    lines = shown.splitlines()
    classes = model.dataset_meta["classes"]
    assert [line.split(" 0.")[0] for line in lines] == [classes[i] for i in found["labels"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place, name, words", [(0, "ssdlite", "detector"), (1, "deeplabv3", "segmentor")]
)
def test_the_pages_programs_are_those_that_are_printed(place, name, words, exported):
    _, program, out = exported(name)
    program = program.replace(str(out), f"{words}.onnx").replace(first_image(program), "image.jpg")
    # the page's are formatted
    shown = blocks("docs/export.md", "python")[place]
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(shown))


@pytest.mark.slow
def test_a_file_for_any_size(exported, checkpoints, tmp_path):
    """At a size that is no multiple of the strides."""
    _, program, _ = exported("small")
    image = picture((139, 101))
    np.save(tmp_path / "image.npy", image)
    again = 'boxes, scores, labels = session.run(None, {"image": np.load("image.npy")})'
    _, found = run_alone(program + again + SAVE_BOXES, tmp_path)
    model = init_model(checkpoints / "small.py", checkpoints / "small.pth", "cpu")
    model.cfg.test_dataloader.dataset.pipeline[1].update(scale=(139, 101), keep_ratio=False)
    same_boxes(found, inference_detector(model, image[..., ::-1]).pred_instances)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplabv3", "plus"])
def test_exported_segmentor(name, exported, checkpoints, tmp_path):
    said, program, out = exported(name)
    assert re.search(r"^The same classes on (100.0|99.9)\d* % of the pixels or more", said, re.M)
    assert len(program.splitlines()) == 8
    again = 'session.run(None, {"image": np.load("image.npy")})[0]' if name == "deeplabv3" else "0"
    other = picture((139, 101))
    np.save(tmp_path / "image.npy", other)
    shown, found = run_alone(f'{program}\nnp.savez("found.npz", ids=ids, again={again})', tmp_path)
    assert sum(float(share) for share in re.findall(r"'([\d.]+)'", shown)) == pytest.approx(1, 0.02)

    config = CONFIGS.get(name, checkpoints / f"{name}.py")
    model = init_model(config, checkpoints / f"{name}.pth", "cpu")
    image = cv2.resize(cv2.imread(first_image(program)), (257, 129))
    wanted = inference_model(model, image).pred_sem_seg.data[0].numpy()
    assert len(np.unique(wanted)) > 1 and (found["ids"] == wanted).mean() > 0.999
    if name == "deeplabv3":
        model.cfg.test_pipeline[1].scale = (139, 101)
        wanted = inference_model(model, other[..., ::-1]).pred_sem_seg.data[0].numpy()
        assert (found["again"] == wanted).mean() > 0.999


@pytest.mark.slow
def test_raw_outputs_by_the_script(checkpoints, toy_city, tmp_path):
    process = run_script(
        "export", REPO / CONFIGS["deeplabv3"], "deeplabv3.pth", "--raw",
        "--images", toy_city / "val2017", "--out", tmp_path / "raw.onnx", cwd=checkpoints, new=True,
    )  # fmt: skip
    assert process.returncode == 0 and process.stderr == "", process.stderr
    said, _, program = process.stdout.partition("\n\n")
    assert len(said.splitlines()) == 5 and "The same outputs for 4 images" in said
    assert len(program.splitlines()) == 8
    save = '\nnp.savez("found.npz", *outputs, image=sized)'
    shown, found = run_alone(program + save, tmp_path)
    model = init_model(CONFIGS["deeplabv3"], checkpoints / "deeplabv3.pth", "cpu")
    pixels = torch.from_numpy(found.pop("image").transpose(2, 0, 1).copy())
    with torch.inference_mode():
        scores = model(model.data_preprocessor(dict(inputs=[pixels]))["inputs"])
    (array,) = found.values()
    np.testing.assert_allclose(array, scores.numpy(), atol=1e-4 * scores.abs().max().item())
    assert shown == f"{{'scores': {tuple(scores.shape)}}}\n"


@pytest.mark.slow
def test_what_a_file_says_of_itself(exported, toy_city):
    _, _, out = exported("ssdlite")
    graph = onnx.load(out)
    about = {prop.key: prop.value for prop in graph.metadata_props}
    assert NetConfig.parse(about["net_config"]) == SHALLOW
    assert json.loads(about["classes"])[:2] == ["person", "bicycle"]
    assert json.loads(about["input_size"]) == [128, 256]
    assert json.loads(about["resize"])["scale"] == [256, 128]
    assert json.loads(about["input"])["channels"] == ["red", "green", "blue"]
    assert about["task"] == "detection" and json.loads(about["versions"])["torch"]
    assert [output.name for output in graph.graph.output] == ["boxes", "scores", "labels"]
    content = out.read_bytes()
    for path in (REPO, toy_city, sys.prefix):
        assert str(path).encode() not in content


@pytest.mark.slow
def test_a_file_that_sees_something_else_is_not_kept(
    exported, checkpoints, toy_city, tmp_path, monkeypatch
):
    """Here another network's, as a fault of the export would make it."""
    _, _, out = exported("ssdlite")
    checkpoint = torch.load(checkpoints / "ssdlite.pth")
    for key, tensor in checkpoint["state_dict"].items():
        if key.startswith("bbox_head") and tensor.dim() == 4:
            tensor.mul_(1.1)
    torch.save(checkpoint, tmp_path / "other.pth")
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(out))
    with pytest.raises(InputError, match="not exported: in image 1 ONNX Runtime finds"):
        call(monkeypatch, CONFIGS["ssdlite"], tmp_path / "other.pth", "--data-root", toy_city)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]
