"""Columns of any library as plain Arrow arrays."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute

from mgoe.errors import DataError

pc: Any = compute  # most of its functions are created at import, so a type checker cannot see them

MOST_TEXT = 2**31 - 1
"""Bytes that an array of strings with 32-bit offsets can hold."""
_ZEROS = r"^(-?\d+)\.0+$|^(-?\d+\.\d*[1-9])0+$|^(0)E-\d+$"
"""Trailing zeros of a written decimal."""
_UUID_BYTES = 16


def to_arrow(values: Any, place: str = "values") -> pa.Array:
    """Return a column of any library, or one value, as one Arrow array.

    UUIDs, bytes and values that no single type holds become strings.

    Args:
        values: A list, a NumPy array, a pandas or polars series, an Arrow array, or one value.
        place: What the values are, for messages.

    Raises:
        DataError: The values are not a column: an iterator, a table, a set, a mapping, or an array of several
            dimensions. Or they are bytes that are neither UTF-8 nor UUIDs.

    Example:
        >>> to_arrow([1, 2]).to_pylist()
        [1, 2]
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _plain(values, place)
    unordered = isinstance(values, Iterator | Mapping | set | frozenset)
    if unordered or len(getattr(values, "shape", ())) > 1:
        shape = "" if unordered else f" of the shape {tuple(values.shape)}"
        raise DataError(
            place,
            f"must be one column (a list, an array, a series) or one value, found a {type(values).__name__}"
            f"{shape}; make a list of it, or take one of its columns",
        )
    if hasattr(values, "to_arrow"):
        return to_arrow(values.to_arrow(), place)
    if isinstance(values, np.generic) or (isinstance(values, np.ndarray) and not values.ndim):
        values = values.item()
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        values = [values]
    try:
        return to_arrow(pa.array(values), place)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # pd.isna answers with an array for a list, hence `is True`
        return pa.array([None if pd.isna(v) is True else str(v) for v in values], pa.string())


def _plain(values: pa.Array | pa.ChunkedArray, place: str) -> pa.Array:
    """Return one array without run ends, dictionaries or views, and with UUIDs and bytes as text."""
    kind = values.type
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(values), place)
    if pa.types.is_dictionary(kind):
        return _plain(pc.call_function("dictionary_decode", [values]), place)
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return _plain(values.cast(pa.binary(_UUID_BYTES)), place)
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    ):
        held = one_array(values).cast(pa.large_binary())
        # UUIDs where every value has 16 bytes, otherwise UTF-8
        if len(held) > held.null_count and pc.all(pc.equal(pc.binary_length(held), _UUID_BYTES)).as_py():
            return _uuids(held)
        try:
            return one_array(held.cast(pa.large_string()))
        except pa.ArrowInvalid:
            raise DataError(
                place,
                "bytes must be UTF-8, or the 16 bytes of a UUID in every row, found bytes that are not "
                "UTF-8; write them as text",
            ) from None
    if is_list(kind):
        item = pa.string() if pa.types.is_string_view(kind.value_type) else kind.value_type
        values = values.cast(pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item))
    return one_array(values)


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one array; text gets 32-bit offsets where these suffice, otherwise 64-bit ones."""
    if is_text(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string() if values.nbytes <= MOST_TEXT else pa.large_string())
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def is_list(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a list of any length and layout."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a string with 32-bit or 64-bit offsets."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def texts(values: pa.Array) -> pa.Array:
    """Return ids or categories as strings, a decimal without trailing zeros."""
    written = values if is_text(values.type) else pc.cast(values, pa.string())
    is_decimal = pa.types.is_decimal(values.type)
    return pc.replace_substring_regex(written, _ZEROS, r"\1\2\3") if is_decimal else written


def _uuids(values: pa.Array) -> pa.Array:
    written = [None if one is None else str(UUID(bytes=one)) for one in values.to_pylist()]
    return pa.array(written, pa.string())
