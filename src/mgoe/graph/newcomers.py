"""Where newcomers go: nodes that a snapshot has not placed join a macro node by what they have done since.

A newcomer is placed when it has 1, 2, 4, 8, ..., 4,096 neighbours, by all its pairs at that moment: first
users by their pairs with the snapshot's items, then items by their pairs with users that are placed. So where
a node is at a moment depends on the events until then, not on the order in which they came.

Axes: `n` events, `P` placements, `Z` resolutions, `rank` columns of a vector.
"""

from __future__ import annotations

from itertools import starmap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts
from mgoe.graph.edges import last_before
from mgoe.graph.likelihood import Placement
from mgoe.graph.pair_rows import OTHER, Side, block_bounds, starts, untimed
from mgoe.graph.scores import UNIT
from mgoe.graph.snapshot import Snapshot


class Placements(NamedTuple):
    """Placements of newcomers of one side, by node, then time.

    Attributes:
        node: Index of the node. Shape (P,).
        time: From which it is there, microseconds. Shape (P,).
        macro: Its macro node at each resolution; the cold one if nothing tells. Shape (P, Z).
        vectors: Of the sketch. Shape (P, rank).
    """

    node: NDArray[np.int64]
    time: NDArray[np.int64]
    macro: NDArray[np.int32]
    vectors: NDArray[np.float32]

    def at(self, nodes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each node's placement as of a time, this time included; -1 where there is none.

        Args:
            nodes, times: Shape (m,) each.
        """
        own = np.flatnonzero(run_starts(self.node))
        return last_before(self.node[own], np.r_[own, len(self.node)], self.time, nodes, times + 1)[1]


class Doings(NamedTuple):
    """Events of newcomers of one side, by node, then time. Shape (n,) each.

    Attributes:
        node, other: Index of the newcomer and of the other node.
        time: Microseconds.
        task_mask: Tasks that the event does.
    """

    node: NDArray[np.int64]
    other: NDArray[np.int64]
    time: NDArray[np.int64]
    task_mask: NDArray[np.int64]


def place(
    doings: Doings,
    placement: Placement,
    snapshot: Snapshot,
    side: Side,
    others: Placements | None = None,
) -> Placements:
    """Place newcomers at every degree that is a power of two.

    Args:
        doings: All their events.
        placement: Places nodes of their side by the snapshot.
        snapshot: What they are new to.
        side: Of the newcomers.
        others: Where newcomers of the other side are, if they tell.
    """
    (node, other, time, _), far = doings, OTHER[side]
    first = np.empty(len(node), np.bool_)
    order = np.lexsort((time, other, node))  # stable: the first event of each pair
    first[order] = run_starts(node[order], other[order])
    # degree of each node after each event
    begins = np.flatnonzero(run_starts(node))
    sizes = np.diff(np.r_[begins, len(node)])
    degree = np.cumsum(first, dtype=np.int64)
    degree -= np.repeat(degree[begins] - first[begins], sizes)
    ends = np.append(np.flatnonzero(run_starts(node, time)), len(node))[1:] - 1  # of equal node and time
    before = np.r_[0, degree[ends][:-1]]
    before[run_starts(node[ends])] = 0
    power = power_of(degree[ends])
    at = ends[power > power_of(before)]  # the last event of each group that reaches a power of two
    start = np.repeat(begins, sizes)[at]
    macro, vectors = [], []
    for rows in starmap(slice, block_bounds(starts(at - start + 1), BLOCK, len(at))):
        indptr, entry, masks = _pairs_until(doings, start[rows], at[rows])
        tied = [*snapshot.macro_nodes(far, other[entry]).T]
        if others is not None and len(others.node):
            row = others.at(other[entry], np.repeat(time[at[rows]], np.diff(indptr)))
            for r, one in enumerate(tied):
                one[row >= 0] = others.macro[row[row >= 0], r]
        macro.append(placement.macro(untimed(indptr, np.arange(len(entry)), masks), tied))
        block = untimed(indptr, other[entry], masks)
        sums = np.zeros(len(block))
        np.add.at(sums, np.repeat(np.arange(len(block)), np.diff(indptr)), placement.scores[masks])
        vectors.append(placement.vectors(block, sums / UNIT))
    width = placement.other_vectors.shape[1]
    return Placements(
        node[at],
        time[at],
        np.concatenate([*macro, np.empty((0, len(snapshot.resolutions)), np.int32)]),
        np.concatenate([*vectors, np.empty((0, width), np.float32)]),
    )


BLOCK = 1 << 20
"""Events that are read for placements at once."""
POWERS = 13
"""Placements of a newcomer at most. With 4,096 neighbours it is where it belongs, and a live state need not
keep what it does from then on."""


def power_of(degree: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return how many powers of two are at most a number of neighbours, `POWERS` at most."""
    return np.minimum(np.frexp(degree.astype(np.float64))[1], POWERS).astype(np.int64)


def _pairs_until(
    doings: Doings, start: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs that nodes had after an event: where each placement's pairs start, an event of each
    pair, and the tasks done. Pairs are in the order of their other nodes."""
    size = at - start + 1
    row = np.repeat(np.arange(len(at)), size)
    event = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + start[row]
    order = np.lexsort((doings.other[event], row))
    row, event = row[order], event[order]
    begins = np.flatnonzero(run_starts(row, doings.other[event]))
    masks = np.bitwise_or.reduceat(doings.task_mask[event], begins)
    return starts(np.bincount(row[begins], minlength=len(at))), event[begins], masks
