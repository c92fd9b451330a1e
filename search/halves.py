"""The two disjoint halves of a train set: one for the weights, one for α (paper, section 3.3)."""

import copy
from collections.abc import Mapping, Sequence

import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from models import InputError

PARTS = ("weights", "arch")


def half_dataloader_cfgs(
    dataloader: Mapping,
    split: Mapping,
    arch_pipeline: Sequence[dict] | None = None,
    arch_batch_size: int | None = None,
) -> list[dict]:
    """The configs of the two halves' loaders: the weights', then α's.

    Args:
        dataloader: A config's ``train_dataloader``; left as it is.
        split: ``ratio``, α's share of the images, and ``seed``.
        arch_pipeline, arch_batch_size: Of α's half, in place of the config's own.

    Raises:
        InputError: The split is impossible.
    """
    if arch_batch_size is not None and (type(arch_batch_size) is not int or arch_batch_size < 1):
        raise InputError(f"train_cfg.arch_batch_size: {arch_batch_size!r}, expected 1 or more")
    if set(split) != {"ratio", "seed"}:
        raise InputError(f"train_cfg.split: {dict(split)}, expected ratio and seed")
    cfgs = []
    for part, pipeline, batch_size in zip(
        PARTS, (None, arch_pipeline), (None, arch_batch_size), strict=True
    ):
        cfg = copy.deepcopy(dict(dataloader))
        cfg["dataset"] = split_dataset_cfg(cfg["dataset"], part=part, pipeline=pipeline, **split)
        cfg["batch_size"] = batch_size or cfg["batch_size"]
        cfgs.append(cfg)
    return cfgs


def split_dataset_cfg(
    dataset_cfg: dict, part: str, ratio: float, seed: int, pipeline: list | None = None
) -> dict:
    """The config of one half of a train set.

    Images are split where they are listed, inside all wrappers, so an image that a wrapper repeats
    or mixes into others stays in its half. Each member of a concatenation is split by itself.

    Args:
        dataset_cfg: The train set's config; left as it is.
        part: ``'weights'`` or ``'arch'``.
        ratio: Share of the images that α learns from, between 0 and 1.
        seed: Equal seeds give equal halves; the two parts of one seed are disjoint.
        pipeline: In place of the data set's own. Wrappers with a pipeline of their own, such as
            MultiImageMixDataset, are then left out, because they would augment after it.

    Raises:
        InputError: ``part`` is neither, or ``ratio`` is outside (0, 1).
    """
    if part not in PARTS:
        raise InputError(f"split: no part {part!r}, expected one of {', '.join(PARTS)}")
    if not isinstance(ratio, int | float) or not 0 < ratio < 1:
        raise InputError(f"split: ratio {ratio!r}, expected more than 0 and less than 1")

    def split(cfg: dict) -> dict:
        if "datasets" in cfg:
            return _replaced(cfg, datasets=[split(inner) for inner in cfg["datasets"]])
        if "dataset" in cfg:
            inner = split(cfg["dataset"])
            mixes = pipeline is not None and "pipeline" in cfg
            return inner if mixes else _replaced(cfg, dataset=inner)
        if pipeline is not None:
            cfg = _replaced(cfg, pipeline=copy.deepcopy(pipeline))
        return dict(type="SplitSubset", dataset=cfg, part=part, ratio=ratio, seed=seed)

    return split(copy.deepcopy(dataset_cfg))


@DATASETS.register_module(name="SplitSubset")
def split_subset(dataset: dict, part: str, ratio: float, seed: int) -> BaseDataset:
    """Build a data set and keep the images of one half, in their order.

    The data set itself becomes shorter. (A wrapper around it would leak: when a pipeline gives up
    an image, mmengine draws another from the whole data set.)

    Args:
        dataset: Config of a data set that lists images itself, no wrapper.
        part, ratio, seed: See :func:`split_dataset_cfg`.

    Raises:
        InputError: ``dataset`` is no mmengine BaseDataset, or the half holds no image.
    """
    whole = DATASETS.build(dataset)
    if not isinstance(whole, BaseDataset):
        raise InputError(f"split: cannot split {type(whole).__name__}, expected a BaseDataset")
    indices = split_indices(len(whole), part, ratio, seed)
    if not indices:
        where = whole.ann_file or next(iter(whole.data_prefix.values()), "")
        raise InputError(
            f"{type(whole).__name__} {where}: ratio {ratio} of its {len(whole)} images leaves "
            f"none in the {part!r} half, expected at least one in each"
        )
    whole.get_subset_(indices)
    return whole


def split_indices(length: int, part: str, ratio: float, seed: int) -> list[int]:
    """Which of ``length`` images are in a half, ascending: for α round(ratio · length) of them."""
    shuffled = torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()
    border = round(ratio * length)
    return sorted(shuffled[:border] if part == "arch" else shuffled[border:])


def _replaced(cfg: dict, **values) -> dict:
    return type(cfg)({**cfg, **values})
