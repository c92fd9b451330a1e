"""mmseg's readers of images and labels, which say in one line what is wrong with a data set."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image
from prettytable import PrettyTable

from datasets.classes import check_classes
from models import InputError, SampleError

IGNORED_ID = 255
# pixels; mmseg fails on what resizing leaves one pixel wide
_MIN_SIDE = 8
# one byte per pixel: grey, with a palette, black and white
_ID_MODES = ("L", "P", "1")


@DATASETS.register_module()
class CheckedSegDataset(BaseSegDataset):
    """``BaseSegDataset`` that checks at the start whether all files exist.

    mmseg silently trains on an empty data set, and notices a missing label only when it comes to
    load it.

    Raises:
        InputError: ``metainfo`` has no classes or no colour for each, a folder is missing or holds
            no image, or an image or its label is missing.
    """

    def __init__(self, *args, **kwargs):
        try:
            super().__init__(*args, **kwargs)
        except InputError:
            raise
        except ValueError as error:
            where = f"data set {kwargs.get('data_root')}"
            if classes := (kwargs.get("metainfo") or {}).get("classes"):
                check_classes(classes, where)  # the likely reason of what mmseg complains about
            raise InputError(f"{where}: {error}") from None

    def load_data_list(self) -> list[dict]:
        classes = self.metainfo.get("classes")
        check_classes(classes, f"data set {self.data_root}")
        if len(classes) > IGNORED_ID:
            raise InputError(
                f"data set {self.data_root}: has {len(classes)} classes, but labels of one byte "
                f"hold {IGNORED_ID} at most"
            )
        if self.backend_args is None:
            self._check_folders()
        data_list = super().load_data_list()
        if not data_list:
            raise InputError(
                f"{self.ann_file or self.data_prefix['img_path']}: holds no image, expected "
                f"NAME{self.img_suffix}"
            )
        for sample in data_list:
            if self.backend_args is None:
                self._check_files(sample)
            sample["num_classes"] = len(classes)
        return data_list

    def summary(self) -> str:
        """In one line what the data set holds."""
        classes = self.metainfo["classes"]
        return f"{len(self)} images with labels, {len(classes)} classes: {', '.join(classes)}"

    def warnings(self) -> list[str]:
        """Labels whose image is missing, in one line or none."""
        if self.ann_file or self.backend_args is not None:
            return []  # the list chooses
        # from the folders, because a search's half uses only some of the images
        labels, images = (
            {
                name.removesuffix(suffix)
                for name in fileio.list_dir_or_file(
                    self.data_prefix[key], list_dir=False, suffix=suffix, recursive=True
                )
            }
            for key, suffix in (
                ("seg_map_path", self.seg_map_suffix),
                ("img_path", self.img_suffix),
            )
        )
        folder = self.data_prefix["seg_map_path"]
        unused = sorted(str(Path(folder, name + self.seg_map_suffix)) for name in labels - images)
        if not unused:
            return []
        return [f"{len(unused)} labels without an image, first {unused[0]}: left out"]

    @staticmethod
    def inspect(results: Mapping) -> tuple[str | None, np.ndarray]:
        """None, because loading refuses what is wrong, and how many pixels have each of 256 ids."""
        return None, np.bincount(results["gt_seg_map"].ravel(), minlength=256)

    def details(
        self, samples: Sequence[Mapping], inspected: Sequence[np.ndarray], model: Mapping
    ) -> list[str]:
        """Lines of a table: for each class, its pixels and the images that have some."""
        pixels = np.array(inspected)
        labelled = max(pixels[:, :IGNORED_ID].sum(), 1)
        table = PrettyTable(["class", "images", "of all labelled pixels"], align="r")
        table.align["class"] = "l"
        for id, name in enumerate(self.metainfo["classes"]):
            share = 100 * pixels[:, id].sum() / labelled
            table.add_row([name, (pixels[:, id] > 0).sum(), f"{share:.2f} %"])
        ignored = 100 * pixels[:, IGNORED_ID].sum() / max(pixels.sum(), 1)
        return [*table.get_string().splitlines(), f"ignored (255): {ignored:.1f} % of all pixels"]

    def _check_folders(self) -> None:
        for key, suffix in (("img_path", self.img_suffix), ("seg_map_path", self.seg_map_suffix)):
            folder = self.data_prefix.get(key, "")
            if not Path(folder).is_dir():
                raise InputError(
                    f"{folder}: no such folder, expected files NAME{suffix} there "
                    f"(data_prefix.{key})"
                )
        if self.ann_file and not Path(self.ann_file).exists():
            raise InputError(f"list of images {self.ann_file}: no such file")

    def _check_files(self, sample: dict) -> None:
        image, label = sample["img_path"], sample["seg_map_path"]
        if not Path(image).is_file():
            raise InputError(f"image {image}: no such file, but {self.ann_file} lists it")
        if not Path(label).is_file():
            raise InputError(f"label {label}: no such file, but there is its image {image}")


@DATASETS.register_module()
class CheckedCityscapesDataset(CheckedSegDataset, CityscapesDataset):
    """``CityscapesDataset`` with the checks of :class:`CheckedSegDataset`."""

    def _check_files(self, sample: dict) -> None:
        label = sample["seg_map_path"]
        label_ids = label.replace("_labelTrainIds.png", "_labelIds.png")
        if not Path(label).is_file() and Path(label_ids).is_file():
            raise InputError(
                f"label {label}: no such file, only {Path(label_ids).name}; to make it: "
                f"pip install cityscapesscripts, then CITYSCAPES_DATASET={self.data_root} "
                "python -m cityscapesscripts.preparation.createTrainIdLabelImgs"
            )
        super()._check_files(sample)


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """``LoadAnnotations`` that refuses a label which cannot be its image's.

    Comes after the image is loaded, from one of the data sets above. An id that is no class would
    end training in an assertion on the GPU, or count as none in the evaluation. A sample that is an
    image alone, as mmseg's inference makes it of a path or an array, is left as it is.

    Raises:
        SampleError: The label cannot be read, holds more than one byte per pixel, differs in size
            from the image, or holds an id that is neither a class nor 255.
    """

    def transform(self, results: dict) -> dict:
        return super().transform(results) if "seg_map_path" in results else results

    def _load_seg_map(self, results: dict) -> None:
        path = results["seg_map_path"]
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            with Image.open(io.BytesIO(content)) as label:
                mode, (width, height) = label.mode, label.size
            if mode not in _ID_MODES:
                raise SampleError(
                    f"label {path}: has pixels of kind {mode} (as Pillow names them), expected one "
                    "byte per pixel, its class"
                )
            super()._load_seg_map(results)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise SampleError(f"label {path}: cannot be read: {error}") from None
        if (height, width) != tuple(results["ori_shape"]):
            image_height, image_width = results["ori_shape"]
            raise SampleError(
                f"label {path}: is of {width}x{height} pixels, but its image "
                f"{results['img_path']} of {image_width}x{image_height}"
            )
        if min(height, width) < _MIN_SIDE:
            raise SampleError(
                f"image {results['img_path']}: is of {width}x{height} pixels, expected at least "
                f"{_MIN_SIDE} each way"
            )
        ids, num_classes = results["gt_seg_map"], results["num_classes"]
        wrong = ids[(ids >= num_classes) & (ids != IGNORED_ID)]
        if wrong.size:
            in_file = int(wrong[0]) + bool(results["reduce_zero_label"])
            raise SampleError(
                f"label {path}: holds the id {in_file}, expected 0 to {num_classes - 1}, the "
                f"places in the data set's {num_classes} classes, or {IGNORED_ID} for none"
            )
