"""`mgoe graph build`: the macro graph of a run, or of a whole log without examples."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import ibis.expr.types as ir
import numpy as np

from mgoe._util.files import GIB, exclusive, write_text
from mgoe._util.tables import Frame, bounded
from mgoe.config import RunSettings, dump_settings, load_settings, seconds
from mgoe.data import (
    WholeLog,
    as_table,
    connect,
    on_a_cluster,
    open_log,
    open_on_spark,
    place_of,
    whole_log,
)
from mgoe.data.log import unreadable
from mgoe.errors import DataError
from mgoe.experiments.folder import SETTINGS, run_folder
from mgoe.experiments.parts import SOURCE, Part, checksum_of_log, outdated, run_settings
from mgoe.experiments.stages import Say, ShowBuild, build
from mgoe.graph import MacroGraph, Source, Spent, build_graph, peak_memory

LOG_SHARE = 0.6
"""Share of graph.memory that DuckDB may take while it reads and sorts a log."""


@contextmanager
def numbered_log(
    settings: RunSettings,
    log: list[str],
    folder: Path,
    known: Mapping[str, Path] | None,
    table: Frame | None,
    say: Say,
) -> Iterator[tuple[WholeLog, dict[str, Spent]]]:
    """Yield a log as numbered history, and what the numbering took.

    Args:
        settings: How the log is read.
        log: Its files.
        folder: Folder of the history. It is removed when the block succeeds or the log breaks a rule;
            otherwise it stays, so that an interrupted build finds it again.
        known: Vocabularies that are continued, by node.
        table: Read instead of the files.
        say: Callback for lines of progress.

    Raises:
        DataError: The log cannot be read or breaks a rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    say("reading and numbering the log")
    started = time.perf_counter()
    opened = _opened(settings, log, folder) if table is None else _bounded(as_table(table), settings)
    try:
        with opened as source:
            place = "the table" if table is not None else place_of(log)
            with peak_memory() as peak:
                try:
                    found = whole_log(source, settings, folder, place, known)
                except duckdb.Error as error:
                    raise unreadable(place, error) from None
            took = Spent(time.perf_counter() - started, peak[0] / GIB)
            counts = f"{found.counts['user']:,} users, {found.counts['item']:,} items"
            say(f"  {found.facts['events']:,} events, {counts} in {took.seconds:.1f} s")
            yield found, {"ids": took}
    except DataError:  # nothing can resume from it
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def vocabularies(folder: Path) -> dict[str, Path]:
    """Return the files of the ids of users and items in a folder, by their names."""
    return {name: folder / name for name in ("users.parquet", "items.parquet")}


@contextmanager
def _bounded(table: ir.Table, settings: RunSettings) -> Iterator[ir.Table]:
    with bounded(table.get_backend(), settings.graph.memory * LOG_SHARE):
        yield table


@contextmanager
def _opened(settings: RunSettings, log: list[str], folder: Path) -> Iterator[ir.Table]:
    """Open the log on Spark if the graph is built there and the log is Parquet, and on DuckDB otherwise."""
    if settings.graph.engine == "spark" and on_a_cluster(log):
        from mgoe.graph.engines.spark import running_backend, spark_errors

        shutil.rmtree(folder / "spark", ignore_errors=True)  # of a build that was killed
        with (
            running_backend(settings.graph, folder / "spark") as backend,
            spark_errors("fix the log, or name another"),
        ):
            yield open_on_spark(backend, log)
        return
    (folder / "work.duckdb").unlink(missing_ok=True)
    con = connect(folder, settings.graph.memory * LOG_SHARE)
    try:
        yield open_log(con, log, ids=(settings.data.user, settings.data.item))
    finally:
        con.disconnect()


def macro_graph(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    table: Frame | None = None,
    say: Say = lambda line: None,
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
        say: Callback for lines of progress.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    if settings.graph.snapshots == "last":
        return _whole_graph(settings, out, overwrite, table, say)
    from mgoe.experiments.plan import Plan  # late: checks of what will be trained import torch
    from mgoe.experiments.runs import begin

    plan = Plan(settings, out, from_table=table is not None)
    with begin(plan, plan.cells, overwrite, say, table) as prepared:
        return build(settings, prepared, out / "graph", say)


def _whole_graph(
    settings: RunSettings, out: Path, overwrite: bool, table: Frame | None, say: Say
) -> MacroGraph:
    with exclusive(out, "a graph"), run_folder(out, overwrite):
        plain = run_settings(settings)
        asked = {name: plain[name] for name in ("data", "tasks", "split", "negatives", "graph")}
        source = None if table is not None else checksum_of_log(settings.data, out / "source.json")
        part = Part(out / "graph", asked | {"world": None, SOURCE: source}, out / "graph")
        for one in outdated([part], overwrite=False):
            one.remove()
        write_text(out / SETTINGS, dump_settings(settings))
        part.begin()
        if part.path.exists():
            return MacroGraph.open(part.path)
        with numbered_log(settings, settings.data.log, out / "log", None, table, say) as (log, spent):
            found = Source(
                history=log.history,
                cuts=np.empty(0, np.int32),
                users_at=np.array([log.counts["user"]]),
                items_at=np.array([log.counts["item"]]),
                ranks=settings.ranks,
                bucket=seconds(settings.data.bucket) * 1_000_000,
                facts=log.facts,
                files=vocabularies(out / "log"),
                log=settings.model_dump(mode="json", include={"data", "tasks"}),
                spent=spent,
            )
            say("building the macro graph of the whole log")
            return build_graph(found, settings.graph, part.path, ShowBuild(say))
