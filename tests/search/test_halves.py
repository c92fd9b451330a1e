import json
import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmseg.datasets import CityscapesDataset
from PIL import Image

from fna_det import CheckedCocoDataset
from models import InputError
from search.halves import split_dataset_cfg

PARTS = ("weights", "arch")


@DATASETS.register_module()
class NumberedImages(BaseDataset):
    """``length`` images that are only numbers; its one transform may add to them."""

    def __init__(self, length: int, **settings):
        self.length = length
        super().__init__(**settings)

    def load_data_list(self) -> list[dict]:
        return [dict(number=n, width=100 + n, height=110) for n in range(self.length)]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [self.get_data_info(idx)["number"] % 2]


class Mark:
    """A transform that leaves its name on what it saw, and gives up now and then."""

    def __init__(self, name: str, give_up: float = 0.0):
        self.name, self.give_up = name, give_up

    def __call__(self, results: dict) -> dict | None:
        if random.random() < self.give_up:
            return None
        return results | {self.name: True}


def numbered(length: int = 20, **settings) -> dict:
    return dict(type="NumberedImages", length=length, **settings)


def half(cfg: dict, part: str, ratio: float = 0.5, seed: int = 0, pipeline: list | None = None):
    return DATASETS.build(split_dataset_cfg(cfg, part, ratio, seed, pipeline))


def numbers(dataset) -> list[int]:
    return [dataset.get_data_info(i)["number"] for i in range(len(dataset))]


@pytest.mark.parametrize("serialize_data", [True, False])
@pytest.mark.parametrize("ratio, for_alpha", [(0.5, 10), (0.2, 4), (0.33, 7), (0.97, 19)])
def test_halves_are_disjoint_and_complete(ratio, for_alpha, serialize_data):
    cfg = numbered(serialize_data=serialize_data)
    weights, arch = (numbers(half(cfg, part, ratio)) for part in PARTS)
    assert len(arch) == for_alpha and len(weights) == 20 - for_alpha
    assert sorted(weights + arch) == list(range(20))


def test_seed_decides():
    first = numbers(half(numbered(200), "arch", seed=1))
    assert first == numbers(half(numbered(200), "arch", seed=1)) == sorted(first)
    assert first != list(range(100))
    others = [numbers(half(numbered(200), "arch", seed=seed)) for seed in range(2, 6)]
    for other in others:
        # two independent halves share 50 of 100 images, give or take 3.5
        assert 32 < len(set(first) & set(other)) < 68


def test_random_states_are_neither_used_nor_changed():
    halves = []
    for seed in (0, 1):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        halves.append(numbers(half(numbered(), "weights", seed=3)))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert halves[0] == halves[1]


def test_pipelines_differ_and_the_given_config_stays():
    augmentation, plain = [Mark("flipped")], [Mark("plain")]
    cfg = numbered(pipeline=augmentation)
    before = dict(cfg)
    weights, arch = half(cfg, "weights"), half(cfg, "arch", pipeline=plain)
    assert cfg == before and cfg["pipeline"] is augmentation
    assert all(weights[i].keys() >= {"flipped"} for i in range(10))
    assert all(arch[i]["plain"] and "flipped" not in arch[i] for i in range(10))
    assert half(cfg, "arch", pipeline=[])[0].keys() == {"number", "width", "height", "sample_idx"}
    assert half(cfg, "arch")[0]["flipped"]


def test_an_image_that_a_pipeline_gives_up_is_replaced_from_the_same_half():
    for part in PARTS:
        dataset = half(numbered(pipeline=[Mark("seen", give_up=0.7)]), part)
        own = set(numbers(dataset))
        drawn = [dataset[i]["number"] for _ in range(30) for i in range(len(dataset))]
        assert set(drawn) == own and drawn != sorted(own) * 30


