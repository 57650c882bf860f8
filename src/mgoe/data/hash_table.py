"""An open hash table from integer ids to indices, 18 to 36 bytes per id."""

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe._util.hash_table import place_of


class IntegerTable:
    """Index of each of a set of distinct integers, looked up without the interpreter lock.

    Args:
        ids: int64 or uint64. Shape (n,).

    Example:
        >>> IntegerTable(np.array([40, 7])).indices(np.array([7, 8])).tolist()
        [1, -1]
    """

    def __init__(self, ids: NDArray[np.integer]):
        self.dtype = ids.dtype
        size = 1 << max(int(len(ids) * 3 // 2).bit_length(), 1)  # at most two thirds of the slots are taken
        self._keys, self._indices = np.zeros(size, np.int64), np.full(size, -1, np.int32)
        _fill(self._keys, self._indices, ids.astype(np.int64, copy=False))

    def indices(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the index of each id, -1 where there is none. Ids of the table's own dtype, shape (n,)."""
        return _look_up(self._keys, self._indices, ids.astype(np.int64, copy=False))


@numba.njit(cache=True, nogil=True)
def _fill(keys, indices, ids):  # pragma: no cover - compiled
    for index in range(len(ids)):
        slot = place_of(keys, indices, ids[index])
        keys[slot], indices[slot] = ids[index], index


@numba.njit(cache=True, nogil=True)
def _look_up(keys, indices, ids):  # pragma: no cover - compiled
    found = np.empty(len(ids), np.int64)
    for n in range(len(ids)):
        found[n] = indices[place_of(keys, indices, ids[n])]
    return found
