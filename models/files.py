"""Files, written whole and read with mistrust."""

import errno
import os
import pickle
import pickletools
import re
import resource
import shutil
import stat
import struct
import warnings
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import torch
from torch import Tensor

from .errors import InputError, printable, shown

_ARCHIVE = b"PK\x03\x04"  # how a zip file, and with it what torch.save writes, begins
_MAX_PICKLE = 128 * 2**20  # bytes; the logged numbers of a million iterations have about 100 M
_OBJECTS = "refused, it holds Python objects or code besides tensors"
# what torch lets a pickle call is in these modules; some of it calls or copies what it is given
_CALLED = ("torch", "collections ", "_codecs ", "__builtin__ ", "builtins ")
_INDIRECT = ("_rebuild_from_type_v2", "_rebuild_parameter_with_state", "bytearray")
_MAX_DEPTH = 50  # containers inside each other; a run's checkpoint has about 8
_ENDLESS = "refused, it holds lists inside each other without an end"
_MAX_OBJECTS = 10**8  # that printing or copying what a file holds would meet
# What loading may take beyond the process's own memory: objects are larger than their pickle.
_MEMORY_FACTOR, _MEMORY = 8, 512 * 2**20

_REPO = Path(__file__).resolve().parent.parent


def locate(path: str | os.PathLike) -> Path:
    """Where a path leads, absolute: from the current folder or, if nothing is there, from the
    repository."""
    here, in_repo = Path(os.path.expanduser(path)).absolute(), _REPO / path
    return in_repo if os.path.exists(in_repo) and not os.path.exists(here) else here


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that, even after a power failure, it is the old one or the new one.

    Raises:
        OSError: It cannot be written; ``filename`` says which.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:  # a full disk has no name
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed left unfinished in a folder: files of
    :func:`write_whole` and folders that are named like these, ``.NAME.PROCESS.tmp``.

    Args:
        name: A glob; what it was to become.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        process = path.name.split(".")[-2]
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        if path.is_dir() and not path.is_symlink():
            # another process may be removing it, too
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no process's number
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file to read its bytes; never waits, as opening a named pipe would.

    Raises:
        OSError: There is none, it cannot be read, or it is a folder, a pipe or a device.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def load_tensors(path: str | os.PathLike, what: str) -> object:
    """What a file that torch.save wrote holds, on the CPU; nothing in it is executed.

    Every tensor is dense, of real numbers or truth values, and no larger than what the file stores
    for it. Containers are a tree of limited depth and size, so that everything can be printed and
    copied.

    Args:
        what: What to call the file in a message, such as ``'checkpoint'``.

    Raises:
        InputError: The file is missing, cannot be read, is damaged, holds Python objects or tensors
            of another kind, or would take far more memory than its size.
    """
    where = f"{what} {printable(os.fspath(path))}"
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise InputError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        try:
            if file.read(len(_ARCHIVE)) == _ARCHIVE:
                _check_archive(file, size)
            else:
                _check_old_format(file)
            file.seek(0)
            with _bounded_memory(_MEMORY_FACTOR * size + _MEMORY), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, on what is refused anyway
                content = torch.load(file, map_location="cpu", weights_only=True)
                _check_value(content, None, {}, 0)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except Exception as error:  # whatever a reader of archives may raise on arbitrary bytes
            raise InputError(f"{where}: {_reason(error)}") from None
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "refused, it would take far more memory than its size"
    # pickle's name for an import; torch tells which one only in the text of its error
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused and isinstance(error, pickle.UnpicklingError):
        return f"{_OBJECTS} ({shown(refused[1])})"
    return "truncated, or not a checkpoint"


def _check_archive(file: BinaryIO, size: int) -> None:
    """Check that a zip file's members are stored as torch.save does, and no larger than it is."""
    if not _ends_as_written(file, size):
        raise InputError("truncated, or not a checkpoint")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise InputError("refused, its archive is compressed; torch.save stores")
        if sum(member.file_size for member in members) > size:
            raise InputError("damaged, its archive states more bytes than it has")
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > _MAX_PICKLE:
                    raise InputError(f"refused, its objects have more than {_MAX_PICKLE} bytes")
                with archive.open(member) as content:
                    _check_calls(content)


def _check_old_format(file: BinaryIO) -> None:
    """Check a file of before PyTorch 1.6: five pickles, then the numbers."""
    file.seek(0)
    for _ in range(5):
        try:
            _check_calls(file)
        except InputError:
            raise
        except ValueError:  # a file of something else, as loading it will tell
            return


