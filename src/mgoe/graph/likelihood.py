"""The macro node that ties a node best: the one whose members' edges are most like its own (ours).

The score that the members of a macro node give goes to the macro nodes of the other side in certain shares. A node with edges `n_k` belongs
where `sum_k n_k log(share_k)` is largest: the likelihood of its edges, were they drawn by those shares. A sketch sees of a node with few
edges little more than noise; the shares are sums over all members. So macro nodes start from the sketch, a sample of users and the items
take turns in moving to where they are likeliest until few still move, and every node, whoever comes later included, is placed by the same
rule from its edges alone.

Sums are of integers, logarithms included: the same in any order, engine or number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.edges import SparseEdges
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side, available_threads
from mgoe.graph.scores import UNIT

FRACTION_BITS = 10
"""Log shares are kept as integers of 2^-10."""
NEVER = -(1 << 17)
"""Stands for the log share of a macro node without members; real ones are above -45 x 2^10."""
SETTLED = 0.005
"""Share of the nodes that still move in a round, below which it is the last."""
ROWS = 1 << 16
"""Nodes at a time."""


@dataclass(frozen=True)
class Likeliest:
    """Reads the macro node that ties each node best; the lowest of those that are as good. Pairs with cold nodes say nothing, and a node
    without others stays cold.

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        macro: Macro node of each node of the other side; any beyond the last is cold. Shape (I,) or (U,).
        chances: Of `log_chances`. Shape (other K, K).
    """

    scores: NDArray[np.int64]
    macro: NDArray[np.int32]
    chances: NDArray[np.int32]

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """`macro` (n,); number `K` is the cold node."""
        macro = np.full(len(block), self.chances.shape[1], np.int32)
        _place(block.indptr, block.other, block.task_mask, self.scores, self.macro, self.chances, macro)
        return {"macro": macro}


def settle(
    rows: Mapping[Side, PairRows],
    macro: Mapping[Side, NDArray[np.int32]],
    k: Mapping[Side, int],
    scores: NDArray[np.int64],
    rounds: int,
) -> tuple[dict[Side, NDArray[np.int32]], dict[Side, NDArray[np.int32]]]:
    """Items and users move in turn to the macro node that ties them best, until few still move.

    Args:
        rows: The same pairs by user and by item.
        macro: Where nodes start; those without pairs stay.
        k: Macro nodes.
        scores: Fixed-point score of every code. Shape (2^T,).
        rounds: At most; none only measures the chances.

    Returns:
        Macro node of every node, and the chances among them, by side as `log_chances` has them.
    """
    macro = dict(macro)

    def chances(side: Side) -> NDArray[np.int32]:
        return log_chances(
            _table(rows[side], scores, macro[side], macro[OTHER[side]], k[side], k[OTHER[side]])
        )

    for _ in range(rounds):
        moved = linked = 0
        for side in ("item", "user"):
            reading, before = Likeliest(scores, macro[OTHER[side]], chances(side)), macro[side]
            with ThreadPoolExecutor(available_threads()) as pool:
                best = np.concatenate([part["macro"] for part in pool.map(reading, rows[side].blocks())])
            macro[side] = np.where(best < k[side], best, before)
            moved, linked = moved + int((macro[side] != before).sum()), linked + int((best < k[side]).sum())
        if moved <= SETTLED * linked:
            break
    return macro, {side: chances(side) for side in SIDES}


def log_chances(table: NDArray[np.int64]) -> NDArray[np.int32]:
    """Log of the share of a macro node's score that goes to each macro node of the other side, smoothed by one unit of score each.

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


def likeliest(edges: SparseEdges, chances: NDArray[np.int32]) -> NDArray[np.int32]:
    """`Likeliest` of nodes whose 1st-order edges are there.

    Args:
        edges: Of the nodes.
        chances: Of `log_chances`. Shape (other K, K).

    Returns:
        Shape (U,).
    """
    macro = np.full(len(edges), chances.shape[1], np.int32)

    def part(first: int) -> None:
        _likeliest(
            edges.indptr[first : first + ROWS + 1],
            edges.macro,
            edges.score,
            chances,
            macro[first : first + ROWS],
        )

    with ThreadPoolExecutor(available_threads()) as pool:
        list(pool.map(part, range(0, len(macro), ROWS)))
    return macro


def drift(macro: NDArray[np.int32], best: NDArray[np.int32], sums: NDArray[np.integer]) -> float:
    """Share of all score that lies with nodes that another macro node ties better than their own. 0 right after clustering."""
    total = int(sums.sum())
    return float(sums[macro != best].sum() / total) if total else 0.0


def _table(
    rows: PairRows,
    scores: NDArray[np.int64],
    own: NDArray[np.int32],
    other: NDArray[np.int32],
    k: int,
    other_k: int,
) -> NDArray[np.int64]:
    """Fixed-point score between macro nodes. Shape (k, other k)."""

    nodes = np.linspace(0, len(rows), available_threads() + 1).astype(int).tolist()

    def part(first: int, last: int) -> NDArray[np.int64]:
        out = np.zeros((k + 1, other_k + 1), np.int64)
        _between(
            rows.indptr[first : last + 1], rows.other, rows.task_mask, scores, own[first:last], other, out
        )
        return out

    with ThreadPoolExecutor(len(nodes)) as pool:
        return sum(pool.map(part, nodes[:-1], nodes[1:]), np.zeros((), np.int64))[:k, :other_k]


@numba.njit(cache=True, nogil=True)
def _between(indptr, other, code, scores, own, macro, out):  # pragma: no cover - compiled
    for row in range(len(own)):
        for e in range(indptr[row], indptr[row + 1]):
            out[own[row], macro[other[e]]] += scores[code[e]]


@numba.njit(cache=True, nogil=True)
def _place(indptr, other, code, scores, other_macro, chances, macro):  # pragma: no cover - compiled
    width = len(chances)
    edges, total = np.zeros(width + 1, np.int64), np.empty(chances.shape[1], np.int64)
    for row in range(len(macro)):
        for e in range(indptr[row], indptr[row + 1]):
            edges[min(other_macro[other[e]], width)] += scores[code[e]]
        total[:] = 0
        known = False
        for c in range(width):
            if edges[c]:
                known = True
                _add(edges[c], chances[c], total)
        edges[:] = 0
        if known:
            macro[row] = _best(total, chances[0])


@numba.njit(cache=True, nogil=True)
def _likeliest(indptr, other, score, chances, macro):  # pragma: no cover - compiled
    width, total = len(chances), np.empty(chances.shape[1], np.int64)
    for row in range(len(macro)):
        total[:] = 0
        known = False
        for e in range(indptr[row], indptr[row + 1]):
            if other[e] < width:
                known = True
                _add(np.int64(score[e]), chances[other[e]], total)
        if known:
            macro[row] = _best(total, chances[0])


@numba.njit(cache=True, nogil=True, inline="always")
def _add(score, logs, total):  # pragma: no cover - compiled
    for c in range(len(total)):
        total[c] += score * np.int64(logs[c])


@numba.njit(cache=True, nogil=True, inline="always")
def _best(total, logs):  # pragma: no cover - compiled
    best = -1
    for c in range(len(total)):
        if logs[c] != NEVER and (best < 0 or total[c] > total[best]):
            best = c
    return max(best, 0)
