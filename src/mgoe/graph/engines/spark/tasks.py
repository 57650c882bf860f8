"""What Spark's workers run: functions from Arrow batches to Arrow batches, with the folds and readings of one
process.

A row of what comes back is a parcel of named arrays, each as its bytes, so a block of nodes is one row.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.graph.engines.spark.carry import located, sweep, unpack
from mgoe.graph.fold import CHUNK, Folded, fold, in_chunks, joined, unpacked
from mgoe.graph.pair_rows import PairColumns, PairRows, Reading, by_item_arrays, some_by_item

SCHEMA = "number bigint, arrays array<struct<name string, dtype string, shape array<bigint>, data binary>>"
"""Columns of a parcel, in the words of Spark. `number` is the work behind it: events of folded pairs, pairs
of a block.
"""
_ARRAY = pa.struct(
    [("name", pa.string()), ("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.binary())]
)


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
    return pa.record_batch(
        {"number": pa.array([number], pa.int64()), "arrays": pa.array([held], pa.list_(_ARRAY))}
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


def fold_events(
    batches: Iterable[pa.RecordBatch], ends: NDArray[np.int64], tasks: int
) -> Iterator[pa.RecordBatch]:
    """Turn events of whole pairs, in order, into parcels of folded pairs of all snapshots.

    Args:
        batches: Of the events.
        ends: Of `SnapshotCuts`.
        tasks: T.

    Yields:
        One parcel per chunk; its number is that of the events.
    """
    part = [*map(unpacked, batches)]
    for keys, events in in_chunks([joined(part)] if part else [], CHUNK):
        yield parcel(
            len(keys),
            {
                f"{s}.{name}": column
                for s, (user, pairs) in enumerate(fold(keys, events, ends, tasks))
                for name, column in (("user", user), *pairs._asdict().items())
            },
        )


def folded_pairs(arrays: dict[str, NDArray]) -> list[Folded]:
    """Return the pairs of every snapshot from a parcel of `fold_events`."""
    names = PairColumns._fields
    return [
        (arrays[f"{s}.user"], PairColumns(*(arrays[f"{s}.{name}"] for name in names)))
        for s in range(len(arrays) // (1 + len(names)))
    ]


def read_events(
    batches: Iterable[pa.RecordBatch], name: str, parts: int, groups: int
) -> Iterator[pa.RecordBatch]:
    """Turn numbers of parts into their events, from a Parquet file that the driver sent.

    Args:
        batches: Of the numbers.
        name: Of the file.
        parts: Number of row groups of each part; the last may have fewer.
        groups: Number of row groups of the file.

    Yields:
        `key` and `event`; see `packed`.
    """
    with pq.ParquetFile(located(name)) as file:
        for part in _numbers(batches):
            here = list(range(part * parts, min((part + 1) * parts, groups)))
            yield from file.iter_batches(row_groups=here, columns=["key", "event"])


def read_blocks(
    batches: Iterable[pa.RecordBatch],
    rows: PairRows,
    reading: Reading,
    cuts: NDArray[np.int64],
    live: str,
    item_indptr: NDArray[np.int64] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Turn numbers of blocks into parcels of what a reading makes of them.

    Args:
        batches: Of the numbers.
        rows: All pairs by the side that is read. This and the following as `Carrier.pack` sent them.
        reading: Makes arrays of a block.
        cuts: First node of each block, and the end of the last. Shape (blocks + 1,).
        live: See `Carrier.live`.
        item_indptr: Where each item's pairs start, if items are read from rows by user: each block is then
            collected in one pass over all pairs, and read in parts that fit in memory. A parcel holds the
            pairs of its part too: `by_item.user` and `by_item.task_mask`. Shape (I + 1,).

    Yields:
        Parcels in the order of the blocks; a parcel's number is that of the pairs.
    """
    sweep(live)
    rows, reading, cuts, item_indptr = unpack((rows, reading, cuts, item_indptr))
    for number in _numbers(batches):
        first, last = int(cuts[number]), int(cuts[number + 1])
        by_user = item_indptr is None
        for block in [rows.block(first, last)] if by_user else some_by_item(rows, item_indptr, first, last):
            yield parcel(len(block.other), reading(block) | ({} if by_user else by_item_arrays(block)))


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()
