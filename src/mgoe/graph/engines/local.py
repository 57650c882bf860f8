"""The engine of a build: where its pairs are sorted, and where its readings run. By default in this process.

There DuckDB sorts events and spills what its memory cannot hold; readings run on threads.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import ibis.expr.types as ir
from numpy.typing import NDArray

from mgoe._util.files import GIB
from mgoe._util.prefetch import in_turn, prefetched
from mgoe._util.tables import batches, bounded
from mgoe.graph.build.workplace import Advance
from mgoe.graph.fold import SnapshotCuts, fold, in_order, pairs_writer, whole_pairs
from mgoe.graph.pair_rows import PairRows, Reading, Side, available_threads, write_by_item

SORT_SHARE, BY_ITEM_SHARE = 0.75, 0.25
"""Shares of the memory: for DuckDB while it sorts, and for collecting pairs by item."""


class Engine:
    """Sorts pairs, and runs readings over them: on this machine, out of core, on a thread per processor.

    `Spark` does the same on a cluster.

    Args:
        memory: Limit of anonymous memory, in GiB.
    """

    name = "local"

    def __init__(self, memory: float):
        self.memory, self.threads = memory, available_threads()

    def write_pairs(
        self, history: ir.Table, cuts: SnapshotCuts, tasks: int, folders: list[Path], advance: Advance
    ) -> None:
        """Fold the history into the pairs of every snapshot, by user.

        DuckDB sorts the events, and merges the next chunk while one is folded.
        """
        with (
            bounded(history.get_backend(), self.memory * SORT_SHARE, self.threads),
            closing(prefetched(whole_pairs(batches(in_order(history))))) as chunks,
            pairs_writer(folders, cuts) as append,
        ):
            for keys, events in chunks:
                append(fold(keys, events, cuts.ends, tasks))
                advance(len(keys))

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
