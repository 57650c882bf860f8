"""A place for a node that the clustering has not seen, from its own edges.

With `S = P Sigma Q^T`, users are stored as `S Q Sigma^(scale - 1)`. So a user's vector is the sum, over the user's own edges, of score
times a row of `Q`, stretched: whoever has edges can be placed without the rest of the graph. Since `S^T P = Q Sigma`, an item's is the sum
of score times user vector, divided by `Sigma`, as exactly as the power steps have converged. Both are what the build itself does
(`Projection`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.errors import GraphError
from mgoe.graph.clusters import nearest
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.scores import UNIT, score_table
from mgoe.graph.sketch import Sketch, divided, unit_rows


@dataclass(frozen=True)
class Place:
    """Where a node belongs.

    Attributes:
        vector: In the sketch's space. Shape (rank,).
        macro: Macro node at every resolution; the cold node, number `Ku` or `Ki`, for a node without edges.
    """

    vector: NDArray[np.float32]
    macro: tuple[int, ...]


def place(graph: MacroGraph, side: Literal["user", "item"], neighbours: ArrayLike, codes: ArrayLike, snapshot: int = -1) -> Place:
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
        raise GraphError("place", f"neighbours and codes must be of one length, found {neighbours.shape} and {codes.shape}")
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
    score = score_table(np.asarray(graph.meta["ranks"]), settings["beta"], settings["code"])[codes] / UNIT
    if settings["normalize"] == "degree":
        score = score / np.sqrt(sums[neighbours] * score.sum())
    vector = (score @ vectors[neighbours] * stretch).astype(np.float32)
    centres = (getattr(part, f"{side}_centres") for part in at.resolutions)
    return Place(vector, tuple(int(nearest(unit_rows(vector[None]), np.array([vector.any()]), c)[0]) for c in centres))
