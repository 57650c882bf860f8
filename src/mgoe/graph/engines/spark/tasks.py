"""What Spark's workers run: functions from Arrow batches to Arrow batches, with the folds and readings of one
process.

A row of what comes back is a parcel: what was made of a chunk of events or of a block of nodes, pickled.
"""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.graph.engines.spark.carry import located, sweep
from mgoe.graph.fold import fold, whole_pairs
from mgoe.graph.pair_rows import by_item_arrays, some_by_item

SCHEMA = "number bigint, made binary"
"""Columns of a parcel, in the words of Spark. `number` is the work behind it: events of folded pairs, pairs
of a block.
"""


def parcel(number: int, made: object) -> pa.RecordBatch:
    """Return one row of what was made."""
    data = pickle.dumps(made, pickle.HIGHEST_PROTOCOL)
    return pa.record_batch({"number": pa.array([number], pa.int64()), "made": pa.array([data], pa.binary())})


def opened(parcels: pa.Table) -> Iterator[tuple[int, Any]]:
    """Yield the number and the content of each parcel, in order."""
    for number, made in zip(parcels["number"], parcels["made"], strict=True):
        yield number.as_py(), pickle.loads(made.as_buffer())


def fold_events(
    batches: Iterable[pa.RecordBatch], ends: NDArray[np.int64], tasks: int
) -> Iterator[pa.RecordBatch]:
    """Turn events of whole pairs, in order, into parcels of the folded pairs of all snapshots.

    Args:
        batches: Of the events.
        ends: Of `SnapshotCuts`.
        tasks: T.

    Yields:
        One parcel per chunk; its number is that of the events.
    """
    for keys, events in whole_pairs(batches):
        yield parcel(len(keys), fold(keys, events, ends, tasks))


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


def read_blocks(batches: Iterable[pa.RecordBatch], packed: bytes, live: str) -> Iterator[pa.RecordBatch]:
    """Turn numbers of blocks into parcels of what a reading makes of them.

    Args:
        batches: Of the numbers.
        packed: By `Carrier.pack`: all pairs by the side that is read; the reading; the first node of each
            block, and the end of the last, shape (blocks + 1,); and where each item's pairs start, shape (I +
            1,), if items are read from rows by user, else None. Each block is then collected in one pass over
            all pairs, and read in parts that fit in memory. A parcel holds the pairs of its part too:
            `by_item.user` and `by_item.task_mask`.
        live: See `Carrier.live`.

    Yields:
        Parcels in the order of the blocks; a parcel's number is that of the pairs.
    """
    sweep(live)
    rows, reading, cuts, item_indptr = pickle.loads(packed)
    for number in _numbers(batches):
        first, last = int(cuts[number]), int(cuts[number + 1])
        by_user = item_indptr is None
        for block in [rows.block(first, last)] if by_user else some_by_item(rows, item_indptr, first, last):
            yield parcel(len(block.other), reading(block) | ({} if by_user else by_item_arrays(block)))


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()
