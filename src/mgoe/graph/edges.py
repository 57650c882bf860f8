"""Macro edges: how strongly a node is tied to each macro node, over one and over two steps.

1st order: `N_u1 = S C_i`, a grouped sum, which an engine does well. 2nd order: `N_u2 = S N_i1` less the way back to the node itself,
which is sparse linear algebra and runs here. Everything is an integer sum: the same in any order, engine or number of threads.
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numba
import numpy as np
from ibis import _
from numpy.typing import NDArray

from mgoe.graph.pairs import Pairs
from mgoe.graph.scores import UNIT


@dataclass(frozen=True)
class SparseEdges:
    """1st-order edges of one side, a row a node, columns rising. Scores are fixed-point.

    Attributes:
        indptr: Shape (U + 1,) or (I + 1,).
        macro: Macro node of the other side. Shape (edges,).
        score: Shape (edges,).
    """

    indptr: NDArray[np.int64]
    macro: NDArray[np.int32]
    score: NDArray[np.int64]

    def dense(self, width: int) -> NDArray[np.int64]:
        """The same as a matrix. Shape (rows, width)."""
        out = np.zeros((len(self.indptr) - 1, width), np.int64)
        rows = np.repeat(np.arange(len(out)), np.diff(self.indptr))
        out[rows, self.macro] = self.score
        return out


def first_order(pairs: ir.Table, members: ir.Table, node: str, other: str) -> ir.Table:
    """Sum the scores between each node and each macro node of the other side (`N_u1 = S C_i`), as an Ibis expression.

    Args:
        pairs: `user`, `item`, `score` of one snapshot.
        members: `node`, `macro` of the other side.
        node: `user` or `item`, the rows.
        other: The other one.

    Returns:
        `row, macro, score`, sorted.
    """
    joined = pairs.select(row=_[node], node=_[other], score=_.score).join(members, "node")
    return joined.group_by(["row", "macro"]).agg(score=_.score.sum().cast("int64")).order_by(["row", "macro"])


def read_edges(expression: ir.Table, rows: int) -> SparseEdges:
    """Run `first_order` and bring it to memory."""
    table = expression.to_pyarrow()
    row = table["row"].to_numpy()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return SparseEdges(indptr, table["macro"].to_numpy().astype(np.int32), table["score"].to_numpy().astype(np.int64))


def members_table(macro: NDArray[np.int32]) -> ir.Table:
    """Macro node of every node as a table an engine can join."""
    return ibis.memtable({"node": np.arange(len(macro)), "macro": macro.astype(np.int64)})


def second_order(pairs: Pairs, edges: NDArray[np.int64], own: NDArray[np.int32], side: str) -> NDArray[np.int64]:
    """Edges over two steps without the way back: `N_u2[u] = sum_i s_ui N_i1[i]`, then `N_u2[u, c(u)] -= sum_i s_ui^2` (REPAIR).

    Args:
        pairs: Of the snapshot.
        edges: 1st-order edges of the other side. Shape (I, Ku) for users, (U, Ki) for items.
        own: Macro node of each node; a number beyond the width is the cold node. Shape (U,) or (I,).
        side: `user` or `item`.

    Returns:
        Fixed-point scores of unit 2^-24. Shape (U, Ku) or (I, Ki).
    """
    indptr, other, order = pairs.by(side)
    out = np.zeros((len(own), edges.shape[1]), np.int64)
    _second_order(indptr, other, pairs.score[order], edges, own, out)
    return out


def second_order_own(pairs: Pairs, edges: SparseEdges, own: NDArray[np.int32], side: str) -> NDArray[np.int64]:
    """The entry of `second_order` at each node's own macro node, without forming the rest: O(E log K). Shape (U,) or (I,)."""
    indptr, other, order = pairs.by(side)
    out = np.zeros(len(own), np.int64)
    _second_order_own(indptr, other, pairs.score[order], edges.indptr, edges.macro, edges.score, own, out)
    return out


def masses(pairs: Pairs, macro: dict[str, NDArray[np.int32]], ku: int, ki: int) -> dict[str, NDArray[np.float32]]:
    """Score between macro nodes, and what reaches each macro node over one and over two steps.

    Args:
        pairs: Of the snapshot.
        macro: Macro node of each `user` and `item`.
        ku, ki: Macro nodes.

    Returns:
        `macro_edges` (Ku, Ki), `user_mass` and `user_second_mass` (Ku,), `item_mass` and `item_second_mass` (Ki,).
    """
    score = pairs.score / UNIT
    user, item = macro["user"][pairs.user].astype(np.int64), macro["item"][pairs.item]
    out = {
        "macro_edges": np.bincount(user * ki + item, score, ku * ki).reshape(ku, ki),
        "user_mass": np.bincount(user, score, ku),
        "item_mass": np.bincount(item, score, ki),
        # column sums of N_u2 and N_i2 without forming them
        "user_second_mass": np.bincount(user, pairs.second["user"], ku),
        "item_second_mass": np.bincount(item, pairs.second["item"], ki),
    }
    return {name: array.astype(np.float32) for name, array in out.items()}


@numba.njit(cache=True, parallel=True, nogil=True)
def _second_order(indptr, other, score, edges, own, out):  # pragma: no cover - compiled
    width = out.shape[1]
    for row in numba.prange(len(indptr) - 1):
        back = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            s, j = score[e], other[e]
            back += s * s
            for k in range(width):
                out[row, k] += s * edges[j, k]
        if own[row] < width:
            out[row, own[row]] -= back


@numba.njit(cache=True, parallel=True, nogil=True)
def _second_order_own(indptr, other, score, edge_indptr, edge_macro, edge_score, own, out):  # pragma: no cover - compiled
    for row in numba.prange(len(indptr) - 1):
        total = np.int64(0)
        for e in range(indptr[row], indptr[row + 1]):
            s = score[e]
            total += s * (find(edge_indptr, edge_macro, edge_score, other[e], own[row]) - s)
        out[row] = total


@numba.njit(cache=True, nogil=True, inline="always")
def find(indptr, macro, score, row, column):  # pragma: no cover - compiled
    """The entry of a sparse row at a column, 0 where there is none (binary search)."""
    low, high = indptr[row], indptr[row + 1]
    while low < high:
        middle = (low + high) >> 1
        if macro[middle] < column:
            low = middle + 1
        else:
            high = middle
    if low < indptr[row + 1] and macro[low] == column:
        return score[low]
    return 0
