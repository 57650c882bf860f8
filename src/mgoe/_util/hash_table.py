"""An open hash table of whole numbers from 0, for compiled loops: its keys, -1 where a place is free."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mgoe._util.kernels import kernel


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
