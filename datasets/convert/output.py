"""What a conversion writes: everything or nothing."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from models import InputError
from models.files import remove_unfinished

from .source import Findings, Images

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Output:
    """A folder whose files appear together, when all of them are complete.

    Args:
        folder: Where they appear.
        overwrite: Whether files of the same names may be there, which are then replaced.
    """

    def __init__(self, folder: Path, overwrite: bool):
        self.folder, self.overwrite = folder, overwrite

    def check_free(self, names: Iterable[str]) -> None:
        """Raise InputError if one of these files is there and may not be replaced."""
        for name in names:
            if not self.overwrite and (self.folder / name).exists():
                raise InputError(
                    f"{self.folder / name}: is there already; --overwrite replaces it, or give "
                    "another --out"
                )

    @contextlib.contextmanager
    def write(self) -> Iterator[Path]:
        """A folder to fill, whose files move to their places at the end of the block."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            unfinished = dict(prefix=".", suffix=f".{os.getpid()}.tmp")
            with tempfile.TemporaryDirectory(dir=self.folder, **unfinished) as name:
                yield Path(name)
                files = sorted(path for path in Path(name).rglob("*") if path.is_file())
                self.check_free(str(file.relative_to(name)) for file in files)
                # what lists the others comes last
                files.sort(key=lambda file: file.suffix in (".json", ".txt"))
                with _uninterrupted():
                    for file in files:
                        place = self.folder / file.relative_to(name)
                        place.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(file, place)
        except OSError as error:
            raise InputError(f"{error.filename or self.folder}: {error.strerror}") from None

    def remove(self, names: Iterable[str]) -> None:
        """Delete those of these files that an earlier conversion wrote, and say so."""
        for name in names:
            if (self.folder / name).exists():
                (self.folder / name).unlink()
                print(f"removed: {self.folder / name}, of an earlier conversion")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM do nothing in the block, which is short."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def copy_images(
    paths: Sequence[str], images: Images, target: Path, jpeg: int | None, findings: Findings
) -> None:
    """Copy images into a folder, or write them as JPEG of a quality, turned by their EXIF data.

    Raises:
        InputError: Two images would have one name.
    """

    def copy(path: str) -> str | None:
        source, place = images.folder / path, target / copied_name(path, jpeg)
        place.parent.mkdir(parents=True, exist_ok=True)
        if jpeg is None:
            shutil.copyfile(source, place)
            return None
        try:
            with Image.open(source) as image:
                ImageOps.exif_transpose(image).convert("RGB").save(place, quality=jpeg)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"image {source}: cannot be read: {error}"
        return None

    calls = Counter(copied_name(path, jpeg) for path in paths)
    if twice := [name for name, count in calls.items() if count > 1]:
        raise InputError(f"--jpeg: {calls[twice[0]]} images would be {twice[0]}; rename one")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings.mistakes += [mistake for mistake in pool.map(copy, paths) if mistake]


def copied_name(path: str, jpeg: int | None) -> str:
    """What an image is called once it is copied."""
    return path if jpeg is None else str(PurePosixPath(path).with_suffix(".jpg"))
