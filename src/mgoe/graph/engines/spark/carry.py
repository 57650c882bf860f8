"""Sending arrays to the workers.

The arrays of the other side that a reading needs can exceed the memory of a worker's process, and each core
of a worker runs such a process. So large arrays are sent as files: Spark copies a file to each worker once
(`SparkContext.addFile`), streaming it from disk, and the processes there map that one copy. A Spark broadcast
would hold it in the heap of the driver and of every worker, and again in each Python process. If the master
is this machine (`local[n]`), the processes map the original files, and nothing is copied.

Each worker takes its copy from the driver, so the driver's network carries one copy per worker.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped

if TYPE_CHECKING:
    from pyspark import SparkContext

SMALL = 1 << 16
"""Arrays of at most so many bytes are sent within the task."""


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

    def pack(self, value: object) -> bytes:
        """Send every large array in a value, and return the value pickled: who loads it maps these arrays."""
        packed = io.BytesIO()
        pickler = pickle.Pickler(packed)
        pickler.dispatch_table = copyreg.dispatch_table | {np.ndarray: self._reduced}
        pickler.dump(value)
        return packed.getvalue()

    def _reduced(self, array: NDArray) -> Any:
        """Return what makes an array again."""
        return (_mapped, (self.array(array),)) if array.nbytes > SMALL else array.__reduce__()

    def array(self, array: NDArray) -> str:
        """Send an array, and return its file's name. An array that is mapped from a file is sent once."""
        file = file_of(array)
        if file is None:
            to = self._next(".npy")
            np.save(to, np.ascontiguousarray(array), allow_pickle=False)
            return self._send(to)
        at = file.stat()
        key = file, at.st_ino, at.st_mtime_ns, at.st_size
        if key not in self._carried:
            self._carried[key] = self.file(file)
        return self._carried[key]

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


def _mapped(name: str) -> NDArray:
    """On a worker: map an array that was sent."""
    return mapped(located(name))


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
