"""Recent neighbours and the macro task table: the two readings of a node's own pairs that are not sums."""

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pairs import Pairs


def recent(pairs: Pairs, side: str, length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The last `length` neighbours of each node and the tasks done with them, newest first.

    One entry a neighbour, at the time of its last event; ties go to the higher score, then to the smaller number.

    Returns:
        Neighbours, -1 where there are fewer, and their task codes. Shape (U, R) or (I, R) each.
    """
    indptr, other, order = pairs.by(side)
    neighbours = np.full((len(indptr) - 1, length), -1, np.int32)
    codes = np.zeros((len(indptr) - 1, length), np.int32)
    _recent(indptr, other, pairs.code[order], pairs.score[order], pairs.time[order], neighbours, codes)
    return neighbours, codes


def task_table(pairs: Pairs, side: str, macro: NDArray[np.int32], width: int, tasks: int) -> NDArray[np.int32]:
    """The macro node of the other side that each node prefers under each task (paper, Figure 2; the rule is ours).

    The one with most distinct neighbours under the task, ties to the higher merged score, then to the lower number. A node without the task
    takes its merged favourite; one without history the cold node, number `width`.

    Args:
        pairs: Of the snapshot.
        side: `user` or `item`, the rows.
        macro: Macro node of each node of the other side. Shape (I,) or (U,).
        width: Macro nodes of the other side.
        tasks: T.

    Returns:
        Shape (U, T) or (I, T).
    """
    indptr, other, order = pairs.by(side)
    out = np.full((len(indptr) - 1, tasks), width, np.int32)
    _task_table(indptr, macro[other], pairs.code[order], pairs.score[order], width, out)
    return out


@numba.njit(cache=True, parallel=True, nogil=True)
def _recent(indptr, other, code, score, time, neighbours, codes):  # pragma: no cover - compiled
    length = neighbours.shape[1]
    for row in numba.prange(len(indptr) - 1):
        kept = np.empty(length, np.int64)
        n = 0
        for e in range(indptr[row], indptr[row + 1]):
            if n == length:
                last = kept[n - 1]
                if time[e] < time[last] or (time[e] == time[last] and score[e] <= score[last]):
                    continue  # pairs come by rising number, so an equal one that comes later loses
                n -= 1
            at = n
            while at > 0 and (time[e] > time[kept[at - 1]] or (time[e] == time[kept[at - 1]] and score[e] > score[kept[at - 1]])):
                kept[at] = kept[at - 1]
                at -= 1
            kept[at] = e
            n += 1
        for position in range(n):
            neighbours[row, position] = other[kept[position]]
            codes[row, position] = code[kept[position]]


@numba.njit(cache=True, parallel=True, nogil=True)
def _task_table(indptr, macro, code, score, width, out):  # pragma: no cover - compiled
    tasks = out.shape[1]
    for row in numba.prange(len(indptr) - 1):
        start, end = indptr[row], indptr[row + 1]
        if start == end:
            continue
        merged = np.zeros(width + 1, np.int64)
        count = np.zeros((tasks, width + 1), np.int64)
        for e in range(start, end):
            merged[macro[e]] += score[e]
            for t in range(tasks):
                count[t, macro[e]] += code[e] >> t & 1
        favourite = 0
        for k in range(1, width):
            if merged[k] > merged[favourite]:
                favourite = k
        for t in range(tasks):
            best = favourite
            if count[t].any():
                best = 0
                for k in range(1, width):
                    if count[t, k] > count[t, best] or (count[t, k] == count[t, best] and merged[k] > merged[best]):
                        best = k
            out[row, t] = best
