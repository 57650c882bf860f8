"""NumPy arrays on disk: written row by row, read memory-mapped."""

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray


class ArrayWriter:
    """Write an `.npy` file that grows by rows. It loads only once it is complete.

    Args:
        path: The file; an existing one is replaced.
        dtype: Of the array.
        row: Shape of one row.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...] = ()):
        self.dtype, self.row, self.rows = np.dtype(dtype), row, 0
        self._file = path.open("wb")
        self._file.write(bytes(len(self._header())))

    def append(self, rows: NDArray) -> None:
        """Append rows. Shape (n, *row)."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def close(self, whole: bool = True) -> None:
        """Write the number of rows into the header if the array is complete, and close the file."""
        if whole:
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


class ArrayFolder:
    """Write the arrays of one folder, each to its own `.npy` file, in step.

    Args:
        path: The folder; created if it is missing.
    """

    def __init__(self, path: Path):
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._open: dict[str, ArrayWriter] = {}

    def __enter__(self) -> Self:
        return self

    def append(self, arrays: Mapping[str, NDArray]) -> None:
        """Append rows to the named arrays; the first rows fix an array's type."""
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
    """Write complete arrays, each to its own `.npy` file.

    On a full disk the error says so, which that of `np.save` does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        held = np.asarray(array, order="C")
        if held.dtype.hasobject:
            raise ValueError(f"{name}: objects are not written (allow_pickle=False)")
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(held))
            file.write(held.data)


def mapped(file: Path) -> NDArray:
    """Open an array memory-mapped and read-only."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
