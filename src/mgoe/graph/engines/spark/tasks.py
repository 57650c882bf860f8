"""What Spark's workers run: functions from Arrow batches to Arrow batches, with the folds and readings of one
process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.graph.engines.spark.carry import located, sweep, unpack
from mgoe.graph.engines.spark.parcels import parcel
from mgoe.graph.fold import FoldedPairs, fold, whole_pairs
from mgoe.graph.pair_rows import PairRows, Reading, by_item_arrays, some_by_item


@dataclass(frozen=True)
class FoldEvents:
    """Turns events of whole pairs, in order, into parcels of folded pairs of all snapshots.

    Attributes:
        ends: Of `SnapshotCuts`.
        tasks: T.
    """

    ends: NDArray[np.int64]
    tasks: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one parcel per chunk; its number is that of the events."""
        for keys, events in whole_pairs(batches):
            folded = fold(keys, events, self.ends, self.tasks)
            yield parcel(
                len(keys),
                {
                    f"{s}.{name}": column
                    for s, pairs in enumerate(folded)
                    for name, column in pairs._asdict().items()
                },
            )


def folded_pairs(arrays: dict[str, NDArray]) -> list[FoldedPairs]:
    """Return the pairs of every snapshot from a parcel of `FoldEvents`."""
    names = FoldedPairs._fields
    return [FoldedPairs(*(arrays[f"{s}.{name}"] for name in names)) for s in range(len(arrays) // len(names))]


@dataclass(frozen=True)
class ReadEvents:
    """Turns numbers of parts into their events, from a Parquet file that the driver sent.

    Attributes:
        name: Of the file.
        parts: Number of row groups of each; the last may have fewer.
        groups: Number of row groups of the file.
    """

    name: str
    parts: int
    groups: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield `key` and `event`; see `packed`."""
        with pq.ParquetFile(located(self.name)) as file:
            for part in _numbers(batches):
                groups = range(part * self.parts, min((part + 1) * self.parts, self.groups))
                yield from file.iter_batches(row_groups=list(groups), columns=["key", "event"])


@dataclass(frozen=True)
class ReadBlocks:
    """Turns numbers of blocks into parcels of what a reading makes of them; a parcel's number is that of the
    pairs.

    Attributes:
        rows: All pairs by the side that is read.
        reading: Makes arrays of a block.
        cuts: First node of each block, and the end of the last. Shape (blocks + 1,).
        live: See `Carrier.live`.
    """

    rows: PairRows
    reading: Reading
    cuts: NDArray[np.int64]
    live: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield parcels in the order of the blocks."""
        sweep(self.live)
        here = unpack(self)
        for number in _numbers(batches):
            yield from here.parcels(int(here.cuts[number]), int(here.cuts[number + 1]))

    def parcels(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield the parcels of nodes `first` to `last - 1`."""
        block = self.rows.block(first, last)
        yield parcel(len(block.other), self.reading(block))


@dataclass(frozen=True)
class SortBlocks(ReadBlocks):
    """Does the same by item from rows by user; each part of the items is collected in one pass over all
    pairs.

    A parcel holds the pairs of its block too: `by_item.user` and `by_item.task_mask`.

    Attributes:
        item_indptr: Where each item's pairs start. Shape (I + 1,).
    """

    item_indptr: NDArray[np.int64]

    def parcels(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield the parcels of items `first` to `last - 1`, in blocks that fit in memory."""
        for block in some_by_item(self.rows, self.item_indptr, first, last):
            yield parcel(len(block.other), self.reading(block) | by_item_arrays(block))


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()
