"""Follows what happens after a snapshot, event by event.

A change of a pair changes both of its nodes: their counts, score sums and 1st-order edges, and the 2nd-order
edge to the own macro node with the counterpart's edges as of the snapshot, as the live state of a service has
it. A newcomer that is placed moves the edges of its neighbours. The 2nd-order edges to all macro nodes and
the task table stay as the snapshot has them.

All sums are of integers: what is read at a moment does not depend on the order in which events came.

Axes: `n` changed nodes of one side, `N` events, `E` changed pairs, `Z` resolutions, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts, take
from mgoe._util.kernels import kernel
from mgoe.graph.counts import LATEST, own_pairs, task_share, tasks_done
from mgoe.graph.edges import SparseEdges, find_place, second_order_own, second_sums
from mgoe.graph.likelihood import Placement
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.moments import MOVED, STEP, Entries, Moments, SideMoments, edge_starts, edges_at
from mgoe.graph.newcomers import Doings, Placements, place
from mgoe.graph.pair_rows import (
    OTHER,
    SIDES,
    SORT_MEMORY,
    PairRows,
    Side,
    available_threads,
    by_item,
)
from mgoe.graph.rate_moments import CellMoments
from mgoe.graph.rates import is_live
from mgoe.graph.snapshot import Snapshot, score_sums


class Events(NamedTuple):
    """What happened after a snapshot, by time, then user, then item; one row per moment. Shape (N,) each.

    Attributes:
        user, item: Indices.
        time: Microseconds.
        task_mask: Tasks done.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    task_mask: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        user: NDArray[np.integer],
        item: NDArray[np.integer],
        time: NDArray[np.integer],
        task: NDArray[np.integer],
    ) -> Events:
        """Return events of a history, which has a row per task, in any order."""
        key = np.int64(user) << 32 | item
        order = np.lexsort((key, time))
        key, moment = key[order], np.asarray(time, np.int64)[order]
        bits = np.int64(1) << np.asarray(task, np.int64)[order]
        begins = np.flatnonzero(run_starts(key, moment))
        masks = np.bitwise_or.reduceat(bits, begins) if len(key) else bits
        return cls(key[begins] >> 32, key[begins] & 0xFFFFFFFF, moment[begins], masks)


def follow(graph: MacroGraph, number: int, events: Events, records: Any = None) -> Moments:
    """Follow the events and exposures after a snapshot.

    Args:
        graph: Has the snapshot.
        number: Of the snapshot.
        events: All that came after it.
        records: Exposures after it, see `CellMoments.of`. Without them, rates do not move.
    """
    moments, rates = _Sweep(graph, number, events).moments(), graph.snapshots[number].rates
    if rates is None or records is None:
        return moments
    live = {number: group for number, group in enumerate(rates.groups) if is_live(group, rates.regressions)}
    cells = {number: CellMoments.of(records, group, rates.regressions) for number, group in live.items()}
    return replace(moments, rates=cells)


class _Nodes(NamedTuple):
    """Changed nodes of one side while events are followed. Shape (n,) each unless stated otherwise.

    Attributes:
        macro: Own macro nodes. Shape (n, Z).
        head: First pair of each, -1 at the end.
        placed: Row of the placement that a node has now.
    """

    macro: NDArray[np.int32]
    done: NDArray[np.int32]
    second: NDArray[np.int64]
    head: NDArray[np.int64]
    placed: NDArray[np.int64]
    degree: NDArray[np.int64]
    events: NDArray[np.int64]
    total: NDArray[np.int64]
    again: NDArray[np.int64]
    last: NDArray[np.int64]
    sum: NDArray[np.int64]
    second_sum: NDArray[np.int64]


class _Pairs(NamedTuple):
    """Changed pairs while events are followed. Shape (E,) each."""

    task_mask: NDArray[np.int64]
    total: NDArray[np.int64]
    first: NDArray[np.int64]


