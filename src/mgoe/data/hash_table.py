"""An open hash table from integer ids to indices, 6 to 12 bytes per id besides the ids."""

import numba
import numpy as np
from numpy.typing import NDArray


class IntegerTable:
    """Index of each of a set of distinct integers, looked up without the interpreter lock.

    Args:
        ids: int64 or uint64. Shape (n,).

    Example:
        >>> IntegerTable(np.array([40, 7])).indices(np.array([7, 8])).tolist()
        [1, -1]
    """

    def __init__(self, ids: NDArray[np.integer]):
        self.dtype, self._ids = ids.dtype, ids.view(np.int64)
        # at most two thirds of the slots are taken
        self._slots = np.full(1 << max(int(len(ids) * 3 // 2).bit_length(), 1), -1, np.int32)
        _fill(self._slots, self._ids)

    def indices(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the index of each id, -1 where there is none. Ids of the table's own dtype, shape (n,)."""
        return _look_up(self._slots, self._ids, ids.view(np.int64))


@numba.njit(cache=True, nogil=True, inline="always")
def _slot_of(slots, ids, one):  # pragma: no cover - compiled
    """Slot of an id, or the free one where it would be; Fibonacci hashing spreads consecutive ids."""
    mixed = np.uint64(one) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(len(slots) - 1))
    while slots[slot] >= 0 and ids[slots[slot]] != one:
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def _fill(slots, ids):  # pragma: no cover - compiled
    for index in range(len(ids)):
        slots[_slot_of(slots, ids, ids[index])] = index


@numba.njit(cache=True, nogil=True)
def _look_up(slots, ids, wanted):  # pragma: no cover - compiled
    found = np.empty(len(wanted), np.int64)
    for n in range(len(wanted)):
        found[n] = slots[_slot_of(slots, ids, wanted[n])]
    return found
