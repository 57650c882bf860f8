"""Ids and their indices 0..n-1, numbered by first appearance; an id never seen has the index -1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from mgoe.data.arrow import is_text, one_array, pc, texts, to_arrow
from mgoe.errors import DataError

if TYPE_CHECKING:
    from mgoe._util.hash_table import IntegerTable

DECIMAL = re.compile(r"0|-?[1-9][0-9]*")
"""An integer in its one usual notation: `07`, `+7` and `-0` are other ids."""
SLICE = 4_096
"""Strings converted at once (about 3 ms). Arrow holds the interpreter lock meanwhile, so other threads run in
between."""


class Vocabulary:
    """Ids of one kind of node (or categories of one feature), numbered in the order given.

    The table behind look-ups is built once, at the first of them: 6 to 12 bytes per integer id, about 150
    bytes per string.

    Args:
        ids: Distinct and not null: int64, uint64 or string. Shape (n,).

    Example:
        >>> vocabulary = Vocabulary(pa.array([40, 7]))
        >>> vocabulary.indices([7, 40, 5, "7"]).tolist()
        [1, 0, -1, 1]
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray):
        self._ids: pa.Array = one_array(ids)

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self._ids)

    @property
    def type(self) -> pa.DataType:
        """Arrow type of an id."""
        return pa.string() if is_text(self._ids.type) else self._ids.type

    @property
    def every(self) -> pa.Array:
        """All ids by index. Shape (n,)."""
        return self._ids

    def indices(self, ids: ArrayLike | Any) -> NDArray[np.int64]:
        """Return the index of each id of a column, -1 where it was never seen or is null.

        Ids of another type match only where nothing is lost: 7, 7.0 and "7" are the same id, "07" is not.

        Args:
            ids: A list, a NumPy array, a pandas or polars series, or an Arrow array. Shape (n,).

        Returns:
            Shape (n,).

        Raises:
            DataError: It is no column, or holds lists or other nested values.
        """
        values = to_arrow(ids, "ids")
        if pa.types.is_nested(values.type):
            raise DataError("ids", f"each must be a number or a text, found {values.type}; give a flat list")
        if pa.types.is_null(values.type) or not self.size:
            return np.full(len(values), -1, dtype=np.int64)
        if is_text(self.type):
            return self.look_up(texts(values).to_pylist())
        if pa.types.is_floating(values.type):  # null where one is not whole or too large to be exact
            floats = values.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
            exact = (np.floor(floats) == floats) & (np.abs(floats) <= 2.0**53)
            values = pa.array(np.where(exact, floats, 0).astype(np.int64), mask=~exact)
        if not pa.types.is_integer(values.type):
            return self.look_up(pc.fill_null(texts(values), "").to_pylist())
        limits = np.iinfo(self._by_integer.dtype)
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        fits = (numbers >= limits.min) & (numbers <= limits.max)
        if values.null_count:
            fits &= values.is_valid().to_numpy(zero_copy_only=False)
        kept = np.where(fits, numbers, 0).astype(limits.dtype)
        return np.where(fits, self._by_integer.indices(kept), -1)

    def look_up(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """Return what `indices` does, for a list of integers and strings as JSON has them, in microseconds.

        Args:
            ids: Integers of any size, and strings. Shape (n,).

        Returns:
            Shape (n,).
        """
        if is_text(self.type):
            find = self._by_text.get
            return np.fromiter([find(str(one) if isinstance(one, int) else one, -1) for one in ids], np.int64)
        dtype = self._by_integer.dtype
        try:
            if set(map(type, ids)) == {int}:
                return self._by_integer.indices(np.array(ids, dtype))
        except OverflowError:
            pass  # some id exceeds 64 bits
        limits = np.iinfo(dtype)
        numbers = [number if (number := whole_number(one)) is not None else limits.max + 1 for one in ids]
        fits = np.array([limits.min <= number <= limits.max for number in numbers], bool)
        kept = np.array([number if fit else 0 for number, fit in zip(numbers, fits, strict=True)], dtype)
        return np.where(fits, self._by_integer.indices(kept), -1)

    def ids(self, indices: ArrayLike) -> pa.Array:
        """Return the id of each index, null for -1. Shape (n,).

        Raises:
            DataError: An index is not of this vocabulary.
        """
        taken = np.asarray(indices, dtype=np.int64)
        wrong = taken[(taken < -1) | (taken >= self.size)]
        if wrong.size:
            raise DataError(
                "indices",
                f"an index is between -1 and {self.size - 1}, found {wrong[0]}; use indices of this "
                "vocabulary",
            )
        return self._ids.take(pa.array(taken, mask=taken < 0))

    def with_ids(self, ids: pa.Array) -> Vocabulary:
        """Return a vocabulary in which the ids that this one lacks follow its own."""
        new = ids.filter(pa.array(self.indices(ids) < 0)).unique()
        return Vocabulary(pa.concat_arrays([self._ids, new.cast(self._ids.type)]))

    def without(self, indices: NDArray[np.int64]) -> Vocabulary:
        """Return a vocabulary in which ids that nobody has replace some; all others keep their indices."""
        gone = np.zeros(self.size, bool)
        gone[indices] = True
        unused = self._unused(np.flatnonzero(gone))
        return Vocabulary(pc.replace_with_mask(self._ids, pa.array(gone), unused))

    @property
    def unused(self) -> NDArray[np.int64]:
        """The indices whose ids `without` has replaced."""
        return np.flatnonzero(pc.equal(self._ids, self._unused(np.arange(self.size))))

    def _unused(self, indices: NDArray[np.int64]) -> pa.Array:
        """Return an id that nobody has for each index."""
        if is_text(self.type):
            return pa.array([f"forgotten user, index {index}" for index in indices], self._ids.type)
        if pa.types.is_unsigned_integer(self.type):
            return pa.array(np.iinfo(np.uint64).max - indices.astype(np.uint64), self.type)
        return pa.array(np.iinfo(np.int64).min + indices, self.type)

    def save(self, path: Path) -> None:
        """Write a Parquet file with the column `id`, in the order of the indices."""
        pq.write_table(pa.table({"id": self._ids}), path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote."""
        return cls(pq.read_table(path, columns=["id"])["id"])

    @cached_property
    def _by_integer(self) -> IntegerTable:
        from mgoe._util.hash_table import IntegerTable  # compiles kernels, which not every command needs

        return IntegerTable(self._ids.to_numpy(zero_copy_only=False))

    @cached_property
    def _by_text(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for first in range(0, self.size, SLICE):
            part = self._ids[first : first + SLICE].to_pylist()
            found.update(zip(part, range(first, first + len(part)), strict=True))
        return found


def whole_number(one: int | str) -> int | None:
    """Return the integer that a string writes in the usual notation, None for other strings."""
    if isinstance(one, int):
        return one
    return int(one) if len(one) <= 20 and DECIMAL.fullmatch(one) else None
