"""What is converted: a folder of images, the names by which annotations call them, the splits."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from datasets.images import image_size
from models import InputError

SPLITS = ("train", "val", "test")
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_SPLIT_FOLDERS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_SHOWN = 50


class Findings:
    """What is wrong with annotations, one line for each place; mistakes forbid the conversion."""

    def __init__(self):
        self.mistakes: list[str] = []
        self.left_out: list[str] = []

    def raise_mistakes(self) -> None:
        """Raise InputError, with a line for every mistake, if there is any."""
        if count := len(self.mistakes):
            lines = self.mistakes[:_SHOWN]
            if count > _SHOWN:
                lines = [*lines, f"... and {count - _SHOWN} more"]
            what = "1 mistake" if count == 1 else f"{count} mistakes"
            raise InputError("\n".join([f"{what}, nothing was written", *lines]))

    def report(self) -> None:
        """Print what was left out."""
        for line in self.left_out[:_SHOWN]:
            print(f"left out: {line}")
        if len(self.left_out) > _SHOWN:
            print(f"left out: ... and {len(self.left_out) - _SHOWN} more")


class Images:
    """The images of a folder and of all folders inside it.

    Attributes:
        paths: Relative to the folder, with forward slashes, sorted.

    Raises:
        InputError: There is no such folder, or no image in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = sorted(
            path.relative_to(folder).as_posix()
            for path in files_in(folder)
            if path.suffix.lower() in _SUFFIXES
        )
        if not self.paths:
            raise InputError(f"{folder}: holds no image")
        self._called: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            name = PurePosixPath(path)
            for call in {path, str(name.with_suffix("")), name.name, name.stem}:
                self._called[call].append(path)
        self._sizes: dict[str, tuple[int, int] | None] = {}

    def find(self, name: str, file: Path | None = None, root: Path | None = None) -> str:
        """The image that annotations call ``name``.

        Args:
            name: A path or the end of a path, with or without the file's ending.
            file: The annotations. An image in their folder comes first, or in the folder that is to
                the images' what theirs is to ``root``.
            root: The folder of all annotations.

        Raises:
            InputError: There is none, or more than one.
        """
        if not name.strip():
            raise InputError("names no image")
        name = PureWindowsPath(name).as_posix().removeprefix("./")
        beside = self._beside(name, file, root) if file else None
        for call in (beside, name, PurePosixPath(name).name):
            found = self._called.get(call, []) if call else []
            # a name with its ending is that file and no other
            found = [path for path in found if path == call] or found
            if len(found) > 1:
                raise InputError(
                    f"image {name}: {len(found)} have this name, such as {found[0]} and {found[1]}"
                )
            if found:
                return found[0]
        other = self._called.get(PurePosixPath(name).stem)
        hint = f", but there is {other[0]}" if other else ""
        raise InputError(f"image {name}: no such file in {self.folder}{hint}")

    def _beside(self, name: str, file: Path, root: Path | None) -> str:
        """Where ``name``, relative to an annotation file, is in the folder of the images."""
        try:
            folder = file.parent.resolve().relative_to(self.folder.resolve())
        except ValueError:
            folder = file.parent.relative_to(root) if root else Path()
        parts: list[str] = []
        for part in (*folder.parts, *PurePosixPath(name).parts):
            if part == ".." and parts:
                parts.pop()
            else:
                parts.append(part)
        return "/".join(parts)

    def size(self, path: str) -> tuple[int, int]:
        """(width, height) of an image, as it is loaded: turned by its EXIF data.

        Raises:
            InputError: It cannot be read.
        """
        if path not in self._sizes:
            self._sizes[path] = image_size(str(self.folder / path))
        if self._sizes[path] is None:
            raise InputError(f"image {self.folder / path}: cannot be read: damaged or no image")
        return self._sizes[path]

    def check_size(self, path: str, size: Sequence[float | None]) -> None:
        """Raise InputError if annotations state another (width, height); None is not stated."""
        real = self.size(path)
        for side in size:
            if side is not None and type(side) not in (int, float):
                raise InputError(f"states {side!r} as a side of the image {path}, expected pixels")
        if any(stated and stated != pixels for stated, pixels in zip(size, real, strict=True)):
            stated = "x".join(f"{side:g}" if side else "?" for side in size)
            raise InputError(
                f"states {stated} pixels, but the image {path} has {real[0]}x{real[1]} as it is "
                "loaded, turned by its EXIF data"
            )


