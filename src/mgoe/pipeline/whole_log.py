"""A whole log as numbered history, without examples. Nothing here loads torch before it is needed."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import ibis.expr.types as ir

from mgoe._util.files import GIB
from mgoe._util.tables import Frame, bounded
from mgoe.config import RunSettings
from mgoe.data import (
    FeatureEncoders,
    WholeLog,
    as_table,
    connect,
    on_a_cluster,
    open_log,
    open_on_spark,
    place_of,
    read_rows,
    whole_log,
)
from mgoe.data.columns import Table
from mgoe.data.log import LOG_SHARE, reading
from mgoe.errors import DataError
from mgoe.graph import (
    Spent,
    peak_memory,
)

logger = logging.getLogger(__name__)

OpenedRows = tuple[Table, str]
"""Rows of a log, as `read_rows` returns them, and what they are, for messages."""


@contextmanager
def numbered_log(
    settings: RunSettings,
    opened: AbstractContextManager[OpenedRows],
    folder: Path,
    known: Mapping[str, Path] | None,
    encoders: FeatureEncoders | None = None,
) -> Iterator[tuple[WholeLog, dict[str, Spent]]]:
    """Yield a log as numbered history, and what the numbering took.

    Args:
        settings: How the log is read.
        opened: Yields its rows.
        folder: Folder of the history. It is removed when the block succeeds or the log breaks a rule;
            otherwise it stays, so that an interrupted build finds it again.
        known: Vocabularies that are continued, by node.
        encoders: Encoders of the context that are continued.

    Raises:
        DataError: The log cannot be read or breaks a rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logger.info("reading and numbering the log")
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            with peak_memory() as peak:
                rows, place = stack.enter_context(opened)
                with reading(place):
                    found = whole_log(rows, settings, folder, place, known, encoders)
            took = Spent(time.perf_counter() - started, peak[0] / GIB)
            logger.info(
                f"  {found.facts['events']:,} events, {found.counts['user']:,} users, "
                f"{found.counts['item']:,} items in {took.seconds:.1f} s"
            )
            yield found, {"ids": took}
    except DataError:  # nothing can resume from it
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def vocabularies(folder: Path) -> dict[str, Path]:
    """Return the files of the ids of users and items in a folder, by their names."""
    return {name: folder / name for name in ("users.parquet", "items.parquet")}


@contextmanager
def opened_rows(
    settings: RunSettings, log: Sequence[str], folder: Path, table: Frame | None
) -> Iterator[OpenedRows]:
    """Yield the rows of a log or a table; arguments as of `opened_log`.

    Raises:
        DataError: The log cannot be read, or a row breaks a rule.
    """
    place = "the table" if table is not None else place_of(log)
    with opened_log(settings, log, folder, None if table is None else as_table(table)) as source:
        with reading(place):
            rows, _ = read_rows(source, settings, place)
        yield rows, place


@contextmanager
def opened_log(
    settings: RunSettings, log: Sequence[str], folder: Path, table: ir.Table | None
) -> Iterator[ir.Table]:
    """Yield the table, or the log: on Spark if it is Parquet and the graph is built there, else on DuckDB.

    Args:
        settings: How the log is read; `graph.engine`, `memory` and `spark`.
        log: Its files.
        folder: An existing folder for what does not fit in memory.
        table: Yielded instead of the files.
    """
    memory = settings.memory * LOG_SHARE
    if table is not None:
        with bounded(table.get_backend(), memory):
            yield table
    elif settings.graph.engine == "spark" and on_a_cluster(log):
        from mgoe.data.spark import running_backend, spark_errors

        shutil.rmtree(folder / "spark", ignore_errors=True)  # of a build that was killed
        with (
            running_backend(settings.spark, folder / "spark", settings.memory) as backend,
            spark_errors("fix the log, or name another"),
        ):
            yield open_on_spark(backend, log)
    else:
        (folder / "work.duckdb").unlink(missing_ok=True)
        con = connect(folder, memory, settings.data.timezone)
        try:
            yield open_log(con, log, ids=settings.data.ids)
        finally:
            con.disconnect()
