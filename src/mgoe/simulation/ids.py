"""Ids that look like those of a shop: integers with gaps, in an uninformative order, invertible without a
table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ODD = 0x9E3779B1


@dataclass(frozen=True)
class Ids:
    """Ids of indices: first + index x odd number modulo a power of two, which its inverse reverts.

    Attributes:
        count: Number of ids.
        first: Smallest possible id.
    """

    count: int
    first: int

    @property
    def _bits(self) -> int:
        return max(20, (16 * self.count - 1).bit_length())

    def of(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the ids of indices. Same shape."""
        return self.first + ((index.astype(np.int64) * _ODD) & (2**self._bits - 1))

    def index(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Return the indices of ids, -1 where there is no such id. Same shape."""
        rest = np.asarray(ids, np.int64) - self.first
        modulus = 2**self._bits
        # the product may exceed 2^63 and wrap; its low bits stay correct
        index = (rest.view(np.uint64) * np.uint64(pow(_ODD, -1, modulus)) & np.uint64(modulus - 1)).view(
            np.int64
        )
        return np.where((rest >= 0) & (rest < modulus) & (index < self.count), index, -1)
