"""Changing a graph that is there: new events come in, or a user goes, and everything that depends on pairs alone is as after a rebuild.

What was learned (the sketch and the macro nodes) stays, so the result depends on pairs and on nothing else; `recluster` learns it again.
Pairs are merged with what they were, not counted again: a new event costs its own sort, and one pass over the pairs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import numba
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.build.assemble import assemble
from mgoe.graph.build.builder import make_assembler
from mgoe.graph.build.learned import Learned
from mgoe.graph.build.memory import check_memory
from mgoe.graph.build.stages import Advance, Observer, Silent, Stages
from mgoe.graph.engines.engine import Assembler
from mgoe.graph.engines.local import Embedded
from mgoe.graph.fold import MOST_EVENTS, SnapshotCuts, save_starts
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import PairColumns, PairRows
from mgoe.graph.workplace import begin, finish, workplace


@dataclass(frozen=True)
class NewEvents:
    """What an update adds.

    Attributes:
        history: `user`, `item` (codes; new nodes follow the known ones), `time` (microseconds), `task`.
        users, items: Nodes known with them.
        facts: As of `Source`.
        files: Of the graph with them: vocabularies.
    """

    history: ir.Table
    users: int
    items: int
    facts: Mapping[str, int]
    files: Mapping[str, Path]


def update_graph(
    graph: MacroGraph, new: NewEvents | None, observer: Observer | None = None, recluster: bool = False
) -> MacroGraph:
    """Add events to the latest snapshot. Equal to a rebuild that keeps its macro nodes (`build_graph(..., keep=)`).

    Earlier snapshots are left as they are: they end before.

    Args:
        graph: Replaced by the result once that is whole.
        new: What to add; nothing, where only macro nodes are to be learned again.
        observer: Told how far the update is.
        recluster: Learn sketch and macro nodes again; they keep the numbers of those whose members they hold.

    Raises:
        GraphError: There is nothing to do, the memory does not suffice, or an unfinished change of another kind is in the way.
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
    if recluster:
        users, items = (new.users, new.items) if new else (meta["users"][-1], meta["items"][-1])
        check_memory(users, items, GraphSettings.model_validate(meta["settings"]), meta["pairs"][-1])
    change = {"what": "update", "log": facts, "graph": graph.checksum, "settings": {"recluster": recluster}}
    with workplace(graph.path) as folder:
        stages = begin(folder, observer or Silent(), change)
        _link_others(graph, folder, {latest})
        snapshot, work = folder / "snapshots" / f"{latest:02d}", folder / "work" / f"{latest:02d}"
        cut = max(int(meta["cuts"][-1]), facts["last"] // meta["bucket"])
        settings = GraphSettings.model_validate(meta["settings"])
        if recluster:
            settings = settings.model_copy(update={"refresh": True})
        assembler = _assembler(graph, settings, stages)
        late = _merge_new_pairs(graph, new, snapshot, folder / "work", assembler, facts["events"])
        learned = None if recluster else Learned.of(graph.folder(-1), len(graph.sizes), settings.scale)
        assemble(assembler, latest, snapshot, work, cut, graph.folder(-1) if recluster else None, learned)
        changed = {
            "cuts": [*meta["cuts"][:-1], cut],
            "users": [*meta["users"][:-1], new.users if new else meta["users"][-1]],
            "items": [*meta["items"][:-1], new.items if new else meta["items"][-1]],
            "pairs": [*meta["pairs"][:-1], len(mapped(snapshot / "pairs.item.npy"))],
            "events": meta["events"] + facts["events"],
            "first": min(meta["first"], facts["first"]),
            "last": max(meta["last"], facts["last"]),
            "checksum": meta["checksum"] + facts["checksum"],
            "drift": assembler.drift(work),
            "changes": [
                *meta["changes"],
                {"what": "update", "events": facts["events"], "late pairs": late, "recluster": recluster},
            ],
        }
        files = new.files if new else {name: graph.path / name for name in meta["files"] if "/" not in name}
        finish(folder, graph.path, meta | changed, files, stages)
    return MacroGraph.open(graph.path)


def forget_users(
    graph: MacroGraph, users: Iterable[int], files: Mapping[str, Path], observer: Observer | None = None
) -> MacroGraph:
    """Take users out of every snapshot as if they had never been there, given the same macro nodes. Their codes stay, empty.

    Args:
        graph: Replaced by the result once that is whole.
        users: Codes.
        files: Vocabularies without them.
        observer: Told how far it is.

    Raises:
        GraphError: A code is none of the graph's, or an unfinished change of another kind is in the way.
        OutputError: The disk is full, or another process changes the same graph.
    """
    gone = np.unique(np.fromiter(users, np.int64))
    if len(gone) == 0 or gone[0] < 0 or gone[-1] >= graph.meta["users"][-1]:
        raise GraphError(
            graph.path,
            f"users to forget are codes from 0 to {graph.meta['users'][-1] - 1:,}, found {gone.tolist()[:5]}",
        )
    change = {
        "what": "forget",
        "log": {"events": 0},
        "graph": graph.checksum,
        "settings": {"users": gone.tolist()},
    }
    with workplace(graph.path) as folder:
        stages = begin(folder, observer or Silent(), change)
        settings = GraphSettings.model_validate(graph.meta["settings"])
        assembler = _assembler(graph, settings, stages)
        pairs = []
        for s, cut in enumerate(graph.meta["cuts"]):
            snapshot = folder / "snapshots" / f"{s:02d}"
            rows = PairRows.by_user(graph.folder(s))
            items = int(graph.meta["items"][s])
            stages.run(
                f"{s:02d}: pairs",
                len(rows.other),
                lambda advance, r=rows, i=items, to=snapshot: _remove(r, i, gone, to, advance),
            )
            learned = Learned.of(graph.folder(s), len(graph.sizes), settings.scale)
            work = folder / "work" / snapshot.name
            assemble(assembler, s, snapshot, work, cut, None, learned)
            pairs.append(len(mapped(snapshot / "pairs.item.npy")))
            if s < len(graph.meta["cuts"]) - 1:
                shutil.rmtree(work, ignore_errors=True)
        drift = assembler.drift(folder / "work" / f"{len(pairs) - 1:02d}")
        changed = {
            "pairs": pairs,
            "drift": drift,
            "changes": [*graph.meta["changes"], {"what": "forget", "users": len(gone)}],
        }
        finish(folder, graph.path, graph.meta | changed, files, stages)
    return MacroGraph.open(graph.path)


def _assembler(graph: MacroGraph, settings: GraphSettings, stages: Stages) -> Assembler:
    return make_assembler(
        settings, graph.meta["ranks"], graph.meta["bucket"], graph.sizes, stages, Embedded(settings.memory)
    )


def _link_others(graph: MacroGraph, folder: Path, changed: set[int]) -> None:
    """Snapshots that stay, as further names of the same files where the disk can do that."""
    for s in set(range(len(graph.meta["cuts"]))) - changed:
        to = folder / "snapshots" / f"{s:02d}"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(graph.folder(s), to, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _merge_new_pairs(
    graph: MacroGraph, new: NewEvents | None, snapshot: Path, work: Path, assembler: Assembler, events: int
) -> int:
    """Write the pairs of the latest snapshot with new ones merged in, and say how many of these have events from before `graph.since`."""
    meta, before, late, added = graph.meta, PairRows.by_user(graph.folder(-1)), work / "late", work / "added"
    users, items = (new.users, new.items) if new else (meta["users"][-1], meta["items"][-1])
    ends = np.array([] if graph.since is None else [(graph.since + 1) * meta["bucket"]], np.int64)
    moments = SnapshotCuts(ends, np.full(len(ends) + 1, users), np.full(len(ends) + 1, items))
    folders = [added] if graph.since is None else [late, added]
    if new is not None and events:
        assembler.stages.run(
            "new pairs",
            events,
            lambda advance: assembler.engine.write_pairs(
                new.history, moments, assembler.tasks, folders, advance
            ),
            unit="events",
        )
    else:
        empty = before.block(0, 0).columns
        save_arrays(added, _arrays(empty) | {"pairs.indptr": np.zeros(users + 1, np.int64)})
    assembler.stages.run(
        "merging",
        len(before.other),
        lambda advance: _merge(before, PairRows.by_user(added), users, items, snapshot, advance),
    )
    return len(mapped(late / "pairs.item.npy")) if late.exists() else 0


def _merge(before: PairRows, added: PairRows, users: int, items: int, folder: Path, advance: Advance) -> None:
    """Write the union of two sets of pairs: task masks are united, the later time counts, numbers of events add up."""
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
