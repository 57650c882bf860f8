"""Arrays that grow by rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 64
"""Rows that an array has before the first entry."""


class GrowingArrays:
    """Arrays with one row per entry. A full array is replaced by one of twice the length.

    Args:
        columns: Type, shape of a row, and first value of each array.

    Attributes:
        size: Entries; the arrays are at least as long.
    """

    def __init__(self, columns: Mapping[str, tuple[Any, tuple[int, ...], int]]):
        self.size, self._columns = 0, columns
        for name, (dtype, row, fill) in columns.items():
            setattr(self, name, np.full((MIN_ROWS, *row), fill, dtype))

    if TYPE_CHECKING:  # the columns are attributes

        def __getattr__(self, name: str) -> NDArray: ...

    def extend(self, n: int) -> NDArray[np.int64]:
        """Append n entries and return their numbers."""
        first, self.size = self.size, self.size + n
        for name, (_, _, fill) in self._columns.items():
            setattr(self, name, grown(getattr(self, name), self.size, fill))
        return np.arange(first, self.size)

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        return sum(getattr(self, name).nbytes for name in self._columns)


def grown(array: NDArray, size: int, fill: int) -> NDArray:
    """Return the array if it has at least `size` rows, otherwise one of twice the length."""
    if size <= len(array):
        return array
    longer = np.empty((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    longer[: len(array)], longer[len(array) :] = array, fill
    return longer
