"""What has changed since a snapshot, as input groups read it.

Axes: `B` pairs, `Z` resolutions, `W` macro nodes of the other side over all resolutions, cold ones included,
`T` tasks, `R` recent neighbours, `n` changed nodes of one side, `E` changed pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph import Snapshot
from mgoe.graph.rate_moments import CellMoments

NO_TIMES = np.empty(0, np.int64)


class EventTimes(NamedTuple):
    """Times of what happened to changed nodes since the snapshot, one per event and task, rising for a node.

    Attributes:
        start, number: Where the times of each node start, and how many there are. Shape (n,).
        time: Microseconds. Shape (N,).

    Example:
        >>> times = EventTimes(np.array([0]), np.array([2]), np.array([10, 30]))
        >>> times.since(np.array([0]), np.array([[5, 20, 40]]))
        array([[2, 1, 0]])
    """

    start: NDArray[np.int64]
    number: NDArray[np.int64]
    time: NDArray[np.int64]

    def since(self, slots: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of the times are at or after moments, 0 for a slot of -1. Shapes (B,), (B, w)."""
        out = np.zeros(moments.shape, np.int64)
        _since(self, slots, moments, out)
        return out


class NodeOverlay(NamedTuple):
    """Changed nodes of one side. Where `slot[node]` is not negative, a node is read from that row of the
    other arrays.

    Attributes:
        slot: Row of each node, -1 where it is unchanged. Shape (at least the nodes,), or (0,) where none has
            changed.
        index: The node of each row. Shape (n,).
        macro: Own macro node at each resolution. Shape (n, Z).
        edges: 1st-order edges of all resolutions side by side, in fixed point, cold macro nodes included,
            with the pseudo-scores of `mgoe.graph.placing`. Shape (n, W).
        second: 2nd-order edge to the own macro node at each resolution. Shape (n, Z).
        sum, second_sum: Score sums over one and two steps. Shape (n,).
        counts: Shape (n, 2T + 3).
        log_first: log(1 + edge) of the 1st order at the dense resolution. Shape (n, K).
        kappa: Pseudo-scores of the sum, see `mgoe.graph.placing`. Shape (n,).
        vectors: Of the sketch. Shape (n, rank).
        recent, recent_task_mask: Neighbours, newest first, -1 at the end. Shape (n, R).
        head: First changed pair of the node, -1 where there is none. Shape (n,).
        first, last, total, again: See `own_pairs`. Shape (n,).
        times: Of the events since the snapshot.

    Example:
        >>> bundle.view.overlay.user.index.size
        0
    """

    slot: NDArray[np.int32]
    index: NDArray[np.int64]  # type: ignore[assignment]
    macro: NDArray[np.int32]
    edges: NDArray[np.int64]
    second: NDArray[np.float32]
    sum: NDArray[np.float32]
    second_sum: NDArray[np.float32]
    counts: NDArray[np.float32]
    log_first: NDArray[np.float16]
    kappa: NDArray[np.float32]
    vectors: NDArray[np.float32]
    recent: NDArray[np.int32]
    recent_task_mask: NDArray[np.unsignedinteger]
    head: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    total: NDArray[np.int64]
    again: NDArray[np.int64]
    times: EventTimes


class PairOverlay(NamedTuple):
    """Changed pairs, chained by user.

    Attributes:
        item: Row of the item in its `NodeOverlay`. Shape (E,).
        task_mask: Tasks done, as bits. Shape (E,).
        time: Of the last event. Shape (E,).
        first: Of the first event. Shape (E,).
        total: All events. Shape (E,).
        next_user: The user's next changed pair, -1 at the end. Shape (E,).

    Example:
        >>> bundle.view.overlay.pairs.item.size
        0
    """

    item: NDArray[np.int32]
    task_mask: NDArray[np.int64]
    time: NDArray[np.int64]
    first: NDArray[np.int64]
    total: NDArray[np.int64]
    next_user: NDArray[np.int32]


class RateCells(NamedTuple):
    """Counts of exposures since the snapshot in a group of `Rates`, by open addressing.

    Attributes:
        key: Of each cell, the first axis in the upper and the second in the lower 32 bits; -1 where a place
            is empty. There are a power of 2 of places. Shape (E,).
        counts, values: Added to those of `RateTable`. Shapes (E, 1 + 2T) and (E, regressions).
        place: Of the cell of each pair and value of the second axis, the last where there is none, if pairs
            have cells of their own. Shape (B, L), or (0, 0) where cells are found by their key.

    Example:
        >>> cells = RateCells(np.zeros(0, np.int64), np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int64))
        >>> cells.counts.shape
        (0, 2)
    """

    key: NDArray[np.int64]
    counts: NDArray[np.int32]
    values: NDArray[np.int64]
    place: NDArray[np.int64] = np.zeros((0, 0), np.int64)


