"""The macro node that ties a node best: the one whose members' edges are most like its own (ours).

The score that the members of a macro node give goes to the macro nodes of the other side in certain shares. A node with edges `n_k` belongs
where `sum_k n_k log(share_k)` is largest: the likelihood of its edges, were they drawn by those shares. A sketch sees of a node with few
edges little more than noise; the shares are sums over all members. One such step from k-means recovers nearly all that the edges tell of
planted communities (docs/scale.md), and whoever comes later is placed by the same rule, from edges alone.

Everything is a sum of integers: the same in any order, engine or number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.blocks import available_threads
from mgoe.graph.edges import SparseEdges
from mgoe.graph.scores import UNIT

FRACTION_BITS = 10
"""Log shares are kept as integers of 2^-10."""
NEVER = -(1 << 17)
"""Stands for the log share of a macro node without members; real ones are above -45 x 2^10."""
ROWS = 1 << 16
"""Nodes at a time."""


def log_chances(table: NDArray[np.int64]) -> NDArray[np.int32]:
    """How likely the score of a macro node's members goes to each macro node of the other side, with one unit of score more to each.

    Args:
        table: Fixed-point score between macro nodes. Shape (K, other K).

    Returns:
        Natural logarithms, unit 2^-10; `NEVER` for a macro node without score. Shape (other K, K).
    """
    score = table / UNIT
    share = (score + 1) / (score.sum(axis=1, keepdims=True) + table.shape[1])
    logs = np.rint(np.log(share) * (1 << FRACTION_BITS)).astype(np.int32)
    logs[~table.any(axis=1)] = NEVER
    return np.ascontiguousarray(logs.T)


def likeliest(edges: SparseEdges, chances: NDArray[np.int32], linked: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The macro node of every node; the lowest of those that are as good. Edges to the cold node say nothing.

    Args:
        edges: 1st-order edges of the nodes.
        chances: Of `log_chances`. Shape (other K, K).
        linked: Whether a node has edges; the others go to the cold node, number `K`. Shape (U,).

    Returns:
        Shape (U,).
    """
    macro = np.full(len(linked), chances.shape[1], np.int32)

    def part(first: int) -> None:
        rows = slice(first, first + ROWS)
        _likeliest(edges.indptr[first : first + ROWS + 1], edges.macro, edges.score, chances, linked[rows], macro[rows])

    with ThreadPoolExecutor(available_threads()) as pool:
        list(pool.map(part, range(0, len(macro), ROWS)))
    return macro


def drift(macro: NDArray[np.int32], best: NDArray[np.int32], sums: NDArray[np.integer]) -> float:
    """Share of all score that lies with nodes that another macro node ties better than their own. 0 right after clustering."""
    total = int(sums.sum())
    return float(sums[macro != best].sum() / total) if total else 0.0


@numba.njit(cache=True, nogil=True)
def _likeliest(indptr, other, score, chances, linked, macro):  # pragma: no cover - compiled
    width, k = chances.shape
    total = np.empty(k, np.int64)
    for row in range(len(macro)):
        if not linked[row]:
            continue
        total[:] = 0
        for e in range(indptr[row], indptr[row + 1]):
            if other[e] < width:
                s = np.int64(score[e])
                for c in range(k):
                    total[c] += s * np.int64(chances[other[e], c])
        best = -1
        for c in range(k):
            if chances[0, c] != NEVER and (best < 0 or total[c] > total[best]):
                best = c
        macro[row] = max(best, 0)
