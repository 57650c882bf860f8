"""`mgoe graph`: build the macro graph of a run, or of a whole log without examples.

Nothing here loads torch before it is needed.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import ibis.expr.types as ir
import numpy as np

from mgoe._util.files import GIB, exclusive, write_text
from mgoe._util.tables import Frame, bounded
from mgoe.config import RunSettings, dump_settings, seconds
from mgoe.data import (
    FeatureEncoders,
    Vocabulary,
    WholeLog,
    as_table,
    connect,
    on_a_cluster,
    open_log,
    open_on_spark,
    place_of,
    read_rows,
    read_settings,
    whole_log,
)
from mgoe.data.columns import Table
from mgoe.data.log import LOG_SHARE, reading, work_database
from mgoe.data.side import read_side
from mgoe.errors import DataError
from mgoe.experiments.folder import CHECKSUMS, SETTINGS, checksum_of_log, run_folder
from mgoe.experiments.stages import CONTEXT, ShowBuild, build, context_files, exposures_of
from mgoe.experiments.values import ALGORITHMS, values_of_run
from mgoe.graph import (
    Exposures,
    MacroGraph,
    Source,
    Spent,
    build_graph,
    peak_memory,
)
from mgoe.work.node import Node
from mgoe.work.store import Store

logger = logging.getLogger(__name__)

WHOLE = ("data", "tasks", "split", "negatives", "graph")
"""Sections of the settings that decide the graph of a whole log."""
OpenedRows = tuple[Table, str]
"""Rows of a log, as `read_rows` returns them, and what they are, for messages."""


def macro_graph(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    table: Frame | None = None,
) -> MacroGraph:
    """Build the macro graph below `out`.

    The log is prepared too, so that a run can resume from there. If `graph.snapshots` is `last`, the graph is
    built from the whole log without examples.

    Args:
        settings: Settings of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace the run that the folder holds.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`; with
            `last` its engine counts and sorts.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = read_settings(settings, table=table), Path(out)
    if settings.graph.snapshots == "all":
        from mgoe.experiments.plan import Plan  # late: checks of what will be trained import torch
        from mgoe.experiments.runs import begin

        plan = Plan(settings, out, from_table=table is not None)
        with begin(plan, plan.cells, overwrite, table) as (prepared, _):
            return build(settings, prepared, out / "graph")
    with exclusive(out, "a graph"), run_folder(out, overwrite):
        values = {key: value for key, value in values_of_run(settings).items() if key in WHOLE}
        checksum = None if table is not None else checksum_of_log(settings.data, out / CHECKSUMS)
        node = Node(
            "graph",
            "the macro graph of the whole log",
            out / "graph",
            values,
            ALGORITHMS["graph"],
            checksum,
            _build_of_whole_log,
            (settings, out, table),
            files=(out / "graph",),
            results=(out / "graph",),
        )
        for one in Store(out, [node]).stale(overwrite=False):
            one.remove()
        write_text(out / SETTINGS, dump_settings(settings))
        node.begin()
        return MacroGraph.open(node.path) if node.finished else node.make(*node.args)


def _build_of_whole_log(settings: RunSettings, out: Path, table: Frame | None) -> MacroGraph:
    """Read a whole log, and build its graph below `out`."""
    opened = opened_rows(settings, settings.data.log, out / "log", table)
    with numbered_log(settings, opened, out / "log", None) as (log, spent):
        shown, encoded = _exposures(log, settings, out / "log")
        found = Source(
            exposures=shown,
            history=log.history,
            batches=log.batches,
            cuts=np.empty(0, np.int32),
            users_at=np.array([log.counts["user"]]),
            items_at=np.array([log.counts["item"]]),
            ranks=settings.ranks,
            bucket=seconds(settings.data.bucket) * 1_000_000,
            facts=log.facts,
            files=vocabularies(out / "log") | encoded,
            log=settings.model_dump(mode="json", include={"data", "tasks"}),
            spent=spent,
        )
        logger.info("building the macro graph of the whole log")
        how = {"memory": settings.memory, "spark": settings.spark}
        return build_graph(found, settings.graph, out / "graph", ShowBuild(), **how)


def _exposures(
    log: WholeLog, settings: RunSettings, folder: Path
) -> tuple[Exposures | None, dict[str, Path]]:
    """Return what was shown in a log, and the files of the encoders of its context."""
    if log.records is None or log.context is None:
        return None, {}
    nodes = {name.removesuffix(".parquet"): file for name, file in vocabularies(folder).items()}
    with work_database(folder / "sides", "the side tables", settings.memory) as con:
        users, items = (
            read_side(con, getattr(settings.data, name), Vocabulary.load(file), f"data.{name}")[0]
            for name, file in nodes.items()
        )
    log.context.save(folder / CONTEXT)
    return exposures_of(log.records, settings, users, items, log.context), context_files(folder / CONTEXT)


def open_graph(path: Path | str) -> MacroGraph:
    """Open a graph by its own folder, or by that of the run or bundle that holds it."""
    inner = Path(path) / "graph"
    return MacroGraph.open(inner if inner.is_dir() else path)


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
