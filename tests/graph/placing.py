"""One node, placed by its edges in a saved graph."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.graph import MacroGraph
from mgoe.graph.likelihood import Placement
from mgoe.graph.pair_rows import OTHER, Side, untimed
from mgoe.graph.scores import UNIT


class Place(NamedTuple):
    """The vector (rank,) and the macro node at every resolution of one node."""

    vector: NDArray[np.float32]
    macro: tuple[int, ...]


def place(
    graph: MacroGraph, side: Side, neighbors: ArrayLike, task_masks: ArrayLike, snapshot: int = -1
) -> Place:
    """Place a node by its neighbours and the tasks done with each, (E,); unknown ones are ignored."""
    other, masks = np.asarray(neighbors, np.int64), np.asarray(task_masks, np.int64)
    by, at = Placement.of(graph, side, snapshot), graph.snapshots[snapshot]
    seen = (other >= 0) & (other < len(by.other_sums))
    seen[seen] = by.other_sums[other[seen]] > 0
    other, masks = other[seen], masks[seen]
    pairs = untimed(np.array([0, len(other)]), other, masks)
    macro = by.macro(pairs, [getattr(part, f"{OTHER[side]}_macro") for part in at.resolutions])[0]
    sums = np.array([by.scores[masks].sum() / UNIT])
    return Place(by.vectors(pairs, sums)[0], tuple(macro.tolist()))
