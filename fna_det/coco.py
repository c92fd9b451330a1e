"""mmdet's COCO reader, which says in one line what is wrong with a data set."""

from pathlib import Path

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from models import InputError


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """``CocoDataset`` that refuses annotations it would silently drop or mislabel.

    mmdet skips annotations of a category that the config's ``classes`` lack, numbers labels in the
    file's order whatever the order of ``classes``, and notices a missing image only
    when it comes to load it.

    Raises:
        InputError: The annotation file is missing or no COCO file, it holds no image, or an
            annotation's category or an image's file is not there.
    """

    def load_data_list(self) -> list[dict]:
        if self.backend_args is None and not Path(self.ann_file).is_file():
            raise InputError(f"annotation file {self.ann_file}: no such file")
        try:
            data_list = super().load_data_list()
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
            raise InputError(
                f"annotation file {self.ann_file}: not in COCO format "
                f"({type(error).__name__}: {error}); expected images, annotations and categories"
            ) from None
        if not data_list:
            raise InputError(f"annotation file {self.ann_file}: holds no image")
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        classes = self.metainfo["classes"]
        for annotation in raw_data_info["raw_ann_info"]:
            category = annotation["category_id"]
            name = self.coco.cats.get(category, {}).get("name", "of no name")
            label = self.cat2label.get(category)
            if label is None:
                raise InputError(
                    f"annotation file {self.ann_file}: annotation {annotation.get('id')} has "
                    f"category {category} ({name}), expected one of the config's classes: "
                    f"{', '.join(classes)}"
                )
            if classes[label] != name:
                raise InputError(
                    f"annotation file {self.ann_file}: lists category {name!r} where the config's "
                    f"classes have {classes[label]!r}; write classes in the order of the file"
                )
        data_info = super().parse_data_info(raw_data_info)
        if self.backend_args is None and not Path(data_info["img_path"]).is_file():
            raise InputError(
                f"image {data_info['img_path']}: no such file, but {self.ann_file} lists it"
            )
        return data_info

    def filter_data(self) -> list[dict]:
        data_list = super().filter_data()
        if not data_list:
            raise InputError(
                f"annotation file {self.ann_file}: no image left after "
                f"filter_cfg={self.filter_cfg}; expected large enough ones with annotations"
            )
        return data_list
