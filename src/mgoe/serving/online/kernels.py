"""Compiled loops over pairs that live events have changed. Slots index the arrays of `Nodes`.

A kernel reads one of Z columns by its number: a column alone is of another array type where Z is 1.

Axes: `m` changed pairs, `Z` resolutions, `K` macro nodes, `T` tasks, `R` recent neighbours.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.edges import find, find_place


class Change(NamedTuple):
    """Changed pairs as one side sees them. Shape (m,) each but for `other_macro`.

    Attributes:
        own: Slot of the node of this side.
        other: Index of the other node.
        other_macro: Macro nodes of the other node. Shape (m, Z).
        score, old_score, base_score: Fixed-point score now, before this change, and in the snapshot.
        task_mask, old_task_mask: Tasks done now and before; none before if the pair is new.
        events: How many events more, of those since the snapshot before the latest.
        gained: How many events more.
        time, first: Of the last and of the first event.
    """

    own: NDArray[np.int64]
    other: NDArray[np.int64]
    other_macro: NDArray[np.int32]
    score: NDArray[np.int64]
    old_score: NDArray[np.int64]
    base_score: NDArray[np.int64]
    task_mask: NDArray[np.int64]
    old_task_mask: NDArray[np.int64]
    events: NDArray[np.int64]
    gained: NDArray[np.int64]
    time: NDArray[np.int64]
    first: NDArray[np.int64]


class Totals(NamedTuple):
    """Arrays of `Nodes` that sum over a node's pairs, named as there."""

    fixed_sum: NDArray[np.int64]
    fixed_second_sum: NDArray[np.int64]
    done: NDArray[np.int32]
    degree: NDArray[np.int64]
    events: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    total: NDArray[np.int64]
    again: NDArray[np.int64]


@kernel("totals")
def add_totals(change, other_sums, totals):  # pragma: no cover - compiled
    """Add to sums over one and two steps, pairs per task, pairs, events, and when these were."""
    for p in range(len(change.own)):
        a, other, step = change.own[p], change.other[p], change.score[p] - change.old_score[p]
        totals.fixed_sum[a] += step
        if other < len(other_sums):
            totals.fixed_second_sum[a] += step * (other_sums[other] - change.base_score[p])
        gained = change.task_mask[p] & ~change.old_task_mask[p]
        for t in range(totals.done.shape[1]):
            totals.done[a, t] += gained >> t & 1
        totals.degree[a] += change.old_task_mask[p] == 0
        totals.events[a] += change.events[p]
        totals.first[a] = min(totals.first[a], change.first[p])
        totals.last[a] = max(totals.last[a], change.time[p])
        totals.total[a] += change.gained[p]
        totals.again[a] += change.gained[p] - (change.old_task_mask[p] == 0)


@kernel("out")
def add_edges(own, macro, r, step, start, out):  # pragma: no cover - compiled
    """Add to 1st-order edges at resolution `r`, whose columns begin at `start`."""
    for p in range(len(own)):
        out[own[p], start + macro[p, r]] += step[p]


@kernel("out")
def add_own_second_order(own, other, step, base_score, edges, macro, r, out):  # pragma: no cover - compiled
    """Add to each node's 2nd-order edge to its own macro node at resolution `r`."""
    indptr, column, score = edges
    for p in range(len(own)):
        a = own[p]
        if other[p] < len(indptr) - 1:
            edge = np.int64(find(indptr, column, score, other[p], macro[a, r]))
            out[a, r] += step[p] * (edge - base_score[p])


@kernel()
def find_pairs(indptr, other, rows, columns):  # pragma: no cover - compiled
    """Return where pairs are stored in sparse rows, -1 for those that are not."""
    out = np.full(len(rows), -1, np.int64)
    for p in range(len(rows)):
        if rows[p] < len(indptr) - 1:
            out[p] = find_place(indptr, other, rows[p], columns[p])
    return out


@kernel(inline="always")
def _comes_before(
    time, score, node, entry_time, entry_score, entry, known, rank
):  # pragma: no cover - compiled
    """Whether a node comes before an entry: newer, higher score, smaller index, newcomers last."""
    if time != entry_time:
        return time > entry_time
    if score != entry_score:
        return score > entry_score
    if node >= known and entry >= known and rank[node - known] != rank[entry - known]:
        return rank[node - known] < rank[entry - known]
    return node < entry


@kernel("neighbor", "masks", "times")
def add_recents(change, scores, known, rank, neighbor, masks, times):  # pragma: no cover - compiled
    """Move neighbours to where they now belong.

    What pairs are sorted by only grows, so a neighbour that has left the list comes back only with an event.
    """
    length = neighbor.shape[1]
    for p in range(len(change.own)):
        a, node, time, score = change.own[p], change.other[p], change.time[p], scores[change.task_mask[p]]
        n, at = 0, length
        while n < length and neighbor[a, n] >= 0:
            if neighbor[a, n] == node:
                at = n
            n += 1
        if at == length:  # not in the list
            at = n
            if n == length:  # the list is full: replace the last entry or leave it
                at = n - 1
                last, last_score = neighbor[a, at], scores[masks[a, at]]
                if not _comes_before(time, score, node, times[a, at], last_score, last, known, rank):
                    continue
        while at > 0:
            entry, entry_score = neighbor[a, at - 1], scores[masks[a, at - 1]]
            if not _comes_before(time, score, node, times[a, at - 1], entry_score, entry, known, rank):
                break
            neighbor[a, at], masks[a, at], times[a, at] = entry, masks[a, at - 1], times[a, at - 1]
            at -= 1
        neighbor[a, at], masks[a, at], times[a, at] = node, change.task_mask[p], time


@kernel("head", "following")
def link(nodes, first, head, following):  # pragma: no cover - compiled
    """Put new pairs, numbered from `first`, at the head of their nodes' chains."""
    for p in range(len(nodes)):
        following[first + p] = head[nodes[p]]
        head[nodes[p]] = first + p


@kernel("times", "number")
def add_times(slots, when, many, start, number, times):  # pragma: no cover - compiled
    """Put times among those of their nodes, which have room for them: each as often as it counts."""
    for k in range(len(slots)):
        first, end = start[slots[k]], start[slots[k]] + number[slots[k]]
        at = end
        while at > first and times[at - 1] > when[k]:
            times[at - 1 + many[k]] = times[at - 1]
            at -= 1
        times[at : at + many[k]] = when[k]
        number[slots[k]] += many[k]
