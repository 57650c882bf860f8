"""The engine in the process: DuckDB brings events in order and spills what its memory does not hold; readings run on threads."""

from __future__ import annotations

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

SORT_SHARE, TURN_SHARE = 0.75, 0.25
"""Of the memory: what DuckDB may take while it sorts, and what collects pairs by item."""


class Embedded:
    """Builds on one machine, out of core, on as many threads as it has processors.

    Args:
        memory: Limit of anonymous memory, GiB.
    """

    name = "embedded"

    def __init__(self, memory: float):
        self.memory, self.threads = memory, available_threads()

    def write_pairs(
        self, history: ir.Table, moments: SnapshotCuts, tasks: int, folders: list[Path], advance: Advance
    ) -> None:
        """Sort the events and fold them; see `fold`."""
        with (
            bounded(history.get_backend(), self.memory * SORT_SHARE, self.threads),
            closing(
                prefetched(whole_pairs(batches(in_order(history))))
            ) as chunks,  # the engine merges while the chunk before is folded
            PairsWriter(folders, moments) as out,
        ):
            for keys, events in chunks:
                out.append(fold(keys, events, moments.ends, tasks))
                advance(len(keys))

    def turn(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Bring the pairs of a snapshot in the order of item, with a reading of each block on the way, times included."""
        rows = PairRows.by_user(snapshot)
        indptr = PairRows.item_indptr(snapshot)
        blocks = write_by_item(work, rows, indptr, int(self.memory * TURN_SHARE * GIB), self.threads)
        yield from self._map(blocks, reading, advance)

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """A reading of every block of one side, in order. Items are read without times, once they were turned."""
        rows = PairRows.by_user(snapshot) if side == "user" else PairRows.by_item(work)
        yield from self._map(rows.blocks(), reading, advance)

    def _map(
        self, blocks: Iterable[PairRows], reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        waiting: deque[tuple[Future[dict[str, NDArray]], int]] = deque()

        def done() -> dict[str, NDArray]:
            future, pairs = waiting.popleft()
            result = future.result()
            advance(pairs)
            return result

        with ThreadPoolExecutor(self.threads) as pool:
            for block in blocks:
                waiting.append((pool.submit(reading, block), len(block.other)))
                if len(waiting) > self.threads:
                    yield done()
            while waiting:
                yield done()
