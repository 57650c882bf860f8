"""Bringing arrays to the workers.

What a reading needs of the other side can be larger than the memory of a worker's process, and every core of a worker runs one. So large
arrays go as files: Spark copies a file to each worker once (`SparkContext.addFile`), streaming it from disk, and the processes there map that
one copy. A Spark broadcast would hold it in the heap of the driver and of every worker, and once more in each Python process. On a master
of this machine (`local[n]`) the processes map the files where they lie, and nothing is copied.

Every worker takes a copy from the driver, so the network of the driver carries as many as there are workers.
"""

from __future__ import annotations

import io
import os
import pickle
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgoe.arrays import mapped

if TYPE_CHECKING:
    from pyspark import SparkContext

SMALL = 1 << 16
"""Bytes of an array up to which it travels within the task."""


class Carrier:
    """Driver's side: files that workers map. What is carried stays until `clear`.

    Args:
        context: Whose workers they go to.
        folder: Where the files lie, on the disk of the arrays that they hold.
    """

    def __init__(self, context: SparkContext, folder: Path):
        self.context, self.folder = context, folder.resolve()
        self.local = context.master.startswith("local")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._name, self._number = f"mgoe-{uuid.uuid4().hex[:8]}", 0
        self._files: list[Path] = []
        self._carried: dict[tuple[Any, ...], str] = {}

    def pack(self, value: object) -> bytes:
        """A picture of a value for `unpack`, in which large arrays are names of files."""
        out = io.BytesIO()
        _Packer(out, self).dump(value)
        return out.getvalue()

    def array(self, array: NDArray) -> str:
        """Carry an array. One that is mapped from a file is carried once."""
        file = file_of(array)
        if file is None:
            return self._send(self._save(array))
        at = file.stat()
        key = file, at.st_ino, at.st_mtime_ns, at.st_size
        if key not in self._carried:
            self._carried[key] = self.file(file)
        return self._carried[key]

    def file(self, file: Path) -> str:
        """Carry a file as it is now."""
        to = self._next(file.suffix)
        try:
            os.link(file, to)
        except OSError:  # another disk, or one without second names
            to.symlink_to(file.resolve())
        return self._send(to)

    def clear(self) -> None:
        """Let go of everything carried. Workers remove their copies with the next task."""
        for file in self._files:
            file.unlink(missing_ok=True)
            if not self.local:
                file.touch()  # a worker that joins later asks for every file that was ever sent
        self._files, self._carried = [], {}

    @property
    def live(self) -> frozenset[str]:
        """Names of the files that tasks may read."""
        return frozenset(file.name for file in self._files)

    def _save(self, array: NDArray) -> Path:
        to = self._next(".npy")
        np.save(to, np.ascontiguousarray(array), allow_pickle=False)
        return to

    def _next(self, suffix: str) -> Path:
        self._number += 1
        self._files.append(self.folder / f"{self._name}-{self._number:06d}{suffix}")
        return self._files[-1]

    def _send(self, file: Path) -> str:
        if self.local:
            return str(file)
        from pyspark import SparkFiles

        self.context.addFile(str(file))
        Path(SparkFiles.get(file.name)).unlink(missing_ok=True)  # the driver's own copy, which no task reads
        return file.name


def unpack(picture: bytes) -> Any:
    """On a worker: what `Carrier.pack` took, with its large arrays mapped."""
    return _Unpacker(io.BytesIO(picture)).load()


def located(name: str) -> Path:
    """On a worker: where a carried file lies."""
    if os.path.isabs(name):
        return Path(name)
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def sweep(live: Collection[str]) -> None:
    """On a worker: remove copies that were carried before the oldest of those that still are."""
    from pyspark import SparkFiles

    oldest, name = min(live, default=""), next(iter(live), "").rpartition("-")[0]
    with suppress(OSError):
        for file in Path(SparkFiles.getRootDirectory()).glob(f"{name}-*"):
            if file.name < oldest:
                file.unlink(missing_ok=True)


def file_of(array: NDArray) -> Path | None:
    """The file whose whole content an array is mapped from."""
    base: Any = array.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return None
    same = base.shape == array.shape and base.dtype == array.dtype and base.ctypes.data == array.ctypes.data
    return Path(base.filename) if same else None


class _Packer(pickle.Pickler):
    def __init__(self, out: io.BytesIO, carrier: Carrier):
        super().__init__(out, pickle.HIGHEST_PROTOCOL)
        self.carrier = carrier

    def persistent_id(self, obj: Any) -> str | None:
        """A file's name for a large array."""
        return self.carrier.array(obj) if isinstance(obj, np.ndarray) and obj.nbytes > SMALL else None


class _Unpacker(pickle.Unpickler):
    def persistent_load(self, pid: str) -> NDArray:
        """The array of a file."""
        return mapped(located(pid))
