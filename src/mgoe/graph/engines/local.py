"""The engine of a build: where its pairs are sorted, and where its readings run. By default in this process.

There events are sorted through files, and readings run on threads.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.files import GIB
from mgoe._util.prefetch import in_turn
from mgoe._util.tables import batches, bounded
from mgoe.graph.build.workplace import Advance
from mgoe.graph.event_sort import sorted_events
from mgoe.graph.fold import (
    CHUNK,
    Events,
    Folded,
    SnapshotCuts,
    fold,
    in_chunks,
    pack,
    packed,
    pairs_writer,
    unpacked,
)
from mgoe.graph.pair_rows import PairRows, Reading, Side, available_threads, write_by_item

SORT_SHARE, BY_ITEM_SHARE = 0.75, 0.25
"""Shares of the memory: for DuckDB and for sorting events, and for collecting pairs by item."""

Batches = Callable[[int], Iterator[pa.RecordBatch]]
"""Yields a history in batches, read on so many threads."""


class Engine:
    """Sorts pairs, and runs readings over them: on this machine, out of core, on a thread per processor.

    `Spark` does the same on a cluster.

    Args:
        folder: Of the graph being built.
        memory: Limit of anonymous memory, in GiB.
    """

    name = "local"

    def __init__(self, folder: Path, memory: float):
        self.folder, self.memory, self.threads = folder, memory, available_threads()

    def write_pairs(
        self,
        history: ir.Table,
        cuts: SnapshotCuts,
        tasks: int,
        folders: list[Path],
        advance: Advance,
        rows: Batches | None = None,
    ) -> None:
        """Fold the history into the pairs of every snapshot, by user.

        Its own engine reads it, in any order, or `rows` does, on so many threads.
        """

        def folded(chunk: Events) -> tuple[int, list[Folded]]:
            return len(chunk[0]), fold(*chunk, cuts.ends, tasks)

        memory, nodes = self.memory * SORT_SHARE, (int(cuts.users[-1]), int(cuts.items[-1]))
        with (
            bounded(history.get_backend(), memory, self.threads),
            closing(
                sorted_events(
                    map(pack, rows(self.threads)) if rows else map(unpacked, batches(packed(history))),
                    *nodes,
                    self.folder,
                    int(memory * GIB),
                    self.threads,
                )
            ) as ranges,
            closing(
                in_turn(folded, in_chunks(ranges, -(-CHUNK // len(cuts))), self.threads, self.threads + 1)
            ) as found,
            pairs_writer(folders, cuts) as append,
        ):
            for number, pairs in found:
                append(pairs)
                advance(number)

    def sort_by_item(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Sort the pairs of a snapshot by item, and yield what a reading makes of every block on the way.

        Only here does a block by item hold times.
        """
        rows, item_indptr = PairRows.by_user(snapshot), PairRows.item_indptr(snapshot)
        blocks = write_by_item(work, rows, item_indptr, int(self.memory * BY_ITEM_SHARE * GIB), self.threads)
        return self._map(blocks, reading, advance)

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order. Items are read without times."""
        rows = PairRows.by_user(snapshot) if side == "user" else PairRows.by_item(work)
        return self._map(rows.blocks(), reading, advance)

    def _map(
        self, blocks: Iterable[PairRows], reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Read blocks on threads, at most one more at once than there are threads."""

        def read(block: PairRows) -> tuple[int, dict[str, NDArray]]:
            return len(block.other), reading(block)

        for pairs, arrays in in_turn(read, blocks, self.threads, self.threads + 1):
            advance(pairs)
            yield arrays