def _ends_as_written(file: BinaryIO, size: int) -> bool:
    """Whether a zip file ends with its directory and nothing else.

    Then Python's reader, which checks, and torch's, which loads, take the same one.
    """
    end, locator, end64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4s")
    tail = end.size + locator.size + 56  # bytes of the 64 bit form of the end, as torch writes it
    file.seek(max(0, size - tail))
    content = file.read(tail)
    signature, *_, length, start, comment = end.unpack(content[-end.size :])
    if signature != b"PK\x05\x06" or comment:
        return False
    located = content[-end.size - locator.size : -end.size]
    if located[:4] != b"PK\x06\x07":
        return start + length + end.size == size
    signature, _, at, _ = locator.unpack(located)
    if at != size - tail or end64.unpack(content[:4])[0] != b"PK\x06\x06":
        return False
    length, start = struct.unpack_from("<2Q", content, 40)
    return start + length == at


def _check_calls(file: IO[bytes]) -> None:
    """Check that a pickle calls nothing on what it has stored for use again, as a copy would.

    A pickle may call what torch deems harmless, such as ``OrderedDict``; copying a large dictionary
    takes a few bytes there, and a file of a megabyte could do it for hours. What torch.save writes
    calls with what it has just made.
    """
    last = deque(maxlen=5)  # names of operations, without those that store
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name in ("REDUCE", "NEWOBJ", "BUILD") and _takes_stored(name, list(last)[::-1]):
            raise InputError(f"{_OBJECTS} (it copies what it holds, which torch.save does not)")
        if name == "GLOBAL":
            if argument.endswith(_INDIRECT):
                raise InputError(f"{_OBJECTS} ({shown(argument)})")
            if not argument.startswith(_CALLED):
                return  # torch refuses what is named here
        if "PUT" not in name:
            last.append(name)


def _takes_stored(name: str, last: list[str]) -> bool:
    """Whether a call or an assignment of attributes takes a stored object as it is.

    What torch calls with more than one argument and copies the first has texts for the others, of
    one operation each.

    Args:
        last: The operations before it, the last one first: of ``f(x, y)`` that which makes a tuple,
            then those that put y and x on the stack.
    """
    made, *items = last or [""]
    if name == "BUILD" or made.endswith("GET"):
        return made.endswith("GET")
    if made == "TUPLE" and "MARK" in items:
        count = items.index("MARK")
    else:
        count = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}.get(made, 0)
    texts = all(item.endswith(("GET", "UNICODE", "STRING")) for item in items[: max(count - 1, 0)])
    return 0 < count <= len(items) and texts and items[count - 1].endswith("GET")


@contextmanager
def _bounded_memory(more: int) -> Iterator[None]:
    """Inside, allocating more than so many bytes fails, where the system can limit a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    limit = pages * resource.getpagesize() + more
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _check_value(value: object, name: object, sizes: dict[int, int], depth: int) -> int:
    """Check what a file holds; returns the number of objects that printing it would meet.

    A few lists that hold each other twice are few objects, but endless when printed.

    Args:
        name: The key under which the value stands, for a message.
        sizes: What was returned for the containers so far, by their ids.
    """
    if isinstance(value, Tensor):
        _check_tensor(value, name)
    if attributes := getattr(value, "__dict__", None):  # a pickle can set them
        _check_value(attributes, name, sizes, depth + 1)
    if isinstance(value, Mapping):
        inner = [(key, part) for pair in value.items() for key, part in ((name, pair[0]), pair)]
    elif isinstance(value, list | tuple | set):
        inner = [(name, part) for part in value]
    else:
        return 1
    if depth == _MAX_DEPTH:
        raise InputError(_ENDLESS)
    if id(value) not in sizes:
        parts = (_check_value(part, key, sizes, depth + 1) for key, part in inner)
        sizes[id(value)] = 1 + sum(parts)
    if sizes[id(value)] > _MAX_OBJECTS:
        raise InputError(_ENDLESS)
    return sizes[id(value)]


def _check_tensor(tensor: Tensor, name: object) -> None:
    ordinary = (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_complex())
    )
    if not ordinary:
        raise InputError(f"refused, {shown(name)} is not an ordinary tensor of real numbers")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"refused, {shown(name)} is larger than the numbers stored for it")
