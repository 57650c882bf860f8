"""Reading a node's own pairs: score sums, plain counts, and recent neighbours.

The counts are what a practitioner would join to a log before anything clever.
"""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import log
from mgoe.graph.pair_rows import BLOCK_PAIRS, PairRows

PRIOR = 5.0
"""Weight of the prior in a smoothed rate, in pairs."""


def count_names(tasks: int) -> list[str]:
    """Return the names of the columns of `node_counts`."""
    return [
        *(f"pairs.task{t}" for t in range(tasks)),
        "pairs",
        "recent",
        "idle",
        *(f"rate.task{t}" for t in range(tasks)),
    ]


HOUR = 3_600_000_000
"""In microseconds."""
AGES = HOUR << np.arange(11)
"""Ages up to which the pairs of a node are counted: an hour, two, four, up to six weeks, in microseconds."""
LATEST = np.iinfo(np.int64).max
"""First moment of a node without events."""


def own_pairs(
    block: PairRows, scores: NDArray[np.int64], tasks: int, recents: int, end: int | None = None
) -> dict[str, NDArray]:
    """Read what depends on a node's own pairs alone.

    Args:
        block: Of n nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        tasks: T.
        recents: R.
        end: The moment from which ages count, in microseconds; without it they are not counted.

    Returns:
        `recent` and `recent_task_mask` (n, R): the last neighbours and the tasks done with them, newest
            first, -1 where there are fewer. A neighbour has one entry, at the time of its last event; ties
            go to the higher score, then to the smaller index.
        `sum`, fixed-point (n,); `done`, pairs per task (n, T); `events` since the previous snapshot (n,);
            `first` and `last`, the moments of the first and the last event (n,), `LATEST` and the lowest
            integer if there is none; `total`, all events (n,), and `again`, those of them that were not the
            first of their pair (n,); `ages`, the pairs whose last event is younger than each of `AGES` (n,
            11).
    """
    n = len(block)
    total, done = np.zeros(n, np.int64), np.zeros((n, tasks), np.int32)
    events, last = np.zeros(n, np.int32), np.full(n, np.iinfo(np.int64).min)
    _own(block.scored(scores), block.time, block.events, total, done, events, last)
    first, every, again = np.full(n, LATEST), np.zeros(n, np.int64), np.zeros(n, np.int64)
    ages = np.zeros((n, 0 if end is None else len(AGES)), np.uint32)
    _spans(block.indptr, block.columns, end or 0, first, every, again, ages)
    neighbors = np.full((n, recents), -1, np.int32)
    task_mask = np.zeros((n, recents), block.task_mask.dtype)
    _recent(block.scored(scores), block.time, neighbors, task_mask)
    return {
        "recent": neighbors,
        "recent_task_mask": task_mask,
        "sum": total,
        "done": done,
        "events": events,
        "first": first,
        "last": last,
        "total": every,
        "again": again,
    } | ({} if end is None else {"ages": ages})


def node_counts(
    done: NDArray[np.int32],
    degree: NDArray[np.int64],
    events: NDArray[np.int32],
    idle: NDArray[np.int64],
    share: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Return the counts, freshness and task rates of n nodes at a snapshot; zeros for a node without history.

    Args:
        done: Pairs per task. Shape (n, T).
        degree: Pairs. Shape (n,).
        events: Since the previous snapshot. Shape (n,).
        idle: Buckets since the last event. Shape (n,).
        share: Share of each task among all pairs, from `task_share`. Shape (T,).

    Returns:
        Natural logarithms: of 1 + the pairs per task (T), all pairs, events, and buckets since the last
            event; then of
        the smoothed share of each task among the node's pairs, over its share among all pairs (T). Shape (n,
        2T + 3).
    """
    rate = log((done + PRIOR * share) / (degree[:, None] + PRIOR) / share)
    rate[degree == 0] = 0  # and not the rounding of a logarithm of 1
    counts = np.column_stack([done, degree, events, idle])
    return np.column_stack([log(1 + counts), rate]).astype(np.float32)


def tasks_done(task_mask: NDArray[np.unsignedinteger], tasks: int) -> NDArray[np.int64]:
    """Count the pairs that each task was done on. Shape (T,)."""
    often = np.zeros(1 << tasks, np.int64)
    # `bincount` makes integers of eight bytes of its input
    for start in range(0, len(task_mask), BLOCK_PAIRS):
        often += np.bincount(task_mask[start : start + BLOCK_PAIRS], minlength=1 << tasks)
    return np.array([often[np.arange(len(often)) >> t & 1 == 1].sum() for t in range(tasks)], np.int64)


def task_share(done: NDArray[np.int64], pairs: int) -> NDArray[np.floating]:
    """Return the smoothed share of each task among all pairs, from the number of pairs that have it. Shape
    (T,).
    """
    return (done + 1.0) / (pairs + 2.0)


@kernel("total", "done", "recent", "last")
def _own(pairs, time, events, total, done, recent, last):  # pragma: no cover - compiled
    indptr, _, task_mask, scores = pairs
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            total[row] += scores[task_mask[e]]
            recent[row] += events[e]
            last[row] = max(last[row], time[e])
            for t in range(done.shape[1]):
                done[row, t] += task_mask[e] >> t & 1


@kernel("first", "every", "again", "ages")
def _spans(indptr, pairs, end, first, every, again, ages):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            first[row] = min(first[row], pairs.first[e])
            every[row] += pairs.total[e]
            again[row] += np.int64(pairs.total[e]) - 1
            k = ages.shape[1] - 1
            while k >= 0 and end - pairs.time[e] < HOUR << k:
                ages[row, k] += 1
                k -= 1


@kernel("neighbors", "masks")
def _recent(pairs, time, neighbors, masks):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    length = neighbors.shape[1]
    kept = np.empty(length, np.int64)
    for row in range(len(indptr) - 1):
        n = 0
        for e in range(indptr[row], indptr[row + 1]):
            score = scores[task_mask[e]]
            if n == length:
                last = kept[n - 1]
                if time[e] < time[last] or (time[e] == time[last] and score <= scores[task_mask[last]]):
                    continue  # neighbours ascend, so an equal one that comes later loses
                n -= 1
            at = n
            while at > 0 and (
                time[e] > time[kept[at - 1]]
                or (time[e] == time[kept[at - 1]] and score > scores[task_mask[kept[at - 1]]])
            ):
                kept[at] = kept[at - 1]
                at -= 1
            kept[at] = e
            n += 1
        for position in range(n):
            neighbors[row, position] = other[kept[position]]
            masks[row, position] = task_mask[kept[position]]
