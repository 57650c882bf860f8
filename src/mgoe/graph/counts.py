"""Plain counts a node: what a practitioner would join to a log before anything clever."""

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pairs import Pairs

PRIOR = 5.0
"""Pairs of prior weight in a smoothed rate."""


def node_counts(
    pairs: Pairs, steps: dict[str, NDArray], snapshot: int, cut: int, side: str, tasks: int
) -> tuple[NDArray[np.float32], list[str]]:
    """Counts, freshness and task rates of each node at a snapshot.

    Args:
        pairs: Of the snapshot.
        steps: Columns of `pair_steps`, for the events since the cut before.
        snapshot: Its index.
        cut: Its last bucket.
        side: `user` or `item`.
        tasks: T.

    Returns:
        Natural logarithms of 1 + pairs a task (T), pairs, events since the cut before, and buckets since the last event; then the
        smoothed log rate of each task among the node's pairs (T). Shape (U, 2T + 3) or (I, 2T + 3), and the names.
    """
    node = getattr(pairs, side)
    n = (len(pairs.indptr) if side == "user" else len(pairs.item_indptr)) - 1
    done = np.stack([np.bincount(node, pairs.code >> t & 1, n) for t in range(tasks)], axis=1)  # (n, T)
    degree = np.bincount(node, minlength=n)
    fresh = steps["since"] == snapshot
    recent = np.bincount(steps[side][fresh], steps["events"][fresh], minlength=n)
    last = np.full(n, np.iinfo(np.int32).min, np.int64)
    np.maximum.at(last, node, pairs.bucket)
    age = np.where(degree > 0, cut - last, 0)
    overall = (done.sum(axis=0) + 1.0) / (degree.sum() + 2.0)
    rate = np.log((done + PRIOR * overall) / (degree[:, None] + PRIOR))
    columns = np.column_stack([np.log1p(done), np.log1p(degree), np.log1p(recent), np.log1p(np.maximum(age, 0)), rate])
    names = [
        *(f"{side}.pairs.task{t}" for t in range(tasks)),
        f"{side}.pairs",
        f"{side}.recent",
        f"{side}.idle",
        *(f"{side}.rate.task{t}" for t in range(tasks)),
    ]
    return columns.astype(np.float32), names