class _Sweep:
    def __init__(self, graph: MacroGraph, number: int, events: Events):
        snapshot: Snapshot = graph.snapshots[number]
        self._snapshot, self._events, self._scores = snapshot, events, graph.fixed_scores
        self._rows = PairRows.by_user(graph.folder(number))
        self._item_indptr = PairRows.item_indptr(graph.folder(number))
        self._tasks, masks = len(graph.manifest.ranks), self._rows.task_mask
        self._share = task_share(tasks_done(masks, self._tasks), len(masks))
        self._sums: dict[Side, NDArray[np.int64]] = {side: score_sums(snapshot, side) for side in SIDES}
        self._placements = Placement.both(graph, self._sums["user"], number)
        self._index: dict[Side, NDArray[np.int64]] = {}
        self._slot: dict[Side, NDArray[np.int64]] = {}
        for side in SIDES:
            self._index[side], self._slot[side] = np.unique(getattr(events, side), return_inverse=True)

    def moments(self) -> Moments:
        events, index, slot = self._events, self._index, self._slot
        placed = self._place()
        key, pair = np.unique(slot["user"] << 32 | slot["item"], return_inverse=True)
        ends: dict[Side, NDArray[np.int64]] = {"user": key >> 32, "item": key & 0xFFFFFFFF}
        base = _Pairs(np.zeros(len(key), np.int64), np.zeros(len(key), np.int64), np.full(len(key), LATEST))
        users, items = index["user"][ends["user"]], index["item"][ends["item"]]
        _pairs_of(self._rows.indptr, self._rows.columns, users, items, base)
        base_score = self._scores[base.task_mask]
        nodes = {side: self._nodes(side) for side in SIDES}
        chains: dict[Side, NDArray[np.int64]] = {}
        brackets, seconds = {}, {}
        for side, other in OTHER.items():
            chains[side] = np.full(len(key), -1, np.int64)
            _link(ends[side], nodes[side].head, chains[side])
            far = index[other][ends[other]]
            known = far < len(self._sums[other])
            seconds[side] = np.where(known, take(self._sums[other], far, 0) - base_score, 0)
            brackets[side] = np.zeros((len(key), len(self._snapshot.resolutions)), np.int64)
            for r, part in enumerate(self._snapshot.resolutions):
                own = nodes[side].macro[ends[side], r]
                _brackets(getattr(part, f"{other}_edges"), far, own, base_score, r, brackets[side])
        numbers = {side: np.searchsorted(index[side], placed[side].node) for side in SIDES}
        order = {side: np.argsort(placed[side].time, kind="stable") for side in SIDES}
        work = (
            events.time,
            events.task_mask,
            pair,
            self._scores,
            (ends["user"], ends["item"]),
            (chains["user"], chains["item"]),
            (seconds["user"], seconds["item"]),
            (brackets["user"], brackets["item"]),
            (index["user"], index["item"]),
            tuple((order[side], numbers[side], placed[side].time, placed[side].macro) for side in SIDES),
        )
        counts = np.zeros(2, np.int64)
        sizes = len(self._snapshot.resolutions), self._tasks
        nothing = tuple(Entries.empty(0, *sizes) for _ in SIDES)
        spare = tuple(_Nodes._make(column.copy() for column in nodes[side]) for side in SIDES)
        _sweep(
            *work,
            _Pairs._make(column.copy() for column in base),
            *spare,
            (np.empty(0, np.int64),) * 2,
            *nothing,
            counts,
        )
        out = tuple(Entries.empty(int(count), *sizes) for count in counts)
        whose = tuple(np.empty(int(count), np.int64) for count in counts)
        counts[:] = 0
        _sweep(*work, base, nodes["user"], nodes["item"], whose, *out, counts)
        sides: dict[Side, SideMoments] = {
            side: self._side(side, whose[k], out[k], placed[side]) for k, side in enumerate(SIDES)
        }
        return Moments(sides, self._share)

    def _place(self) -> dict[Side, Placements]:
        doings: dict[Side, Doings] = {}
        for side, other in OTHER.items():
            node = getattr(self._events, side)
            new = np.flatnonzero(self._degrees(side, node) == 0)
            rows = new[np.lexsort((self._events.time[new], node[new]))]
            doings[side] = Doings(
                node[rows],
                getattr(self._events, other)[rows],
                self._events.time[rows],
                self._events.task_mask[rows],
            )
        by, at = self._placements, self._snapshot
        placed = place(doings["user"], by["user"], at, "user")
        return {"user": placed, "item": place(doings["item"], by["item"], at, "item", placed)}

    def _degrees(self, side: Side, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many pairs nodes have in the snapshot."""
        indptr = self._rows.indptr if side == "user" else self._item_indptr
        return take(np.diff(indptr), nodes, 0)

    def _blocks(self, side: Side) -> Iterator[PairRows]:
        """Return the snapshot's pairs by a side."""
        if side == "user":
            return self._rows.blocks()
        return by_item(self._rows, self._item_indptr, SORT_MEMORY, available_threads())

    def _nodes(self, side: Side) -> _Nodes:
        """Return what the snapshot has of the changed nodes."""
        index, parts, other = self._index[side], self._snapshot.resolutions, OTHER[side]
        n = len(index)
        nodes = _Nodes(
            self._snapshot.macro_nodes(side, index),
            np.zeros((n, self._tasks), np.int32),
            np.zeros((n, len(parts)), np.int64),
            np.full(n, -1, np.int64),
            np.full(n, -1, np.int64),
            *(np.zeros(n, np.int64) for _ in range(7)),
        )
        for block in self._blocks(side):
            first, last = np.searchsorted(index, [block.start, block.start + len(block)])
            rows, here = index[first:last] - block.start, slice(first, last)
            own = own_pairs(block, self._scores, self._tasks, 1)
            own |= second_sums(block, self._scores, self._sums[other]) | {"degree": np.diff(block.indptr)}
            for name in ("done", "degree", "events", "total", "again", "last", "sum", "second_sum"):
                getattr(nodes, name)[here] = own[name][rows]
            for r, part in enumerate(parts):
                edges = SparseEdges(*getattr(part, f"{other}_edges"))
                second = second_order_own(block, self._scores, edges, getattr(part, f"{side}_macro"))
                nodes.second[here, r] = second[rows]
        return nodes

    def _side(
        self, side: Side, whose: NDArray[np.int64], entries: Entries, placed: Placements
    ) -> SideMoments:
        order = np.argsort(whose, kind="stable")
        entries, n = entries.take(order), len(self._index[side])
        indptr = np.concatenate([[0], np.cumsum(np.bincount(whose, minlength=n))]).astype(np.int64)
        by_other = np.empty(0, np.int64)
        if side == "user":
            by_other = np.lexsort(
                (np.arange(len(whose)), entries.other, np.repeat(np.arange(n), np.diff(indptr)))
            )
        check_indptr = np.concatenate([[0], np.cumsum(np.maximum(np.diff(indptr) - 1, 0) // STEP)])
        starts = edge_starts(self._snapshot.widths(OTHER[side]))
        found = SideMoments(
            self._index[side],
            indptr,
            entries,
            placed.macro,
            placed.vectors,
            check_indptr.astype(np.int64),
            np.zeros((int(check_indptr[-1]), starts[-1]), np.int64),
            by_other,
        )
        has = np.flatnonzero(np.diff(check_indptr))
        for number in range(1, 1 + int(np.diff(check_indptr).max(initial=0))):
            has = has[np.diff(check_indptr)[has] >= number]
            last = indptr[has] + number * STEP - 1
            found.checks[check_indptr[has] + number - 1] = edges_at(
                self._snapshot, side, found, has, last, number - 1
            )
        return found


@kernel("out")
def _pairs_of(indptr, columns, users, items, out):  # pragma: no cover - compiled
    for p in range(len(users)):
        place = find_place(indptr, columns.other, users[p], items[p]) if users[p] < len(indptr) - 1 else -1
        if place >= 0:
            out.task_mask[p], out.total[p] = columns.task_mask[place], columns.total[place]
            out.first[p] = columns.first[place]


@kernel("head", "following")
def _link(nodes, head, following):  # pragma: no cover - compiled
    for p in range(len(nodes)):
        following[p] = head[nodes[p]]
        head[nodes[p]] = p


@kernel("out")
def _brackets(edges, far, own, base_score, r, out):  # pragma: no cover - compiled
    """Write the counterpart's edge to the own macro node less what the node itself gave to it."""
    indptr, column, score = edges
    for p in range(len(far)):
        if far[p] < len(indptr) - 1:
            place = find_place(indptr, column, far[p], own[p])
            out[p, r] = (np.int64(score[place]) if place >= 0 else 0) - base_score[p]


@kernel("pairs", "users", "items", "whose", "user_out", "item_out", "counts")
def _sweep(
    time, event_mask, pair, scores, ends, chains, seconds, brackets, index, placed, pairs, users, items,
    whose, user_out, item_out, counts,
):  # fmt: skip  # pragma: no cover - compiled
    mask, n, start = pairs.task_mask, len(time), 0
    coming_users, coming_items = 0, 0
    while start < n:
        stop = start
        while stop < n and time[stop] == time[start]:
            p = pair[stop]
            old, now = mask[p], mask[p] | event_mask[stop]
            mask[p], step, more = now, scores[now] - scores[old], 0
            for t in range(users.done.shape[1]):
                more += event_mask[stop] >> t & 1
            u, i = ends[0][p], ends[1][p]
            pairs.total[p] += more
            pairs.first[p] = min(pairs.first[p], time[start])
            done = pairs.total[p], pairs.first[p]
            users.last[u] = items.last[i] = time[start]
            _count(users, u, old, now, more, step, seconds[0][p], brackets[0][p])
            _count(items, i, old, now, more, step, seconds[1][p], brackets[1][p])
            event = time[start], index[1][i], now, step
            _write(users, u, event, done, items.macro[i], 0, whose[0], user_out, counts)
            event = time[start], index[0][u], now, step
            _write(items, i, event, done, users.macro[u], 1, whose[1], item_out, counts)
            stop += 1
        coming_users = _settle(
            placed[0], coming_users, time[start], users, items, ends[1], chains[0], mask, scores,
            (0, 1), whose, user_out, item_out, counts,
        )  # fmt: skip
        coming_items = _settle(
            placed[1], coming_items, time[start], items, users, ends[0], chains[1], mask, scores,
            (1, 0), whose, item_out, user_out, counts,
        )  # fmt: skip
        start = stop


@kernel("nodes", inner=True)
def _count(nodes, a, old, now, more, step, second, bracket):  # pragma: no cover - compiled
    for t in range(nodes.done.shape[1]):
        nodes.done[a, t] += (now & ~old) >> t & 1
    nodes.degree[a] += old == 0
    nodes.events[a] += more
    nodes.total[a] += more
    nodes.again[a] += more - (old == 0)
    nodes.sum[a] += step
    nodes.second_sum[a] += step * second
    if nodes.placed[a] < 0:
        for r in range(len(bracket)):
            nodes.second[a, r] += step * bracket[r]


@kernel("nodes", "whose", "out", "counts", inner=True)
def _write(nodes, a, event, done, macro, side, whose, out, counts):  # pragma: no cover - compiled
    time, other, mask, step = event
    at = counts[side]
    counts[side] = at + 1
    if at >= len(whose):
        return
    whose[at] = a
    out.time[at], out.other[at], out.task_mask[at], out.step[at] = time, other, mask, step
    out.degree[at], out.events[at] = nodes.degree[a], nodes.events[a]
    out.total[at], out.again[at], out.last[at] = nodes.total[a], nodes.again[a], nodes.last[a]
    out.pair_total[at], out.pair_first[at] = done
    out.sum[at], out.second_sum[at], out.placed[at] = nodes.sum[a], nodes.second_sum[a], nodes.placed[a]
    for r in range(len(macro)):
        out.other_macro[at, r], out.second[at, r] = macro[r] if step else 0, nodes.second[a, r]
    for t in range(nodes.done.shape[1]):
        out.done[at, t] = nodes.done[a, t]


@kernel("nodes", "others", "whose", "own_out", "other_out", "counts", inner=True)
def _settle(
    placed, coming, time, nodes, others, far, chain, mask, scores, sides, whose, own_out, other_out, counts
):  # pragma: no cover - compiled
    """Place the newcomers that are due, and move the edges of their neighbours."""
    order, whom, times, macro = placed
    while coming < len(order) and times[order[coming]] == time:
        row = order[coming]
        coming += 1
        a = whom[row]
        moves = False
        for r in range(macro.shape[1]):
            moves |= nodes.macro[a, r] != macro[row, r]
        if moves:
            p = nodes.head[a]
            while p >= 0:
                if mask[p]:
                    b, s = far[p], scores[mask[p]]
                    whom_of, event = whose[sides[1]], (time, MOVED, 0, -s)
                    _write(others, b, event, (0, 0), nodes.macro[a], sides[1], whom_of, other_out, counts)
                    event = time, MOVED, 0, s
                    _write(others, b, event, (0, 0), macro[row], sides[1], whom_of, other_out, counts)
                p = chain[p]
            for r in range(macro.shape[1]):
                nodes.macro[a, r] = macro[row, r]
        nodes.placed[a] = row
        event = time, MOVED, 0, 0
        _write(nodes, a, event, (0, 0), nodes.macro[a], sides[0], whose[sides[0]], own_out, counts)
    return coming
