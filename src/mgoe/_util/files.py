"""Files that a reader finds complete or not at all: atomic writes, locks, and checksums.

A file or folder is written beside its place under an unfinished name and moved there when it is complete. A
folder that is replaced is first moved aside, to `.NAME.former`; `recover` brings it back if the process was
killed before its successor was in place.
"""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import to_jsonable_python

from mgoe.errors import BusyError, MgoeError, OutputError

GIB = 1 << 30
UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|partial)")
"""Unfinished names: the final name, the number of the writing process, an ending."""
NEW = ".new-"
"""Start of the name of an unfinished folder of `durable_folder`."""


@contextmanager
def output_errors(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn a lack of space or of rights into an `OutputError`.

    Args:
        path: The file or folder that is written.
        also: Errors of a library that mean the same.

    Raises:
        OutputError: It cannot be written, or what is copied there cannot be read.
    """
    try:
        yield
    except (OSError, *also) as error:
        source, _, first = (  # of all that were copied
            error.args[0][0]
            if isinstance(error, shutil.Error)
            else (getattr(error, "filename", None), None, error)
        )
        reason = getattr(first, "strerror", None) or first
        if source and os.path.isfile(source) and not os.access(source, os.R_OK):
            raise OutputError(source, f"cannot be read: {reason}; let this user read it") from None
        raise OutputError(
            path, f"cannot be written: {reason}; choose a folder you may write, or free space"
        ) from None


@contextmanager
def atomic_file(path: Path, *also: type[Exception]) -> Iterator[Path]:
    """Yield an unfinished file that becomes `path` when the block succeeds and is removed when it fails.

    Args:
        path: The final place; its folder is created.
        also: Errors of a library that mean that the file cannot be written.

    Raises:
        OutputError: The file cannot be written.
    """
    path = _with_name(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with output_errors(path, *also):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an unfinished folder that replaces `path` when the block succeeds and is removed when it fails.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = _with_name(path)
    unfinished = _partial(path)
    try:
        with output_errors(path):
            recover(path)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            yield unfinished
            replace_folder(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def durable_folder(path: Path) -> Iterator[Path]:
    """Yield an unfinished folder that becomes `path` when the block succeeds, unless another one has by then.

    It is on the disk before it has its name. A process that is killed leaves it beside `path`, under a name
    that begins with `NEW`.

    Raises:
        OSError: The folder cannot be written.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=NEW, dir=path.parent))
    try:
        yield unfinished
        for written in (*unfinished.iterdir(), unfinished):
            sync(written)
        try:
            os.rename(unfinished, path)
        except OSError:
            if not path.is_dir():
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def as_json(value: Any) -> str:
    """Return JSON, with null for numbers that do not exist.

    Raises:
        TypeError: A value has no JSON.
    """
    plain = to_jsonable_python(value, inf_nan_mode="null", fallback=_scalar)
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as of `as_json`."""
    write_text(path, as_json(value) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote.

    Raises:
        OutputError: The file is missing or damaged.
    """
    fix = "run the command that wrote it again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(path, f"cannot be read: {error.strerror or error}; {fix}") from None
    except ValueError as error:
        raise OutputError(path, f"is not valid JSON ({error}); remove it and {fix}") from None
    if not isinstance(found, dict):
        raise OutputError(
            path, f"must hold a JSON object, found a {type(found).__name__}; remove it and {fix}"
        )
    return found


def read_of_format(
    file: Path, what: str, number: int, error: type[MgoeError], missing: str, fix: str
) -> dict[str, Any]:
    """Read the JSON object that describes a folder, if the folder is of the format that this version reads.

    Args:
        file: It holds the number of its `format`.
        what: What the folder is, for messages.
        number: The format that is read.
        error: What is raised.
        missing: The message about a folder without the file.
        fix: The end of all other messages.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(file.parent, missing) from None
    except (OSError, ValueError) as reason:
        raise error(file, f"cannot be read ({reason}); {fix}") from None
    held = found.get("format") if isinstance(found, dict) else None
    if held != number:
        raise error(file, f"this version reads {what} format {number}, found {held}; {fix}")
    return found


def link(one: str, other: str) -> None:
    """Give a file that nothing changes in place a second name where the disk can do that; else copy it."""
    try:
        os.link(one, other)
    except OSError:
        shutil.copyfile(one, other)


def replace_folder(new: Path, path: Path) -> None:
    """Move a complete folder to its place and remove the folder that was there.

    A process that is killed meanwhile leaves the old folder or the new one, see `recover`.
    """
    set_aside(path)
    try:
        os.replace(new, path)
    finally:
        recover(path)


def set_aside(path: Path) -> None:
    """Move a folder aside, from where `recover` brings it back unless another takes its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(_former(path), ignore_errors=True)
        os.replace(path, _former(path))


