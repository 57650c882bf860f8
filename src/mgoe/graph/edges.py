"""Macro edges: how strongly a node is tied to each macro node, over one step and over two.

1st order: `N_u1 = S C_i`. 2nd order: `N_u2 = S N_i1` less the way back to the node itself. A row needs its
own pairs and arrays of the other side alone. Everything but the 2nd-order mass of a macro node is an integer
sum: the same in any order, on any engine, with any number of threads.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import log
from mgoe.graph.memory_hints import AHEAD, prefetch
from mgoe.graph.pair_rows import PairRows
from mgoe.graph.scores import UNIT

DENSE_SHARE = 0.3
"""Share of the possible edges, over all pairs, from which a matrix is faster. One of its entries takes a
third of the time of a sparse one, and is read along the row.
"""


class SparseEdges(NamedTuple):
    """1st-order edges of one side, one row per node, columns ascending. Scores are fixed-point.

    Attributes:
        indptr: Where the edges of each node start. Shape (n + 1,).
        macro: Macro node of the other side. Shape (edges,).
        score: Shape (edges,).
    """

    indptr: NDArray[np.int64]
    macro: NDArray[np.uint16]
    score: NDArray[np.integer]

    @classmethod
    def read(cls, array: Callable[[str], NDArray], name: str) -> Self:
        """Read every array by its name."""
        return cls(*(array(f"{name}.{part}") for part in cls._fields))

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.indptr) - 1

    def dense(self, width: int, kind: type[np.integer] = np.int64) -> NDArray[np.integer]:
        """Return the edges as a matrix. Shape (n, width)."""
        return self.of(np.arange(self.nodes), width, kind)

    def of(
        self, rows: NDArray[np.int64], width: int, kind: type[np.integer] = np.int64
    ) -> NDArray[np.integer]:
        """Return the edges of some nodes as a matrix; zeros beyond the last node. Shape (m, width)."""
        out = np.zeros((len(rows), width), kind)
        _gather(self, rows, out)
        return out


def type_of_scores(largest: int) -> type[np.integer]:
    """Return the narrower type of the scores of edges that holds the largest of them."""
    return np.uint32 if largest < 1 << 32 else np.int64


def first_order(
    block: PairRows,
    scores: NDArray[np.int64],
    macro: NDArray[np.int32],
    width: int,
    score_type: type[np.integer] | None = None,
) -> SparseEdges:
    """Return the 1st-order edges of a block's nodes: `N_u1 = S C_i`.

    Args:
        block: Of n nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        macro: Macro node of each node of the other side; `width` is the cold node. Shape (I,) or (U,).
        width: Macro nodes of the other side.
        score_type: Of the edges' scores; wide enough for the largest sum. By default the narrower type if the
            longest row cannot exceed it.
    """
    if score_type is None:
        largest = int(np.diff(block.indptr).max(initial=0)) * int(scores.max(initial=0))
        score_type = type_of_scores(largest)
    most = min(len(block.other), len(block) * (width + 1))
    edges = SparseEdges(
        np.zeros(len(block) + 1, np.int64), np.empty(most, np.uint16), np.empty(most, score_type)
    )
    _first_order(block.scored(scores), macro, width, edges)
    n = edges.indptr[-1]
    return edges._replace(macro=edges.macro[:n], score=edges.score[:n])


def second_order(
    block: PairRows,
    scores: NDArray[np.int64],
    edges: SparseEdges,
    own: NDArray[np.int32],
    width: int,
    matrix: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Return every edge of a block's nodes over two steps without the way back (ours: the paper keeps it).

    `N_u2[u] = sum_i s_ui N_i1[i]`, then `N_u2[u, c(u)] -= sum_i s_ui^2`.

    Args:
        block: Of n nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        edges: 1st-order edges of the other side.
        own: Macro node of every node of this side; `width` is the cold node. Shape (U,) or (I,).
        width: Macro nodes of this side.
        matrix: The edges as a matrix of integers, if `use_matrix` asks for it. Shape (I, Ku) or (U, Ki).

    Returns:
        In fixed point of unit 2^-24. Shape (n, width).
    """
    out, own = np.zeros((len(block), width), np.int64), block.of(own)
    if matrix is not None:
        _second_order_matrix(block.scored(scores), matrix, own, out)
    else:
        _second_order(block.scored(scores), edges, own, out)
    return out


