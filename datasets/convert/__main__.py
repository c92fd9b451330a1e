"""Annotations of other forms into those that the project reads. `--help` lists the forms, `FORM
--help` what each reads. Nothing is written before everything is read and free of mistakes."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from models import InputError

from . import labels as labels_of
from .boxes import coco_files, summary
from .coco import read_coco
from .labelme import read_labelme
from .output import Output, copied_name, copy_images
from .polygons import read_polygons
from .source import SPLITS, Findings, Images, split_images
from .table import read_csv
from .voc import read_voc
from .yolo import read_yolo

_REPO = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert as the command line says; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        args.convert(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m datasets.convert", description=__doc__)
    forms = parser.add_subparsers(required=True, metavar="FORM")

    def form(name: str, what: str, reader: Callable, convert: Callable) -> argparse.ArgumentParser:
        described = reader.__doc__.partition("Args:")[0].partition("Raises:")[0]
        described = " ".join(described.replace("``", "").split())
        added = forms.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}. {described}"
        )
        added.set_defaults(convert=convert, reader=reader)
        added.add_argument("source", type=_path, help="folder (or file) of the annotations")
        added.add_argument("--images", type=_path, help="folder of the images; default, the source")
        added.add_argument("--out", type=_path, required=True, help="folder to write to")
        added.add_argument(
            "--split",
            required=True,
            help="shares of train, val and test drawn by --seed, as 0.8,0.1,0.1; or 'folders': an "
            "image is in a folder called train, val or test; or one of these names for all, which "
            "leaves others as they are; or a folder with train.txt, val.txt, test.txt, which list "
            "images",
        )
        added.add_argument("--seed", type=int, default=0, help="other seeds draw other shares")
        added.add_argument("--copy", action="store_true", help="copy the images to OUT/images, too")
        added.add_argument(
            "--jpeg", type=int, metavar="QUALITY", help="copy the images as JPEG files of a quality"
        )
        added.add_argument(
            "--overwrite",
            action="store_true",
            help="replace what an earlier conversion wrote; its other splits go, unless --split "
            "is one split's name",
        )
        return added

    def class_list(added: argparse.ArgumentParser, default: str) -> None:
        added.add_argument(
            "--classes",
            type=_classes,
            help=f"names, separated by commas, or a file with one per line; default: {default}",
        )

    voc = form("voc", "boxes: Pascal VOC's XML files", read_voc, convert_boxes)
    class_list(voc, "those that occur, sorted")
    voc.add_argument(
        "--first-pixel",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: pixels are counted from 1 and a box has those from xmin to xmax, as in Pascal VOC "
        "itself; 0: xmin and xmax are edges counted from 0, as labelling tools have them",
    )
    table = form("csv", "boxes: CSV files, a box in each row", read_csv, convert_boxes)
    class_list(table, "those that occur, sorted")
    table.add_argument(
        "--columns",
        type=lambda text: text.split(","),
        help="names of the columns where a file has no heading or another: image, class, xmin, "
        "ymin, xmax, ymax, x, y, w, h; any other name for what does not count",
    )
    yolo = form("yolo", "boxes: YOLO's text files", read_yolo, convert_boxes)
    class_list(yolo, "data.yaml, classes.txt or obj.names")
    class_list(
        form("labelme", "boxes: labelme's JSON files", read_labelme, convert_boxes),
        "those that occur, sorted",
    )
    class_list(
        form("coco", "boxes: COCO files, split anew", read_coco, convert_boxes),
        "the categories that occur",
    )

    colors = form("colors", "labels: PNGs of colours", labels_of.ids_of_colours, convert_colours)
    colors.add_argument(
        "--table",
        type=_path,
        required=True,
        help="file of the colours: lines R G B NAME, or CVAT's labelmap.txt",
    )
    colors.add_argument(
        "--ignore",
        type=lambda text: text.split(","),
        default=[],
        help="names, separated by commas, that are no class: 255",
    )
    ids = form("ids", "labels: PNGs of other ids", labels_of.ids_of_ids, convert_ids)
    ids.add_argument(
        "--map",
        type=_renumbered,
        default={},
        help="new numbers of ids, as 0=255,11=255 (255 is no class); others stay",
    )
    for added in (colors, ids):
        added.add_argument(
            "--label",
            default="{folder}/{stem}.png",
            help="a label's path in the source, of its image's {folder} and {stem}; default: "
            "%(default)s",
        )
    polygons = form(
        "polygons",
        "labels: labelme's or COCO's polygons",
        read_polygons,
        convert_polygons,
    )
    class_list(polygons, "COCO's order, or sorted")
    polygons.add_argument(
        "--background",
        default="background",
        help="name of the class of pixels in no polygon, which gets id 0; 'none': no class (255)",
    )
    return parser


def _path(text: str) -> Path:
    if not text.strip():  # as that of a shell's variable which is not set
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)


def _classes(text: str) -> list[str]:
    try:
        is_file = os.path.isfile(text)
        lines = Path(text).read_text("utf-8-sig").splitlines() if is_file else text.split(",")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: cannot be read: {error}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text}: expected different names")
    return names


def _renumbered(text: str) -> dict[int, int]:
    try:
        pairs = [pair.split("=") for pair in text.split(",")]
        return {int(old): int(new) for old, new in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers, as 0=255,11=255") from None


def _replaced(split: str) -> tuple[str, ...]:
    """The splits of which files of an earlier conversion are replaced."""
    return (split,) if split in SPLITS else SPLITS


def convert_boxes(args: argparse.Namespace) -> None:
    """Write OUT/annotations/instances_SPLIT.json."""
    findings, images = Findings(), Images(args.images or args.source)
    names = {split: f"annotations/instances_{split}.json" for split in SPLITS}
    output = Output(args.out, args.overwrite)
    output.check_free(names[split] for split in _replaced(args.split))
    options = {}
    if args.reader is read_voc:
        options["first_pixel"] = args.first_pixel
    if args.reader is read_csv:
        options["columns"] = args.columns
    if args.reader is read_yolo:
        options["classes"] = args.classes
    found = args.reader(args.source, images, findings, **options)
    splits = split_images(args.split, images, found.of, args.seed, findings)
    classes = args.classes or found.classes
    contents = coco_files(found, splits, classes, images, findings)
    copied = args.copy or args.jpeg is not None
    with output.write() as folder:
        if copied:
            paths = [path for split in splits.values() for path in split]
            copy_images(paths, images, folder / "images", args.jpeg, findings)
            findings.raise_mistakes()
        for split, content in contents.items():
            if copied:
                for image in content["images"]:
                    image["file_name"] = copied_name(image["file_name"], args.jpeg)
            file = folder / names[split]
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(content))
    output.remove(names[split] for split in _replaced(args.split) if split not in contents)
    for split, content in contents.items():
        print(f"{split}: {summary(content)} in {args.out / names[split]}")
    findings.report()
    categories = next(iter(contents.values()))["categories"]
    _print_settings(
        f"metainfo=dict(classes={_tuple(entry['name'] for entry in categories)}),",
        f'data_root="{_shown(args.out)}/",',
        f'data_prefix=dict(img="{_images_shown(args, images, copied)}"),',
    )


def convert_colours(args: argparse.Namespace) -> None:
    """Write OUT/labels/IMAGE.png and OUT/SPLIT.txt, from labels of colours."""
    table = labels_of.read_table(args.table, args.ignore)
    _convert_pngs(
        args, lambda label: labels_of.ids_of_colours(label, table), table.classes, table.palette
    )


def convert_ids(args: argparse.Namespace) -> None:
    """Write OUT/labels/IMAGE.png and OUT/SPLIT.txt, from labels of other ids."""
    _convert_pngs(args, lambda label: labels_of.ids_of_ids(label, args.map))


def _convert_pngs(args: argparse.Namespace, convert: Callable, *described: tuple) -> None:
    images = Images(args.images or args.source)
    files = labels_of.label_files(images, args.source, args.label)
    makers = {
        path: labels_of.reader_of(file, path, images, convert) for path, file in files.items()
    }
    _convert_labels(args, images, Findings(), makers, *described)


def convert_polygons(args: argparse.Namespace) -> None:
    """Write OUT/labels/IMAGE.png and OUT/SPLIT.txt, from polygons."""
    findings, images = Findings(), Images(args.images or args.source)
    background = None if args.background == "none" else args.background
    others = [split for split in SPLITS if split not in _replaced(args.split)]
    if not args.classes and any((args.out / f"{split}.txt").exists() for split in others):
        raise InputError(
            f"{args.out}: holds another split, whose ids may be of other classes; give --classes, "
            "the same for each split"
        )
    found = read_polygons(args.source, images, findings, args.classes, background)
    _convert_labels(args, images, findings, found.drawers, found.classes)


def _convert_labels(
    args: argparse.Namespace,
    images: Images,
    findings: Findings,
    makers: dict[str, Callable[[], np.ndarray]],
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] = (),
) -> None:
    splits = split_images(args.split, images, makers, args.seed, findings)
    findings.raise_mistakes()
    paths = [path for split in splits.values() for path in split]
    copied = args.copy or args.jpeg is not None
    names = [copied_name(path, args.jpeg) for path in paths]
    suffixes = sorted({Path(name).suffix for name in names})
    if len(suffixes) > 1:
        raise InputError(
            f"images end in {' and '.join(suffixes)}, but a config names one ending; --jpeg 95 "
            "makes them alike"
        )
    lists = {split: f"{split}.txt" for split in SPLITS}
    output = Output(args.out, args.overwrite)
    output.check_free(lists[split] for split in _replaced(args.split))
    with output.write() as folder:
        labels_of.write_labels({path: makers[path] for path in paths}, folder / "labels", findings)
        if copied:
            copy_images(paths, images, folder / "images", args.jpeg, findings)
        findings.raise_mistakes()
        for split, listed in splits.items():
            lines = [f"{Path(path).with_suffix('').as_posix()}\n" for path in listed]
            (folder / lists[split]).write_text("".join(lines))
    output.remove(lists[split] for split in _replaced(args.split) if split not in splits)
    for split, listed in splits.items():
        print(f"{split}: {len(listed)} images in {args.out / lists[split]}")
    findings.report()
    settings = [f"classes={_tuple(classes)}," if classes else "", f"palette={list(palette)},"]
    _print_settings(
        *(setting for setting in settings[: 1 + bool(palette)] if setting),
        f'data_root="{_shown(args.out)}/",',
        f'data_prefix=dict(img_path="{_images_shown(args, images, copied)}", '
        'seg_map_path="labels/"),',
        f'img_suffix="{suffixes[0]}",',
    )


def _print_settings(*lines: str) -> None:
    print("For the data file of your configs:")
    for line in lines:
        print(f"    {line}")


def _tuple(names: Iterable[str]) -> str:
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    return f"({', '.join(quoted)}{',' if len(quoted) == 1 else ''})"


def _shown(folder: Path) -> str:
    """A folder as configs name it: from the repository's root, if it is inside."""
    folder = folder.absolute()
    return folder.relative_to(_REPO).as_posix() if _REPO in folder.parents else folder.as_posix()


def _images_shown(args: argparse.Namespace, images: Images, copied: bool) -> str:
    """The folder of the images, from OUT if it is inside."""
    if copied:
        return "images/"
    folder, out = images.folder.resolve(), args.out.resolve()
    if folder == out:
        return ""
    return f"{(folder.relative_to(out) if out in folder.parents else folder).as_posix()}/"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
