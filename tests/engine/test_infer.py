"""What a trained model is used for: images of others, from any folder, by script and in Python."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmseg.apis import inference_model
from mmseg.apis import init_model as init_segmentor
from PIL import Image

from engine import init_model
from engine.ending import Terminated, explain
from engine.infer import (
    as_json,
    describe_images,
    detector,
    find_images,
    main,
    picture_names,
    segmentor,
    usable_device,
)
from models import InputError, NetConfig
from tests.conftest import REPO, net_config_file
from tests.docs.test_pages import blocks
from tests.engine.models import CONFIGS, write_checkpoint
from tests.processes import run_script

FOUND = NetConfig.parse(net_config_file("retinanet").read_text().replace("k7_e3", "k3_e3"))
SEED = NetConfig.parse(net_config_file("mobilenetv2"))


def picture(size=(128, 64)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Path:
    """A folder, far from the repository, with an image and checkpoints of toy models."""
    folder = tmp_path_factory.mktemp("used")
    cv2.imwrite(str(folder / "image.jpg"), picture())
    write_checkpoint(folder / "published.pth", "retinanet")
    write_checkpoint(folder / "found.pth", "retinanet", FOUND)
    write_checkpoint(folder / "segmentor.pth", "deeplabv3", SEED)
    return folder


def same(one, other) -> bool:
    return torch.equal(one.bboxes, other.bboxes) and torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("config", [CONFIGS["retinanet"], "published.py", "found.py"])
@pytest.mark.parametrize("name", ["published", "found"])
def test_detectors_are_built_as_the_checkpoint_says(config, name, used, monkeypatch):
    """mmdet's own function, on the run's own config, is the reference."""
    monkeypatch.chdir(used)
    image = str(used / "image.jpg")
    expected = inference_detector(init_detector(f"{name}.py", f"{name}.pth", device="cpu"), image)
    model = init_model(config, f"{name}.pth", "cpu")
    found = inference_detector(model, cv2.imread(image))
    assert len(found.pred_instances) > 0
    assert same(found.pred_instances, expected.pred_instances)
    assert model.dataset_meta["classes"][0] == "person"
    if config != CONFIGS["retinanet"] and config != f"{name}.py":
        with pytest.raises(InputError, match="weights are of another architecture"):
            init_detector(config, f"{name}.pth", device="cpu")


def test_segmentors_are_built_as_the_checkpoint_says(used, monkeypatch):
    monkeypatch.chdir(used)
    reference = init_segmentor("segmentor.py", "segmentor.pth", device="cpu")
    model = init_model(CONFIGS["deeplabv3"], "segmentor.pth", "cpu")
    ids = [inference_model(one, "image.jpg").pred_sem_seg.data for one in (reference, model)]
    assert torch.equal(*ids) and len(ids[0].unique()) > 1
    assert torch.equal(inference_model(model, cv2.imread("image.jpg")).pred_sem_seg.data, ids[0])
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53]
    )
    with pytest.raises(InputError, match="weights are of another architecture"):
        init_segmentor(REPO / CONFIGS["deeplabv3"], "segmentor.pth", device="cpu")


def test_weights_alone_need_the_architecture(tmp_path, monkeypatch):
    """Where a checkpoint carries none; and classes are those of the config's data set."""
    write_checkpoint(tmp_path / "whole.pth", "retinanet", FOUND)
    weights = torch.load(tmp_path / "whole.pth")["state_dict"]
    meta = dict(dataset_meta=dict(classes=5))  # none that a run could have written
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / "weights.pth")
    model = init_model(CONFIGS["retinanet"], tmp_path / "weights.pth", "cpu", net_config=FOUND)
    assert model.backbone.net_config == FOUND
    assert len(model.dataset_meta["classes"]) == 9
    with pytest.raises(InputError, match="is of another architecture; 1 tensors differ"):
        init_model(CONFIGS["retinanet"], tmp_path / "weights.pth", "cpu")
    with pytest.raises(InputError, match="of another architecture than net_config: its stage [23]"):
        init_model(CONFIGS["retinanet"], tmp_path / "whole.pth", net_config=SEED)
    with pytest.raises(InputError, match="is another model's; "):
        init_model(CONFIGS["ssdlite"], tmp_path / "whole.pth", "cpu")


