"""NumPy arrays on disk: written by rows as they come, read memory-mapped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray


class ArrayWriter:
    """An `.npy` file that grows by rows and opens like any other once it is finished; before, it does not load.

    Args:
        path: The file; replaced where it exists.
        dtype: Of the array.
        row: Shape of a row.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...] = ()):
        self.dtype, self.row, self.rows = np.dtype(dtype), row, 0
        self._file = path.open("wb")
        self._file.write(bytes(len(self._header())))

    def append(self, rows: NDArray) -> None:
        """Add rows. Shape (n, *row)."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def close(self, whole: bool = True) -> None:
        """Note the number of rows, if all of them are there."""
        if whole:
            self._file.seek(0)
            self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        # NumPy pads a header so that it keeps its length when the first axis grows
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": (self.rows, *self.row)}
        )
        return header.getvalue()


class ArrayFolder:
    """Arrays of one folder, each as its own `.npy`, growing together.

    Args:
        path: The folder; made if it is missing.
    """

    def __init__(self, path: Path):
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._open: dict[str, ArrayWriter] = {}

    def __enter__(self) -> Self:
        return self

    def append(self, arrays: Mapping[str, NDArray]) -> None:
        """Add rows to the arrays named; the first ones decide an array's type."""
        for name, rows in arrays.items():
            if name not in self._open:
                self._open[name] = ArrayWriter(self.path / f"{name}.npy", rows.dtype, rows.shape[1:])
            self._open[name].append(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._open.values():
            writer.close(whole=kind is None)


def save_arrays(folder: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write whole arrays, each as its own `.npy`. Where the disk is full the error says so, which that of `np.save` does not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        held = np.asarray(array, order="C")
        if held.dtype.hasobject:
            raise ValueError(f"{name}: objects are not written (allow_pickle=False)")
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(held))
            file.write(held.data)


def mapped(file: Path) -> NDArray:
    """An array, memory-mapped and read only."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
