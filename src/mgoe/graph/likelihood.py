"""The macro node that ties a node best: the one whose members' edges are most like its own (ours).

The score that the members of a macro node give goes to the macro nodes of the other side in certain shares. A node with edges `n_k` belongs
where `sum_k n_k log(share_k)` is largest: the likelihood of its edges, were they drawn by those shares. A sketch sees of a node with few
edges little more than noise; the shares are sums over all members. So macro nodes start from the sketch, a sample of users and the items
take turns in moving to where they are likeliest until few still move, and every node, whoever comes later included, is placed by the same
rule from its edges alone.

Everything is a sum of integers: the same in any order, engine or number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.blocks import OTHER, SIDES, Block, Rows, Side, available_threads
from mgoe.graph.edges import SparseEdges
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
    """Reads the macro node that ties each node best; the lowest of those that are as good. Pairs with cold nodes say nothing.

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        macro: Macro node of each node of the other side; any beyond the last is cold. Shape (I,) or (U,).
        chances: Of `log_chances`. Shape (other K, K).
    """

    scores: NDArray[np.int64]
    macro: NDArray[np.int32]
    chances: NDArray[np.int32]

    def __call__(self, block: Block) -> dict[str, NDArray]:
        """`macro` (n,); the cold node, number `K`, for nodes without pairs."""
        macro = np.full(len(block), self.chances.shape[1], np.int32)
        _place(block.indptr, block.other, block.code, self.scores, self.macro, self.chances, macro)
        return {"macro": macro}


def settle(
    rows: Mapping[Side, Rows], macro: Mapping[Side, NDArray[np.int32]], k: Mapping[Side, int], scores: NDArray[np.int64], rounds: int
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
        return log_chances(_table(rows[side], scores, macro[side], macro[OTHER[side]], k[side], k[OTHER[side]]))

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
    """`Likeliest` of nodes whose 1st-order edges are there.

    Args:
        edges: Of the nodes.
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


def _table(
    rows: Rows, scores: NDArray[np.int64], own: NDArray[np.int32], other: NDArray[np.int32], k: int, other_k: int
) -> NDArray[np.int64]:
    """Fixed-point score between macro nodes. Shape (k, other k)."""

    def part(block: Block) -> NDArray[np.int64]:
        out = np.zeros((k + 1, other_k + 1), np.int64)
        _between(block.indptr, block.other, block.code, scores, own[block.first : block.first + len(block)], other, out)
        return out

    with ThreadPoolExecutor(available_threads()) as pool:
        return sum(pool.map(part, rows.blocks()), np.zeros((k + 1, other_k + 1), np.int64))[:k, :other_k]


@numba.njit(cache=True, nogil=True)
def _between(indptr, other, code, scores, own, macro, out):  # pragma: no cover - compiled
    for row in range(len(own)):
        for e in range(indptr[row], indptr[row + 1]):
            out[own[row], macro[other[e]]] += scores[code[e]]


@numba.njit(cache=True, nogil=True)
def _place(indptr, other, code, scores, other_macro, chances, macro):  # pragma: no cover - compiled
    width, k = chances.shape
    edges, total = np.zeros(width + 1, np.int64), np.empty(k, np.int64)
    for row in range(len(macro)):
        if indptr[row] == indptr[row + 1]:
            continue
        for e in range(indptr[row], indptr[row + 1]):
            edges[min(other_macro[other[e]], width)] += scores[code[e]]
        total[:] = 0
        for c in range(width):
            if edges[c]:
                _add(edges[c], chances[c], total)
        edges[:] = 0
        macro[row] = _best(total, chances)


@numba.njit(cache=True, nogil=True)
def _likeliest(indptr, other, score, chances, linked, macro):  # pragma: no cover - compiled
    width, k = chances.shape
    total = np.empty(k, np.int64)
    for row in range(len(macro)):
        if linked[row]:
            total[:] = 0
            for e in range(indptr[row], indptr[row + 1]):
                if other[e] < width:
                    _add(np.int64(score[e]), chances[other[e]], total)
            macro[row] = _best(total, chances)


@numba.njit(cache=True, nogil=True, inline="always")
def _add(score, logs, total):  # pragma: no cover - compiled
    for c in range(len(total)):
        total[c] += score * np.int64(logs[c])


@numba.njit(cache=True, nogil=True, inline="always")
def _best(total, chances):  # pragma: no cover - compiled
    best = -1
    for c in range(len(total)):
        if chances[0, c] != NEVER and (best < 0 or total[c] > total[best]):
            best = c
    return max(best, 0)