def test_images_are_found_with_names_of_their_own(tmp_path):
    for name in ("a.jpg", "a.png", "sub/a.JPG", "sub/notes.txt", "out/pictures/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    without = [tmp_path / "out/pictures"]
    folder, images = find_images([str(tmp_path)], without)
    assert folder == str(tmp_path)
    assert images == {name: tmp_path / name for name in ("a.jpg", "a.png", "sub/a.JPG")}
    files = [str(tmp_path / name) for name in ("sub/a.JPG", "a.jpg", "sub/notes.txt")]
    assert list(find_images(files, without)[1]) == ["sub/a.JPG", "a.jpg", "sub/notes.txt"]
    assert find_images(files[:1], without)[0] == str(tmp_path / "sub")
    with pytest.raises(InputError, match="none.jpg: no such file or folder"):
        find_images(["none.jpg"], without)
    with pytest.raises(InputError, match=r"no image there, expected .jpg"):
        find_images([str(tmp_path / "out")], without)


def test_no_picture_overwrites_another():
    images = ["a.jpg", "a.PNG", "a.pgm", "a.pgm.png", "sub/a.jpg", "a", "a.gif"]
    names = picture_names(images)
    assert set(names) == set(images) and len(set(names.values())) == len(images)
    assert names["a.jpg"] == "a.jpg" and names["a"] == "a.png"
    assert names["a.pgm"] == "a.pgm.png.png"


def test_json_has_a_line_for_each_image():
    images = [dict(file="ü.jpg", boxes=[[1.5, 2]]), dict(file=os.fsdecode(b"\xff.jpg"), boxes=[])]
    text = as_json(dict(classes=["cat"]), images).decode()
    assert json.loads(text) == dict(classes=["cat"], images=images)
    assert '{"file": "ü.jpg", "boxes": [[1.5, 2]]},\n' in text
    assert json.loads(as_json({"unread": ["a"]}, [])) == dict(unread=["a"], images=[])


@pytest.mark.parametrize(
    "error, said", [(KeyboardInterrupt, "\nInterrupted."), (Terminated, "Terminated.")]
)
def test_an_interruption_says_what_is_done(error, said, tmp_path, capsys):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture())

    def describe(image, name, file):
        if name == "c.png":
            raise error
        return {}

    _, images = find_images([str(tmp_path)], [])
    with pytest.raises(error) as caught:
        describe_images(images, describe, tmp_path / "pictures")
    line, _ = explain(caught.value)
    assert line.startswith(f"{said} 2 of 3 images are done, their pictures are in {tmp_path}/p")
    assert "\n" not in line.strip() and capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu:x"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InputError, match=f"--device {name}: cannot be used: "):
        usable_device(name)
    assert usable_device(None) is None and usable_device("cpu").type == "cpu"


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess:
    """A user's program, in a folder of its own, with the repository on Python's path."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


INFERENCERS = """
import engine, fna_seg
from mmseg.apis import MMSegInferencer
detect = DetInferencer("found.py", "found.pth", device="cpu", show_progress=False)
(one,) = detect("image.jpg")["predictions"]
print(len(one["scores"]))
cfg = engine.init_model(CONFIG, "found.pth", "cpu").cfg
detect = DetInferencer(cfg, "found.pth", device="cpu", show_progress=False)
assert detect("image.jpg")["predictions"] == [one]
segment = MMSegInferencer("segmentor.py", "segmentor.pth", device="cpu", show_progress=False)
print(segment("image.jpg")["predictions"].shape)
for inferencer in (DetInferencer, engine.init_model):
    try:
        inferencer(CONFIG, HOSTILE)
    except ValueError as error:
        print(error)
