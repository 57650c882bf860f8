"""Plain counts a node: what a practitioner would join to a log before anything clever."""

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pairs import Pairs

PRIOR = 5.0
"""Pairs of prior weight in a smoothed rate."""


def count_names(tasks: int) -> list[str]:
    """Names of the columns of `node_counts`."""
    return [*(f"pairs.task{t}" for t in range(tasks)), "pairs", "recent", "idle", *(f"rate.task{t}" for t in range(tasks))]


def node_counts(pairs: Pairs, side: str, cut: int, tasks: int) -> NDArray[np.float32]:
    """Counts, freshness and task rates of each node at a snapshot. A node without history reads zeros.

    Args:
        pairs: Of the snapshot.
        side: `user` or `item`.
        cut: Last bucket of the snapshot.
        tasks: T.

    Returns:
        Natural logarithms: of 1 + pairs a task (T), pairs, events since the cut before, and buckets since the last event; then of the
        smoothed share of each task among the node's pairs, over its share among all pairs (T). Shape (U, 2T + 3) or (I, 2T + 3).
    """
    indptr, _, order = pairs.by(side)
    node, degree = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), np.diff(indptr)
    done = np.stack([np.bincount(node, pairs.code[order] >> t & 1, len(degree)) for t in range(tasks)], axis=1)  # (n, T)
    recent = np.bincount(node, pairs.events[order], len(degree))
    last = np.full(len(degree), cut, np.int64)
    linked = degree > 0
    last[linked] = np.maximum.reduceat(pairs.bucket[order], indptr[:-1][linked]) if linked.any() else cut
    share = (done.sum(axis=0) + 1.0) / (degree.sum() + 2.0)
    rate = np.log((done + PRIOR * share) / (degree[:, None] + PRIOR) / share)
    columns = [np.log1p(done), np.log1p(degree), np.log1p(recent), np.log1p(cut - last), rate]
    return np.column_stack(columns).astype(np.float32)
