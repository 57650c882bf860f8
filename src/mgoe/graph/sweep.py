"""Follows what happens after a snapshot, event by event.

A change of a pair changes both of its nodes: their counts, score sums and 1st-order edges, and the 2nd-order
edge to the own macro node with the counterpart's edges as of the snapshot, as the live state of a service has
it. A newcomer that is placed moves the edges of its neighbours. The 2nd-order edges to all macro nodes and
the task table stay as the snapshot has them.

All sums are of integers: what is read at a moment does not depend on the order in which events came.

Axes: `n` changed nodes of one side, `N` events, `E` changed pairs, `Z` resolutions, `T` tasks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.counts import task_share
from mgoe.graph.edges import find, find_place
from mgoe.graph.likelihood import Placement
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.moments import MOVED, STEP, Entries, Moments, SideMoments, edge_starts, edges_at
from mgoe.graph.newcomers import Doings, Placements, place
from mgoe.graph.pair_rows import OTHER, SIDES, Side
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
        begins = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]) | (moment[1:] != moment[:-1])][: len(key)])
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
    live = {number: group for number, group in enumerate(rates.groups) if is_live(group)}
    cells = {number: CellMoments.of(records, group, rates.regressions) for number, group in live.items()}
    return replace(moments, rates=cells)


class _Nodes(NamedTuple):
    """Changed nodes of one side while events are followed. Shape (n,) each unless stated otherwise.

    Attributes:
        macro: Own macro nodes. Shape (n, Z).
        head: First pair of each, -1 at the end.
        placed: Row of the placement that a node has now.
        next_row, last_row: Of the placements that follow.
    """

    macro: NDArray[np.int32]
    done: NDArray[np.int32]
    second: NDArray[np.int64]
    head: NDArray[np.int64]
    placed: NDArray[np.int64]
    degree: NDArray[np.int64]
    events: NDArray[np.int64]
    sum: NDArray[np.int64]
    second_sum: NDArray[np.int64]


class _Sweep:
    def __init__(self, graph: MacroGraph, number: int, events: Events):
        snapshot: Snapshot = graph.snapshots[number]
        self._snapshot, self._events, self._scores = snapshot, events, graph.fixed_scores
        self._rows = {name: snapshot.arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask")}
        tasks = len(graph.meta["ranks"])
        masks = self._rows["task_mask"]
        often = np.bincount(masks, minlength=1 << tasks)
        done = np.array([often[np.arange(len(often)) >> t & 1 == 1].sum() for t in range(tasks)])
        self._tasks, self._share = tasks, task_share(done, len(masks))
        self._sums: dict[Side, NDArray[np.int64]] = {side: score_sums(snapshot, side) for side in SIDES}
        placements: dict[Side, Placement] = {side: Placement.of(graph, side, number) for side in SIDES}
        placements["item"] = replace(placements["item"], other_sums=np.divide(self._sums["user"], 1 << 12))
        self._placements = placements
        self._index: dict[Side, NDArray[np.int64]] = {}
        self._slot: dict[Side, NDArray[np.int64]] = {}
        for side in SIDES:
            self._index[side], self._slot[side] = np.unique(getattr(events, side), return_inverse=True)

    def _width(self, side: Side) -> list[int]:
        return [len(getattr(part, f"{side}_mass")) for part in self._snapshot.resolutions]

    def _macro(self, side: Side) -> list[NDArray[np.int32]]:
        return [getattr(part, f"{side}_macro") for part in self._snapshot.resolutions]

    def moments(self) -> Moments:
        events, index, slot = self._events, self._index, self._slot
        placed = self._place()
        key, pair = np.unique(slot["user"] << 32 | slot["item"], return_inverse=True)
        ends: dict[Side, NDArray[np.int64]] = {"user": key >> 32, "item": key & 0xFFFFFFFF}
        base_mask = np.zeros(len(key), np.int64)
        users, items = index["user"][ends["user"]], index["item"][ends["item"]]
        _masks_of(self._rows["indptr"], self._rows["item"], self._rows["task_mask"], users, items, base_mask)
        base_score = self._scores[base_mask]
        nodes = {side: self._nodes(side) for side in SIDES}
        chains: dict[Side, NDArray[np.int64]] = {}
        brackets, seconds = {}, {}
        for side, other in OTHER.items():
            chains[side] = np.full(len(key), -1, np.int64)
            _link(ends[side], nodes[side].head, chains[side])
            far = index[other][ends[other]]
            known = far < len(self._sums[other])
            sums = np.where(known, np.take(self._sums[other], far, mode="clip"), base_score)
            seconds[side] = sums - base_score
            brackets[side] = np.zeros((len(key), len(self._snapshot.resolutions)), np.int64)
            for r, part in enumerate(self._snapshot.resolutions):
                own = np.ascontiguousarray(nodes[side].macro[ends[side], r])
                _brackets(getattr(part, f"{other}_edges"), far, own, base_score, brackets[side][:, r])
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
        _sweep(*work, base_mask.copy(), *spare, (np.empty(0, np.int64),) * 2, *nothing, counts)
        out = tuple(Entries.empty(int(count), *sizes) for count in counts)
        whose = tuple(np.empty(int(count), np.int64) for count in counts)
        counts[:] = 0
        _sweep(*work, base_mask, nodes["user"], nodes["item"], whose, *out, counts)
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
        name = "pairs.indptr" if side == "user" else "pairs.item_indptr"
        degree = np.diff(self._snapshot.arrays[name])
        return np.where(nodes < len(degree), np.take(degree, nodes, mode="clip") if len(degree) else 0, 0)

    def _nodes(self, side: Side) -> _Nodes:
        """Return what the snapshot has of the changed nodes."""
        index, snapshot, parts = self._index[side], self._snapshot, self._snapshot.resolutions
        n = len(index)
        cold = self._width(side)
        macro = np.stack(
            [
                np.where(index < len(one), np.take(one, index, mode="clip") if len(one) else width, width)
                for one, width in zip(self._macro(side), cold, strict=True)
            ],
            axis=1,
        ).astype(np.int32)
        nodes = _Nodes(
            macro,
            np.zeros((n, self._tasks), np.int32),
            np.zeros((n, len(parts)), np.int64),
            np.full(n, -1, np.int64),
            np.full(n, -1, np.int64),
            *(np.zeros(n, np.int64) for _ in range(4)),
        )
        at = np.full(max(snapshot.n_users if side == "user" else snapshot.n_items, 1), -1, np.int64)
        there = index[index < len(at)]
        at[there] = np.arange(len(there))
        pairs = *self._rows.values(), snapshot.arrays["pairs.events"], self._scores
        sums = self._sums[OTHER[side]]
        _add_pairs(pairs, side == "user", at, sums, nodes)
        for r, part in enumerate(parts):
            edges = getattr(part, f"{OTHER[side]}_edges")
            own = np.ascontiguousarray(macro[:, r])
            _add_second(pairs, side == "user", at, edges, own, nodes.second[:, r])
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
        starts = edge_starts(self._width(OTHER[side]))
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
def _masks_of(indptr, other, task_mask, users, items, out):  # pragma: no cover - compiled
    for p in range(len(users)):
        if users[p] < len(indptr) - 1:
            out[p] = find(indptr, other, task_mask, users[p], items[p])


@kernel("head", "following")
def _link(nodes, head, following):  # pragma: no cover - compiled
    for p in range(len(nodes)):
        following[p] = head[nodes[p]]
        head[nodes[p]] = p


@kernel("out")
def _brackets(edges, far, own, base_score, out):  # pragma: no cover - compiled
    """Write the counterpart's edge to the own macro node less what the node itself gave to it."""
    indptr, column, score = edges
    for p in range(len(far)):
        if far[p] < len(indptr) - 1:
            place = find_place(indptr, column, far[p], own[p])
            out[p] = (np.int64(score[place]) if place >= 0 else 0) - base_score[p]


