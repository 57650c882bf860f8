"""Placing nodes that a snapshot has not placed, by their own pairs and by the rules of a build.

With `S = P Sigma Q^T`, users are stored as `S Q Sigma^(scale - 1)`. So a user's vector is the sum, over the
user's own pairs, of score times a row of `Q`, times a stretch: a user with pairs can be placed without the
rest of the graph. Since `S^T P = Q Sigma`, an item's vector is the sum of score times user vector, divided by
`Sigma`, as exactly as the power steps have converged. A node's macro node is the one that is likeliest by its
pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.errors import GraphError
from mgoe.graph.likelihood import Likeliest
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import NO_TIMES, OTHER, PairRows, Side
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import Projection, Sketch, divided


@dataclass(frozen=True)
class Place:
    """Where a node belongs.

    Attributes:
        vector: In the sketch's space. Shape (rank,).
        macro: Macro node at every resolution; the cold node, number `Ku` or `Ki`, for a node without edges.
    """

    vector: NDArray[np.float32]
    macro: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Places nodes of one side from blocks of their pairs.

    Attributes:
        scores: Fixed-point score of every task mask. Shape (2^T,).
        other_sums: Score sum of each node of the other side. Shape (I,) or (U,).
        other_vectors: Their vectors, or rows of `Q` if they are items. Shape (I, rank) or (U, rank).
        stretch: Factor of each column of a vector. Shape (rank,).
        normalize: `degree` or `none`.
        chances: Of `likelihood.log_chances`, per resolution. Shape (other K, K) each.
    """

    scores: NDArray[np.int64]
    other_sums: NDArray[np.float64]
    other_vectors: NDArray[np.float32]
    stretch: NDArray[np.float32]
    normalize: str
    chances: tuple[NDArray[np.int32], ...]

    @classmethod
    def of(cls, graph: MacroGraph, side: Side, snapshot: int = -1) -> Placement:
        """Return the placement of users or of items by a snapshot."""
        at, settings = graph.snapshots[snapshot], graph.meta["settings"]
        arrays, sketch = at.arrays, Sketch(at.arrays["basis"], at.arrays["singular"], settings["scale"])
        if side == "user":
            sums, vectors, stretch = arrays["basis_sum"] / UNIT, sketch.basis, sketch.stretch
        else:
            sums, vectors = arrays["user_sum"].astype(np.float64), arrays["user_vectors"]
            stretch = divided(np.ones_like(sketch.singular), sketch.singular)
        chances = tuple(getattr(part, f"{side}_chances") for part in at.resolutions)
        return cls(graph.fixed_scores, sums, vectors, stretch, settings["normalize"], chances)

    def vectors(self, block: PairRows, sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the vectors of a block's nodes, given their score sums (n,). Shape (n, rank)."""
        scores, others = self.scores / UNIT, (self.other_sums, self.other_vectors)
        return Projection(scores, sums, *others, self.stretch, self.normalize)(block)["vectors"]

    def macro(self, block: PairRows, other_macro: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Return the macro nodes of a block's nodes.

        Args:
            block: Of n nodes.
            other_macro: Macro node of each node of the other side, per resolution; a cold one says nothing.

        Returns:
            The cold macro node for a node without others. Shape (n, resolutions).
        """
        parts = zip(other_macro, self.chances, strict=True)
        found = [Likeliest(self.scores, macro, chances)(block)["macro"] for macro, chances in parts]
        return np.stack(found, axis=1)


def place(
    graph: MacroGraph, side: Side, neighbours: ArrayLike, task_masks: ArrayLike, snapshot: int = -1
) -> Place:
    """Place one node by its edges (ours).

    Args:
        graph: The graph that the node is placed in.
        side: Whether it is a user or an item.
        neighbours: Distinct items of a user, or users of an item; unknown ones are ignored. Shape (E,).
        task_masks: Tasks done with each. Shape (E,).
        snapshot: Which snapshot; the latest by default.

    Raises:
        GraphError: The two lists differ in length.
    """
    other, masks = np.asarray(neighbours, np.int64), np.asarray(task_masks, np.int64)
    if other.shape != masks.shape:
        raise GraphError(
            "place",
            f"neighbours and task_masks must be of one length, found {other.shape} and {masks.shape}",
        )
    by, at = Placement.of(graph, side, snapshot), graph.snapshots[snapshot]
    seen = (other >= 0) & (other < len(by.other_sums))
    seen[seen] = by.other_sums[other[seen]] > 0
    other, masks = other[seen], masks[seen]
    indptr = np.array([0, len(other)])
    pairs = PairRows(indptr, other.astype(np.int32), masks.astype(np.uint16), *NO_TIMES)
    macro = by.macro(pairs, [getattr(part, f"{OTHER[side]}_macro") for part in at.resolutions])[0]
    sums = np.array([by.scores[masks].sum() / UNIT])
    return Place(by.vectors(pairs, sums)[0], tuple(macro.tolist()))
