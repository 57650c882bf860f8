"""The compiled loops of `kernels`, each over threads.

A sparse matrix is `indptr, other, score`, row after row. Axes: `E` distinct pairs, `K` macro nodes.
"""

import numba
import numpy as np

from benchmarks.measure import THREADS

BITS = 4
"""Of a packed event's task; items lie above."""


@numba.njit(cache=True)
def parts(indptr):
    """Rows cut into a part a thread, of about as many entries each."""
    cuts = np.searchsorted(indptr, np.arange(THREADS + 1) * indptr[-1] // THREADS)
    cuts[0], cuts[-1] = 0, len(indptr) - 1
    return cuts


@numba.njit(cache=True, parallel=True)
def group(key, one, two, n):
    """Stable counting sort of two columns by a key: where each key starts, and the columns."""
    size = len(key)
    place = np.zeros((THREADS, n), np.int64)
    for t in numba.prange(THREADS):
        for e in range(t * size // THREADS, (t + 1) * size // THREADS):
            place[t, key[e]] += 1
    indptr = np.zeros(n + 1, np.int64)
    total = 0
    for row in range(n):
        for t in range(THREADS):
            count = place[t, row]
            place[t, row] = total
            total += count
        indptr[row + 1] = total
    ones, twos = np.empty_like(one), np.empty_like(two)
    for t in numba.prange(THREADS):
        for e in range(t * size // THREADS, (t + 1) * size // THREADS):
            to = place[t, key[e]]
            place[t, key[e]] = to + 1
            ones[to], twos[to] = one[e], two[e]
    return indptr, ones, twos


@numba.njit(cache=True, parallel=True)
def scores(user, item, task, users, table):
    """Events grouped by user, sorted by item within, repeats of an item joined."""
    starts, items, tasks = group(user, item, task, users)
    cuts = parts(starts)
    indptr = np.zeros(users + 1, np.int64)
    for t in numba.prange(len(cuts) - 1):
        for row in range(cuts[t], cuts[t + 1]):
            start, end = starts[row], starts[row + 1]
            packed = np.empty(end - start, np.int64)
            for e in range(start, end):
                packed[e - start] = np.int64(items[e]) << BITS | tasks[e]
            packed.sort()
            kept = start - 1
            for value in packed:
                now, bit = value >> BITS, 1 << (value & ((1 << BITS) - 1))
                if kept < start or items[kept] != now:
                    kept += 1
                    items[kept], tasks[kept] = now, bit
                else:
                    tasks[kept] |= bit
            indptr[row + 1] = kept + 1 - start
    indptr = indptr.cumsum()
    other, score = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for t in numba.prange(len(cuts) - 1):
        for row in range(cuts[t], cuts[t + 1]):
            shift = starts[row] - indptr[row]
            for e in range(indptr[row], indptr[row + 1]):
                other[e], score[e] = items[e + shift], table[tasks[e + shift]]
    return indptr, other, score


@numba.njit(cache=True, parallel=True)
def transposed(indptr, other, score, columns):
    """The same matrix, column after column."""
    rows = np.empty(len(other), np.int32)
    for row in numba.prange(len(indptr) - 1):
        rows[indptr[row] : indptr[row + 1]] = row
    return group(other, rows, score, columns)


@numba.njit(cache=True, parallel=True)
def rows_of(indptr, other, score, chosen):
    """Some of the rows."""
    starts = np.zeros(len(chosen) + 1, np.int64)
    starts[1:] = (indptr[chosen + 1] - indptr[chosen]).cumsum()
    others, part = np.empty(starts[-1], other.dtype), np.empty(starts[-1], score.dtype)
    for row in numba.prange(len(chosen)):
        start, end = indptr[chosen[row]], indptr[chosen[row] + 1]
        others[starts[row] : starts[row + 1]] = other[start:end]
        part[starts[row] : starts[row + 1]] = score[start:end]
    return starts, others, part


@numba.njit(cache=True, parallel=True)
def sums(indptr, score):
    """Sum of each row."""
    out = np.zeros(len(indptr) - 1, np.float32)
    for row in numba.prange(len(out)):
        out[row] = score[indptr[row] : indptr[row + 1]].sum()
    return out


@numba.njit(cache=True, parallel=True)
def product(indptr, other, score, dense):
    """The sparse matrix times a dense one."""
    out = np.zeros((len(indptr) - 1, dense.shape[1]), np.float32)
    cuts = parts(indptr)
    for t in numba.prange(len(cuts) - 1):
        for row in range(cuts[t], cuts[t + 1]):
            for e in range(indptr[row], indptr[row + 1]):
                s, j = score[e], other[e]
                for k in range(dense.shape[1]):
                    out[row, k] += s * dense[j, k]
    return out


@numba.njit(cache=True, parallel=True)
def first_order(indptr, other, score, macro, width):
    """Scores summed by the macro node of their column. Shape (rows, K)."""
    out = np.zeros((len(indptr) - 1, width), np.float32)
    cuts = parts(indptr)
    for t in numba.prange(len(cuts) - 1):
        for row in range(cuts[t], cuts[t + 1]):
            for e in range(indptr[row], indptr[row + 1]):
                out[row, macro[other[e]]] += score[e]
    return out


@numba.njit(cache=True, parallel=True)
def take_way_back(indptr, score, own, out):
    """Subtract each row's sum of squares at its own macro node."""
    for row in numba.prange(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            out[row, own[row]] -= score[e] * score[e]
