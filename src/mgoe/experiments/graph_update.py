"""`mgoe graph update` and `mgoe graph forget`: add events to a graph, or remove users from it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgoe._util.files import exclusive
from mgoe._util.tables import Frame
from mgoe.bundle import MANIFEST
from mgoe.config import RunSettings
from mgoe.data import Vocabulary
from mgoe.errors import ConfigError, GraphError
from mgoe.experiments.graph_build import numbered_log, vocabularies
from mgoe.experiments.stages import Say, ShowBuild
from mgoe.graph import MacroGraph, NewEvents, forget_users, update_graph


def open_graph(path: Path | str) -> MacroGraph:
    """Open a graph by its own folder, or by that of the run or bundle that holds it."""
    inner = Path(path) / "graph"
    return MacroGraph.open(inner if inner.is_dir() else path)


def update(
    path: Path | str,
    log: Sequence[str] = (),
    *,
    recluster: bool = False,
    table: Frame | None = None,
    say: Say = lambda line: None,
) -> MacroGraph:
    """Add new events to a graph, read as the log that it was built from.

    Args:
        path: The graph, or the run that holds it.
        log: Parquet or CSV files, folders or globs that hold only the new events; may be empty with
        `recluster`.
        recluster: Learn macro nodes again, warm-started.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead.
        say: Callback for lines of progress.

    Raises:
        MgoeError: Graph or log break a rule; the graph is then unchanged.
    """
    graph = _changeable(path)
    if not log and table is None:
        return update_graph(graph, None, ShowBuild(say), recluster)
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
    """Add events to an opened graph, read with the settings given."""
    known = {node: graph.path / f"{node}s.parquet" for node in ("user", "item")}
    with _changing(graph) as work, numbered_log(settings, list(log), work, known, table, say) as (found, _):
        users, items = found.counts["user"], found.counts["item"]
        new_users, new_items = users - graph.meta["users"][-1], items - graph.meta["items"][-1]
        say(f"  of them {new_users:,} new users and {new_items:,} new items")
        new = NewEvents(found.history, users, items, found.facts, vocabularies(work))
        return update_graph(graph, new, ShowBuild(say), recluster)


def forget(path: Path | str, users: Sequence[str], say: Say = lambda line: None) -> MacroGraph:
    """Remove users from a graph, by id.

    Args:
        path: The graph, or the run that holds it.
        users: Their ids.
        say: Callback for lines of progress.

    Raises:
        GraphError: An id is not in the graph; the graph is then unchanged.
    """
    graph = _changeable(path)
    file = graph.path / "users.parquet"
    if not file.exists():
        raise GraphError(
            graph.path, "the graph was built without vocabularies; build it with `mgoe graph build`"
        )
    vocabulary = Vocabulary.load(file)
    indices = vocabulary.indices(list(users))
    unknown = [user for user, index in zip(users, indices, strict=True) if index < 0]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise GraphError(
            graph.path,
            f"users to forget must be in the graph, found none for {unknown[0]!r}{more}; leave them out",
        )
    with _changing(graph) as work:
        work.mkdir(exist_ok=True)
        try:
            vocabulary.without(indices).save(work / "users.parquet")
            shutil.copyfile(graph.path / "items.parquet", work / "items.parquet")
            return forget_users(graph, indices, vocabularies(work), ShowBuild(say))
        finally:
            shutil.rmtree(work, ignore_errors=True)


def settings_of(graph: MacroGraph, log: Sequence[str]) -> RunSettings:
    """Return how the graph's log was read, for further files of it.

    All of their events count, whatever start and end the first log had. The process that updates sorts the
    events itself, so local files stay in it; only a log that is stored elsewhere is read through Spark.

    Raises:
        MgoeError: The graph does not say how its log was read.
    """
    if not graph.meta["log"]:
        raise GraphError(
            graph.path, "the graph does not say how its log was read; build it with `mgoe graph build`"
        )
    raw: dict[str, Any] = {**graph.meta["log"], "graph": dict(graph.meta["settings"])}
    if not any("://" in path for path in log):
        raw["graph"]["engine"] = "local"
    raw["data"] = {**raw["data"], "log": list(log) or ["-"], "start": None, "end": None}
    return saved_settings(graph, raw)


def saved_settings(graph: MacroGraph, raw: dict[str, Any]) -> RunSettings:
    """Check settings that were saved with a graph.

    Raises:
        ConfigError: This version cannot read them.
    """
    try:
        return RunSettings.model_validate(raw)
    except ValueError as error:
        raise ConfigError(graph.path, f"the settings saved with the graph cannot be read: {error}") from None


@contextmanager
def _changing(graph: MacroGraph) -> Iterator[Path]:
    """Hold the work folder of a change: two processes would number users by each other's events."""
    work = graph.path.with_name(f"{graph.path.name}.log")
    with exclusive(work, "what changes the graph"):
        yield work


def _changeable(path: Path | str) -> MacroGraph:
    graph = open_graph(path)
    if (graph.path.parent / MANIFEST).exists():
        rule = (
            "a bundle stays as it was written, found its graph; change the graph of the run that it is from"
        )
        raise GraphError(path, rule)
    return graph
