"""The engine on Spark.

The log is sorted and folded where it is stored, by ranges of pairs. The pairs of all snapshots come to the
building process in order, part by part, and it writes the same files as the local engine. Workers read these
files: a job is a run of blocks, a task is a block, and the results of the readings come back in order. So a
build that was killed resumes from its files, on either engine.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder
from mgoe._util.files import GIB
from mgoe._util.prefetch import in_turn
from mgoe._util.tables import bounded
from mgoe.config import SparkSettings
from mgoe.data.spark import close_session, import_pyspark, open_session, spark_errors
from mgoe.graph.build.workplace import Advance
from mgoe.graph.engines.local import Batches, Engine
from mgoe.graph.engines.spark.carry import Carrier
from mgoe.graph.engines.spark.tasks import (
    SCHEMA,
    fold_events,
    folded_pairs,
    opened,
    opened_row,
    read_blocks,
    read_events,
)
from mgoe.graph.fold import SnapshotCuts, packed, pairs_writer
from mgoe.graph.pair_rows import (
    BLOCK_NODES,
    BLOCK_PAIRS,
    BYTES_PER_PAIR,
    PairRows,
    Reading,
    Side,
    block_bounds,
    by_item_arrays,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS_PER_PART = 1 << 22
"""Most pairs of all snapshots in a task, counting one per event and snapshot. A task sorts so many events,
and Spark's own process on this machine holds the results of two tasks while they are written.
"""
RESULT_BYTES = 1 << 24
"""Size of a reading's result, about 512 bytes per node."""
RESULT_SHARE, BY_ITEM_SHARE, EXPORT_SHARE = 0.125, 0.25, 0.5
"""Shares of the memory: results of one job (another is on its way), pairs by item of all parallel tasks, and
DuckDB while it writes a log.
"""
RESUME = "the same command resumes after the last stage that was done"


