"""The macro task table: the macro node of the other side that each node prefers for each task."""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.pair_rows import PairRows


def task_table(
    block: PairRows, scores: NDArray[np.int64], macro: NDArray[np.int32], width: int, tasks: int
) -> NDArray[np.int32]:
    """Return the macro node of the other side that each node prefers for each task (paper, Figure 2; our
    rule).

    It is the one with most distinct neighbours for the task; ties go to the higher merged score, then to the
    lower number. A node without the task takes its merged favourite; one without history the cold node,
    number `width`.

    Args:
        block: Of n nodes.
        scores: Of every task mask. Shape (2^T,).
        macro: Macro node of each node of the other side. Shape (I,) or (U,).
        width: Macro nodes of the other side.
        tasks: T.

    Returns:
        Shape (n, T).
    """
    out = np.full((len(block), tasks), width, np.int32)
    _task_table(block.scored(scores), macro, width, out)
    return out


@kernel("out")
def _task_table(pairs, macro, width, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    tasks = out.shape[1]
    merged, count = np.zeros(width + 1, np.int64), np.zeros((tasks, width + 1), np.int32)
    for row in range(len(indptr) - 1):
        start, end = indptr[row], indptr[row + 1]
        if start == end:
            continue
        for e in range(start, end):
            k = macro[other[e]]
            merged[k] += scores[task_mask[e]]
            for t in range(tasks):
                count[t, k] += task_mask[e] >> t & 1
        favorite = largest(merged, merged, width)
        for t in range(tasks):
            best = largest(count[t], merged, width)
            out[row, t] = best if count[t, best] else favorite
        for e in range(start, end):
            k = macro[other[e]]
            merged[k] = 0
            for t in range(tasks):
                count[t, k] = 0


@kernel(inline="always")
def largest(values, ties, width):  # pragma: no cover - compiled
    """Return the place of the largest of the first values; ties go to the larger tie, then to the first."""
    best = 0
    for k in range(1, width):
        if values[k] > values[best] or (values[k] == values[best] and ties[k] > ties[best]):
            best = k
    return best
