"""Ids and their codes 0..n-1, by first appearance; an id never seen has code -1."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from mgoe.data.columns import is_text, one_array, to_arrow
from mgoe.errors import DataError


class Vocabulary:
    """Ids of one kind of node (or categories of one feature), numbered in the order given.

    Args:
        ids: Distinct, none null: int64, uint64 or string. Shape (n,).
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

    def indices(self, ids: ArrayLike | Any) -> NDArray[np.int64]:
        """Codes of ids from a list, NumPy, pandas, polars or Arrow; -1 where never seen or null.

        An id of another type counts as seen only where it says the same without loss: 7, 7.0 and "7" are one, "07" is another.
        """
        values = to_arrow(ids)
        if pa.types.is_null(values.type) or not self.size:
            return np.full(len(values), -1, dtype=np.int64)
        if pa.types.is_integer(self.type) and pa.types.is_floating(values.type):
            values = _whole(values)
        if pa.types.is_integer(self.type) and pa.types.is_integer(values.type):
            return self._integer_codes(values)
        return self._find(self._by_string, texts(values).to_numpy(zero_copy_only=False), values)

    def ids(self, codes: ArrayLike) -> pa.Array:
        """Ids of codes; null for -1."""
        taken = np.asarray(codes, dtype=np.int64)
        wrong = taken[(taken < -1) | (taken >= self.size)]
        if wrong.size:
            raise DataError(
                "codes",
                f"a code lies between -1 and {self.size - 1}, found {wrong[0]}; use codes of this vocabulary",
            )
        return self._ids.take(pa.array(taken, mask=taken < 0))

    def save(self, path: Path) -> None:
        """Write a Parquet file with the column `id`, in code order."""
        pq.write_table(pa.table({"id": self._ids}), path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote."""
        return cls(pq.read_table(path, columns=["id"])["id"])

    @cached_property
    def _by_integer(self) -> pd.Index:
        return pd.Index(self._ids.to_numpy(zero_copy_only=False))

    @cached_property
    def _by_string(self) -> pd.Index:
        return pd.Index(texts(self._ids).to_numpy(zero_copy_only=False), dtype=object)

    def _integer_codes(self, values: pa.Array) -> NDArray[np.int64]:
        stored = self.type.to_pandas_dtype()
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        fits = (numbers >= np.iinfo(stored).min) & (numbers <= np.iinfo(stored).max)
        codes = self._find(self._by_integer, np.where(fits, numbers, 0).astype(stored), values)
        codes[~fits] = -1
        return codes

    @staticmethod
    def _find(index: pd.Index, keys: NDArray[Any], values: pa.Array) -> NDArray[np.int64]:
        codes = index.get_indexer(pd.Index(keys, dtype=index.dtype)).astype(np.int64, copy=False)
        if values.null_count:
            codes[values.is_null().to_numpy(zero_copy_only=False)] = -1
        return codes


def _whole(values: pa.Array) -> pa.Array:
    """Floats as int64; null where one is not whole or too large to be exact."""
    numbers = values.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
    exact = (np.floor(numbers) == numbers) & (np.abs(numbers) <= 2.0**53)
    return pa.array(np.where(exact, numbers, 0).astype(np.int64), mask=~exact)


def texts(values: pa.Array) -> pa.Array:
    """What ids or categories say, as strings; a decimal says no more digits than it needs."""
    written = values if is_text(values.type) else pc.cast(values, pa.string())
    if pa.types.is_decimal(values.type):
        written = pc.replace_substring_regex(
            written, r"^(-?\d+)\.0+$|^(-?\d+\.\d*[1-9])0+$|^(0)E-\d+$", r"\1\2\3"
        )  # type: ignore[attr-defined]
    return written


def without(vocabulary: Vocabulary, codes: NDArray[np.int64]) -> Vocabulary:
    """A vocabulary with some of its ids replaced by ones that nobody has, so that the codes of the others stay."""
    ids, codes = (
        vocabulary.ids(np.arange(vocabulary.size)),
        np.unique(codes),
    )  # replacements are taken in the order of the mask
    if is_text(ids.type):
        nobody = pa.array([f"forgotten user, code {code}" for code in codes.tolist()], ids.type)
    elif pa.types.is_unsigned_integer(ids.type):
        nobody = pa.array(np.iinfo(np.uint64).max - codes.astype(np.uint64), ids.type)
    else:
        nobody = pa.array(np.iinfo(np.int64).min + codes, ids.type)
    gone = np.zeros(vocabulary.size, bool)
    gone[codes] = True
    return Vocabulary(pc.replace_with_mask(ids, pa.array(gone), nobody))  # type: ignore[attr-defined]