class Mix:
    """A transform in the manner of mosaic: pairs an image with the next of its data set."""

    def __call__(self, results: dict) -> dict:
        others = [other["number"] for other in results.pop("mix_results")]
        return results | dict(mixed=[results["number"], *others])

    def get_indexes(self, dataset) -> list[int]:
        return [random.randrange(len(dataset))]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: dict(type="RepeatDataset", times=3, dataset=inner),
        lambda inner: dict(type="ClassBalancedDataset", oversample_thr=0.9, dataset=inner),
        lambda inner: dict(type="ConcatDataset", datasets=[inner]),
        # the same images twice, as for two augmentations of them
        lambda inner: dict(type="ConcatDataset", datasets=[inner, inner | dict(test_mode=True)]),
        lambda inner: dict(
            type="RepeatDataset",
            times=2,
            dataset=dict(
                type="ConcatDataset",
                datasets=[dict(type="RepeatDataset", times=2, dataset=inner), inner],
            ),
        ),
    ],
)
def test_wrappers_leak_no_image(wrap):
    cfg = wrap(numbered(pipeline=[Mark("own")]))
    weights, arch = half(cfg, "weights", 0.3), half(cfg, "arch", 0.3, pipeline=[Mark("plain")])
    assert type(weights) is type(arch) is type(DATASETS.build(cfg))
    ours, theirs = set(numbers(weights)), set(numbers(arch))
    assert len(ours) == 14 and len(theirs) == 6 and ours | theirs == set(range(20))
    whole = DATASETS.build(cfg)
    if cfg["type"] != "ClassBalancedDataset":
        assert len(weights) + len(arch) == len(whole)
    assert all("own" in weights[i] for i in range(len(weights)))
    assert all("plain" in arch[i] and "own" not in arch[i] for i in range(len(arch)))


def test_members_of_a_concatenation_are_each_split():
    cfg = dict(type="ConcatDataset", datasets=[numbered(20), numbered(10)])
    for part, share in (("weights", 0.8), ("arch", 0.2)):
        assert [len(member) for member in half(cfg, part, 0.2).datasets] == [20 * share, 10 * share]


def test_mixing_wrapper_mixes_within_its_half_and_is_no_part_of_a_plain_one():
    from mmdet.registry import TRANSFORMS

    TRANSFORMS.register_module(name="MixForSplitTest", module=Mix, force=True)
    cfg = dict(
        type="mmdet.MultiImageMixDataset",
        dataset=numbered(),
        pipeline=[dict(type="mmdet.MixForSplitTest")],
    )
    weights = half(cfg, "weights", 0.25)
    mixed = {n for _ in range(20) for i in range(len(weights)) for n in weights[i]["mixed"]}
    arch = half(cfg, "arch", 0.25, pipeline=[Mark("plain")])
    assert len(weights) == 15 and len(arch) == 5 and isinstance(arch, NumberedImages)
    assert mixed == set(range(20)) - set(numbers(arch))
    assert all("mixed" not in arch[i] and arch[i]["plain"] for i in range(5))


def test_a_config_files_data_set_is_split():
    cfg = Config(dict(train=dict(type="RepeatDataset", times=2, dataset=numbered())))
    assert len(half(cfg.train, "arch", 0.2)) == 8
    assert cfg.train.dataset == numbered()


def test_editing_a_half_leaves_the_config_alone():
    cfg = numbered(pipeline=[dict(type="RandomFlip", prob=0.5)])
    split_dataset_cfg(cfg, "weights", 0.5, seed=0)["dataset"]["pipeline"][0]["prob"] = 1.0
    assert cfg["pipeline"][0]["prob"] == 0.5


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_ratio_outside_0_and_1(ratio):
    with pytest.raises(InputError, match=f"ratio {ratio}, expected more than 0") as error:
        split_dataset_cfg(numbered(), "arch", ratio, seed=0)
    assert "\n" not in str(error.value)


def test_unknown_part():
    with pytest.raises(InputError, match="no part 'alpha', expected one of weights, arch"):
        split_dataset_cfg(numbered(), "alpha", 0.5, seed=0)


@pytest.mark.parametrize("part, ratio", [("arch", 0.1), ("weights", 0.9)])
def test_empty_half(part, ratio):
    cfg = numbered(4, ann_file="few.json")
    with pytest.raises(InputError) as error:
        half(cfg, part, ratio)
    message = str(error.value)
    for word in ("NumberedImages", "few.json", f"ratio {ratio}", "4 images", repr(part)):
        assert word in message
    assert "\n" not in message


