"""The macro graph as SciPy matrices: one row per node of one kind, one column per node of another."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mgoe.errors import GraphError
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.scores import UNIT

KINDS = ("user", "item", "user_macro", "item_macro")
"""Kinds of nodes."""
SMOOTHING = 0.3
"""Added to scores before their lift, so that that of two tiny scores is near 1."""


def matrix(graph: MacroGraph, rows: str, columns: str, resolution: int | None = None) -> sparse.csr_array:
    """Return the scores between two kinds of nodes in the latest snapshot, in units of the merging score.

    Args:
        graph: The graph.
        rows, columns: `user` and `item` (the distinct pairs), `user` and `item_macro`, `item` and
            `user_macro` (macro edges of the 1st order), or `user_macro` and `item_macro`; in either order.
        resolution: Place of the resolution of the macro nodes, coarse to fine; by default the dense one.

    Returns:
        Rows and columns by index; macro nodes without the cold one.

    Raises:
        GraphError: No edges join these kinds, or there is no such resolution.
    """
    snapshot = graph.latest
    if resolution is not None and not 0 <= resolution < len(snapshot.resolutions):
        raise GraphError(
            "resolution",
            f"must be the place of one of {len(snapshot.resolutions)}, from 0, found {resolution}; "
            "leave it out for the dense one",
        )
    part = snapshot.resolutions[snapshot.dense if resolution is None else resolution]
    match rows, columns:
        case "user", "item":
            scores = graph.fixed_scores[snapshot.arrays["pairs.task_mask"]]
            indptr, item = snapshot.arrays["pairs.indptr"], snapshot.arrays["pairs.item"]
            return _csr(indptr, item, scores, snapshot.n_items)
        case "user", "item_macro":
            return _csr(*part.user_edges, len(part.item_mass))
        case "item", "user_macro":
            return _csr(*part.item_edges, len(part.user_mass))
        case "user_macro", "item_macro":
            return sparse.csr_array(part.macro_edges.astype(np.float64))
        case ("item", "user") | ("item_macro", "user" | "user_macro") | ("user_macro", "item"):
            return sparse.csr_array(matrix(graph, columns, rows, resolution).T)
    raise GraphError(
        "to_scipy",
        "edges join user and item, each with the macro nodes of the other (user and item_macro, item and "
        f"user_macro), and user_macro and item_macro, found {rows!r} and {columns!r}; choose one of these",
    )


def lift(edges: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each score over the score that the sums of its row and column let expect, smoothed.

    Args:
        edges: Scores between user and item macro nodes. Shape (Ku, Ki).

    Returns:
        Above 1 where a user macro node takes more of an item macro node than expected. Shape (Ku, Ki).

    Example:
        >>> lift(np.array([[30.0, 10.0], [10.0, 30.0]])).round(2)
        array([[1.49, 0.51],
               [0.51, 1.49]])
    """
    edges = edges.astype(np.float64)
    expected = edges.sum(1, keepdims=True) * edges.sum(0) / max(edges.sum(), 1e-12)
    return (edges + SMOOTHING) / (expected + SMOOTHING)


def _csr(indptr: NDArray, columns: NDArray, scores: NDArray, width: int) -> sparse.csr_array:
    """Return fixed-point scores as a matrix of floats. Shape (rows, width)."""
    shape = len(indptr) - 1, width
    return sparse.csr_array(
        (np.asarray(scores) / UNIT, columns.astype(np.int64), np.asarray(indptr)), shape=shape
    )
