"""From the ids of a request to codes: what `Vocabulary.codes` answers, for lists of some hundred ids in some ten microseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe.data import Vocabulary

Id = int | str
"""Of a user or an item, as JSON has it."""
_INT64 = 2**63


class Codes:
    """Codes by id, held for reading often.

    Whole numbers are a sorted array, 16 bytes an id; strings a dictionary, some 150 bytes an id.

    Args:
        vocabulary: Whose ids they are.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._integers = pa.types.is_integer(vocabulary.type)
        if self._integers:
            ids = vocabulary.ids(np.arange(vocabulary.size)).to_numpy(zero_copy_only=False)
            self._order = np.argsort(ids, kind="stable")
            self._sorted = ids[self._order]
        else:
            self._by_string = dict(zip(vocabulary.ids(np.arange(vocabulary.size)).to_pylist(), range(vocabulary.size), strict=True))

    def of(self, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Codes of ids, -1 where never seen. 7 and "7" are one, "07" is another. Shape (n,)."""
        if not self._integers:
            get = self._by_string.get
            return np.fromiter([get(one if isinstance(one, str) else str(one), -1) for one in ids], np.int64, len(ids))
        try:
            numbers = np.array(ids, self._sorted.dtype) if all(type(one) is int for one in ids) else None
        except OverflowError:  # beyond 64 bits: one by one
            numbers = None
        if numbers is None:
            return self._one_by_one(ids)
        return self._find(numbers)

    def _one_by_one(self, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Where an id is a string or too large for 64 bits."""
        low, high = (np.iinfo(self._sorted.dtype).min, np.iinfo(self._sorted.dtype).max)
        numbers = [_whole(one) for one in ids]
        fits = np.array([number is not None and low <= number <= high for number in numbers], bool)
        kept = [number if number is not None and low <= number <= high else 0 for number in numbers]
        codes = self._find(np.array(kept, self._sorted.dtype))
        codes[~fits] = -1
        return codes

    def _find(self, numbers: NDArray) -> NDArray[np.int64]:
        if not len(self._sorted):
            return np.full(len(numbers), -1, np.int64)
        place = np.minimum(np.searchsorted(self._sorted, numbers), len(self._sorted) - 1)
        return np.where(self._sorted[place] == numbers, self._order[place], -1)


def _whole(one: Id) -> int | None:
    """The number that a string writes in the one way numbers are written."""
    if isinstance(one, int):
        return one
    if len(one) > 20 or not one.isascii() or not one.lstrip("-").isdigit():
        return None
    number = int(one)
    return number if str(number) == one else None
