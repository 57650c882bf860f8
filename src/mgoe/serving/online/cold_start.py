"""Where newcomers go: nodes that the snapshot has not placed join a macro node by their live pairs.

Axes: `n` nodes, `Z` resolutions, `T` tasks.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.likelihood import Placement
from mgoe.graph.pair_rows import OTHER, SIDES, Side, untimed
from mgoe.graph.scores import UNIT
from mgoe.serving.online.base_values import UNPLACED
from mgoe.serving.online.touched import LivePairs, Nodes

ROUNDS: tuple[tuple[Side, int, tuple[int, ...]], ...] = (
    ("user", 1, (0,)),
    ("item", 2, (0, 1)),
    ("user", 3, (0, 2)),
    ("item", 4, (0, 1, 3)),
)
"""The side that is placed, the level that its nodes get, and the levels of the nodes that place them."""
Slots = NDArray[np.int64]


class ColdStart:
    """One placement of the newcomers whose pairs have changed, by the rules of an update.

    Users join the macro node that is likeliest by their pairs with placed items, then items by placed users;
    then users who only have new items, then items that only had such users; a node that is tied to unplaced
    ones alone joins the first macro node. The result depends on the pairs, not on the order in which they
    came.

    Args:
        placements: Places newcomers of each side.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        sides, pairs: Touched nodes and pairs of the live state, which are changed.
        changed: Slots with changed pairs, each once, by side.

    Attributes:
        changed: Slots whose values have changed, newcomers that move and their neighbours included.
    """

    def __init__(
        self,
        placements: Mapping[Side, Placement],
        scores: NDArray[np.int64],
        sides: Mapping[Side, Nodes],
        pairs: LivePairs,
        changed: dict[Side, Slots],
    ):
        self._placements, self._scores, self._sides, self._pairs = placements, scores, sides, pairs
        self._waiting = {side: self._newcomers(side, changed[side]) for side in SIDES}
        self.changed: dict[Side, Slots] = changed
        if not any(len(self._waiting[side]) for side in SIDES):
            return
        for side in SIDES:
            self._project(side, self._waiting[side])
        for side, level, by in ROUNDS:
            if len(slots := self._newcomers(side, self._waiting[side], level)):
                self._place(side, slots, level, by)
        for side in SIDES:
            if len(slots := self._newcomers(side, self._waiting[side], UNPLACED)):
                self._move(side, slots, np.zeros_like(self._sides[side].macro[slots]), UNPLACED)

    def _newcomers(self, side: Side, slots: Slots, level: int = 1) -> Slots:
        """Those that the snapshot has not placed, of this level or a higher one."""
        return slots[self._sides[side].level[slots] >= level]

    def _project(self, side: Side, slots: Slots) -> None:
        """Compute vectors from pairs with the snapshot's nodes, in the order of their indices.

        As in an update, items that the snapshot has a vector of keep it.
        """
        nodes, other = self._sides[side], self._sides[OTHER[side]]
        if side == "item":
            slots = slots[nodes.index[slots] >= nodes.base_values.snapshot.n_items]
        indptr, numbers, others = self._pairs.of(nodes, slots)
        index = other.index[others]
        order = np.lexsort((index, np.repeat(np.arange(len(slots)), np.diff(indptr))))
        nodes.vectors[slots] = self._placements[side].vectors(
            untimed(indptr, index[order], self._pairs.task_mask[numbers][order]),
            nodes.fixed_sum[slots] / UNIT,
        )

    def _place(self, side: Side, slots: Slots, level: int, by: tuple[int, ...]) -> None:
        """Place the nodes that are tied to nodes of some levels."""
        nodes, other = self._sides[side], self._sides[OTHER[side]]
        indptr, numbers, others = self._pairs.of(nodes, slots)
        allowed = np.isin(other.level[others], by)
        other_macro = [
            np.where(allowed, other.macro[others, r], width).astype(np.int32)
            for r, width in enumerate(nodes.base_values.other_widths)
        ]
        macro = self._placements[side].macro(
            untimed(indptr, np.arange(len(numbers)), self._pairs.task_mask[numbers]), other_macro
        )
        placed = macro[:, 0] < nodes.base_values.widths[0]
        nodes.level[slots[~placed]] = UNPLACED
        self._move(side, slots[placed], macro[placed], level)

    def _move(self, side: Side, slots: Slots, macro: NDArray[np.int32], level: int) -> None:
        """Give macro nodes (n, Z), and adapt the edges of the neighbours."""
        nodes, other = self._sides[side], self._sides[OTHER[side]]
        moves = (nodes.macro[slots] != macro).any(axis=1)
        wakes = moves | (nodes.level[slots] != level)  # neighbours may now be placed otherwise
        nodes.level[slots] = level
        woken = self._newcomers(OTHER[side], self._pairs.of(nodes, slots[wakes])[2])
        self._waiting[OTHER[side]] = np.union1d(self._waiting[OTHER[side]], woken).astype(np.int64)
        slots, macro = slots[moves], macro[moves]
        indptr, numbers, others = self._pairs.of(nodes, slots)
        degree, task_mask = np.diff(indptr), self._pairs.task_mask[numbers]
        scores = self._scores[task_mask]
        former, now = (np.repeat(values, degree, axis=0) for values in (nodes.macro[slots], macro))
        other.move_neighbors(others, former, now, scores, task_mask)
        nodes.set_macro(slots, macro, indptr, other.index[others], scores)
        self.changed = {
            side: np.union1d(self.changed[side], slots),
            OTHER[side]: np.union1d(self.changed[OTHER[side]], others),
        }
