"""Plain counts a node: what a practitioner would join to a log before anything clever."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.neighbours import recent
from mgoe.graph.pair_rows import PairRows

PRIOR = 5.0
"""Pairs of prior weight in a smoothed rate."""


def count_names(tasks: int) -> list[str]:
    """Names of the columns of `node_counts`."""
    return [
        *(f"pairs.task{t}" for t in range(tasks)),
        "pairs",
        "recent",
        "idle",
        *(f"rate.task{t}" for t in range(tasks)),
    ]


@dataclass(frozen=True)
class OwnPairs:
    """Reads what depends on a node's own pairs alone.

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        tasks: T.
        recents: R.
    """

    scores: NDArray[np.int64]
    tasks: int
    recents: int

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """`recent` and `recent_task_mask` (n, R); `sum`, fixed-point (n,); `done`, pairs by task (n, T); `events` since the snapshot before
        (n,); `last`, the moment of the last event (n,), the lowest integer without one."""
        n = len(block)
        total, done = np.zeros(n, np.int64), np.zeros((n, self.tasks), np.int32)
        events, last = np.zeros(n, np.int32), np.full(n, np.iinfo(np.int64).min)
        _own(block.indptr, block.task_mask, block.time, block.events, self.scores, total, done, events, last)
        neighbours, codes = recent(block, self.scores, self.recents)
        return {
            "recent": neighbours,
            "recent_task_mask": codes,
            "sum": total,
            "done": done,
            "events": events,
            "last": last,
        }


def node_counts(
    done: NDArray[np.int32],
    degree: NDArray[np.int64],
    events: NDArray[np.int32],
    idle: NDArray[np.int64],
    share: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Counts, freshness and task rates of n nodes at a snapshot. A node without history reads zeros.

    Args:
        done: Pairs by task. Shape (n, T).
        degree: Pairs. Shape (n,).
        events: Since the snapshot before. Shape (n,).
        idle: Buckets since the last event. Shape (n,).
        share: Of each task among all pairs, from `task_share`. Shape (T,).

    Returns:
        Natural logarithms: of 1 + pairs a task (T), pairs, events, and buckets since the last event; then of the smoothed share of each
        task among the node's pairs, over its share among all pairs (T). Shape (n, 2T + 3).
    """
    rate = np.log((done + PRIOR * share) / (degree[:, None] + PRIOR) / share)
    rate[degree == 0] = 0  # and not the rounding of a logarithm of 1
    return np.column_stack([np.log1p(done), np.log1p(degree), np.log1p(events), np.log1p(idle), rate]).astype(
        np.float32
    )


def task_share(done: NDArray[np.int64], pairs: int) -> NDArray[np.floating]:
    """Smoothed share of each task among all pairs, from how many have it. Shape (T,)."""
    return (done + 1.0) / (pairs + 2.0)


@numba.njit(cache=True, nogil=True)
def _own(indptr, code, time, events, scores, total, done, recent, last):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            total[row] += scores[code[e]]
            recent[row] += events[e]
            last[row] = max(last[row], time[e])
            for t in range(done.shape[1]):
                done[row, t] += code[e] >> t & 1
