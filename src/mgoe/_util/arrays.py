"""NumPy arrays: outliers, arrays that grow; and arrays on disk, written row by row and read memory-mapped."""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def fence(values: NDArray) -> float:
    """Return the largest value that is no outlier: ten times the 99th percentile of those above 0 (ours).

    Values without a heavy tail are below it, and one in a hundred can be anything without moving it far.
    Infinity if none is above 0.

    Args:
        values: At least 0; NaN where missing. Shape (n,).
    """
    found = values[values > 0]
    return 10 * float(np.quantile(found, 0.99, method="lower")) if len(found) else np.inf


def with_room(array: NDArray, size: int, fill: int = 0) -> NDArray:
    """Return the array if it has at least `size` rows, otherwise one of twice the length."""
    if size <= len(array):
        return array
    longer = np.empty((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    longer[: len(array)], longer[len(array) :] = array, fill
    return longer


def take(array: NDArray, index: NDArray[np.integer], fill: float | NDArray) -> NDArray:
    """Return rows of an array, `fill` (a number, or a row) at negative indices and beyond the array."""
    if len(array) == 0:
        return np.full((*index.shape, *array.shape[1:]), fill, array.dtype)
    there = (index >= 0) & (index < len(array))
    out = array[np.where(there, index, 0)]
    out[~there] = fill
    return out


def run_starts(*columns: NDArray) -> NDArray[np.bool_]:
    """Return whether each row differs from the one before it in any of the columns. Shape (n,)."""
    new = np.ones(len(columns[0]), np.bool_)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new


class ArrayWriter(AbstractContextManager["ArrayWriter"]):
    """Write an `.npy` file that grows by rows. It loads only once the block has succeeded.

    Args:
        path: The file; an existing one is replaced.
        dtype: Of the array.
        row: Shape of one row.

    Raises:
        ValueError: The array holds objects.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...] = ()):
        if dtype.hasobject:
            raise ValueError(f"{path}: objects are not written (allow_pickle=False)")
        self.dtype, self.row, self.rows = dtype, row, 0
        self._file = path.open("wb")
        self._file.write(bytes(len(self._header())))

    def append(self, rows: NDArray) -> None:
        """Append rows. Shape (n, *row)."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the number of rows into the header if the array is complete, and close the file."""
        if kind is None:
            self._file.seek(0)
            self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        # NumPy pads a header so that it keeps its length when the first axis grows
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.rows, *self.row),
            },
        )
        return header.getvalue()


class ArrayFolder(ExitStack):
    """Write the arrays of one folder, each to its own `.npy` file, in step.

    Args:
        path: The folder; created if it is missing.
    """

    def __init__(self, path: Path):
        super().__init__()
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._open: dict[str, ArrayWriter] = {}

    def append(self, arrays: Mapping[str, NDArray]) -> None:
        """Append rows to the named arrays; the first rows fix an array's type."""
        for name, rows in arrays.items():
            if name not in self._open:
                writer = ArrayWriter(self.path / f"{name}.npy", rows.dtype, rows.shape[1:])
                self._open[name] = self.enter_context(writer)
            self._open[name].append(rows)


def save_arrays(folder: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write complete arrays, each to its own `.npy` file. They have at least one axis."""
    with ArrayFolder(folder) as out:
        out.append(arrays)


def mapped(file: Path) -> NDArray:
    """Open an array memory-mapped and read-only."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