def recover(path: Path) -> None:
    """Bring back a folder that was set aside if nothing has taken its place; remove it otherwise."""
    former = _former(path)
    if former.exists() and not path.exists():
        os.replace(former, path)
    elif former.exists():
        leaving = _partial(path, "former")  # no longer brought back: from here on it vanishes file by file
        shutil.rmtree(leaving, ignore_errors=True)
        os.replace(former, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def was_set_aside(path: Path) -> bool:
    """Tell whether `recover` has work to do."""
    return _former(path).exists()


def remove_folder(path: Path, prefix: str = ".gone-") -> None:
    """Remove a folder so that nobody finds a part of it. A folder that cannot be removed stays.

    Args:
        path: The folder.
        prefix: Of the name under which a process that is killed meanwhile leaves it.
    """
    with suppress(OSError):
        gone = tempfile.mkdtemp(prefix=prefix, dir=path.parent)
        try:
            os.rename(path, gone)
        finally:
            shutil.rmtree(gone, ignore_errors=True)


def clear_partial(path: Path) -> None:
    """Remove what killed processes left of `atomic_folder(path)`. Hold the place by `exclusive`."""
    path = _with_name(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def clear_unfinished(folder: Path) -> None:
    """Remove unfinished files and folders of killed processes below a folder. Hold it by `exclusive`."""
    for left in [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]:
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, what: str, verb: str = "is writing") -> Iterator[None]:
    """Hold a folder for this process alone. The lock ends with the process, however it ends.

    Args:
        folder: It need not exist; its parent is created.
        what, verb: What is done there, for the message of another process.

    Raises:
        BusyError: Another process holds it.
        OutputError: The lock cannot be written.
    """
    lock = lock_file(folder)
    held = FileLock(lock, timeout=0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        holder = "another process is at work"
        with suppress(OSError, ValueError):  # it may end meanwhile and remove the file
            number, does = lock.read_text().split(" ", 1)
            holder = f"another process (number {int(number)}) {does}"
        raise BusyError(folder, f"{holder} there; wait, or choose another folder") from None
    except OSError as error:
        raise OutputError(
            folder, f"cannot be written: {error.strerror or error}; choose a folder you may write"
        ) from None
    try:
        lock.write_text(f"{os.getpid()} {verb} {what}")
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.release()


def lock_file(folder: Path) -> Path:
    """Return the file that `exclusive` locks. Without a living holder it blocks nobody."""
    place = folder.resolve()
    return place.parent / f".{place.name}.lock"


class Hold:
    """Marks a folder as in use until it is closed, or the process ends, see `remove_unless_held`.

    Raises:
        OSError: The folder is missing, or is being removed.
    """

    def __init__(self, folder: Path):
        self._folder: int | None = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._folder, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """Hold it no longer."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    __del__ = close


def remove_unless_held(folder: Path) -> bool:
    """Remove a folder, which vanishes at once, unless a process of this machine holds it.

    Returns:
        Whether it was removed.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leaving = _partial(folder, "former")
        os.replace(folder, leaving)
        shutil.rmtree(leaving, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(held)
    return True


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check that a disk has room.

    Raises:
        OutputError: The disk is too small.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            folder,
            f"the disk is too small: {what} needs {needed:,} bytes, free are {free:,}; free space or choose "
            "another disk",
        )


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def sha256(path: Path) -> str:
    """Return the checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the checksum of each file by its path relative to the folder, in order of these paths."""
    files = sorted(files)
    with ThreadPoolExecutor(2) as pool:
        sums = zip(files, pool.map(sha256, files), strict=True)
        return {file.relative_to(folder).as_posix(): one for file, one in sums}


def as_pattern(file: Path | str) -> str:
    """Escape a file's name for DuckDB, which takes `ev[1].parquet` for a pattern and reads `ev1.parquet`."""
    return glob.escape(str(file))


def _partial(path: Path, part: str = "") -> Path:
    return path.with_name(f".{path.name}.{part and part + '.'}{os.getpid()}.partial")


def _former(path: Path) -> Path:
    return path.with_name(f".{path.name}.former")


def _with_name(path: Path) -> Path:
    """Resolve a path such as `.` so that its last component is a name."""
    return path if path.name else Path(os.path.abspath(path))


def _scalar(value: Any) -> Any:
    """Return a number of NumPy as one of Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no JSON")