try:
    DetInferencer(CONFIG, "found.pth")
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_pages_programs_and_the_inferencers_run_from_anywhere(used, tmp_path):
    """The page's own text, on a checkpoint that its names lead to."""
    sections = [block for block in blocks("docs/usage.md", "python") if "apis" in block]
    detection, segmentation, inferencer = sections
    (tmp_path / "image.jpg").symlink_to(used / "image.jpg")

    (tmp_path / "checkpoint.pth").symlink_to(used / "segmentor.pth")
    process = run_python(segmentation, tmp_path)
    assert process.returncode == 0 and process.stderr == "", process.stderr
    shares = [line.split() for line in process.stdout.splitlines()]
    assert len(shares) == 19 and sum(float(share[-1]) for share in shares) == pytest.approx(
        1, abs=0.01
    )

    (tmp_path / "checkpoint.pth").unlink()
    (tmp_path / "checkpoint.pth").symlink_to(used / "found.pth")
    (tmp_path / "retinanet_param_adapt_toy.py").symlink_to(used / "found.py")
    for name in ("found.pth", "found.py", "segmentor.pth", "segmentor.py"):
        (tmp_path / name).symlink_to(used / name)
    hostile = tmp_path / "hostile.pth"
    torch.save(dict(state_dict=Path("x")), hostile)
    names = f"CONFIG, HOSTILE = {str(REPO / CONFIGS['retinanet'])!r}, {str(hostile)!r}\n"
    program = detection + inferencer + names + INFERENCERS
    process = run_python(program, tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "detections/vis/image.jpg").is_file()
    lines = [line for line in process.stdout.splitlines() if "Loads checkpoint" not in line]
    assert lines[0].split()[-4].startswith("[") and "(64, 128)" in lines
    assert sum("refused, it holds Python objects" in line for line in lines) == 2
    assert lines[-1].startswith("the weights are of another architecture than the backbone")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """The same picture in every form, and what is none."""
    folder = tmp_path_factory.mktemp("photographs")
    rgb = Image.fromarray(picture())
    for suffix in ("bmp", "png", "jpg", "webp", "tif", "ppm"):
        rgb.save(folder / f"a.{suffix}")
    (folder / "sub ü").mkdir()
    rgb.convert("L").save(folder / "sub ü/a.jpg")
    rgb.convert("L").save(folder / "sub ü/a.pgm")
    rgb.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(picture()[..., 0].astype(np.uint16) * 256).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6  # turn it to the right
    rgb.save(folder / "turned.jpg", exif=exif)
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
    (folder / "notes.txt").write_text("no image")
    return folder


NAMES = {
    "a.bmp", "a.png", "a.jpg", "a.webp", "a.tif", "a.ppm", "sub ü/a.jpg", "sub ü/a.pgm",
    "alpha.png", "deep.png", "turned.jpg",
}  # fmt: skip


def check_results(process, photographs, out) -> dict[str, dict]:
    """What both scripts leave, and what they say of the broken image."""
    assert process.returncode == 2 and "Traceback" not in process.stderr
    errors = [line for line in process.stderr.splitlines() if line]
    assert errors == [
        f"error: image {photographs}/broken.jpg: cannot be read: damaged, cut off or no image",
        "error: 1 of 12 images cannot be read; the rest is done",
    ]
    assert "12/12" in process.stdout and "ETA" in process.stdout
    results = json.loads((out / "results.json").read_text())
    assert results["unread"] == ["broken.jpg"] and results["folder"] == str(photographs)
    images = {image.pop("file"): image for image in results["images"]}
    assert set(images) == NAMES
    for name, image in images.items():
        size = (64, 128) if name == "turned.jpg" else (128, 64)
        assert (image["width"], image["height"]) == size
        drawn = out / "pictures" / (name + ".png" if name.endswith(".pgm") else name)
        with Image.open(drawn) as file:
            assert file.size == size
    return images


