import shutil
import struct
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS, MODELS
from mmseg.utils import register_all_modules

import fna_seg  # noqa: F401  (as well)
from engine.run import one_line
from models import InputError, SampleError
from tests.conftest import REPO

LABEL = "gtFine/val/toy/toy_000000_000002_gtFine_labelTrainIds.png"
IMAGE = "leftImg8bit/val/toy/toy_000000_000002_leftImg8bit.png"
LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadCheckedAnnotations")]


@pytest.fixture(autouse=True)
def scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture
def root(toy_city, tmp_path):
    """A copy of the small data set that a test may spoil."""
    return shutil.copytree(toy_city, tmp_path / "toy_city")


def load(root, **changes):
    settings = dict(
        type="CheckedCityscapesDataset",
        data_root=str(root),
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=LOAD,
    )
    return DATASETS.build(settings | changes)


def read(path):
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


def test_reads_every_image_with_its_label(root):
    dataset = load(root)
    assert len(dataset) == 4 and len(dataset.metainfo["classes"]) == 19
    for number, sample in enumerate(dataset):
        name = f"toy_000000_{number:06d}"
        label = read(root / f"gtFine/val/toy/{name}_gtFine_labelTrainIds.png")
        image = read(root / f"leftImg8bit/val/toy/{name}_leftImg8bit.png")
        assert (sample["gt_seg_map"] == label).all() and (sample["img"] == image).all()


@pytest.mark.parametrize("split, images", [("train", 367), ("val", 101), ("test", 233)])
def test_camvid(split, images, fna_data):
    if not (fna_data / "camvid").is_dir():
        pytest.skip(f"no CamVid in {fna_data} ($FNA_DATA)")
    cfg = Config.fromfile(REPO / "configs/_base_/data/camvid.py")
    dataset = DATASETS.build(
        dict(cfg.dataset | cfg.splits[split], data_root=str(fna_data / "camvid"), pipeline=LOAD)
    )
    assert len(dataset) == images
    assert len(dataset.metainfo["palette"]) == len(dataset.metainfo["classes"]) == 11
    counts = Counter()
    for sample in (dataset[number] for number in range(0, images, 10)):
        assert sample["img"].shape == (360, 480, 3)
        counts.update(dict(zip(*np.unique(sample["gt_seg_map"], return_counts=True), strict=True)))
    assert set(counts) == {*range(11), 255}
    # of streets, road and buildings are the larger part, and poles are thin
    names = {id: name for id, name in enumerate(dataset.metainfo["classes"])}
    common = {names[id] for id, _ in counts.most_common(4) if id != 255}
    assert {"road", "building"} <= common and counts[2] < counts[3] / 10


def test_classes_and_colours_of_ones_own_data(root):
    own = dict(
        type="CheckedSegDataset",
        img_suffix="_leftImg8bit.png",
        seg_map_suffix="_gtFine_labelTrainIds.png",
    )
    classes = tuple(f"class {id}" for id in range(19))
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    dataset = load(root, **own, metainfo=dict(classes=classes))
    assert len({tuple(colour) for colour in dataset.metainfo["palette"]}) == 19
    assert np.random.rand() == expected  # colours are not drawn from the global generator
    again = load(root, **own, metainfo=dict(classes=classes))
    assert again.metainfo["palette"] == dataset.metainfo["palette"]
    with pytest.raises(InputError, match="no classes"):
        load(root, **own)
    with pytest.raises(InputError, match="palette does not match") as error:
        load(root, **own, metainfo=dict(classes=classes, palette=[[0, 0, 0]]))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="not a subset"):
        load(root, metainfo=dict(classes=("road", "moon")))


def drop(path):
    return lambda root: (root / path).unlink()


def drop_folder(path):
    return lambda root: shutil.rmtree(root / path)


def only_label_ids(root):
    for path in (root / "gtFine/val/toy").glob("*TrainIds.png"):
        path.unlink()


def empty_folder(root):
    shutil.rmtree(root / "leftImg8bit/val")
    (root / "leftImg8bit/val").mkdir()


def no_label_at_all(root):
    for path in (root / "gtFine/val/toy").glob("*_000002_*"):
        path.unlink()


@pytest.mark.parametrize(
    "spoil, messages",
    [
        (drop_folder("leftImg8bit"), ["leftImg8bit/val: no such folder", "_leftImg8bit.png"]),
        (drop_folder("gtFine"), ["gtFine/val: no such folder", "_labelTrainIds.png"]),
        (empty_folder, ["leftImg8bit/val: holds no image", "_leftImg8bit.png"]),
        (no_label_at_all, [LABEL, IMAGE, "no such file"]),
        (drop(LABEL), [LABEL, "createTrainIdLabelImgs", "CITYSCAPES_DATASET="]),
        (only_label_ids, ["toy_000000_000000_gtFine_labelTrainIds.png", "createTrainIdLabelImgs"]),
    ],
)
def test_what_is_missing_is_named_at_the_start(root, spoil, messages):
    spoil(root)
    with pytest.raises(InputError) as error:
        load(root)
    assert all(message in str(error.value) for message in messages), error.value
    assert str(root) in str(error.value) and "\n" not in str(error.value)


