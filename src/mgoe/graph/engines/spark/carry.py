"""Sending arrays to the workers.

The arrays of the other side that a reading needs can exceed the memory of a worker's process, and each core
of a worker runs such a process. So large arrays are sent as files: Spark copies a file to each worker once
(`SparkContext.addFile`), streaming it from disk, and the processes there map that one copy. A Spark broadcast
would hold it in the heap of the driver and of every worker, and again in each Python process. If the master
is this machine (`local[n]`), the processes map the original files, and nothing is copied.

Each worker takes its copy from the driver, so the driver's network carries one copy per worker.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped

if TYPE_CHECKING:
    from pyspark import SparkContext

SMALL = 1 << 16
"""Arrays of at most so many bytes are sent within the task."""
T = TypeVar("T")


@dataclass(frozen=True)
class Carried:
    """Stands for an array until a worker maps it.

    Attributes:
        name: Of its file.
    """

    name: str


class Carrier:
    """On the driver: sends files, which workers map until `clear`.

    The files are in a folder that Spark removes when it stops.

    Args:
        context: Of the workers.
    """

    def __init__(self, context: SparkContext):
        self.context, self.folder = context, _root() / "carried"
        self.local = str(context.master).startswith("local")
        self.folder.mkdir(exist_ok=True)
        self._name, self._generation = f"mgoe-{uuid.uuid4().hex[:8]}", 0
        self._files: list[Path] = []
        self._carried: dict[tuple[Any, ...], str] = {}

    @property
    def live(self) -> str:
        """How the names of all files sent since the last `clear` begin."""
        return f"{self._name}-{self._generation:04d}"

    def pack(self, value: T) -> T:
        """Return a value with every large array in it sent; tuples, dataclasses and partials are searched."""
        return _changed(
            value,
            lambda part: self.array(part) if isinstance(part, np.ndarray) and part.nbytes > SMALL else part,
        )

    def array(self, array: NDArray) -> Carried:
        """Send an array. An array that is mapped from a file is sent once."""
        file = file_of(array)
        if file is None:
            to = self._next(".npy")
            np.save(to, np.ascontiguousarray(array), allow_pickle=False)
            return Carried(self._send(to))
        at = file.stat()
        key = file, at.st_ino, at.st_mtime_ns, at.st_size
        if key not in self._carried:
            self._carried[key] = self.file(file)
        return Carried(self._carried[key])

    def file(self, file: Path) -> str:
        """Send a file as it is now, and return the name by which `located` finds it."""
        to = self._next(file.suffix)
        try:
            os.link(file, to)
        except OSError:  # another disk, or one without hard links
            to.symlink_to(file.resolve())
        return self._send(to)

    def clear(self) -> None:
        """Drop everything that was sent. Workers remove their copies with the next task."""
        for file in self._files:
            file.unlink(missing_ok=True)
            if not self.local:
                file.touch()  # a worker that joins later asks for every file that was ever sent
        self._files, self._carried, self._generation = [], {}, self._generation + 1

    def _next(self, suffix: str) -> Path:
        self._files.append(self.folder / f"{self.live}-{len(self._files):06d}{suffix}")
        return self._files[-1]

    def _send(self, file: Path) -> str:
        if self.local:
            return str(file)
        self.context.addFile(str(file))
        (_root() / file.name).unlink(missing_ok=True)  # the driver's own copy, which no task reads
        return file.name


def unpack(value: T) -> T:
    """On a worker: return the value that `Carrier.pack` was given, with its large arrays mapped."""
    return _changed(value, lambda part: mapped(located(part.name)) if isinstance(part, Carried) else part)


def located(name: str) -> Path:
    """On a worker: return where a file is stored."""
    return _root() / name  # which is the name alone if that is absolute


def sweep(live: str) -> None:
    """On a worker: remove copies of files that were dropped.

    Args:
        live: See `Carrier.live`.
    """
    with suppress(OSError):
        for file in _root().glob(f"{live.rpartition('-')[0]}-*"):
            if not file.name.startswith(live):
                file.unlink(missing_ok=True)


def _root() -> Path:
    """Return where Spark stores the files that are sent, in this process."""
    from pyspark import SparkFiles

    return Path(SparkFiles.getRootDirectory()).absolute()


def file_of(array: NDArray) -> Path | None:
    """Return the file if an array is mapped from all of it."""
    base: Any = array.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return None
    same = base.shape == array.shape and base.dtype == array.dtype and base.ctypes.data == array.ctypes.data
    return Path(base.filename) if same else None


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value with a change made to it, or to what it holds."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, tuple):
        parts = [_changed(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)  # named or not
    if isinstance(value, partial):
        held = {name: _changed(part, change) for name, part in value.keywords.items()}
        return partial(value.func, *_changed(value.args, change), **held)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)}
        )
    return value
