"""Macro edges: how strongly a node is tied to each macro node, over one and over two steps.

1st order: `N_u1 = S C_i`. 2nd order: `N_u2 = S N_i1` less the way back to the node itself. Each row needs its own pairs and arrays of the
other side alone. Everything but the 2nd-order mass of a macro node is an integer sum: the same in any order, engine or number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.memory_hints import AHEAD, prefetch, prefetch_row
from mgoe.graph.neighbours import task_table
from mgoe.graph.pair_rows import PairRows, starts
from mgoe.graph.scores import UNIT

DENSE_SHARE = 0.3
"""Share of the possible edges, over all pairs, from which a matrix is faster: one of its entries takes a third of the time of a sparse
one, and reads along the row."""


@dataclass(frozen=True)
class SparseEdges:
    """1st-order edges of one side, a row a node, columns rising. Scores are fixed-point.

    Attributes:
        indptr: Shape (n + 1,).
        macro: Macro node of the other side. Shape (edges,).
        score: Shape (edges,).
    """

    indptr: NDArray[np.int64]
    macro: NDArray[np.uint16]
    score: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def rows(self, first: int, last: int) -> SparseEdges:
        """Of nodes `first` to `last - 1`."""
        edges = slice(int(self.indptr[first]), int(self.indptr[last]))
        return SparseEdges(
            self.indptr[first : last + 1] - self.indptr[first], self.macro[edges], self.score[edges]
        )

    def dense(self, width: int, kind: type[np.integer] = np.int64) -> NDArray[np.integer]:
        """The same as a matrix. Shape (n, width)."""
        out = np.zeros((len(self), width), kind)
        _dense(self.indptr, self.macro, self.score, out)
        return out


@dataclass(frozen=True)
class FirstOrder:
    """Reads 1st-order edges (`N_u1 = S C_i`) and the macro task table.

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        macro: Macro node of each node of the other side; `width` is the cold node. Shape (I,) or (U,).
        width: Macro nodes of the other side.
        score_type: Of the edges' scores; wide enough for the largest sum.
        tasks: T, where the task table and dense edges are wanted; else 0.
    """

    scores: NDArray[np.int64]
    macro: NDArray[np.int32]
    width: int
    score_type: type[np.integer]
    tasks: int

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """`degree`, edges of each node (n,); `macro` and `score` of the edges; with tasks, `table` (n, T) and `dense`, log1p (n, width)."""
        edges = self.edges(block)
        out = {"degree": np.diff(edges.indptr), "macro": edges.macro, "score": edges.score}
        if self.tasks:
            out["table"] = task_table(block, self.scores, self.macro, self.width, self.tasks)
            out["dense"] = log_scores(edges.dense(self.width), UNIT)
        return out

    def edges(self, block: PairRows) -> SparseEdges:
        """Of the block's nodes."""
        degree = np.zeros(len(block), np.int64)
        _first_order_degrees(block.indptr, block.other, self.macro, self.width, degree)
        indptr = starts(degree)
        macro, score = np.empty(indptr[-1], np.uint16), np.empty(indptr[-1], self.score_type)
        _first_order(
            block.indptr,
            block.other,
            block.task_mask,
            self.scores,
            self.macro,
            self.width,
            indptr,
            macro,
            score,
        )
        return SparseEdges(indptr, macro, score)