class CellsBefore(NamedTuple):
    """Counts of exposures between the snapshot and the moment of each pair, in a group of `Rates`.

    Attributes:
        cells: At any moment.
        times: What pairs are read strictly before. Shape (B,).
    """

    cells: CellMoments
    times: NDArray[np.int64]

    def of(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> RateCells:
        """Return the cells of pairs, by their values on both axes. Shapes (B, 1) and (B, L) or (1, L)."""
        key = first << 32 | second
        entry = self.cells.before(key.ravel(), np.repeat(self.times, key.shape[1]))
        found = entry >= 0
        place, entry = np.where(found, np.cumsum(found) - 1, -1).reshape(key.shape), entry[found]
        there = np.append(np.zeros(len(entry), np.int64), -1)
        return RateCells(there, self.cells.counts[entry], self.cells.values[entry], place)


class Later(NamedTuple):
    """What users did after the snapshot: that of row b are the entries from `first[b]` to `end[b] - 1`.

    Attributes:
        first, end: Shape (B,).
        item: Index, negative where an entry is no event. Shape (N,).
        time: Microseconds. Shape (N,).

    Example:
        >>> Later(np.array([0]), np.array([1]), np.array([7], np.int32), np.array([10])).item[0]
        np.int32(7)
    """

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    item: NDArray[np.integer]
    time: NDArray[np.int64]


class Overlay(NamedTuple):
    """Everything that has changed since the snapshot; a pair or node that is not here is read from the
    snapshot.

    Attributes:
        user, item: Changed nodes.
        pairs: Changed pairs.
        rates: One entry per group of exposures, None where nothing changes; empty if nothing does.
        later: What the user of each pair did, where pairs are read as of moments; see `later_of`.

    Example:
        >>> len(bundle.view.overlay.rates)
        0
    """

    user: NodeOverlay
    item: NodeOverlay
    pairs: PairOverlay
    rates: Sequence[RateCells | CellsBefore | None] = ()
    later: Later | None = None

    def later_of(self, slots: NDArray[np.int64]) -> Later:
        """Return what changed users did after the snapshot, at least the last event on each item.

        Args:
            slots: Rows of the users, -1 for one that has not changed. Shape (B,).
        """
        if self.later is not None:
            return self.later
        own, each = np.unique(slots, return_inverse=True)
        indptr, numbers = walk(own, self.user.head, self.pairs.next_user)
        items = self.item.index[self.pairs.item[numbers]]
        return Later(indptr[each], indptr[each + 1], items, self.pairs.time[numbers])

    @classmethod
    def empty(cls, snapshot: Snapshot) -> Overlay:
        """Return the overlay of a snapshot without changes, as training reads it."""
        nodes = NodeOverlay(
            slot=np.empty(0, np.int32),
            index=np.empty(0, np.int64),
            macro=np.empty((0, 0), np.int32),
            edges=np.empty((0, 0), np.int64),
            second=np.empty((0, 0), np.float32),
            sum=np.empty(0, np.float32),
            second_sum=np.empty(0, np.float32),
            counts=np.empty((0, 0), np.float32),
            log_first=np.empty((0, 0), np.float16),
            kappa=np.empty(0, np.float32),
            vectors=np.empty((0, 0), np.float32),
            recent=np.empty((0, 0), np.int32),
            recent_task_mask=np.empty((0, 0), snapshot.arrays["pairs.task_mask"].dtype),
            head=np.empty(0, np.int32),
            first=NO_TIMES,
            last=NO_TIMES,
            total=NO_TIMES,
            again=NO_TIMES,
            times=EventTimes(NO_TIMES, NO_TIMES, NO_TIMES),
        )
        pairs = PairOverlay(
            item=np.empty(0, np.int32),
            task_mask=np.empty(0, np.int64),
            time=NO_TIMES,
            first=NO_TIMES,
            total=NO_TIMES,
            next_user=np.empty(0, np.int32),
        )
        return cls(nodes, nodes, pairs)


@kernel("out")
def _since(times, slots, moments, out):  # pragma: no cover - compiled
    for row in range(len(slots)):
        if slots[row] < 0:
            continue
        first, count = times.start[slots[row]], times.number[slots[row]]
        for w in range(moments.shape[1]):
            low, high = first, first + count
            while low < high:
                half = (low + high) // 2
                if times.time[half] < moments[row, w]:
                    low = half + 1
                else:
                    high = half
            out[row, w] = first + count - low


@kernel()
def walk(slots, head, following):  # pragma: no cover - compiled
    """Return where the live pairs of each slot start (n + 1,), and the numbers of these pairs, by their
    chains: `head` has the first pair of each slot, `following` the next after each pair. Slot -1 has none."""
    indptr = np.zeros(len(slots) + 1, np.int64)
    for row in range(len(slots)):
        indptr[row + 1] = indptr[row]
        p = head[slots[row]] if slots[row] >= 0 else -1
        while p >= 0:
            indptr[row + 1] += 1
            p = following[p]
    numbers = np.empty(indptr[-1], np.int64)
    for row in range(len(slots)):
        p = head[slots[row]] if slots[row] >= 0 else -1
        for at in range(indptr[row], indptr[row + 1]):
            numbers[at] = p
            p = following[p]
    return indptr, numbers
