"""The macro graph by itself: built with the run that will train on it or of a whole log alone, updated, and without those who left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import GIB, exclusive
from mgoe._util.tables import Frame, bounded
from mgoe.bundle import MANIFEST
from mgoe.config import RunSettings, load_settings, seconds
from mgoe.data import (
    Vocabulary,
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
from mgoe.errors import ConfigError, DataError, GraphError
from mgoe.evaluation import report
from mgoe.experiments.folder import claim, ends_of
from mgoe.experiments.progress import Watch
from mgoe.experiments.stages import Say, build
from mgoe.graph import (
    MacroGraph,
    NewEvents,
    Source,
    Spent,
    build_graph,
    forget_users,
    peak_memory,
    update_graph,
)

LOG_SHARE = 0.6
"""Of graph.memory: what DuckDB may take while it reads and sorts a log."""


def macro_graph(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    table: Frame | None = None,
    say: Say = lambda line: None,
) -> MacroGraph:
    """Build the macro graph below `out`: with the examples of a run that goes on from there, or, where `graph.snapshots` is `last`, of the
    whole log alone.

    Args:
        settings: Of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace a finished run, or one of other settings.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`; with `last` its engine counts and sorts.
        say: Called with a line a stage.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    if settings.graph.snapshots == "last":
        return _whole_graph(settings, out, overwrite, table, say)
    from mgoe.experiments.runs import begin  # looks at what will be trained, which takes torch

    with begin(settings, out, overwrite, say, table) as prepared:
        return build(settings, out, prepared, say)


def _whole_graph(
    settings: RunSettings, out: Path, overwrite: bool, table: Frame | None, say: Say
) -> MacroGraph:
    with (
        exclusive(out, "a graph"),
        claim(out, settings, overwrite, None if table is not None else ends_of(settings)),
    ):
        if (out / "graph").exists():
            return MacroGraph.open(out / "graph")
        with _log_of(settings, settings.data.log, out / "log", None, table, say) as (log, spent):
            source = Source(
                history=log.history,
                cuts=np.empty(0, np.int32),
                users_at=np.array([log.counts["user"]]),
                items_at=np.array([log.counts["item"]]),
                ranks=settings.ranks,
                bucket=seconds(settings.data.bucket) * 1_000_000,
                facts=log.facts,
                files=_vocabularies(out / "log"),
                log=settings.model_dump(mode="json", include={"data", "tasks"}),
                spent=spent,
            )
            say("building the macro graph of the whole log")
            return build_graph(source, settings.graph, out / "graph", Watch(say))


def update(
    path: Path | str,
    log: Sequence[str] = (),
    *,
    recluster: bool = False,
    table: Frame | None = None,
    say: Say = lambda line: None,
) -> MacroGraph:
    """Add new events to a graph, read as the log was that it is built of.

    Args:
        path: The graph, or the run that holds it.
        log: Parquet or CSV files, folders or globs of new events alone; none only with `recluster`.
        recluster: Learn macro nodes again, warm-started.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead.
        say: Called with a line a stage.

    Raises:
        MgoeError: Graph or log break a rule; the graph is then as it was.
    """
    graph = _changeable(path)
    if not log and table is None:
        return update_graph(graph, None, Watch(say), recluster)
    return add_events(graph, settings_of(graph, log), log, recluster=recluster, table=table, say=say)


def add_events(
    graph: MacroGraph,
    settings: RunSettings,
    log: Sequence[str],
    *,
    recluster: bool,
    table: Frame | None,
    say: Say,
) -> MacroGraph:
    """`update` of an opened graph, with events read by settings of their own."""
    known = {node: graph.path / f"{node}s.parquet" for node in ("user", "item")}
    with _new_events(graph) as work, _log_of(settings, list(log), work, known, table, say) as (found, _):
        users, items = found.counts["user"], found.counts["item"]
        say(
            f"  of them {users - graph.meta['users'][-1]:,} new users and {items - graph.meta['items'][-1]:,} new items"
        )
        new = NewEvents(found.history, users, items, found.facts, _vocabularies(work))
        return update_graph(graph, new, Watch(say), recluster)


def forget(path: Path | str, users: Sequence[str], say: Say = lambda line: None) -> MacroGraph:
    """Take users out of a graph, by id.

    Args:
        path: The graph, or the run that holds it.
        users: Their ids.
        say: Called with a line a stage.

    Raises:
        GraphError: An id is not in the graph; it is then as it was.
    """
    graph = _changeable(path)
    vocabulary = Vocabulary.load(_vocabulary_file(graph))
    codes = vocabulary.indices(list(users))
    unknown = [user for user, code in zip(users, codes, strict=True) if code < 0]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise GraphError(
            graph.path,
            f"users to forget must be in the graph, found none for {unknown[0]!r}{more}; leave them out",
        )
    with _new_events(graph) as work:
        work.mkdir(exist_ok=True)
        try:
            vocabulary.without(codes).save(work / "users.parquet")
            shutil.copyfile(graph.path / "items.parquet", work / "items.parquet")
            return forget_users(graph, codes, _vocabularies(work), Watch(say))
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _new_events(graph: MacroGraph) -> Iterator[Path]:
    """The folder of what changes a graph, for one process at a time: two would number users by each other's events."""
    work = graph.path.with_name(f"{graph.path.name}.log")
    with exclusive(work, "what changes the graph"):
        yield work


def open_graph(path: Path | str) -> MacroGraph:
    """A graph by its own folder, or by that of the run or bundle that holds it."""
    inner = Path(path) / "graph"
    return MacroGraph.open(inner if inner.is_dir() else path)


def _changeable(path: Path | str) -> MacroGraph:
    graph = open_graph(path)
    if (graph.path.parent / MANIFEST).exists():
        raise GraphError(
            path,
            "a bundle stays as it was written, found its graph; change the graph of the run that it is of",
        )
    return graph


@contextmanager
def _log_of(
    settings: RunSettings,
    log: list[str],
    folder: Path,
    known: Mapping[str, Path] | None,
    table: Frame | None,
    say: Say,
) -> Iterator[tuple[WholeLog, dict[str, Spent]]]:
    """A log as history, numbered in a folder that is kept until the graph is built, so that a build which was cut off finds it again."""
    folder.mkdir(parents=True, exist_ok=True)
    say("reading and numbering the log")
    started = time.perf_counter()
    try:
        with (
            _opened(settings, log, folder) if table is None else _bounded(as_table(table), settings) as source
        ):
            place = "the table" if table is not None else place_of(log)
            with peak_memory() as peak:
                try:
                    found = whole_log(source, settings, folder, place, known)
                except duckdb.Error as error:
                    raise unreadable(place, error) from None
            took = Spent(time.perf_counter() - started, peak[0] / GIB)
            counts = f"{found.facts['events']:,} events, {found.counts['user']:,} users, {found.counts['item']:,} items"
            say(f"  {counts} in {took.seconds:.1f} s")
            yield found, {"ids": took}
    except DataError:  # with which nothing goes on
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bounded(table: ir.Table, settings: RunSettings) -> Iterator[ir.Table]:
    with bounded(table.get_backend(), settings.graph.memory * LOG_SHARE):
        yield table


@contextmanager
def _opened(settings: RunSettings, log: list[str], folder: Path) -> Iterator[ir.Table]:
    """The log as a table of the engine that reads it: of Spark, where the graph is built there and the log is Parquet; else of DuckDB."""
    if settings.graph.engine == "spark" and on_a_cluster(log):
        from mgoe.graph.engines.spark import running_backend, spark_errors

        shutil.rmtree(folder / "spark", ignore_errors=True)  # of a build that was killed
        with (
            running_backend(settings.graph, folder / "spark") as backend,
            spark_errors("mend the log, or name another"),
        ):
            yield open_on_spark(backend, log)
        return
    (folder / "work.duckdb").unlink(missing_ok=True)
    con = connect(folder, settings.graph.memory * LOG_SHARE)
    try:
        yield open_log(con, log, ids=(settings.data.user, settings.data.item))
    finally:
        con.disconnect()


def _vocabularies(folder: Path) -> dict[str, Path]:
    return {f"{node}s.parquet": folder / f"{node}s.parquet" for node in ("user", "item")}


def _vocabulary_file(graph: MacroGraph) -> Path:
    file = graph.path / "users.parquet"
    if not file.exists():
        raise GraphError(
            graph.path, "the graph was built without vocabularies; build it with `mgoe graph build`"
        )
    return file


def settings_of(graph: MacroGraph, log: Sequence[str]) -> RunSettings:
    """How the graph's log was read, for further files of it. All of their events count, whatever start and end the first had.

    The process that updates sorts them itself. So files that it can read stay in it; what lies elsewhere comes through Spark.
    """
    if not graph.meta["log"]:
        raise GraphError(
            graph.path, "the graph does not say how its log was read; build it with `mgoe graph build`"
        )
    raw: dict[str, Any] = {**graph.meta["log"], "graph": dict(graph.meta["settings"])}
    if not any("://" in path for path in log):
        raw["graph"]["engine"] = "embedded"
    raw["data"] = {**raw["data"], "log": list(log) or ["-"], "start": None, "end": None}
    try:
        return RunSettings.model_validate(raw)
    except ValueError as error:
        raise ConfigError(graph.path, f"the settings saved with the graph cannot be read: {error}") from None


def write_graph_page(graph: MacroGraph, path: Path) -> None:
    """A page of pictures: sizes of macro nodes, what they hold, and which of them belong together.

    Raises:
        OutputError: It cannot be written.
    """
    latest, told = graph.latest, graph.describe()
    dense = latest.resolutions[latest.dense]
    facts = {
        name: told[name]
        for name in (
            "engine",
            "events",
            "from",
            "to",
            "users",
            "items",
            "pairs",
            "snapshots",
            "bytes",
            "seconds",
        )
    }
    facts["drift"] = graph.drift

    def ids(node: str) -> Callable[[NDArray[np.int64]], Iterable[Any]]:
        file = graph.path / f"{node}s.parquet"
        return (
            (lambda codes: Vocabulary.load(file).ids(codes).to_pylist())
            if file.exists()
            else (lambda codes: codes.tolist())
        )

    view = report.MacroView.of(
        dense.macro_edges,
        dense.user_macro,
        dense.item_macro,
        latest.arrays["user_sum"],
        latest.arrays["item_sum"],
        ids("user"),
        ids("item"),
    )
    report.write_report(
        path, report.ReportData(title=f"Macro graph {graph.path.name}", rows=[], facts=facts, macro=view)
    )