@dataclass(frozen=True)
class SecondOrder:
    """Reads edges over two steps without the way back: `N_u2[u] = sum_i s_ui N_i1[i]`, then `N_u2[u, c(u)] -= sum_i s_ui^2`
    (ours: the paper keeps this way back).

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        edges: 1st-order edges of the other side.
        matrix: The same as a matrix of integers, where `use_matrix` says so. Shape (I, Ku) or (U, Ki).
        own: Macro node of every node of this side; `width` is the cold node. Shape (U,) or (I,).
        width: Macro nodes of this side.
        dense: Whether every edge is wanted, or the one to a node's own macro node alone.
    """

    scores: NDArray[np.int64]
    edges: SparseEdges
    own: NDArray[np.int32]
    width: int
    dense: bool
    matrix: NDArray[np.integer] | None = None

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """`own` (n,), in units of the merging score squared; where it is `dense`, also `dense`, log1p (n, width)."""
        fixed = self.all(block) if self.dense else None
        own = self.own[block.first : block.first + len(block)]
        if fixed is None:
            return {"own": to_units(self.own_alone(block), UNIT**2)}
        linked = np.flatnonzero(own < self.width)
        back = np.zeros(len(block), np.int64)
        back[linked] = fixed[linked, own[linked]]
        return {"own": to_units(back, UNIT**2), "dense": log_scores(fixed, UNIT**2)}

    def all(self, block: PairRows) -> NDArray[np.int64]:
        """Every edge of the block's nodes, in fixed point of unit 2^-24. Shape (n, width)."""
        out = np.zeros((len(block), self.width), np.int64)
        own = self.own[block.first : block.first + len(block)]
        pairs = block.indptr, block.other, block.task_mask, self.scores
        if self.matrix is not None:
            _second_order_matrix(*pairs, self.matrix, own, out)
        else:
            _second_order(*pairs, self.edges.indptr, self.edges.macro, self.edges.score, own, out)
        return out

    def own_alone(self, block: PairRows) -> NDArray[np.int64]:
        """The edge of each node to its own macro node, without forming the rest: O(E log K). Shape (n,)."""
        out = np.zeros(len(block), np.int64)
        own = self.own[block.first : block.first + len(block)]
        _second_order_own(
            block.indptr,
            block.other,
            block.task_mask,
            self.scores,
            self.edges.indptr,
            self.edges.macro,
            self.edges.score,
            own,
            out,
        )
        return out


@dataclass(frozen=True)
class SecondSums:
    """Reads what comes back to a node over two steps, to all macro nodes together.

    Attributes:
        scores: Fixed-point score of every code. Shape (2^T,).
        sums: Fixed-point score sum of each node of the other side. Shape (I,) or (U,).
    """

    scores: NDArray[np.int64]
    sums: NDArray[np.int64]

    def __call__(self, block: PairRows) -> dict[str, NDArray]:
        """`second_sum`, in fixed point of unit 2^-24 (n,)."""
        out = np.zeros(len(block), np.int64)
        _second_sums(block.indptr, block.other, block.task_mask, self.scores, self.sums, out)
        return {"second_sum": out}


def use_matrix(
    edges: SparseEdges, pairs: NDArray[np.int64], width: int, largest: int, memory: int
) -> type[np.integer] | None:
    """The type in which edges are read faster as a matrix, or None where they are better read as they are.

    A matrix pays where the nodes that most pairs lead to have edges to many macro nodes: sums then run over whole rows, in double
    precision, which is exact below 2^53.

    Args:
        edges: 1st-order edges of the other side.
        pairs: Of each node of the other side. Shape (n,).
        width: Of the matrix.
        largest: Largest sum that a row of the result can hold, unit 2^-24.
        memory: Bytes that the matrix may take.
    """
    kind = np.int32 if int(edges.score.max(initial=0)) < 1 << 31 else np.int64
    full = float(pairs @ np.diff(edges.indptr)) > DENSE_SHARE * width * float(pairs.sum())
    return kind if full and largest < 1 << 53 and len(edges) * width * kind().nbytes <= memory else None


def to_units(fixed: NDArray[np.int64], unit: int) -> NDArray[np.float32]:
    """Scores in units of the merging score (or its square)."""
    return (fixed / unit).astype(np.float32)


def log_scores(fixed: NDArray[np.integer], unit: int) -> NDArray[np.float16]:
    """log(1 + score), which half precision holds to .05 % up to the largest sums."""
    scores = fixed.astype(np.float32)
    scores *= np.float32(1 / unit)
    return np.log1p(scores, out=scores).astype(np.float16)


def between(edges: SparseEdges, macro: NDArray[np.int32], ku: int, ki: int) -> NDArray[np.int64]:
    """Score between each user macro node and each item macro node, from the users' edges. Shape (Ku, Ki)."""
    out = np.zeros((ku + 1, ki), np.int64)
    _between(edges.indptr, edges.macro, edges.score, macro, out)
    return out[:ku]


def by_macro(
    macro: NDArray[np.int32], fixed: NDArray[np.int64], k: int, kind: type[np.number] = np.int64
) -> NDArray:
    """Sums over the members of each macro node, in the order of nodes. Shape (k,).

    Args:
        macro: Macro node of each node; `k` is the cold node. Shape (n,).
        fixed: Score of each node. Shape (n,).
        k: Macro nodes.
        kind: Of the sums. Those of 2nd-order scores can leave 64 bits: double precision rounds them, alike in every engine.
    """
    out = np.zeros(k + 1, kind)
    _by_macro(macro, fixed, out)
    return out[:k]