def second_order_own(
    block: PairRows, scores: NDArray[np.int64], edges: SparseEdges, own: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the edge of each node to its own macro node without forming the rest: O(E log K). Shape (n,).

    Arguments as for `second_order`.
    """
    out = np.zeros(len(block), np.int64)
    _second_order_own(block.scored(scores), edges, block.of(own), out)
    return out


def read_second_order(
    block: PairRows,
    scores: NDArray[np.int64],
    edges: SparseEdges,
    own: NDArray[np.int32],
    width: int,
    dense: bool,
    matrix: NDArray[np.integer] | None = None,
) -> dict[str, NDArray]:
    """Read edges over two steps; arguments as for `second_order`.

    Args:
        dense: Whether every edge is wanted, or only the edge to its own macro node.

    Returns:
        `own` (n,) in units of the merging score squared, and `dense`, log1p (n, width), if it is wanted.
    """
    if not dense:
        return {"own": to_units(second_order_own(block, scores, edges, own), UNIT**2)}
    fixed, macro = second_order(block, scores, edges, own, width, matrix), block.of(own)
    linked = np.flatnonzero(macro < width)
    back = np.zeros(len(block), np.int64)
    back[linked] = fixed[linked, macro[linked]]
    return {"own": to_units(back, UNIT**2), "dense": log_scores(fixed, UNIT**2)}


def second_sums(block: PairRows, scores: NDArray[np.int64], sums: NDArray[np.int64]) -> dict[str, NDArray]:
    """Read what comes back to a node over two steps, to all macro nodes together.

    Args:
        block: Of n nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        sums: Fixed-point score sum of each node of the other side. Shape (I,) or (U,).

    Returns:
        `second_sum`, in fixed point of unit 2^-24 (n,).
    """
    out = np.zeros(len(block), np.int64)
    _second_sums(block.scored(scores), sums, out)
    return {"second_sum": out}


def last_before(
    own: NDArray[np.int64],
    indptr: NDArray[np.int64],
    time: NDArray[np.int64],
    keys: NDArray[np.int64],
    times: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each key, and its last entry strictly before a time; -1 where there is none.

    Args:
        own: Keys that have entries, rising. Shape (n,).
        indptr: Where the entries of each start. Shape (n + 1,).
        time: Of the entries, rising for a key. Shape (V,).
        keys, times: What is looked up. Shape (m,) each.
    """
    place, entry = np.full(len(keys), -1, np.int64), np.full(len(keys), -1, np.int64)
    _last_before(own, indptr, time, keys, times, place, entry)
    return place, entry


def use_matrix(
    edges: SparseEdges, pairs: NDArray[np.int64], width: int, largest: int, memory: int
) -> type[np.integer] | None:
    """Return the type in which edges are faster to read as a matrix, or None if they are faster as they are.

    A matrix pays where the nodes of most pairs have edges to many macro nodes: sums then run over whole rows,
    in double precision, which is exact below 2^53.

    Args:
        edges: 1st-order edges of the other side.
        pairs: Number of pairs of each node of the other side. Shape (n,).
        width: Of the matrix.
        largest: Largest sum that a row of the result can hold, unit 2^-24.
        memory: Bytes that the matrix may take.
    """
    kind = np.int32 if int(edges.score.max(initial=0)) < 1 << 31 else np.int64
    full = float(pairs @ np.diff(edges.indptr)) > DENSE_SHARE * width * float(pairs.sum())
    exact, fits = largest < 1 << 53, edges.nodes * width * kind().nbytes <= memory
    return kind if full and exact and fits else None


def to_units(fixed: NDArray[np.number], unit: int) -> NDArray[np.float32]:
    """Return fixed-point scores in units of the merging score (or its square)."""
    return (fixed / unit).astype(np.float32)


def log_scores(fixed: NDArray[np.integer], unit: int) -> NDArray[np.float16]:
    """Return log(1 + score), which half precision holds to .05 % up to the largest sums."""
    return log(1 + fixed / unit, np.float32).astype(np.float16)


def between(edges: SparseEdges, macro: NDArray[np.int32], ku: int, ki: int) -> NDArray[np.int64]:
    """Return the score between the macro nodes of two sides, cold ones left out. Shape (Ku, Ki).

    Args:
        edges: 1st-order edges of the nodes of one side.
        macro: Macro node of each of these; `ku` is the cold node. Shape (n,).
        ku, ki: Macro nodes of this side and of the other.
    """
    out = np.zeros((ku + 1, ki + 1), np.int64)
    _between(edges, macro, out)
    return out[:ku, :ki]


def by_macro(
    macro: NDArray[np.int32], fixed: NDArray[np.int64], k: int, kind: type[np.number] = np.int64
) -> NDArray:
    """Return sums over the members of each macro node, in the order of nodes. Shape (k,).

    Args:
        macro: Macro node of each node; `k` is the cold node. Shape (n,).
        fixed: Score of each node. Shape (n,).
        k: Macro nodes.
        kind: Type of the sums. Those of 2nd-order scores can exceed 64 bits: double precision rounds them,
            alike on every engine.
    """
    out = np.zeros(k + 1, kind)
    np.add.at(out, macro, fixed.astype(kind, copy=False))
    return out[:k]


@kernel("edges")
def _first_order(pairs, macro, width, edges):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    to, to_macro, to_score = edges
    sums, at = np.zeros(width + 1, np.int64), 0
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            sums[macro[other[e]]] += scores[task_mask[e]]
        for k in range(width + 1):
            if sums[k]:
                to_macro[at], to_score[at] = k, sums[k]
                sums[k] = 0
                at += 1
        to[row + 1] = at


@kernel("out")
def _second_order(pairs, edges, own, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    edge_indptr, edge_macro, edge_score = edges
    width, n = out.shape[1], len(other)
    for row in range(len(indptr) - 1):
        back = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            if e + 3 * AHEAD < n:  # where a row starts has to be there before the row can be requested
                prefetch(edge_indptr, other[e + 3 * AHEAD], 1)
                start = edge_indptr[other[e + AHEAD]]
                prefetch(edge_macro, start, 1)
                prefetch(edge_score, start, 32)
            s, j = scores[task_mask[e]], other[e]
            back += s * s
            for q in range(edge_indptr[j], edge_indptr[j + 1]):
                out[row, edge_macro[q]] += s * np.int64(edge_score[q])
        if own[row] < width:
            out[row, own[row]] -= back


@kernel("out")
def _second_order_matrix(pairs, matrix, own, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    width, n, flat = out.shape[1], len(other), matrix.reshape(-1)
    sums = np.empty(width, np.float64)
    for row in range(len(indptr) - 1):
        back = np.int64(0)
        sums[:] = 0
        for e in range(indptr[row], indptr[row + 1]):
            if e + AHEAD < n:
                prefetch(flat, np.int64(other[e + AHEAD]) * width, width)
            s, j = scores[task_mask[e]], other[e]
            back += s * s
            exact = np.float64(s)
            for k in range(width):
                sums[k] += exact * np.float64(matrix[j, k])
        for k in range(width):
            out[row, k] = np.int64(sums[k])
        if own[row] < width:
            out[row, own[row]] -= back


@kernel("out")
def _gather(edges, rows, out):  # pragma: no cover - compiled
    """Write the edges of some nodes, without those to macro nodes beyond the matrix; none beyond the last
    node."""
    indptr, macro, score = edges
    for k in range(len(rows)):
        first, last = (indptr[rows[k]], indptr[rows[k] + 1]) if rows[k] < len(indptr) - 1 else (0, 0)
        for q in range(first, last):
            if macro[q] < out.shape[1]:
                out[k, macro[q]] = score[q]


@kernel("out")
def _second_order_own(pairs, edges, own, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    edge_indptr, edge_macro, edge_score = edges
    for row in range(len(indptr) - 1):
        total = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            s = scores[task_mask[e]]
            total += s * (np.int64(find(edge_indptr, edge_macro, edge_score, other[e], own[row])) - s)
        out[row] = total


@kernel("out")
def _second_sums(pairs, sums, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            s = scores[task_mask[e]]
            out[row] += s * (sums[other[e]] - s)


@kernel("out")
def _between(edges, macro, out):  # pragma: no cover - compiled
    indptr, edge_macro, score = edges
    for row in range(len(indptr) - 1):
        for q in range(indptr[row], indptr[row + 1]):
            out[macro[row], edge_macro[q]] += np.int64(score[q])


@kernel(inline="always")
def find_place(indptr, columns, row, column):  # pragma: no cover - compiled
    """Return the place of the entry of a sparse row at a column, or -1 if there is none (binary search)."""
    low, width = indptr[row], indptr[row + 1] - indptr[row]
    if width == 0:
        return -1
    while width > 1:
        half = width >> 1
        low += half * (columns[low + half] <= column)  # a branch would be mispredicted every other time
        width -= half
    return low if columns[low] == column else -1


@kernel(inline="always")
def find(indptr, columns, values, row, column):  # pragma: no cover - compiled
    """Return the entry of a sparse row at a column, or 0 if there is none."""
    place = find_place(indptr, columns, row, column)
    return values[place] if place >= 0 else 0


@kernel("place", "entry")
def _last_before(own, indptr, time, keys, times, place, entry):  # pragma: no cover - compiled
    for row in range(len(keys)):
        at = np.searchsorted(own, keys[row])
        if at == len(own) or own[at] != keys[row]:
            continue
        low, high = indptr[at], indptr[at + 1]
        while low < high:
            half = (low + high) // 2
            if time[half] < times[row]:
                low = half + 1
            else:
                high = half
        if low > indptr[at]:
            place[row], entry[row] = at, low - 1
