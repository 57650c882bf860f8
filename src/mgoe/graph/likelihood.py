"""The macro node that ties a node best: the one with members whose edges are most like its own (ours).

The score of a macro node's members is split among the macro nodes of the other side in certain shares. A node
with edges `n_k` belongs where `sum_k n_k log(share_k)` is largest: the likelihood of its edges if they were
drawn by those shares. For a node with few edges a sketch holds little but noise, while the shares are sums
over all members. So macro nodes start from the sketch. Then a sample of users and the items move in turn to
where they are likeliest, until few still move. Every node, and any that comes later, is placed by the same
rule from its edges alone.

All sums are of integers, logarithms included: the same in any order, on any engine, with any number of
threads.
"""

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
"""Log share of a macro node without members; real ones are above -45 x 2^10."""
SETTLED = 0.005
"""A round in which a smaller share of the nodes moves is the last."""
ROWS = 1 << 16
"""Nodes per thread and step."""


@dataclass(frozen=True)
class Likeliest:
    """Reads the macro node that ties each node best; the lowest of equals.

    Pairs with cold nodes do not count, and a node without other pairs stays cold.

    Attributes:
        scores: Fixed-point score of every task mask. Shape (2^T,).
        macro: Macro node of each node of the other side; any number beyond the last is cold. Shape (I,) or
            (U,).
        chances: Of `log_chances`. Shape (other K, K).
    """

    scores: NDArray[np.int64]
    macro: NDArray[np.int32]
    chances: NDArray[np.int32]

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """Return `macro` (n,); number `K` is the cold node."""
        macro = np.full(len(block), self.chances.shape[1], np.int32)
        _place(block.scored(self.scores), self.macro, self.chances, macro)
        return {"macro": macro}


def settle(
    rows: Mapping[Side, PairRows],
    macro: Mapping[Side, NDArray[np.int32]],
    k: Mapping[Side, int],
    scores: NDArray[np.int64],
    rounds: int,
) -> tuple[dict[Side, NDArray[np.int32]], dict[Side, NDArray[np.int32]]]:
    """Move items and users in turn to the macro node that ties them best, until few still move.

    Args:
        rows: The same pairs by user and by item.
        macro: Where nodes start; those without pairs stay.
        k: Macro nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        rounds: At most; with 0, only chances are measured.

    Returns:
        Macro node of every node, and the chances by side, as `log_chances` returns them.
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
    """Return the log of the share of a macro node's score that goes to each macro node of the other side.

    Shares are smoothed by one unit of score each.

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
    """Return the same as `Likeliest`, from 1st-order edges.

    Args:
        edges: Of the nodes.
        chances: Of `log_chances`. Shape (other K, K).

    Returns:
        Shape (U,).
    """
    macro = np.full(edges.nodes, chances.shape[1], np.int32)

    def part(first: int) -> None:
        some = edges._replace(indptr=edges.indptr[first : first + ROWS + 1])
        _likeliest(some, chances, macro[first : first + ROWS])

    with ThreadPoolExecutor(available_threads()) as pool:
        list(pool.map(part, range(0, len(macro), ROWS)))
    return macro


def drift(macro: NDArray[np.int32], best: NDArray[np.int32], sums: NDArray[np.integer]) -> float:
    """Return the share of all score that belongs to nodes that another macro node ties better than their own.

    It is 0 right after clustering.
    """
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
    """Return the fixed-point score between macro nodes. Shape (k, other k)."""
    nodes = np.linspace(0, len(rows), available_threads() + 1).astype(int).tolist()

    def part(first: int, last: int) -> NDArray[np.int64]:
        out = np.zeros((k + 1, other_k + 1), np.int64)
        pairs = rows.scored(scores)._replace(indptr=rows.indptr[first : last + 1])
        _between(pairs, own[first:last], other, out)
        return out

    with ThreadPoolExecutor(len(nodes)) as pool:
        return sum(pool.map(part, nodes[:-1], nodes[1:]), np.zeros((), np.int64))[:k, :other_k]


@numba.njit(cache=True, nogil=True)
def _between(pairs, own, macro, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    for row in range(len(own)):
        for e in range(indptr[row], indptr[row + 1]):
            out[own[row], macro[other[e]]] += scores[task_mask[e]]


@numba.njit(cache=True, nogil=True)
def _place(pairs, other_macro, chances, macro):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    width = len(chances)
    edges, total = np.zeros(width + 1, np.int64), np.empty(chances.shape[1], np.int64)
    for row in range(len(macro)):
        for e in range(indptr[row], indptr[row + 1]):
            edges[min(other_macro[other[e]], width)] += scores[task_mask[e]]
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
def _likeliest(edges, chances, macro):  # pragma: no cover - compiled
    indptr, other, score = edges
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