@numba.njit(cache=True, nogil=True)
def _first_order_degrees(indptr, other, macro, width, degree):  # pragma: no cover - compiled
    seen = np.full(width + 1, -1, np.int64)
    for row in range(len(indptr) - 1):
        n = 0
        for e in range(indptr[row], indptr[row + 1]):
            k = macro[other[e]]
            n += seen[k] != row
            seen[k] = row
        degree[row] = n


@numba.njit(cache=True, nogil=True)
def _first_order(
    indptr, other, code, scores, macro, width, to, to_macro, to_score
):  # pragma: no cover - compiled
    sums = np.zeros(width + 1, np.int64)
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            sums[macro[other[e]]] += scores[code[e]]
        at = to[row]
        for k in range(width + 1):
            if sums[k]:
                to_macro[at], to_score[at] = k, sums[k]
                sums[k] = 0
                at += 1


@numba.njit(cache=True, nogil=True)
def _second_order(
    indptr, other, code, scores, edge_indptr, edge_macro, edge_score, own, out
):  # pragma: no cover - compiled
    width, pairs = out.shape[1], len(other)
    for row in range(len(indptr) - 1):
        back = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            if e + 3 * AHEAD < pairs:  # where a row starts has to be there before the row can be asked for
                prefetch(edge_indptr, np.int64(other[e + 3 * AHEAD]))
                start = edge_indptr[other[e + AHEAD]]
                prefetch(edge_macro, start)
                prefetch_row(edge_score[start:], 0, 32)
            s, j = scores[code[e]], other[e]
            back += s * s
            for q in range(edge_indptr[j], edge_indptr[j + 1]):
                out[row, edge_macro[q]] += s * np.int64(edge_score[q])
        if own[row] < width:
            out[row, own[row]] -= back


@numba.njit(cache=True, nogil=True)
def _second_order_matrix(indptr, other, code, scores, matrix, own, out):  # pragma: no cover - compiled
    width, pairs, flat = out.shape[1], len(other), matrix.reshape(-1)
    sums = np.empty(width, np.float64)
    for row in range(len(indptr) - 1):
        back = np.int64(0)
        sums[:] = 0
        for e in range(indptr[row], indptr[row + 1]):
            if e + AHEAD < pairs:
                prefetch_row(flat, np.int64(other[e + AHEAD]), width)
            s, j = scores[code[e]], other[e]
            back += s * s
            exact = np.float64(s)
            for k in range(width):
                sums[k] += exact * np.float64(matrix[j, k])
        for k in range(width):
            out[row, k] = np.int64(sums[k])
        if own[row] < width:
            out[row, own[row]] -= back


@numba.njit(cache=True, nogil=True)
def _dense(indptr, macro, score, out):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        for q in range(indptr[row], indptr[row + 1]):
            out[row, macro[q]] = score[q]


@numba.njit(cache=True, nogil=True)
def _second_order_own(
    indptr, other, code, scores, edge_indptr, edge_macro, edge_score, own, out
):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        total = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            s = scores[code[e]]
            total += s * (np.int64(find(edge_indptr, edge_macro, edge_score, other[e], own[row])) - s)
        out[row] = total


@numba.njit(cache=True, nogil=True)
def _second_sums(indptr, other, code, scores, sums, out):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            s = scores[code[e]]
            out[row] += s * (sums[other[e]] - s)


@numba.njit(cache=True, nogil=True)
def _between(indptr, edge_macro, score, macro, out):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        for q in range(indptr[row], indptr[row + 1]):
            out[macro[row], edge_macro[q]] += np.int64(score[q])


@numba.njit(cache=True, nogil=True)
def _by_macro(macro, values, out):  # pragma: no cover - compiled
    for row in range(len(macro)):
        out[macro[row]] += values[row]


@numba.njit(cache=True, nogil=True, inline="always")
def find(indptr, columns, values, row, column):  # pragma: no cover - compiled
    """The entry of a sparse row at a column, 0 where there is none (binary search)."""
    low, high = indptr[row], indptr[row + 1]
    while low < high:
        middle = (low + high) >> 1
        if columns[middle] < column:
            low = middle + 1
        else:
            high = middle
    if low < indptr[row + 1] and columns[low] == column:
        return values[low]
    return 0
