"""The engine of a preparation on Spark: the same expressions as on DuckDB, by the DataFrame API alone.

Rows that are kept are Parquet files in the work folder. The order of a file is that of its sorted partitions:
each is written as a shard by the worker that has it, and shards are numbered in the order of partitions. So
the rows of all shards are those of the local engine's file, whatever the partitions.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import numpy as np
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.tables import Frame, hand_over, spark_frame
from mgoe.config import RunSettings
from mgoe.data.columns import Expr, Table
from mgoe.data.engines.local import Engine
from mgoe.data.engines.shards import (
    SCHEMA,
    Make,
    event_examples,
    exposure_examples,
    rows_as_they_are,
    write_shard,
)
from mgoe.data.examples import Split
from mgoe.data.exposures import in_order, with_lengths
from mgoe.data.features import FeatureEncoders
from mgoe.data.log import as_table, on_a_cluster, open_on_spark
from mgoe.data.schema import read_rows
from mgoe.data.spark import running_backend, spark_errors
from mgoe.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FIX = "fix the cluster or its disks, and give the same command again"


@contextmanager
def on_spark(con: Backend, settings: RunSettings, folder: Path, work: Path) -> Iterator["Spark"]:
    """Yield the engine on the session that runs in this process, or on one that stops afterwards.

    Args:
        con, settings, folder, work: As of `Spark`.

    Raises:
        MgoeError: Spark does not start, or one of its tasks failed.
    """
    running = running_backend(settings.spark, work / "spark", settings.memory)
    with running as backend, spark_errors(FIX):
        yield Spark(con, settings, folder, work, backend)


class Spark(Engine):
    """Runs a preparation on a cluster.

    Args:
        con: The work database, which reads side tables.
        settings: Settings of the run.
        folder: The prepared folder, on a path that the workers share.
        work: An existing folder in it, for what is kept.
        backend: Spark as an Ibis backend.
    """

    def __init__(
        self, con: Backend, settings: RunSettings, folder: Path, work: Path, backend: ibis.BaseBackend
    ):
        super().__init__(con, settings, folder.resolve())
        self.work, self.backend = work.resolve(), backend

    def source(self, table: Frame | None) -> Table:
        """Return the log that settings name, or a table of this session, or a copy of another one."""
        if table is None:
            log = self.settings.data.log
            if not on_a_cluster(log):
                raise DataError(
                    "data.engine",
                    f"Spark prepares logs in Parquet, found a CSV in {log[0]}; write it as Parquet, or set "
                    "data.engine: local",
                )
            return open_on_spark(self.backend, log)
        rows = as_table(table)
        if rows.get_backend().name != "pyspark":
            return hand_over(self.backend, "log", rows.to_pyarrow())
        spark_frame(rows).createOrReplaceTempView("mgoe_log")
        return self.backend.table("mgoe_log")

    def read(self, source: Table, place: str) -> tuple[Table, int]:
        """Check every row of the log where it is stored; rows have no numbers in messages."""
        return read_rows(source, self.settings, place)

    def keep(self, name: str, rows: Table) -> Table:
        """Compute rows that are read several times, and return them as a table."""
        spark_frame(rows).write.parquet(f"file://{self.work / name}")
        return self._read(self.work / name)

    def drop(self, name: str) -> None:
        """Free the rows that were kept under a name, if some were."""
        shutil.rmtree(self.work / name, ignore_errors=True)

    def write(self, name: str, ordered: Table) -> Table:
        """Write rows to shards of the prepared folder, in their order, and return them as a table."""
        self._write_shards(name, spark_frame(ordered), rows_as_they_are)
        return self.opened(name) if (self.folder / name).exists() else ordered

    def opened(self, name: str) -> Table:
        """Return shards of the prepared folder as a table."""
        return self._read(self.folder / name)

    def write_events(
        self,
        found: Table,
        buckets: NDArray[np.int64],
        counts: NDArray[np.int64],
        first: int,
        cuts: NDArray[np.int32],
    ) -> None:
        """Write the examples of every split of an event log, a partition of whole buckets per shard."""
        drawn = self.settings.negatives
        for split, held in self._splits(found, first, cuts).items():
            rows = spark_frame(found.filter(held)).repartitionByRange("bucket")
            sampling = drawn.of_training if split == "train" else drawn
            given = {"settings": sampling, "cuts": cuts, "tasks": self.settings.tasks}
            make = partial(event_examples, **given, data=self.settings.data)
            self._write_shards(f"{split}.parquet", rows.sortWithinPartitions("bucket", "user", "item"), make)

    def write_exposures(
        self, rows: Table, context: FeatureEncoders, first: int, cuts: NDArray[np.int32]
    ) -> None:
        """Write the examples of every split of an exposure log, a partition per shard."""
        context = with_lengths(rows.filter(rows.bucket > first), context)
        make = partial(exposure_examples, context=context, cuts=cuts, tasks=self.settings.tasks)
        for split, held in self._splits(rows, first, cuts).items():
            ordered = in_order(rows.filter(held), self.settings)
            self._write_shards(f"{split}.parquet", spark_frame(ordered), make)

    def _splits(self, rows: Table, first: int, cuts: NDArray[np.int32]) -> dict[Split, Expr]:
        """Return whether a row is of a split, by its bucket."""
        before, valid = (int(cuts[self.settings.split.valid_window + k]) for k in (0, 1))
        return {
            "train": (rows.bucket > first) & (rows.bucket <= before),
            "valid": (rows.bucket > before) & (rows.bucket <= valid),
            "test": rows.bucket > valid,
        }

    def _write_shards(self, name: str, ordered: "DataFrame", make: Make) -> None:
        """Write what is made of each partition as a shard, and number shards in the order of partitions."""
        unfinished = self.work / name
        unfinished.mkdir()
        write = partial(write_shard, folder=unfinished, make=make)
        written = sorted(map(tuple, ordered.mapInArrow(write, SCHEMA).collect()))
        for shard, (_, file) in enumerate(written):
            (self.folder / name).mkdir(exist_ok=True)
            (unfinished / file).rename(self.folder / name / f"part-{shard:05d}.parquet")

    def _read(self, path: Path) -> Table:
        return self.backend.read_parquet(f"file://{path}")  # type: ignore[attr-defined]
