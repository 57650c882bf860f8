"""The engine in this process: DuckDB sorts events and spills what its memory cannot hold; readings run on
threads.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import ibis.expr.types as ir
from numpy.typing import NDArray

from mgoe._util.files import GIB
from mgoe._util.prefetch import prefetched
from mgoe._util.tables import batches, bounded
from mgoe.graph.build.stages import Advance
from mgoe.graph.fold import PairsWriter, SnapshotCuts, fold, in_order, whole_pairs
from mgoe.graph.pair_rows import PairRows, Reading, Side, available_threads, write_by_item

SORT_SHARE, BY_ITEM_SHARE = 0.75, 0.25
"""Shares of the memory: for DuckDB while it sorts, and for collecting pairs by item."""


class Local:
    """Builds on one machine, out of core, on as many threads as it has processors.

    Args:
        memory: Limit of anonymous memory, in GiB.
    """

    name = "local"

    def __init__(self, memory: float):
        self.memory, self.threads = memory, available_threads()

    def write_pairs(
        self, history: ir.Table, cuts: SnapshotCuts, tasks: int, folders: list[Path], advance: Advance
    ) -> None:
        """Sort the events and fold them. DuckDB merges the next chunk while one is folded."""
        with (
            bounded(history.get_backend(), self.memory * SORT_SHARE, self.threads),
            closing(prefetched(whole_pairs(batches(in_order(history))))) as chunks,
            PairsWriter(folders, cuts) as out,
        ):
            for keys, events in chunks:
                out.append(fold(keys, events, cuts.ends, tasks))
                advance(len(keys))

    def sort_by_item(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Sort the pairs of a snapshot by item, and yield what a reading makes of every block on the way."""
        rows, item_indptr = PairRows.by_user(snapshot), PairRows.item_indptr(snapshot)
        memory = int(self.memory * BY_ITEM_SHARE * GIB)
        blocks = write_by_item(work, rows, item_indptr, memory, self.threads)
        yield from self._map(blocks, reading, advance)

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order. Items are read without times."""
        rows = PairRows.by_user(snapshot) if side == "user" else PairRows.by_item(work)
        yield from self._map(rows.blocks(), reading, advance)

    def _map(
        self, blocks: Iterable[PairRows], reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Read blocks on threads, at most one more at once than there are threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[tuple[Future[dict[str, NDArray]], int]] = deque()
            for block in blocks:
                waiting.append((pool.submit(reading, block), len(block.other)))
                if len(waiting) > self.threads:
                    yield _finished(*waiting.popleft(), advance)
            while waiting:
                yield _finished(*waiting.popleft(), advance)


def _finished(future: Future[dict[str, NDArray]], pairs: int, advance: Advance) -> dict[str, NDArray]:
    arrays = future.result()
    advance(pairs)
    return arrays