@kernel("nodes")
def _add_pairs(pairs, by_user, at, sums, nodes):  # pragma: no cover - compiled
    """Sum over the snapshot's pairs of the changed nodes."""
    indptr, item, task_mask, events, scores = pairs
    for user in range(len(indptr) - 1):
        if by_user and at[user] < 0:
            continue
        for e in range(indptr[user], indptr[user + 1]):
            a = at[user] if by_user else at[item[e]]
            if a < 0:
                continue
            s = scores[task_mask[e]]
            nodes.sum[a] += s
            nodes.second_sum[a] += s * (sums[item[e] if by_user else user] - s)
            nodes.degree[a] += 1
            nodes.events[a] += events[e]
            for t in range(nodes.done.shape[1]):
                nodes.done[a, t] += task_mask[e] >> t & 1


@kernel("out")
def _add_second(pairs, by_user, at, edges, own, out):  # pragma: no cover - compiled
    indptr, item, task_mask, _, scores = pairs
    edge_indptr, column, score = edges
    for user in range(len(indptr) - 1):
        if by_user and at[user] < 0:
            continue
        for e in range(indptr[user], indptr[user + 1]):
            a = at[user] if by_user else at[item[e]]
            if a < 0:
                continue
            s, far = scores[task_mask[e]], (np.int64(item[e]) if by_user else np.int64(user))
            place = find_place(edge_indptr, column, far, own[a])
            out[a] += s * ((np.int64(score[place]) if place >= 0 else 0) - s)


@kernel("base_mask", "users", "items", "whose", "user_out", "item_out", "counts")
def _sweep(
    time, event_mask, pair, scores, ends, chains, seconds, brackets, index, placed, base_mask, users, items,
    whose, user_out, item_out, counts,
):  # fmt: skip  # pragma: no cover - compiled
    mask, n, start = base_mask, len(time), 0
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
            _count(users, u, old, now, more, step, seconds[0][p], brackets[0][p])
            _count(items, i, old, now, more, step, seconds[1][p], brackets[1][p])
            _write(
                users, u, time[start], index[1][i], now, step, items.macro[i], 0, whose[0], user_out, counts
            )
            _write(
                items, i, time[start], index[0][u], now, step, users.macro[u], 1, whose[1], item_out, counts
            )
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
    nodes.sum[a] += step
    nodes.second_sum[a] += step * second
    if nodes.placed[a] < 0:
        for r in range(len(bracket)):
            nodes.second[a, r] += step * bracket[r]


@kernel("nodes", "whose", "out", "counts", inner=True)
def _write(nodes, a, time, other, mask, step, macro, side, whose, out, counts):  # pragma: no cover - compiled
    at = counts[side]
    counts[side] = at + 1
    if at >= len(whose):
        return
    whose[at] = a
    out.time[at], out.other[at], out.task_mask[at], out.step[at] = time, other, mask, step
    out.degree[at], out.events[at] = nodes.degree[a], nodes.events[a]
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
                    _write(
                        others,
                        b,
                        time,
                        MOVED,
                        0,
                        -s,
                        nodes.macro[a],
                        sides[1],
                        whose[sides[1]],
                        other_out,
                        counts,
                    )
                    _write(
                        others, b, time, MOVED, 0, s, macro[row], sides[1], whose[sides[1]], other_out, counts
                    )
                p = chain[p]
            for r in range(macro.shape[1]):
                nodes.macro[a, r] = macro[row, r]
        nodes.placed[a] = row
        _write(nodes, a, time, MOVED, 0, 0, nodes.macro[a], sides[0], whose[sides[0]], own_out, counts)
    return coming
