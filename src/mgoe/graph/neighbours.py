"""Recent neighbours and the macro task table: the two readings of a node's own pairs that are not sums."""

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pair_rows import PairRows


def recent(
    block: PairRows, scores: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]:
    """The last `length` neighbours of each node and the tasks done with them, newest first.

    One entry a neighbour, at the time of its last event; ties go to the higher score, then to the smaller number.

    Args:
        block: Of n nodes.
        scores: Of every code. Shape (2^T,).
        length: R.

    Returns:
        Neighbours, -1 where there are fewer, and their task codes. Shape (n, R) each.
    """
    neighbours = np.full((len(block), length), -1, np.int32)
    codes = np.zeros((len(block), length), block.task_mask.dtype)
    _recent(block.indptr, block.other, block.task_mask, scores, block.time, neighbours, codes)
    return neighbours, codes


def task_table(
    block: PairRows, scores: NDArray[np.int64], macro: NDArray[np.int32], width: int, tasks: int
) -> NDArray[np.int32]:
    """The macro node of the other side that each node prefers under each task (paper, Figure 2; the rule is ours).

    The one with most distinct neighbours under the task, ties to the higher merged score, then to the lower number. A node without the task
    takes its merged favourite; one without history the cold node, number `width`.

    Args:
        block: Of n nodes.
        scores: Of every code. Shape (2^T,).
        macro: Macro node of each node of the other side. Shape (I,) or (U,).
        width: Macro nodes of the other side.
        tasks: T.

    Returns:
        Shape (n, T).
    """
    out = np.full((len(block), tasks), width, np.int32)
    _task_table(block.indptr, block.other, block.task_mask, scores, macro, width, out)
    return out


@numba.njit(cache=True, nogil=True)
def _recent(indptr, other, code, scores, time, neighbours, codes):  # pragma: no cover - compiled
    length = neighbours.shape[1]
    kept = np.empty(length, np.int64)
    for row in range(len(indptr) - 1):
        n = 0
        for e in range(indptr[row], indptr[row + 1]):
            score = scores[code[e]]
            if n == length:
                last = kept[n - 1]
                if time[e] < time[last] or (time[e] == time[last] and score <= scores[code[last]]):
                    continue  # pairs come by rising number, so an equal one that comes later loses
                n -= 1
            at = n
            while at > 0 and (
                time[e] > time[kept[at - 1]]
                or (time[e] == time[kept[at - 1]] and score > scores[code[kept[at - 1]]])
            ):
                kept[at] = kept[at - 1]
                at -= 1
            kept[at] = e
            n += 1
        for position in range(n):
            neighbours[row, position] = other[kept[position]]
            codes[row, position] = code[kept[position]]


@numba.njit(cache=True, nogil=True)
def _task_table(indptr, other, code, scores, macro, width, out):  # pragma: no cover - compiled
    tasks = out.shape[1]
    merged, count = np.zeros(width + 1, np.int64), np.zeros((tasks, width + 1), np.int32)
    for row in range(len(indptr) - 1):
        start, end = indptr[row], indptr[row + 1]
        if start == end:
            continue
        for e in range(start, end):
            k = macro[other[e]]
            merged[k] += scores[code[e]]
            for t in range(tasks):
                count[t, k] += code[e] >> t & 1
        favourite = _largest(merged, merged, width)
        for t in range(tasks):
            best = _largest(count[t], merged, width)
            out[row, t] = best if count[t, best] else favourite
        for e in range(start, end):
            k = macro[other[e]]
            merged[k] = 0
            count[:, k] = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _largest(values, ties, width):  # pragma: no cover - compiled
    best = 0
    for k in range(1, width):
        if values[k] > values[best] or (values[k] == values[best] and ties[k] > ties[best]):
            best = k
    return best