def test_data_set_of_another_library():
    DATASETS.register_module(name="PlainListForSplitTest", module=lambda: [1, 2], force=True)
    with pytest.raises(InputError, match="cannot split list, expected a BaseDataset"):
        half(dict(type="PlainListForSplitTest"), "arch")


# Real data sets


@pytest.fixture(scope="module")
def root(toy_city, tmp_path_factory):
    """The small embedded data set, with two images turned upright."""
    root = shutil.copytree(toy_city, tmp_path_factory.mktemp("split") / "toy_city")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for image in content["images"][:2]:
        file = root / "train2017" / image["file_name"]
        Image.open(file).transpose(Image.Transpose.TRANSPOSE).save(file)
        image["height"], image["width"] = image["width"], image["height"]
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                annotation["bbox"] = [y, x, height, width]
    path.write_text(json.dumps(content))
    return root


def coco(root, *augmentation: dict) -> dict:
    return dict(
        type="CheckedCocoDataset",
        data_root=str(root),
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            *augmentation,
            dict(type="PackDetInputs", meta_keys=("img_path", "flip", "img_shape")),
        ],
    )


def cityscapes(root, *augmentation: dict) -> dict:
    return dict(
        type="CityscapesDataset",
        data_root=str(root),
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            *augmentation,
            dict(type="PackSegInputs", meta_keys=("img_path", "flip", "img_shape")),
        ],
    )


@pytest.mark.parametrize("task, make", [("mmdet", coco), ("mmseg", cityscapes)])
def test_loaders_of_both_halves_of_a_real_data_set(root, task, make):
    train = make(root, dict(type="RandomFlip", prob=1.0))
    pipeline = make(root)["pipeline"]
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=True))
    if task == "mmdet":
        loader["batch_sampler"] = dict(type="AspectRatioBatchSampler")
    files = {}
    with DefaultScope.overwrite_default_scope(task):
        whole = DATASETS.build(train)
        for part, replaced in (("weights", None), ("arch", pipeline)):
            repeated = dict(type="RepeatDataset", times=2, dataset=train)
            cfg = split_dataset_cfg(repeated, part, 0.25, seed=0, pipeline=replaced)
            loaded = Runner.build_dataloader(loader | dict(dataset=cfg), seed=0)
            files[part] = []
            for batch in loaded:
                for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
                    assert sorted(image.shape) == [3, 64, 128]
                    assert bool(sample.metainfo.get("flip")) == (part == "weights")
                    files[part].append(sample.img_path)
            kept = loaded.dataset.dataset
            assert isinstance(kept, CheckedCocoDataset | CityscapesDataset)
            assert loaded.dataset.metainfo == kept.metainfo == whole.metainfo
    assert len(files["weights"]) == 12 and len(files["arch"]) == 4
    assert not set(files["weights"]) & set(files["arch"])
    listed = {whole.get_data_info(i)["img_path"] for i in range(len(whole))}
    assert set(files["weights"]) | set(files["arch"]) == listed and len(listed) == 8


def test_batches_of_one_orientation(root):
    """AspectRatioBatchSampler sees the sizes of the images that are in the half."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=True),
        batch_sampler=dict(type="AspectRatioBatchSampler"),
    )
    upright = 0
    with DefaultScope.overwrite_default_scope("mmdet"):
        for part in PARTS:
            cfg = split_dataset_cfg(coco(root), part, 0.5, seed=0)
            loaded = Runner.build_dataloader(
                loader | dict(dataset=dict(type="RepeatDataset", times=2, dataset=cfg)), seed=0
            )
            for batch in loaded.batch_sampler:
                infos = [loaded.dataset.get_data_info(index) for index in batch]
                orientations = {info["width"] < info["height"] for info in infos}
                assert len(orientations) == 1
                upright += orientations.pop() * len(batch)
    assert upright == 4


def test_empty_half_of_a_real_data_set_names_its_annotations(root):
    with DefaultScope.overwrite_default_scope("mmdet"):
        with pytest.raises(InputError, match="CheckedCocoDataset .*instances_train2017.json: "):
            half(coco(root), "arch", 0.01)
    with DefaultScope.overwrite_default_scope("mmseg"):
        with pytest.raises(InputError, match="CityscapesDataset .*leftImg8bit/train: ratio 0.01"):
            half(cityscapes(root), "arch", 0.01)
