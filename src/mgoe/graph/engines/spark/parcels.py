"""Arrays as rows of Spark: a row is a parcel of named arrays, each as its bytes, so a block of nodes is one
row.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA = "number bigint, arrays array<struct<name string, dtype string, shape array<bigint>, data binary>>"
"""Of a parcel, in the words of Spark. `number` is the work behind it: events of folded pairs, pairs of a
block.
"""
_ARRAY = pa.struct(
    [("name", pa.string()), ("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.binary())]
)
_PARCEL = pa.schema([("number", pa.int64()), ("arrays", pa.list_(_ARRAY))])


def parcel(number: int, arrays: Mapping[str, NDArray]) -> pa.RecordBatch:
    """Return one row of arrays."""
    held = [
        {
            "name": name,
            "dtype": array.dtype.str,
            "shape": array.shape,
            "data": np.ascontiguousarray(array).tobytes(),
        }
        for name, array in arrays.items()
    ]
    return pa.RecordBatch.from_arrays(
        [pa.array([number], pa.int64()), pa.array([held], pa.list_(_ARRAY))], schema=_PARCEL
    )


def opened(parcels: pa.Table) -> Iterator[tuple[int, dict[str, NDArray]]]:
    """Yield the number and the arrays of each parcel, in order; arrays are views of the table."""
    for batch in parcels.to_batches():
        for number, arrays in zip(batch.column("number").to_pylist(), batch.column("arrays"), strict=True):
            held: Any = arrays.values
            named = zip(*(held.field(part) for part in ("name", "dtype", "shape", "data")), strict=True)
            yield (
                number,
                {
                    name.as_py(): _view(data.as_buffer(), dtype.as_py(), shape.as_py())
                    for name, dtype, shape, data in named
                },
            )


def opened_row(row: Any) -> tuple[int, dict[str, NDArray]]:
    """Return number and arrays of one row of `DataFrame.toLocalIterator`."""
    return row.number, {array.name: _view(array.data, array.dtype, array.shape) for array in row.arrays}


def _view(data: Any, dtype: str, shape: list[int]) -> NDArray:
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
