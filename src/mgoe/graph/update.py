"""Changing a saved graph: adding new events, or removing users.

Everything that depends on pairs alone is then as after a rebuild. What was learned (the sketch and the macro
nodes) stays, unless `recluster` asks to learn it again. Pairs are merged with the former ones, not counted
again: an update sorts the new events, and passes over the pairs once.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe._util.files import as_pattern, link
from mgoe._util.tables import hand_over
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.build.builder import last_bucket
from mgoe.graph.build.plan import GraphPlan, snapshot_folder
from mgoe.graph.build.rate_counter import RECORDS, RatePlan, database, write_sorted
from mgoe.graph.build.sizes import check_memory
from mgoe.graph.build.snapshot_builder import SnapshotBuilder
from mgoe.graph.build.workplace import WORK, Advance, Observer, Stages, finish, workplace
from mgoe.graph.engines.local import SORT_SHARE, Engine
from mgoe.graph.fold import MOST_EVENTS, Folded, SnapshotCuts, pairs_writer
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import PairColumns, PairRows, Side
from mgoe.graph.snapshot import read_content


@dataclass(frozen=True)
class NewEvents:
    """What an update adds.

    Attributes:
        history: `user`, `item` (indices; new nodes follow the known ones), `time` (microseconds), `task`.
        users, items: Number of nodes known with them.
        facts: See `Source`.
        files: Files of the graph with them: vocabularies.
        records: New records of exposures, see `Exposures`; None for a log of events.

    Example:
        >>> import ibis
        >>> import pandas as pd
        >>> from mgoe.graph import Source
        >>> users, items = bundle.size("user"), bundle.size("item")
        >>> row = {"user": [0], "item": [1], "time": [1_750_000_000_000_000], "task": [0]}
        >>> history = ibis.memtable(pd.DataFrame(row))
        >>> nodes = {"users_at": np.array([users]), "items_at": np.array([items])}
        >>> facts = Source(history, np.zeros(0, np.int32), **nodes, ranks=[1.0, 2.0]).read_facts()
        >>> own = MacroGraph.open(shutil.copytree(graph.path, "graph"))
        >>> own = update_graph(own, NewEvents(history, users, items, facts, files={}))
        >>> own.manifest.events - graph.manifest.events
        1
    """

    history: ir.Table
    users: int
    items: int
    facts: Mapping[str, int]
    files: Mapping[str, Path]
    records: ir.Table | None = None


def update_graph(
    graph: MacroGraph,
    new: NewEvents | None,
    observer: Observer | None = None,
    recluster: bool = False,
    content: Mapping[Side, NDArray[np.float32]] | None = None,
) -> MacroGraph:
    """Add events to the latest snapshot, as a rebuild that keeps its macro nodes would (`build_graph(...,
    keep=)`).

    Earlier snapshots end before these events, and stay as they are.

    Args:
        graph: Replaced by the result when that is complete.
        new: What to add; None if macro nodes are only to be learned again.
        observer: Receives the progress.
        recluster: Learn the sketch and the macro nodes again; each macro node keeps its number by its
            members.
        content: What all nodes of a side are about, see `Source`, if more is known than before.

    Raises:
        GraphError: There is nothing to do, the memory does not suffice, or an unfinished change of another
            kind is in the way.
        OutputError: The disk is full, or another process changes the same graph.

    Example:
        >>> own = MacroGraph.open(shutil.copytree(graph.path, "graph"))
        >>> update_graph(own, None, recluster=True).manifest.changes[-1]["what"]
        'update'
    """
    if new is None and not recluster and not content:
        raise GraphError(graph.path, "an update needs new events, or `recluster`")
    manifest, latest = graph.manifest, len(graph.manifest.cuts) - 1
    nothing = {"events": 0, "last": manifest.last, "first": manifest.first, "checksum": 0}
    facts = nothing | (dict(new.facts) if new else {})
    users, items = (new.users, new.items) if new else (manifest.users[-1], manifest.items[-1])
    if recluster:
        check_memory(users, items, *_settings_of(graph), manifest.pairs[-1])
    change = {"what": "update", "log": facts, "settings": {"recluster": recluster}}
    with workplace(graph.path) as folder:
        plan, about = _with_content(_plan(graph, folder, observer, change), content or {})
        for s in range(latest):
            shutil.rmtree(snapshot_folder(folder, s), ignore_errors=True)
            shutil.copytree(graph.folder(s), snapshot_folder(folder, s), copy_function=link)
        late = _add_pairs(graph, new if facts["events"] else None, users, items, plan, latest)
        if plan.rates is not None:
            write = partial(_add_records, graph, new.records if new else None, plan.rates, folder / WORK)
            plan.stages.run("exposures", 0, write, unit="records")
            facts = facts | plan.rates.facts()
        cut = max(int(manifest.cuts[-1]), last_bucket(facts, manifest.bucket))
        learned = graph.folder(-1)
        builder = SnapshotBuilder(
            plan, latest, cut, previous=learned if recluster else None, kept=None if recluster else learned
        )
        builder.build()
        changed = {
            "cuts": [*manifest.cuts[:-1], cut],
            "users": [*manifest.users[:-1], users],
            "items": [*manifest.items[:-1], items],
            "pairs": [*manifest.pairs[:-1], builder.pairs],
            "events": manifest.events + facts["events"],
            "first": min(manifest.first, facts["first"]),
            "last": max(manifest.last, facts["last"]),
            "checksum": manifest.checksum + facts["checksum"],
            **({"records": facts["records"]} if plan.rates is not None else {}),
            "drift": builder.drift,
            "changes": [
                *manifest.changes,
                {"what": "update", "events": facts["events"], "late_pairs": late, "recluster": recluster},
            ],
        }
        finish(
            folder,
            graph.path,
            manifest.with_changes(**changed),
            {**_kept(graph), **about, **(new.files if new else {})},
            plan.stages,
        )
    return MacroGraph.open(graph.path)


def forget_users(
    graph: MacroGraph, users: Iterable[int], files: Mapping[str, Path], observer: Observer | None = None
) -> MacroGraph:
    """Remove users from every snapshot as if they had never been there, given the same macro nodes.

    The indices of all users stay; those of removed users have no pairs.

    Args:
        graph: Replaced by the result when that is complete.
        users: Indices.
        files: Vocabularies without them.
        observer: Receives the progress.

    Raises:
        GraphError: An index is not in the graph, or an unfinished change of another kind is in the way.
        OutputError: The disk is full, or another process changes the same graph.

    Example:
        >>> own = MacroGraph.open(shutil.copytree(graph.path, "graph"))
        >>> forget_users(own, [0], {}).manifest.changes[-1]
        {'what': 'forget', 'users': 1}
    """
    manifest, gone = graph.manifest, np.unique(np.fromiter(users, np.int64))
    if len(gone) == 0 or gone[0] < 0 or gone[-1] >= manifest.users[-1]:
        raise GraphError(
            graph.path,
            f"users to forget are indices from 0 to {manifest.users[-1] - 1:,}, found {gone.tolist()[:5]}",
        )
    change = {"what": "forget", "log": {"events": 0}, "settings": {"users": gone.tolist()}}
    with workplace(graph.path) as folder:
        plan = _plan(graph, folder, observer, change)
        plan, content = _with_content(plan, _without_content(plan, gone))
        if plan.rates is not None:
            write = partial(_remove_records, graph, gone, plan.rates, folder / WORK)
            plan.stages.run("exposures", manifest.records, write, unit="records")
        builders = [
            SnapshotBuilder(plan, s, cut, kept=graph.folder(s)) for s, cut in enumerate(manifest.cuts)
        ]
        for s, (builder, items) in enumerate(zip(builders, manifest.items, strict=True)):
            rows = PairRows.by_user(graph.folder(s))
            remove = partial(_remove, rows, items, gone, builder.folder)
            plan.stages.run(f"{s:02d}: pairs", len(rows.other), remove)
            builder.build()
        changed = {
            "pairs": [builder.pairs for builder in builders],
            **({"records": plan.rates.facts()["records"]} if plan.rates is not None else {}),
            "drift": builders[-1].drift,
            "changes": [*manifest.changes, {"what": "forget", "users": len(gone)}],
        }
        kept = {**_kept(graph), **_without_categories(graph, gone, folder / WORK), **content, **files}
        finish(folder, graph.path, manifest.with_changes(**changed), kept, plan.stages)
    return MacroGraph.open(graph.path)


def _settings_of(graph: MacroGraph) -> tuple[GraphSettings, float]:
    """Return how a graph is learned again, and the limit of memory that it was built within."""
    built = graph.manifest.settings
    learned = built.model_dump(include=set(GraphSettings.model_fields)) | {"refresh": True}
    return GraphSettings.model_validate(learned), built.memory


def _plan(graph: MacroGraph, folder: Path, observer: Observer | None, change: dict[str, Any]) -> GraphPlan:
    """Return the plan of a change: what is not kept is learned again."""
    manifest, (settings, limit) = graph.manifest, _settings_of(graph)
    stages = Stages(folder, observer or Observer(), change | {"graph": graph.checksum})
    engine = Engine(folder, limit)
    rates = None
    if (held := graph.latest.rates) is not None and manifest.rates is not None:
        regressions = manifest.rates.regressions
        memory = limit * SORT_SHARE
        rates = RatePlan(held.groups, folder / RECORDS, held.categories, regressions, memory)
    content = read_content(graph.path, manifest.content)
    return GraphPlan(
        folder, settings, manifest.ranks, manifest.bucket, graph.sizes, stages, engine, rates, content
    )


def _kept(graph: MacroGraph) -> dict[str, Path]:
    """Return the files of a graph that a change keeps."""
    return {name: file for name, file in graph.files.items() if name != RECORDS}


def _add_records(
    graph: MacroGraph, new: ir.Table | None, plan: RatePlan, work: Path, advance: Advance
) -> None:
    """Write the records of exposures with new ones beside them."""
    files = [graph.path / RECORDS]
    if new is not None:
        files.append(work / "new.parquet")
        write_sorted(new, files[-1], plan.memory)
    with database(work, plan.memory) as con:
        write_sorted(con.read_parquet(list(map(as_pattern, files))), plan.records, plan.memory)


def _remove_records(
    graph: MacroGraph, gone: NDArray[np.int64], plan: RatePlan, work: Path, advance: Advance
) -> None:
    """Write all records but those of some users."""
    with database(work, plan.memory) as con:
        records, users = con.read_parquet(as_pattern(graph.path / RECORDS)), pa.table({"user": gone})
        left = records.anti_join(hand_over(con, "gone", users), "user")
        write_sorted(left, plan.records, plan.memory)


def _without_categories(graph: MacroGraph, gone: NDArray[np.int64], work: Path) -> dict[str, Path]:
    """Write the categories of users with some of them unknown, and return the files by their names."""
    rates, files = graph.latest.rates, dict[str, Path]()
    for k, (axis, held) in enumerate(rates.categories.items() if rates is not None else ()):
        if axis.startswith("users."):
            values = held.copy()
            values[gone[gone < len(values)]] = [0, *[-1] * (values.shape[1] - 1)]
            save_arrays(work, {f"categories{k}": values})
            files[f"categories{k}.npy"] = work / f"categories{k}.npy"
    return files


def _without_content(plan: GraphPlan, gone: NDArray[np.int64]) -> dict[Side, NDArray[np.float32]]:
    """Return what users are about, nothing of some of them; empty if it is known of nobody."""
    return {
        side: np.where(np.isin(np.arange(len(values)), gone)[:, None], np.float32(0), values)
        for side, values in plan.content.items()
        if side == "user"
    }


def _with_content(
    plan: GraphPlan, content: Mapping[Side, NDArray[np.float32]]
) -> tuple[GraphPlan, dict[str, Path]]:
    """Return a plan that knows other content of some sides, and the files that say so."""
    save_arrays(plan.folder / WORK, {f"content.{side}": values for side, values in content.items()})
    files = {name: plan.folder / WORK / name for name in (f"content.{side}.npy" for side in content)}
    return replace(plan, content={**plan.content, **content}), files


def _add_pairs(
    graph: MacroGraph, new: NewEvents | None, users: int, items: int, plan: GraphPlan, latest: int
) -> int:
    """Write the pairs of the latest snapshot with new ones merged in.

    Returns:
        Number of pairs with new events that are not later than `graph.since`.
    """
    before, to = PairRows.by_user(graph.folder(-1)), snapshot_folder(plan.folder, latest)
    late, added = plan.folder / WORK / "late", plan.folder / WORK / "added"
    ends = np.array([] if graph.since is None else [(graph.since + 1) * plan.bucket], np.int64)
    cuts = SnapshotCuts(ends, np.full(len(ends) + 1, users), np.full(len(ends) + 1, items))
    if new is None:
        rows = PairRows(np.zeros(users + 1, np.int64), *before.columns.at(slice(0)))
    else:
        folders = [added] if graph.since is None else [late, added]
        write_pairs = partial(plan.engine.write_pairs, new.history, cuts, len(plan.ranks), folders)
        plan.stages.run("new pairs", new.facts["events"], write_pairs, unit="events")
        rows = PairRows.by_user(added)
    merge = partial(_merge, before, rows, users, items, to)
    plan.stages.run("merging", len(before.other), merge)
    return len(mapped(late / "pairs.item.npy")) if late.exists() else 0


def _merge(before: PairRows, added: PairRows, users: int, items: int, folder: Path, advance: Advance) -> None:
    """Write the union of two sets of pairs."""
    new_users = np.full(users + 1 - len(before.indptr), before.indptr[-1])
    grown = PairRows(np.concatenate([before.indptr, new_users]), *before.columns)
    with pairs_writer([folder], _one_snapshot(users, items)) as append:
        for old in grown.blocks():
            append([_united(old, added.block(old.start, old.start + len(old)))])
            advance(len(old.other))


def _united(old: PairRows, new: PairRows) -> Folded:
    """Return the pairs of the same users in either: task masks are united, the first and the last time count,
    numbers of events add up.
    """
    key = np.concatenate([(rows.nodes() << 32) | rows.other for rows in (old, new)])
    order = np.argsort(key, kind="stable")
    key = key[order]
    columns: Iterable[Any] = map(np.concatenate, zip(old.columns, new.columns, strict=True))
    both = PairColumns(*columns).at(order)
    first = np.flatnonzero(np.diff(key, prepend=-1))
    events = np.add.reduceat(both.events, first, dtype=np.int64)
    return (key[first] >> 32).astype(np.int32), PairColumns(
        both.other[first],
        np.bitwise_or.reduceat(both.task_mask, first),
        np.maximum.reduceat(both.time, first),
        np.minimum(events, MOST_EVENTS).astype(np.uint16),
        np.minimum.reduceat(both.first, first),
        np.add.reduceat(both.total, first, dtype=both.total.dtype),
    )


def _remove(rows: PairRows, items: int, gone: NDArray[np.int64], folder: Path, advance: Advance) -> None:
    """Write all pairs but those of some users."""
    with pairs_writer([folder], _one_snapshot(len(rows), items)) as append:
        for block in rows.blocks():
            users = block.nodes()
            stays = ~np.isin(users, gone)
            append([(users[stays].astype(np.int32), block.columns.at(stays))])
            advance(len(block.other))


def _one_snapshot(users: int, items: int) -> SnapshotCuts:
    return SnapshotCuts(np.zeros(0, np.int64), np.array([users]), np.array([items]))