def test_pictures_show_the_image_in_its_own_colours(used, tmp_path):
    """Red, with a class's colour over it, or with boxes; and these down to the score asked for."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[..., 2] = 255  # blue-green-red
    red = np.array([255, 0, 0])
    model = init_model(CONFIGS["deeplabv3"], used / "segmentor.pth", "cpu")
    segmentor(model, tmp_path, None)(image, "red", tmp_path / "red.png")
    ids = np.asarray(Image.open(tmp_path / "labels/red.png"))
    palette, alpha = np.array(model.dataset_meta["palette"]), model.cfg.visualizer.alpha
    expected = (1 - alpha) * red + alpha * palette[ids]
    difference = np.abs(np.asarray(Image.open(tmp_path / "red.png")) - expected).max(-1)
    assert (difference <= 2).mean() > 0.5  # the rest is under the classes' names

    model = init_model(CONFIGS["retinanet"], used / "found.pth", "cpu")
    model.bbox_head.test_cfg.score_thr = 0.9
    describe = detector(model, tmp_path, SimpleNamespace(score=0.5))
    assert 0.5 <= min(describe(picture(), "box", tmp_path / "box.png")["scores"]) < 0.9
    detector(model, tmp_path, SimpleNamespace(score=2.0))(image, "none", tmp_path / "none.png")
    assert (np.abs(np.asarray(Image.open(tmp_path / "none.png")) - red) <= 2).all()


@pytest.mark.slow
def test_detect(used, photographs, tmp_path):
    process = run_script(
        "detect", CONFIGS["retinanet"], used / "found.pth", photographs,
        "--out", "out", "--score", "0.4", "--device", "cpu", cwd=tmp_path, new=True,
    )  # fmt: skip
    images = check_results(process, photographs, tmp_path / "out")
    model = init_detector(used / "found.py", str(used / "found.pth"), device="cpu")
    for name in ("a.png", "deep.png", "turned.jpg"):
        found = inference_detector(model, str(photographs / name)).pred_instances
        found = found[found.scores >= 0.4]
        assert len(found) > 0
        assert np.allclose(images[name]["boxes"], found.bboxes, atol=0.006)
        assert np.allclose(images[name]["scores"], found.scores, atol=6e-5)
        assert images[name]["labels"] == [model.dataset_meta["classes"][i] for i in found.labels]


@pytest.mark.slow
def test_segment(used, photographs, tmp_path):
    process = run_script(
        "segment", CONFIGS["deeplabv3"], used / "segmentor.pth", photographs, "--out", "out",
        cwd=tmp_path,
    )  # fmt: skip
    images = check_results(process, photographs, tmp_path / "out")
    model = init_segmentor(used / "segmentor.py", str(used / "segmentor.pth"), device="cpu")
    ids = inference_model(model, str(photographs / "a.png")).pred_sem_seg.data[0].numpy()
    with Image.open(tmp_path / "out" / images["a.png"]["label_map"]) as file:
        assert (np.asarray(file) == ids).all()
    for index, name in enumerate(model.dataset_meta["classes"]):
        assert images["a.png"]["shares"].get(name, 0) == pytest.approx(
            (ids == index).mean(), abs=6e-5
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["segment", CONFIGS["retinanet"], "found.pth", "image.jpg"], "models do not segment"),
        (["detect", "none.py", "found.pth", "image.jpg"], "config none.py: no such file"),
        (["detect", CONFIGS["retinanet"], "none.pth", "image.jpg"], "none.pth: No such file"),
        (["detect", CONFIGS["retinanet"], "found.pth"], "arguments are required: images"),
        (["classify"], "task 'classify', expected detect or segment"),
        (
            ["detect", CONFIGS["retinanet"], "found.pth", "image.jpg", "--net-config", str(SEED)],
            "of another architecture than --net-config",
        ),
    ],
)
def test_mistakes_are_told(arguments, message, used, monkeypatch):
    monkeypatch.chdir(used)
    monkeypatch.setattr(sys, "argv", ["engine.infer", *arguments])
    with pytest.raises(InputError, match=message):
        main()
    assert not (used / "detections").exists()