class Spark(Engine, AbstractContextManager["Spark"]):
    """Builds on a cluster, or on the cores of one machine.

    Args:
        folder: Of the graph being built.
        settings: The cluster.
        memory: Limit of anonymous memory of this machine, in GiB.

    Raises:
        MissingExtra: PySpark is not installed.
    """

    name = "spark"

    def __init__(self, folder: Path, settings: SparkSettings, memory: float):
        import_pyspark()
        super().__init__(folder, memory)
        self.settings, self.spill = settings, folder / "spill"
        self._session: SparkSession | None = None
        self._own = False
        self._carrier: Carrier | None = None
        self._carried: Path | None = None

    def __exit__(self, *_: object) -> None:
        """Stop Spark if this engine started it, else remove what was sent to its workers."""
        if self._session is not None and self._own:
            close_session(self._session)
        elif self._carrier is not None:
            self._carrier.clear()
        self._session = self._carrier = None

    def write_pairs(
        self,
        history: ir.Table,
        cuts: SnapshotCuts,
        tasks: int,
        folders: list[Path],
        advance: Advance,
        rows: Batches | None = None,
    ) -> None:
        """Sort and fold the events on the cluster. A history elsewhere is first written to a file."""
        from pyspark import StorageLevel

        with spark_errors(RESUME):
            events = self._events(history)
            parts = max(self.cores, math.ceil(events.count() * len(cuts) / ROWS_PER_PART))
            ordered = events.repartitionByRange(parts, "key").sortWithinPartitions("key", "event")
            task = partial(fold_events, ends=cuts.ends, tasks=tasks)
            folded = ordered.mapInArrow(task, SCHEMA).persist(StorageLevel.DISK_ONLY)
            try:
                folded.count()  # all parts in parallel; the following takes one at a time
                with pairs_writer(folders, cuts) as append:
                    for number, arrays in map(opened_row, folded.toLocalIterator(prefetchPartitions=True)):
                        append(folded_pairs(arrays))
                        advance(number)
            finally:
                folded.unpersist()

    def sort_by_item(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Sort the pairs of a snapshot by item, and yield what a reading makes of every block on the way."""
        rows, starts = PairRows.by_user(snapshot), PairRows.item_indptr(snapshot)
        held = int(self.memory * BY_ITEM_SHARE * GIB) // (BYTES_PER_PAIR * self.cores)
        bounds = _bounds(starts, max(1, min(held, -(-int(starts[-1]) // self.cores))), len(starts))
        with ArrayFolder(work) as out:
            empty = by_item_arrays(rows.block(0, 0))
            out.append({"by_item.indptr": starts, **empty})
            for part in self._results(snapshot, rows, reading, bounds, advance, starts):
                out.append({name: part.pop(name) for name in empty})
                yield part

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order. Items are read without times."""
        rows = PairRows.by_user(snapshot) if side == "user" else PairRows.by_item(work)
        bounds = _bounds(rows.indptr, BLOCK_PAIRS, BLOCK_NODES)
        return self._results(snapshot, rows, reading, bounds, advance)

    def _results(
        self,
        snapshot: Path,
        rows: PairRows,
        reading: Reading,
        cuts: NDArray[np.int64],
        advance: Advance,
        item_indptr: NDArray[np.int64] | None = None,
    ) -> Iterator[dict[str, NDArray]]:
        """Yield what `read_blocks` makes of all blocks, in order. The next job runs while the results of one
        are taken.
        """
        carrier = self._carry(snapshot)
        task = carrier.pack(
            partial(
                read_blocks,
                rows=rows,
                reading=reading,
                cuts=cuts,
                live=carrier.live,
                item_indptr=item_indptr,
            )
        )
        blocks = len(cuts) - 1
        run = max(self.cores, int(self.memory * RESULT_SHARE * GIB) // RESULT_BYTES)

        def job(bounds: tuple[int, int]) -> pa.Table:
            return self.session.range(*bounds, 1, bounds[1] - bounds[0]).mapInArrow(task, SCHEMA).toArrow()

        with spark_errors(RESUME):
            for parcels in in_turn(job, pairwise([*range(0, blocks, run), blocks]), threads=2, most=2):
                for pairs, arrays in opened(parcels):
                    advance(pairs)
                    yield arrays

    def _events(self, history: ir.Table) -> DataFrame:
        """Return keys and events of a history; see `packed`."""
        backend: Any = history.get_backend()
        if backend.name == "pyspark":
            events = backend.raw_sql(backend.compile(packed(history)))
            self._session = self._session or events.sparkSession
            return events
        self.spill.mkdir(parents=True, exist_ok=True)
        file = self.spill / "history.parquet"
        with bounded(backend, self.memory * EXPORT_SHARE):
            packed(history).to_parquet(file)
        groups = pq.ParquetFile(file).metadata.num_row_groups
        per_part = max(1, groups // (4 * self.cores))
        name, parts = self._carry(None).file(file), -(-groups // per_part)
        read = partial(read_events, name=name, parts=per_part, groups=groups)
        return self.session.range(0, parts, 1, parts).mapInArrow(read, "key bigint, event bigint")

    @property
    def session(self) -> SparkSession:
        """The session, started when it is first needed."""
        if self._session is None:
            shutil.rmtree(self.spill / "spark", ignore_errors=True)  # of a build that was interrupted
            self._session, self._own = open_session(self.settings, self.spill / "spark", self.memory)
        return self._session

    @property
    def cores(self) -> int:
        """Number of tasks that run in parallel."""
        return max(1, self.session.sparkContext.defaultParallelism)

    def _carry(self, snapshot: Path | None) -> Carrier:
        """Return what sends arrays to the workers; those of the previous snapshot are dropped."""
        if self._carrier is None:
            self._carrier = Carrier(self.session.sparkContext)
        if snapshot != self._carried:
            self._carrier.clear()
            self._carried = snapshot
        return self._carrier


def _bounds(indptr: NDArray[np.int64], pairs: int, rows: int) -> NDArray[np.int64]:
    """Return the first node of each block, and the end of the last. Shape (blocks + 1,)."""
    return np.array([0, *(last for _, last in block_bounds(indptr, pairs, rows))])
