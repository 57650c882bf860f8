"""Open hash tables of whole numbers: for compiled loops its keys, -1 where a place is free; from ids to their
indices; and from ids to the least of several numbers.
"""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mgoe._util.kernels import kernel

_FREE = np.iinfo(np.int64).max
"""Number of a free slot."""


def free_places(entries: int, kind: DTypeLike = np.int64) -> NDArray:
    """Return the keys of an empty table, of which so many entries will fill at most half.

    Example:
        >>> len(free_places(1000))
        2048
    """
    return np.full(1 << (2 * entries).bit_length(), -1, kind)


@kernel(inline="always")
def place_of(keys, key):  # pragma: no cover - compiled
    """Return the place of a key, or the free place where it would be. Places are probed in order."""
    last = len(keys) - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> np.uint64(32)) & last
    while keys[place] >= 0 and keys[place] != key:
        place = (place + 1) & last
    return place


class IntegerTable:
    """Index of each of a set of distinct integers, looked up without the interpreter lock.

    It takes 6 to 12 bytes per id besides the ids.

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


class LeastNumbers:
    """The least number given with each integer id, in 24 to 48 bytes per id: an id and its number are side by
    side, so that memory is waited for once.

    Attributes:
        entries: int64 ids and numbers, and 2^63 - 1 as the number of a free slot. Shape (slots, 2).

    Example:
        >>> least = LeastNumbers()
        >>> least.add(np.array([40, 7, 40]), np.array([2, 5, 1]))
        >>> sorted(least.taken.T.tolist())
        [[7, 5], [40, 1]]
    """

    def __init__(self) -> None:
        self.entries, self._size = np.full((1 << 10, 2), _FREE), 0

    def add(self, ids: NDArray[np.integer], numbers: NDArray[np.int64]) -> None:
        """Add int64 or uint64 ids, each with a number below 2^63 - 1. Shape (n,) each."""
        while 3 * (self._size + len(ids)) > 2 * len(self.entries):
            before, self.entries = self.taken, np.full((2 * len(self.entries), 2), _FREE)
            _add(self.entries, *before)
        self._size += _add(self.entries, ids.view(np.int64), numbers)

    @property
    def taken(self) -> NDArray[np.int64]:
        """Return all ids, in no order, and the least number of each. Shape (2, ids)."""
        return self.entries[self.entries[:, 1] != _FREE].T.copy()


@kernel(inline="always")
def _first_slot(one, slots):  # pragma: no cover - compiled
    """Slot from which an id is looked for; Fibonacci hashing spreads consecutive ids."""
    mixed = np.uint64(one) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(slots - 1))


@kernel(inline="always")
def _slot_of(slots, ids, one):  # pragma: no cover - compiled
    """Slot of an id, or the free one where it would be."""
    slot = _first_slot(one, len(slots))
    while slots[slot] >= 0 and ids[slots[slot]] != one:
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@kernel("slots")
def _fill(slots, ids):  # pragma: no cover - compiled
    for index in range(len(ids)):
        slots[_slot_of(slots, ids, ids[index])] = index


@kernel()
def _look_up(slots, ids, wanted):  # pragma: no cover - compiled
    found = np.empty(len(wanted), np.int64)
    for n in range(len(wanted)):
        found[n] = slots[_slot_of(slots, ids, wanted[n])]
    return found


@kernel("entries")
def _add(entries, ids, numbers):  # pragma: no cover - compiled
    """Add ids, and return how many of them are new."""
    new = 0
    for n in range(len(ids)):
        slot = _first_slot(ids[n], len(entries))
        while entries[slot, 1] != _FREE and entries[slot, 0] != ids[n]:
            slot = (slot + 1) & (len(entries) - 1)
        new += entries[slot, 1] == _FREE
        entries[slot, 0], entries[slot, 1] = ids[n], min(entries[slot, 1], numbers[n])
    return new