def test_list_of_images(root):
    (root / "val.txt").write_text("toy/toy_000000_000002\ntoy/toy_000000_000009\n")
    with pytest.raises(InputError, match=r"_000009_leftImg8bit.png: no such file, but .*val.txt"):
        load(root, ann_file="val.txt")
    with pytest.raises(InputError, match="none.txt: no such file"):
        load(root, ann_file="none.txt")
    (root / "val.txt").write_text("toy/toy_000000_000002\n")
    assert len(load(root, ann_file="val.txt")) == 1
    (root / "val.txt").write_text("")
    with pytest.raises(InputError, match="val.txt: holds no image"):
        load(root, ann_file="val.txt")


def write(change):
    def spoil(root):
        pixels = change(read(root / LABEL))
        assert cv2.imwrite(str(root / LABEL), pixels)

    return spoil


def png_header(width, height):
    """The begin of a grey PNG file that says it has so many pixels."""
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc + struct.pack(">I4s", 9, b"IDAT")
    )


def with_id(id, dtype=np.uint8):
    def change(pixels):
        pixels = pixels.astype(dtype)
        pixels[5, 7] = id
        return pixels

    return write(change)


@pytest.mark.parametrize(
    "spoil, messages",
    [
        (with_id(19), ["holds the id 19", "0 to 18", "255"]),
        (with_id(254), ["holds the id 254"]),
        # what one byte would hold of it is the id of a class
        (with_id(256 * 3, np.uint16), ["of kind I;16", "one byte"]),
        (write(lambda p: np.stack([p] * 3, -1)), ["of kind RGB", "one byte"]),
        (write(lambda p: p[:, :-1]), ["127x64", "128x64", IMAGE]),
        (write(lambda p: p.T), ["64x128", "128x64", IMAGE]),
        (lambda r: (r / LABEL).write_bytes(b"no image"), ["cannot be read"]),
        (lambda r: (r / LABEL).write_bytes(png_header(20000, 10000)), ["cannot be read", "limit"]),
        (lambda r: (r / LABEL).write_bytes((r / LABEL).read_bytes()[:200]), ["cannot be read"]),
    ],
)
def test_labels_that_cannot_be_the_images(root, spoil, messages):
    spoil(root)
    dataset = load(root)
    assert dataset[1] is not None
    with pytest.raises(SampleError) as error:
        dataset[2]
    assert all(message in str(error.value) for message in messages), error.value
    assert str(root / LABEL) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1)])
def test_images_too_small_to_be_any(height, width, root):
    for name in (LABEL, IMAGE):
        assert cv2.imwrite(str(root / name), read(root / name)[:height, :width])
    with pytest.raises(SampleError, match=f"is of {width}x{height} pixels, expected at least 8"):
        load(root)[2]


def test_ids_as_the_file_has_them_where_0_is_none(root):
    with_id(19)(root)
    assert load(root, reduce_zero_label=True)[2]["gt_seg_map"].max() == 255
    with_id(20)(root)
    with pytest.raises(SampleError, match="holds the id 20"):
        load(root, reduce_zero_label=True)[2]


def test_a_mistake_in_a_loaders_process_is_one_line(root):
    with_id(19)(root)
    loader = Runner.build_dataloader(
        dict(
            batch_size=1,
            num_workers=1,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=load(root),
            collate_fn=dict(type="pseudo_collate"),
        )
    )
    batches = iter(loader)
    with pytest.raises(SampleError) as error:
        list(batches)
    batches._shutdown_workers()  # for which torch would wait long once the error is collected
    assert "Traceback" in str(error.value)
    with pytest.raises(SampleError) as here:
        load(root)[2]
    assert one_line(error.value) == one_line(here.value) == str(here.value)


def test_a_crop_larger_than_the_image_is_padded(root):
    """Through the real pipeline and preprocessor: the mean colour, and labels that do not count."""
    cfg = Config.fromfile(REPO / "configs/_base_/cityscapes_segmentation.py")
    model = Config.fromfile(REPO / "configs/_base_/deeplabv3.py").model
    dataset = load(root, pipeline=cfg.train_pipeline)  # images of 128x64, at most twice as large
    loader = Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dataset,
            collate_fn=dict(type="pseudo_collate"),
        ),
        seed=0,
    )
    batch = next(iter(loader))
    sizes = [image.shape[1:] for image in batch["inputs"]]
    factors = {height / 64 for height, _ in sizes}
    assert factors <= {0.75, 1, 1.25, 1.5, 1.75, 2} and len(factors) > 1
    batch = MODELS.build(model.data_preprocessor)(batch, training=True)
    assert batch["inputs"].shape == (4, 3, 769, 769)
    for image, sample, (height, width) in zip(
        batch["inputs"], batch["data_samples"], sizes, strict=True
    ):
        labels = sample.gt_sem_seg.data[0]
        assert labels.shape == (769, 769)
        inside = torch.zeros(769, 769, dtype=torch.bool)
        inside[:height, :width] = True
        assert (labels[~inside] == 255).all() and (labels[inside] != 255).any()
        assert (image[:, ~inside] == 0).all() and (image[:, inside] != 0).any()


def test_a_crop_smaller_than_the_image_has_its_size(root):
    cfg = Config.fromfile(REPO / "configs/_base_/cityscapes_segmentation.py")
    crop = dict(cfg.crop, crop_size=(33, 49))
    dataset = load(root, pipeline=[*cfg.load, cfg.rescale, crop, cfg.flip, cfg.pack])
    assert all(sample["inputs"].shape == (3, 33, 49) for sample in dataset)
