"""Changing a saved graph: adding new events, or removing users.

Everything that depends on pairs alone is then as after a rebuild. What was learned (the sketch and the macro
nodes) stays, unless `recluster` asks to learn it again. Pairs are merged with the former ones, not counted
again: an update sorts the new events, and passes over the pairs once.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numba
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.build.learned import Learned
from mgoe.graph.build.requirements import check_memory
from mgoe.graph.build.snapshot_builder import GraphPlan, SnapshotBuilder, snapshot_folder
from mgoe.graph.build.stages import Advance, Observer, Stages
from mgoe.graph.build.workplace import WORK, finish, workplace
from mgoe.graph.engines.local import Local
from mgoe.graph.fold import MOST_EVENTS, SnapshotCuts, save_starts
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import PairColumns, PairRows


@dataclass(frozen=True)
class NewEvents:
    """What an update adds.

    Attributes:
        history: `user`, `item` (indices; new nodes follow the known ones), `time` (microseconds), `task`.
        users, items: Number of nodes known with them.
        facts: See `Source`.
        files: Files of the graph with them: vocabularies.
    """

    history: ir.Table
    users: int
    items: int
    facts: Mapping[str, int]
    files: Mapping[str, Path]


def update_graph(
    graph: MacroGraph, new: NewEvents | None, observer: Observer | None = None, recluster: bool = False
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

    Raises:
        GraphError: There is nothing to do, the memory does not suffice, or an unfinished change of another
            kind is in the way.
        OutputError: The disk is full, or another process changes the same graph.
    """
    if new is None and not recluster:
        raise GraphError(graph.path, "an update needs new events, or --recluster")
    meta, latest = graph.meta, len(graph.meta["cuts"]) - 1
    facts = (
        dict(new.facts)
        if new and new.facts["events"]
        else {"events": 0, "last": meta["last"], "first": meta["first"], "checksum": 0}
    )
    users, items = (new.users, new.items) if new else (meta["users"][-1], meta["items"][-1])
    if recluster:
        check_memory(users, items, GraphSettings.model_validate(meta["settings"]), meta["pairs"][-1])
    change = {"what": "update", "log": facts, "graph": graph.checksum, "settings": {"recluster": recluster}}
    with workplace(graph.path) as folder:
        plan = _plan(graph, folder, Stages(folder, observer or Observer(), change), refresh=recluster)
        for s in range(latest):
            _link_snapshot(graph.folder(s), snapshot_folder(folder, s))
        late = _add_pairs(graph, new if facts["events"] else None, users, items, plan, latest)
        cut = max(int(meta["cuts"][-1]), facts["last"] // meta["bucket"])
        previous, learned = (graph.folder(-1), None) if recluster else (None, _learned(graph, -1, plan))
        builder = SnapshotBuilder(plan, latest, cut, previous, learned)
        builder.build()
        changed = {
            "cuts": [*meta["cuts"][:-1], cut],
            "users": [*meta["users"][:-1], users],
            "items": [*meta["items"][:-1], items],
            "pairs": [*meta["pairs"][:-1], builder.pairs],
            "events": meta["events"] + facts["events"],
            "first": min(meta["first"], facts["first"]),
            "last": max(meta["last"], facts["last"]),
            "checksum": meta["checksum"] + facts["checksum"],
            "drift": builder.drift,
            "changes": [
                *meta["changes"],
                {"what": "update", "events": facts["events"], "late pairs": late, "recluster": recluster},
            ],
        }
        files = new.files if new else {name: graph.path / name for name in meta["files"] if "/" not in name}
        finish(folder, graph.path, meta | changed, files, plan.stages)
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
    """
    meta, gone = graph.meta, np.unique(np.fromiter(users, np.int64))
    if len(gone) == 0 or gone[0] < 0 or gone[-1] >= meta["users"][-1]:
        rule = f"users to forget are indices from 0 to {meta['users'][-1] - 1:,}, found {gone.tolist()[:5]}"
        raise GraphError(graph.path, rule)
    change = {
        "what": "forget",
        "log": {"events": 0},
        "graph": graph.checksum,
        "settings": {"users": gone.tolist()},
    }
    with workplace(graph.path) as folder:
        plan = _plan(graph, folder, Stages(folder, observer or Observer(), change))
        changed: dict[str, Any] = {
            "pairs": [],
            "changes": [*meta["changes"], {"what": "forget", "users": len(gone)}],
        }
        for s, (cut, items) in enumerate(zip(meta["cuts"], meta["items"], strict=True)):
            builder = SnapshotBuilder(plan, s, cut, learned=_learned(graph, s, plan))
            rows, stage = PairRows.by_user(graph.folder(s)), f"{s:02d}: pairs"
            if plan.stages.pending(stage):
                with plan.stages.running(stage, len(rows.other)) as advance:
                    _remove(rows, items, gone, builder.folder, advance)
            builder.build()
            changed["pairs"].append(builder.pairs)
            if s < len(meta["cuts"]) - 1:
                builder.discard_work()
            else:
                changed["drift"] = builder.drift
        finish(folder, graph.path, meta | changed, files, plan.stages)
    return MacroGraph.open(graph.path)


def _plan(graph: MacroGraph, folder: Path, stages: Stages, refresh: bool = False) -> GraphPlan:
    settings = GraphSettings.model_validate(graph.meta["settings"])
    if refresh:
        settings = settings.model_copy(update={"refresh": True})
    engine = Local(settings.memory)
    return GraphPlan(folder, settings, graph.meta["ranks"], graph.meta["bucket"], graph.sizes, stages, engine)


def _learned(graph: MacroGraph, snapshot: int, plan: GraphPlan) -> Learned:
    return Learned.of(graph.folder(snapshot), len(plan.sizes), plan.settings.scale)


def _link_snapshot(source: Path, to: Path) -> None:
    """Give the files of a snapshot further names where the disk can do that, and copy them elsewhere."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to, copy_function=link)


def _add_pairs(
    graph: MacroGraph, new: NewEvents | None, users: int, items: int, plan: GraphPlan, latest: int
) -> int:
    """Write the pairs of the latest snapshot with new ones merged in.

    Returns:
        Number of pairs with new events that are not later than `graph.since`.
    """
    stages, before = plan.stages, PairRows.by_user(graph.folder(-1))
    late, added = plan.folder / WORK / "late", plan.folder / WORK / "added"
    ends = np.array([] if graph.since is None else [(graph.since + 1) * plan.bucket], np.int64)
    cuts = SnapshotCuts(ends, np.full(len(ends) + 1, users), np.full(len(ends) + 1, items))
    if new is None:
        empty = before.block(0, 0).columns
        save_arrays(added, _arrays(empty) | {"pairs.indptr": np.zeros(users + 1, np.int64)})
    elif stages.pending("new pairs"):
        folders = [added] if graph.since is None else [late, added]
        with stages.running("new pairs", new.facts["events"], unit="events") as advance:
            plan.engine.write_pairs(new.history, cuts, plan.tasks, folders, advance)
    if stages.pending("merging"):
        with stages.running("merging", len(before.other)) as advance:
            to = snapshot_folder(plan.folder, latest)
            _merge(before, PairRows.by_user(added), users, items, to, advance)
    return len(mapped(late / "pairs.item.npy")) if late.exists() else 0


def _merge(before: PairRows, added: PairRows, users: int, items: int, folder: Path, advance: Advance) -> None:
    """Write the union of two sets of pairs: task masks are united, the later time counts, numbers of events
    add up.
    """
    new_users = np.full(users + 1 - len(before.indptr), before.indptr[-1])
    grown = PairRows(np.concatenate([before.indptr, new_users]), *before.columns)
    user_degree, item_degree = np.zeros(users, np.int64), np.zeros(items, np.int64)
    with ArrayFolder(folder) as out:
        for old in grown.blocks():
            last = old.first + len(old)
            new = added.block(old.first, last)
            merged = PairColumns.empty(len(old.other) + len(new.other), old.task_mask.dtype)
            degree = user_degree[old.first : last]
            n = _merge_rows(old.indptr, old.columns, new.indptr, new.columns, merged, degree, item_degree)
            out.append(_arrays(merged.at(slice(n))))
            advance(len(old.other))
    save_starts(folder, user_degree, item_degree)


def _remove(rows: PairRows, items: int, gone: NDArray[np.int64], folder: Path, advance: Advance) -> None:
    """Write all pairs but those of some users."""
    user_degree, item_degree = np.diff(rows.indptr), np.zeros(items, np.int64)
    with ArrayFolder(folder) as out:
        for block in rows.blocks():
            leaves = np.isin(np.arange(block.first, block.first + len(block)), gone)
            stays = ~np.repeat(leaves, np.diff(block.indptr))
            kept = block.columns.at(stays)
            out.append(_arrays(kept))
            item_degree += np.bincount(kept.other, minlength=items)
            advance(len(block.other))
    user_degree[gone[gone < len(user_degree)]] = 0
    save_starts(folder, user_degree, item_degree)


def _arrays(pairs: PairColumns) -> dict[str, NDArray]:
    """Return the arrays of pairs by user, by the names of their files."""
    return {
        f"pairs.{'item' if name == 'other' else name}": column for name, column in pairs._asdict().items()
    }


@numba.njit(cache=True, nogil=True)
def _merge_rows(
    old_starts, old, new_starts, new, merged, user_degree, item_degree
):  # pragma: no cover - compiled
    a_item, a_mask, a_time, a_events = old
    b_item, b_mask, b_time, b_events = new
    item, mask, time, events = merged
    to = 0
    for row in range(len(old_starts) - 1):
        a, a_end, b, b_end, first = (
            old_starts[row],
            old_starts[row + 1],
            new_starts[row],
            new_starts[row + 1],
            to,
        )
        while a < a_end or b < b_end:
            if b == b_end or (a < a_end and a_item[a] < b_item[b]):
                item[to], mask[to], time[to], events[to] = a_item[a], a_mask[a], a_time[a], a_events[a]
                a += 1
            elif a == a_end or b_item[b] < a_item[a]:
                item[to], mask[to], time[to], events[to] = b_item[b], b_mask[b], b_time[b], b_events[b]
                b += 1
            else:
                item[to], mask[to], time[to] = a_item[a], a_mask[a] | b_mask[b], max(a_time[a], b_time[b])
                events[to] = min(np.int64(a_events[a]) + np.int64(b_events[b]), MOST_EVENTS)
                a += 1
                b += 1
            item_degree[item[to]] += 1
            to += 1
        user_degree[row] = to - first
    return to
