"""Ids that look like a shop's: integers with gaps, in no order that tells anything, yet found again without a table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ODD = 0x9E3779B1


@dataclass(frozen=True)
class Ids:
    """Index n is id first + n x odd modulo a power of two, which an inverse undoes.

    Attributes:
        count: How many there are.
        first: Smallest possible id.
    """

    count: int
    first: int

    @property
    def _bits(self) -> int:
        return max(20, (16 * self.count - 1).bit_length())

    def of(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """Ids of indices. Same shape."""
        return self.first + ((index.astype(np.int64) * _ODD) & (2**self._bits - 1))

    def index(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Indices of ids; -1 where there is no such id. Same shape."""
        rest = np.asarray(ids, np.int64) - self.first
        modulus = 2**self._bits
        # the product may pass 2^63 and wrap: its low bits stay right
        index = (rest.view(np.uint64) * np.uint64(pow(_ODD, -1, modulus)) & np.uint64(modulus - 1)).view(
            np.int64
        )
        return np.where((rest >= 0) & (rest < modulus) & (index < self.count), index, -1)
