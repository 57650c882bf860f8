"""The engine of a preparation: where rows are checked, kept and sorted. By default DuckDB, here."""

from pathlib import Path

import numpy as np
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.files import as_pattern
from mgoe._util.tables import Frame
from mgoe.config import RunSettings
from mgoe.data.columns import Table
from mgoe.data.events import write_event_examples
from mgoe.data.example_file import ExampleWriter
from mgoe.data.exposures import write_exposure_examples
from mgoe.data.features import FeatureEncoders
from mgoe.data.log import drop, open_source
from mgoe.data.schema import read_rows


class Engine:
    """Runs a preparation on DuckDB. `Spark` does the same on a cluster.

    Args:
        con: The work database, which reads side tables for every engine.
        settings: Settings of the run.
        folder: The prepared folder.
    """

    def __init__(self, con: Backend, settings: RunSettings, folder: Path):
        self.con, self.settings, self.folder = con, settings, folder

    def source(self, table: Frame | None) -> Table:
        """Return the log that settings name, or a table instead."""
        return open_source(self.con, self.settings.data, table)

    def read(self, source: Table, place: str) -> tuple[Table, int]:
        """Check every row of the log; arguments, result and errors as of `read_rows`."""
        return read_rows(source, self.settings, place, self.con)

    def keep(self, name: str, rows: Table) -> Table:
        """Compute rows that are read several times, and return them as a table."""
        return self.con.create_table(name, rows)

    def drop(self, name: str) -> None:
        """Free the rows that were kept under a name."""
        drop(self.con, name)

    def write(self, name: str, ordered: Table) -> Table:
        """Write rows to a file of the prepared folder, in their order, and return them as a table."""
        ordered.to_parquet(self.folder / name, compression="zstd")
        return self.opened(name)

    def opened(self, name: str) -> Table:
        """Return a file of the prepared folder as a table."""
        return self.con.read_parquet(as_pattern(self.folder / name))

    def write_events(
        self,
        found: Table,
        buckets: NDArray[np.int64],
        counts: NDArray[np.int64],
        first: int,
        cuts: NDArray[np.int32],
    ) -> None:
        """Write the examples of every split of an event log; arguments as of `write_event_examples`."""
        with self._writer(cuts) as writer:
            write_event_examples(found, buckets, counts, first, cuts, self.settings, writer)

    def write_exposures(
        self, rows: Table, context: FeatureEncoders, first: int, cuts: NDArray[np.int32]
    ) -> None:
        """Write the examples of every split of an exposure log; arguments as of `write_exposure_examples`."""
        with self._writer(cuts) as writer:
            write_exposure_examples(rows, self.settings, first, context, writer)

    def _writer(self, cuts: NDArray[np.int32]) -> ExampleWriter:
        return ExampleWriter(self.folder, cuts, self.settings.tasks, self.settings.split.test_windows)
