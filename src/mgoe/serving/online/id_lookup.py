"""From the ids of a request to codes: what `Vocabulary.codes` answers, for lists of some hundred ids in some ten microseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe.data import Vocabulary
from mgoe.serving.events.event import DECIMAL

Id = int | str
"""Of a user or an item, as JSON has it."""
SLICE = 4_096
"""Strings that are read at once, in some 3 ms: between two slices other threads have their turn, which those of Arrow do not give."""


class IdLookup:
    """Codes by id, held for reading often.

    Whole numbers are an open hash table, 18 to 36 bytes an id; strings a dictionary, some 150 bytes an id.

    Args:
        vocabulary: Whose ids they are.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._integers = pa.types.is_integer(vocabulary.type)
        if self._integers:
            ids = vocabulary.ids(np.arange(vocabulary.size)).to_numpy(zero_copy_only=False)
            self._type = ids.dtype
            self._keys, self._held = _table(ids.astype(np.int64, copy=False))
        else:
            self._by_string: dict[str, int] = {}
            for first in range(0, vocabulary.size, SLICE):
                codes = range(first, min(first + SLICE, vocabulary.size))
                self._by_string.update(zip(vocabulary.ids(codes).to_pylist(), codes, strict=True))

    def indices(self, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Codes of ids, -1 where never seen. 7 and "7" are one, "07" is another. Shape (n,)."""
        if not self._integers:
            get = self._by_string.get
            return np.fromiter(
                [get(one if isinstance(one, str) else str(one), -1) for one in ids], np.int64, len(ids)
            )
        try:
            numbers = np.array(ids, self._type) if set(map(type, ids)) == {int} else None
        except OverflowError:  # beyond 64 bits: one by one
            numbers = None
        if numbers is None:
            return self._one_by_one(ids)
        return self._find(numbers)

    def _one_by_one(self, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Where an id is a string or too large for 64 bits."""
        low, high = (np.iinfo(self._type).min, np.iinfo(self._type).max)
        numbers = [_whole(one) for one in ids]
        fits = np.array([number is not None and low <= number <= high for number in numbers], bool)
        kept = [number if number is not None and low <= number <= high else 0 for number in numbers]
        codes = self._find(np.array(kept, self._type))
        codes[~fits] = -1
        return codes

    def _find(self, numbers: NDArray) -> NDArray[np.int64]:
        return _look_up(self._keys, self._held, numbers.astype(np.int64, copy=False))


def _table(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Ids and codes at the places that `_look_up` goes to; the code of a free place is -1. A third to two thirds are taken at most."""
    size = 1 << max(int(len(ids) * 3 // 2).bit_length(), 1)
    keys, codes = np.zeros(size, np.int64), np.full(size, -1, np.int32)
    _fill(keys, codes, ids)
    return keys, codes


@numba.njit(cache=True, nogil=True, inline="always")
def _place(one, size):  # pragma: no cover - compiled
    """Where the search for an id begins: numbers in a row, or a step apart, lie apart (Fibonacci hashing)."""
    mixed = np.uint64(one) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))


@numba.njit(cache=True, nogil=True)
def _fill(keys, codes, ids):  # pragma: no cover - compiled
    for code in range(len(ids)):
        at = _place(ids[code], len(keys))
        while codes[at] >= 0:
            at = (at + 1) & (len(keys) - 1)
        keys[at], codes[at] = ids[code], code


@numba.njit(cache=True, nogil=True)
def _look_up(keys, codes, ids):  # pragma: no cover - compiled
    out = np.empty(len(ids), np.int64)
    for n in range(len(ids)):
        at = _place(ids[n], len(keys))
        while codes[at] >= 0 and keys[at] != ids[n]:
            at = (at + 1) & (len(keys) - 1)
        out[n] = codes[at]
    return out


def _whole(one: Id) -> int | None:
    """The number that a string writes in the one way numbers are written."""
    if isinstance(one, int):
        return one
    return int(one) if len(one) <= 20 and DECIMAL.fullmatch(one) else None
