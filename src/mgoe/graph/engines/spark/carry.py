"""Bringing arrays to the workers.

What a reading needs of the other side can be larger than the memory of a worker's process, and every core of a worker runs one. So large
arrays go as files: Spark copies a file to each worker once (`SparkContext.addFile`), streaming it from disk, and the processes there map
that one copy. A Spark broadcast would hold it in the heap of the driver and of every worker, and once more in each Python process. On a
master of this machine (`local[n]`) the processes map the files where they lie, and nothing is copied.

Every worker takes a copy from the driver, so the network of the driver carries as many as there are workers.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped

if TYPE_CHECKING:
    from pyspark import SparkContext

SMALL = 1 << 16
"""Bytes of an array up to which it travels within the task."""
T = TypeVar("T")


@dataclass(frozen=True)
class Carried:
    """Stands for an array, wherever one may stand, until a worker maps it.

    Attributes:
        name: Of the file that holds it.
    """

    name: str


class Carrier:
    """Driver's side: files that workers map. What is carried stays until `clear`.

    The files lie in a folder that Spark removes when it stops.

    Args:
        context: Whose workers they go to.
    """

    def __init__(self, context: SparkContext):
        from pyspark import SparkFiles

        self.context, self.folder = context, Path(SparkFiles.getRootDirectory()) / "carried"
        self.local = str(context.master).startswith("local")
        self.folder.mkdir(exist_ok=True)
        self._name, self._generation = f"mgoe-{uuid.uuid4().hex[:8]}", 0
        self._files: list[Path] = []
        self._carried: dict[tuple[Any, ...], str] = {}

    @property
    def live(self) -> str:
        """How the names of all files begin that were carried since `clear`."""
        return f"{self._name}-{self._generation:04d}"

    def pack(self, value: T) -> T:
        """The same with every large array carried. Goes through tuples and dataclasses."""
        return _changed(
            value,
            lambda part: self.array(part) if isinstance(part, np.ndarray) and part.nbytes > SMALL else part,
        )

    def array(self, array: NDArray) -> Carried:
        """Carry an array. One that is mapped from a file is carried once."""
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
        """Carry a file as it is now. Returns what `located` finds it by."""
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
        self._files, self._carried, self._generation = [], {}, self._generation + 1

    def _next(self, suffix: str) -> Path:
        self._files.append(self.folder / f"{self.live}-{len(self._files):06d}{suffix}")
        return self._files[-1]

    def _send(self, file: Path) -> str:
        if self.local:
            return str(file)
        from pyspark import SparkFiles

        self.context.addFile(str(file))
        Path(SparkFiles.get(file.name)).unlink(missing_ok=True)  # the driver's own copy, which no task reads
        return file.name


def unpack(value: T) -> T:
    """On a worker: what `Carrier.pack` took, with its large arrays mapped."""
    return _changed(value, lambda part: mapped(located(part.name)) if isinstance(part, Carried) else part)


def located(name: str) -> Path:
    """On a worker: where a carried file lies."""
    if os.path.isabs(name):
        return Path(name)
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def sweep(live: str) -> None:
    """On a worker: remove copies of what is carried no more.

    Args:
        live: Of `Carrier`.
    """
    from pyspark import SparkFiles

    with suppress(OSError):
        for file in Path(SparkFiles.getRootDirectory()).glob(f"{live.rpartition('-')[0]}-*"):
            if not file.name.startswith(live):
                file.unlink(missing_ok=True)


def file_of(array: NDArray) -> Path | None:
    """The file whose whole content an array is mapped from."""
    base: Any = array.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return None
    same = base.shape == array.shape and base.dtype == array.dtype and base.ctypes.data == array.ctypes.data
    return Path(base.filename) if same else None


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with a change made to it, or to whatever it holds."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, tuple):
        return tuple(_changed(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)}
        )
    return value
