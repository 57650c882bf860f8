"""Writing files so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mgoe.errors import OutputError

GIB = 1 << 30
END = 1 << 16
UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|partial)")
"""Names of what is half-written: the final one, the number of the process, an ending."""


def write_text(path: Path, text: str) -> None:
    """Write a text file whole.

    Raises:
        OutputError: The folder cannot be written.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole; NaN becomes null, which is what JSON has."""
    write_text(path, json.dumps(_without_nan(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote.

    Raises:
        OutputError: The file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(
            path, f"cannot be read: {error.strerror or error}; the command that wrote it writes it anew"
        ) from None
    except ValueError as error:
        raise OutputError(
            path, f"holds no JSON ({error}); remove it, and the command that wrote it writes it anew"
        ) from None
    if not isinstance(found, dict):
        rule = f"must hold a JSON object, found a {type(found).__name__}; remove it, and the command that wrote it writes it anew"
        raise OutputError(path, rule)
    return found


@contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """What fails for want of space or rights, told in a sentence.

    Args:
        path: What is written.
        also: Errors of a library that mean the same.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        yield
    except (OSError, *also) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            path, f"cannot be written: {reason}; choose a folder you may write, or free space"
        ) from None


@contextmanager
def whole_file(path: Path, *also: type[Exception]) -> Iterator[Path]:
    """A file to write beside its final place; it moves there when the block ends well, and is removed otherwise.

    Args:
        path: Its final place; the folder is made.
        also: Errors of a library that mean that it cannot be written.

    Raises:
        OutputError: It cannot be written.
    """
    path = _named(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, *also):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill beside its final place; it moves there when the block ends well, and is removed otherwise. What was there leaves
    in one move as well; the next writer brings it back where a process was killed between the two.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = _named(path)
    unfinished, former = (
        path.with_name(f".{path.name}.{ending}") for ending in (f"{os.getpid()}.partial", "former")
    )
    try:
        with writing(path):
            shutil.rmtree(unfinished, ignore_errors=True)
            if former.exists():
                os.replace(former, unfinished if path.exists() else path)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            yield unfinished
            _exchange(path, unfinished, former)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _exchange(path: Path, new: Path, former: Path) -> None:
    """Put a new folder in the place of another, which takes the new one's name."""
    there = path.is_dir() and not path.is_symlink()
    if there:
        os.replace(path, former)
    try:
        os.replace(new, path)
    except BaseException:
        if there and not path.exists():
            os.replace(former, path)
        raise
    if there:
        os.replace(former, new)


def clear_partial(path: Path) -> None:
    """Take away what `whole_folder` left beside a place in processes that were killed. Hold the place by `exclusive`."""
    path = _named(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def clear_unfinished(folder: Path) -> None:
    """Take away what `write_text` and `whole_folder`, and writers that name files as they do, left below a folder. Hold it."""
    for left in [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]:
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process alone, by a lock beside it. Ends with the process, however it ends.

    Args:
        folder: It need not exist; the one above it is made.
        what: Is written there, for the message.

    Raises:
        OutputError: Another process holds it, or the lock cannot be written.
    """
    lock = lock_of(folder)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    except BlockingIOError:
        number = ""
        with suppress(OSError):  # it may end meanwhile, and take the lock away
            number = lock.read_text().strip()
        holder = f" (number {number})" if number else ""
        raise OutputError(
            folder, f"another process{holder} is writing {what} there; wait, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(
            folder, f"cannot be written: {error.strerror or error}; choose a folder you may write"
        ) from None
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def lock_of(folder: Path) -> Path:
    """The file that `exclusive` locks. Without its process it holds nothing, and the next to take it removes it."""
    place = folder.resolve()
    return place.parent / f".{place.name}.lock"


def _locked(lock: Path) -> IO[str]:
    """Open and lock a file; once more where the process that held it has taken it away meanwhile."""
    while True:
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()


def remove_folder(path: Path, prefix: str = ".gone-") -> None:
    """Take a folder away in one move, so that nobody finds a part of it. Where it cannot be, it stays.

    Args:
        path: The folder.
        prefix: Of what a process that is killed meanwhile leaves beside it.
    """
    with suppress(OSError):
        gone = tempfile.mkdtemp(prefix=prefix, dir=path.parent)
        try:
            os.rename(path, gone)
        finally:
            shutil.rmtree(gone, ignore_errors=True)


def sync(path: Path) -> None:
    """Make durable what a file holds, or the names in a folder."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ends(path: Path) -> bytes:
    """Checksum of a file's size, and of its first and last `END` bytes."""
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(whole).encode() + file.read(END))
        file.seek(max(0, whole - END))
        digest.update(file.read(END))
    return digest.digest()


def _named(path: Path) -> Path:
    """The same place with a name of its own, which `.` has not."""
    return path if path.name else Path(os.path.abspath(path))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def require_space(folder: Path, needed: int, what: str) -> None:
    """See that a disk has room.

    Raises:
        OutputError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            folder,
            f"the disk is too small: {what} needs {needed:,} bytes, free are {free:,}; free space or choose another disk",
        )


def as_pattern(file: Path | str) -> str:
    """A file's name as DuckDB takes it for this file alone: it would take `ev[1].parquet` for a pattern, and read `ev1.parquet`."""
    return glob.escape(str(file))
