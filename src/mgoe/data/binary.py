"""Bytes as the texts that they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from mgoe.errors import DataError

pc: Any = compute  # most of its functions are made at import, out of a type checker's sight

_LENGTH = 16
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_PLACES = np.delete(np.arange(36), [8, 13, 18, 23])
"""Where the digits of a UUID stand; between them are dashes."""


def is_binary(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of bytes, of any lengths and layout."""
    kinds = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(is_one(kind) for is_one in kinds)


def texts_of_bytes(values: pa.Array, place: str) -> pa.Array:
    """Bytes as text: those of UUIDs, where every value has 16, as these are written, all others as UTF-8.

    Raises:
        DataError: They are neither.
    """
    values = values.cast(pa.large_binary())
    if len(values) > values.null_count and pc.all(pc.equal(pc.binary_length(values), _LENGTH)).as_py():
        return _uuids(values)
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        found = "found bytes that are no UTF-8; write them as text"
        raise DataError(place, f"bytes must be UTF-8, or the 16 of a UUID in every row, {found}") from None


def _uuids(values: pa.Array) -> pa.Array:
    held = pc.fill_null(values, bytes(_LENGTH)).cast(pa.binary(_LENGTH))
    raw = np.frombuffer(held.buffers()[1], np.uint8)[held.offset * _LENGTH :][: len(held) * _LENGTH]
    text = np.full((len(held), 36), ord("-"), np.uint8)
    text[:, _PLACES] = _DIGITS[np.stack([raw >> 4, raw & 15], 1)].reshape(len(held), -1)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    return pa.array(text.view("S36").ravel(), pa.large_binary(), mask=missing).cast(pa.large_string())