def files_in(folder: Path, suffix: str = "") -> list[Path]:
    """All files in a folder and in those inside it, hidden ones apart, sorted.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(suffix)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def split_images(
    how: str, images: Images, annotated: Iterable[str], seed: int, findings: Findings
) -> dict[str, list[str]]:
    """The images of each split that has any, in the order of their paths.

    Args:
        how: Two or three shares (``0.8,0.1,0.1``) drawn by ``seed``, ``folders`` (an image is in a
            folder called train, val or test), one of these names for all, or a folder with
            train.txt, val.txt and test.txt, which list images by name.
        annotated: The images to share out.

    Raises:
        InputError: ``how`` is none of these, an image is in two lists, or nothing is left.
    """
    annotated = sorted(annotated)
    if how in SPLITS:
        splits = {how: annotated}
    elif how == "folders":
        splits = _by_folders(annotated, findings)
    elif Path(how).is_dir():
        splits = _by_lists(Path(how), images, annotated, findings)
    else:
        splits = _by_shares(how, annotated, seed)
    splits = {split: splits[split] for split in SPLITS if splits.get(split)}
    if not splits and not findings.mistakes:
        raise InputError(f"--split {how}: leaves no annotated image in any split")
    return splits


def _by_shares(how: str, annotated: list[str], seed: int) -> dict[str, list[str]]:
    try:
        shares = [float(share) for share in how.split(",")]
    except ValueError:
        shares = []
    if len(shares) not in (2, 3) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(
            f"--split {how}: expected shares that add up to 1, like 0.8,0.1,0.1, or folders, or "
            "train, val or test, or a folder with train.txt, val.txt and test.txt"
        )
    order = list(annotated)
    random.Random(seed).shuffle(order)
    # each of the smaller splits has an image at least, if it has a share
    counts = [max(round(share * len(order)), 1) if share else 0 for share in shares[1:]]
    if sum(counts) >= len(order):
        raise InputError(f"--split {how}: {len(order)} annotated images are too few to split")
    splits, end = {}, len(order)
    for split, count in zip(SPLITS[1:], counts, strict=False):
        splits[split] = sorted(order[end - count : end])
        end -= count
    return {"train": sorted(order[:end]), **splits}


def _by_folders(annotated: list[str], findings: Findings) -> dict[str, list[str]]:
    splits, elsewhere = defaultdict(list), []
    for path in annotated:
        parts = [part.lower() for part in PurePosixPath(path).parts[:-1]]
        names = [_SPLIT_FOLDERS.get(part, part) for part in parts]
        found = [name for name in names if name in SPLITS]
        (splits[found[0]] if found else elsewhere).append(path)
    if elsewhere:
        findings.left_out.append(
            f"{len(elsewhere)} images in no folder called train, val or test, such as "
            f"{elsewhere[0]}"
        )
    return splits


def _by_lists(
    folder: Path, images: Images, annotated: list[str], findings: Findings
) -> dict[str, list[str]]:
    there, taken, splits = set(annotated), {}, {}
    for split in SPLITS:
        file = folder / f"{split}.txt"
        if not file.is_file():
            continue
        listed = []
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            name = line.strip()
            # Pascal VOC's lists may say whether a class is there: 1, 0 or -1
            first, _, presence = name.rpartition(" ")
            if presence in ("1", "0", "-1") and first:
                name = first.strip()
            if not name:
                continue
            try:
                path = images.find(name)
            except InputError as error:
                findings.mistakes.append(f"{file}:{number}: {error}")
                continue
            if path not in there:
                findings.mistakes.append(f"{file}:{number}: image {path} has no annotations")
            elif path in taken:
                findings.mistakes.append(f"{file}:{number}: image {path} is in {taken[path]}, too")
            else:
                taken[path] = f"{file.name}:{number}"
                listed.append(path)
        splits[split] = sorted(listed)
    if not splits:
        raise InputError(f"--split {folder}: holds no train.txt, val.txt or test.txt")
    if rest := sorted(there - set(taken)):
        findings.left_out.append(f"{len(rest)} images in no list, such as {rest[0]}")
    return splits
