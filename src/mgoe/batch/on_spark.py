"""Score pairs, or recommend to users, on a Spark cluster: rows are read, scored and written there.

Every row has its place: files in the order of their names, rows as a file holds them. Spark brings together
the rows that one process would score at once, since matrix products of other shapes, or of the same rows in
another order, round differently. So the scores are those of one process bit for bit, however the table is
split, and the result has its order. Only DataFrames are used, which Spark Connect has too.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import ibis
import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from mgoe import __version__
from mgoe.batch.lists import lists
from mgoe.batch.pairs import scores
from mgoe.batch.parts import Work, check_jobs, cut, key_of, make_here, wanted_columns
from mgoe.bundle import Bundle
from mgoe.bundle.known_outcomes import SOME_PAIRS
from mgoe.config import SparkSettings
from mgoe.data.log import read_on_spark
from mgoe.data.spark import close_session, open_session, spark_errors
from mgoe.errors import BundleError, OutputError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PARTS_PER_TASK = 4
"""Parts that a task of Spark takes, one after the other."""
FIX = f"workers need mgoe {__version__} and must reach the files; then give the same command again"


def score_on_spark(
    bundle: Bundle, pairs: str, out: str, spark: SparkSettings, overwrite: bool = False
) -> int:
    """Score Parquet of pairs on a cluster, as `score_pairs` does in one process.

    Args:
        bundle: What scores; it is sent to each worker once.
        pairs: A file, folder or glob that workers reach too, or a URL that Spark reads.
        out: Folder or URL that Spark writes Parquet to.
        spark: The cluster; its workers have this version of mgoe.
        overwrite: Replace Parquet that is there.

    Returns:
        Number of rows that are written.

    Raises:
        ConfigError: The bundle has live events.
        DataError: The pairs cannot be read or lack a column.
        OutputError: Something is there already.
        SparkError: Spark does not start, or a task fails.
    """
    return _run(bundle, pairs, scores(), out, spark, overwrite)


def recommend_on_spark(
    bundle: Bundle, users: str, out: str, spark: SparkSettings, overwrite: bool = False, **wish: Any
) -> int:
    """Recommend to the users of Parquet on a cluster, as `recommend_users` does in one process.

    Arguments, result and errors are those of `score_on_spark`, and `wish` as for `Bundle.recommend`.
    """
    return _run(bundle, users, lists(bundle, wish), out, spark, overwrite)


def _run(bundle: Bundle, file: str, work: Work, out: str, spark: SparkSettings, overwrite: bool) -> int:
    with _in_parts(bundle, file, work, spark) as (frame, some, rows):
        wide = pa.decimal128(20)  # Spark has no unsigned integers
        fields = work.schema(bundle, some)
        schema = pa.schema(one.with_type(wide) if one.type == pa.uint64() else one for one in fields)
        return _write(bundle, frame, schema, partial(_task, work=work, rows=rows), out, overwrite)


@contextmanager
def _in_parts(
    bundle: Bundle, file: str, work: Work, spark: SparkSettings
) -> Iterator[tuple[DataFrame, pa.Table, int]]:
    """Yield the wanted columns in order, whole parts in each partition; the first rows; the number of all."""
    check_jobs(bundle, "spark", "engine")
    with tempfile.TemporaryDirectory(prefix="mgoe-") as folder:
        session, new = open_session(spark, Path(folder), bundle.settings.memory)
        try:
            with spark_errors(FIX):
                table = read_on_spark(session, [file], key_of(work.sides))
                columns = wanted_columns(bundle, ibis.memtable(table.limit(0).toArrow()), file, work.sides)
                names = [f"`{name.replace('`', '``')}`" for name in columns]
                frame, rows = _placed(table, names, work.size)
                yield frame, table.selectExpr(*names).limit(SOME_PAIRS).toArrow(), rows
        finally:
            if new:
                close_session(session)


def _placed(table: DataFrame, names: Sequence[str], part: int) -> tuple[DataFrame, int]:
    """Return columns of a table in order, whole parts in each partition, and the number of rows."""
    files = table.selectExpr("_metadata.file_path AS file").groupBy("file").count().toArrow().to_pylist()
    files.sort(key=lambda file: Path(unquote(urlsplit(file["file"]).path)))
    starts = np.cumsum([0, *(file["count"] for file in files)], dtype=np.int64)
    first = {"mgoe_file": pa.array([file["file"] for file in files], pa.string()), "mgoe_first": starts[:-1]}
    place, rows = "mgoe_first + mgoe_row", int(starts[-1])
    placed = (
        table.selectExpr(*names, "_metadata.file_path AS mgoe_file", "_metadata.row_index AS mgoe_row")
        .join(table.sparkSession.createDataFrame(pa.table(first)), "mgoe_file")
        .selectExpr(*names, f"{place} AS mgoe_place", f"({place}) DIV {part * PARTS_PER_TASK} AS mgoe_task")
        .repartitionByRange(1 + rows // (part * PARTS_PER_TASK), "mgoe_task")
        .sortWithinPartitions("mgoe_place")
    )
    return placed.select(*names), rows


def _write(
    bundle: Bundle, frame: DataFrame, schema: pa.Schema, task: Callable[..., Any], out: str, overwrite: bool
) -> int:
    """Send a bundle to the workers, write what a task makes of a table there, and return the number of rows.

    Raises:
        OutputError: Something is there already.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql.pandas.types import from_arrow_schema

    session, target = frame.sparkSession, out
    if "://" not in out:
        target = f"file://{Path(out).resolve()}"
        with suppress(OSError):
            Path(out).rmdir()  # empty: a write that failed left it
    if overwrite:
        overwrite = False
        with suppress(Exception):  # nothing, or something else, is there
            overwrite = bool(session.read.parquet(target).columns)
    with tempfile.TemporaryDirectory() as folder:
        archive = shutil.make_archive(f"{folder}/{Path(folder).name}-{bundle.name}", "zip", bundle.path)
        session.addArtifacts(archive, archive=True)
        task = partial(task, sent=Path(archive).name, version=__version__, schema=schema)
        scored = frame.mapInArrow(task, from_arrow_schema(schema))
        try:
            scored.write.mode("overwrite" if overwrite else "error").parquet(target)
        except AnalysisException as error:
            if "PATH_ALREADY_EXISTS" not in str(error):
                raise
            fix = "name another folder, or replace Parquet there with --overwrite"
            raise OutputError(out, f"is there already; {fix}") from None
    return session.read.parquet(target).count()


def _task(
    batches: Iterable[pa.RecordBatch],
    work: Work,
    rows: int,
    sent: str,
    version: str,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """On a worker: turn the rows of whole parts into results.

    Args:
        batches: Of the rows.
        work: What is made of a part.
        rows: Of all parts.
        sent: Name of the bundle.
        version: Of mgoe where it comes from.
        schema: Of the results.
    """
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    for first in tables:  # an empty partition has none
        for part in islice(cut(chain([first[:0], first], tables), work.size), 1, None):
            made, *_ = make_here(_arrived(sent, version), work, rows, part)
            yield from made.cast(schema).to_batches()


@cache
def _arrived(sent: str, version: str) -> Path:
    """On a worker: return the folder of the bundle, which each process verifies once.

    Raises:
        BundleError: The worker has another version of mgoe, or the bundle is damaged.
    """
    from pyspark import SparkFiles

    if version != __version__:
        raise BundleError(
            f"worker {socket.gethostname()}",
            f"must have mgoe {version}, which sends the bundle, found {__version__}; install that version "
            "on every worker",
        )
    threadpool_limits(1)
    torch.set_num_threads(1)
    return Bundle.open(SparkFiles.get(sent)).path
