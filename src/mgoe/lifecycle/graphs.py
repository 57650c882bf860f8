"""`mgoe graph update` and `mgoe graph forget`: add events to a macro graph, and remove users from it.

Nothing here loads torch before it is needed.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import exclusive
from mgoe._util.tables import Frame
from mgoe.config import RunSettings
from mgoe.data import Encoders, FeatureEncoders, Vocabulary
from mgoe.errors import ConfigError, GraphError
from mgoe.experiments.graphs import open_graph
from mgoe.graph import MacroGraph, NewEvents, forget_users, update_graph
from mgoe.graph.pair_rows import Side
from mgoe.pipeline.stages import CONTEXT, ShowBuild
from mgoe.pipeline.whole_log import OpenedRows, numbered_log, opened_rows, vocabularies
from mgoe.work.node import note_changes

logger = logging.getLogger(__name__)


def update_macro_graph(
    path: Path | str,
    log: Sequence[str] = (),
    *,
    recluster: bool = False,
    table: Frame | None = None,
) -> MacroGraph:
    """Add new events to a graph, read as the log that it was built from.

    Args:
        path: The graph, or the run that holds it.
        log: Parquet or CSV files, folders or globs that hold only the new events; may be empty with
            `recluster`.
        recluster: Learn macro nodes again, warm-started.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead.

    Raises:
        MgoeError: Graph or log break a rule; the graph is then unchanged.

    Example:
        >>> own = shutil.copytree(graph.path, "graph")
        >>> update_macro_graph(own, recluster=True).manifest.changes[-1]["what"]
        'update'
    """
    graph = _changeable(path)
    if not log and table is None:
        changed = update_graph(graph, None, ShowBuild(), recluster)
    else:
        settings = settings_of(graph, log)
        with changing(graph) as work:
            opened = opened_rows(settings, log, work, table)
            changed = add_events(graph, settings, opened, work, recluster=recluster)
    note_changes(changed.path, changed.manifest.changes)
    return changed


def add_events(
    graph: MacroGraph,
    settings: RunSettings,
    opened: AbstractContextManager[OpenedRows],
    work: Path,
    *,
    recluster: bool,
    about: Encoders | None = None,
) -> MacroGraph:
    """Add events to an opened graph.

    Args:
        graph: The graph.
        settings: How the events were read.
        opened: Yields them.
        work: The folder of `changing`.
        recluster: Learn macro nodes again, warm-started.
        about: Of a bundle, say what its items are about.
    """
    known = {node: graph.path / f"{node}s.parquet" for node in ("user", "item")}
    encoders = FeatureEncoders.load(graph.path / CONTEXT) if (graph.path / CONTEXT).exists() else None
    with numbered_log(settings, opened, work, known, encoders) as (found, _):
        users, items, facts = found.counts["user"], found.counts["item"], found.facts
        logger.info(
            f"  of them {users - graph.manifest.users[-1]:,} new users and "
            f"{items - graph.manifest.items[-1]:,} new items"
        )
        return update_graph(
            graph,
            NewEvents(found.history, users, items, facts, vocabularies(work), found.records),
            ShowBuild(),
            recluster,
            {} if about is None else _content(graph, about, work),
        )


def take_items(graph: MacroGraph, about: Encoders, recluster: bool) -> MacroGraph:
    """Let a graph without new events know what items are about that were added to a bundle.

    Args:
        graph: The graph.
        about: Of the bundle.
        recluster: Learn macro nodes again, warm-started, whatever was added.
    """
    content = _content(graph, about, graph.path) if about.item_side.is_extended else {}
    return update_graph(graph, None, ShowBuild(), recluster, content) if recluster or content else graph


def _content(graph: MacroGraph, about: Encoders, folder: Path) -> dict[Side, NDArray[np.float32]]:
    """Return what all items are about, those of a folder with ids and then others, if the graph reads it."""
    ids = Vocabulary.load(folder / Encoders.FILES[1]).with_ids(about.items.every)
    return {
        side: about.item_side.content_of(about.items.indices(ids.every))
        for side in graph.manifest.content
        if side == "item"
    }


def forget_in_macro_graph(path: Path | str, users: Sequence[str]) -> MacroGraph:
    """Remove users from a graph, by id.

    Args:
        path: The graph, or the run that holds it.
        users: Their ids.

    Raises:
        GraphError: An id is not in the graph; the graph is then unchanged.

    Example:
        >>> own = shutil.copytree(graph.path, "graph")
        >>> forget_in_macro_graph(own, prepared.users.ids([0]).to_pylist()).manifest.changes[-1]
        {'what': 'forget', 'users': 1}
    """
    graph = _changeable(path)
    file = graph.path / "users.parquet"
    if not file.exists():
        raise GraphError(
            graph.path, "the graph was built without vocabularies; build it with `mgoe graph build`"
        )
    indices = Vocabulary.load(file).indices(list(users))
    unknown = [user for user, index in zip(users, indices, strict=True) if index < 0]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise GraphError(
            graph.path,
            f"users to forget must be in the graph, found none for {unknown[0]!r}{more}; leave them out",
        )
    changed = without_users(graph, indices)
    note_changes(changed.path, changed.manifest.changes)
    return changed


def without_users(graph: MacroGraph, indices: NDArray[np.int64]) -> MacroGraph:
    """Remove users and their ids from a graph that has vocabularies.

    Args:
        graph: Replaced by the result when that is complete.
        indices: Of the users.
    """
    with changing(graph) as work:
        work.mkdir(exist_ok=True)
        try:
            Vocabulary.load(graph.path / "users.parquet").without(indices).save(work / "users.parquet")
            shutil.copyfile(graph.path / "items.parquet", work / "items.parquet")
            return forget_users(graph, indices, vocabularies(work), ShowBuild())
        finally:
            shutil.rmtree(work, ignore_errors=True)


def settings_of(graph: MacroGraph, log: Sequence[str]) -> RunSettings:
    """Return how the graph's log was read, for further files of it.

    All of their events count, whatever start and end the first log had. Columns that only training reads may
    be missing. The process that updates sorts the events itself, so local files stay in it; only a log that
    is stored elsewhere is read through Spark, if the graph was built there.

    Raises:
        MgoeError: The graph does not say how its log was read.
    """
    if not graph.manifest.log:
        raise GraphError(
            graph.path, "the graph does not say how its log was read; build it with `mgoe graph build`"
        )
    engine = {} if any("://" in path for path in log) else {"engine": "local"}
    left_out = dict.fromkeys(("start", "end", "weight", "uniform", "erased"))
    data = graph.manifest.log["data"] | left_out | {"log": list(log) or ["-"]}
    saved = graph.manifest.settings.model_dump(mode="json") | engine
    outside = {key: saved.pop(key) for key in ("memory", "spark")}
    raw = graph.manifest.log | {"data": data, "graph": saved, **outside}
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
def changing(graph: MacroGraph) -> Iterator[Path]:
    """Hold the work folder of a change: two processes would number users by each other's events."""
    work = graph.path.with_name(f"{graph.path.name}.log")
    with exclusive(work, "what changes the graph"):
        yield work


def _changeable(path: Path | str) -> MacroGraph:
    from mgoe.bundle import MANIFEST  # late: it imports torch

    graph = open_graph(path)
    if (graph.path.parent / MANIFEST).exists():
        raise GraphError(
            path,
            "a bundle stays as it was written, found its graph; change the graph of the run that it is from",
        )
    return graph
