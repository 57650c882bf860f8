"""A place for a node that the clustering has not seen, from its own edges.

With `S = P Sigma Q^T`, users are stored as `S Q Sigma^(scale - 1)`. So a user's vector is the sum, over the user's own edges, of score
times a row of `Q`, stretched: whoever has edges can be placed without the rest of the graph. Since `S^T P = Q Sigma`, an item's is the sum
of score times user vector, divided by `Sigma`, as exactly as the power steps have converged. Its macro node is the one that ties it best.
All of it is what the build itself does (`Projection`, `likeliest`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.errors import GraphError
from mgoe.graph.edges import SparseEdges
from mgoe.graph.likelihood import likeliest
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import Sketch, divided
from mgoe.graph.snapshot import Resolution


@dataclass(frozen=True)
class Place:
    """Where a node belongs.

    Attributes:
        vector: In the sketch's space. Shape (rank,).
        macro: Macro node at every resolution; the cold node, number `Ku` or `Ki`, for a node without edges.
    """

    vector: NDArray[np.float32]
    macro: tuple[int, ...]


def place(
    graph: MacroGraph, side: Side, neighbours: ArrayLike, codes: ArrayLike, snapshot: int = -1
) -> Place:
    """Place one node by its edges (ours).

    Args:
        graph: Where to.
        side: What the node is.
        neighbours: Distinct items of a user, or users of an item; those that the snapshot has not seen are passed over. Shape (E,).
        codes: Tasks done with each, as bits. Shape (E,).
        snapshot: Which one; the latest by default.

    Raises:
        GraphError: The two lists differ in length.
    """
    neighbours, codes = np.asarray(neighbours, np.int64), np.asarray(codes, np.int64)
    if neighbours.shape != codes.shape:
        raise GraphError(
            "place", f"neighbours and codes must be of one length, found {neighbours.shape} and {codes.shape}"
        )
    at, settings = graph.snapshots[snapshot], graph.meta["settings"]
    learned = Sketch(at.arrays["basis"], at.arrays["singular"], settings["scale"])
    if side == "user":
        sums, vectors, stretch = at.arrays["basis_sum"] / UNIT, learned.basis, learned.stretch
    else:
        sums, vectors = at.arrays["user_sum"], at.arrays["user_vectors"]
        stretch = divided(np.ones_like(learned.singular), learned.singular)
    seen = (neighbours >= 0) & (neighbours < len(sums))
    seen[seen] = sums[neighbours[seen]] > 0
    neighbours, codes = neighbours[seen], codes[seen]
    fixed = graph.fixed_scores[codes]
    score = fixed / UNIT
    if settings["normalize"] == "degree":
        score = score / np.sqrt(sums[neighbours] * score.sum())
    vector = (score @ vectors[neighbours] * stretch).astype(np.float32)
    return Place(vector, tuple(_macro(part, side, neighbours, fixed) for part in at.resolutions))


def _macro(at: Resolution, side: Side, neighbours: NDArray[np.int64], fixed: NDArray[np.int64]) -> int:
    """The macro node that ties a node best, from its pairs."""
    other: NDArray[np.int32] = getattr(at, f"{OTHER[side]}_macro")[neighbours]
    edges = SparseEdges(np.array([0, len(fixed)]), other.astype(np.uint16), fixed)
    return int(likeliest(edges, getattr(at, f"{side}_chances"))[0])
