"""Macro nodes and sketch vectors of nodes that the snapshot has not placed, from their live pairs, by the rules of an update.

Users join the macro node that ties them best to placed items, then items to placed users; then users whose items are all new, then items
whose users were; who is tied to newcomers alone joins the first. What results depends on the pairs, not on when they came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import MacroGraph
from mgoe.graph.likelihood import Likeliest
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import Projection, Sketch, divided
from mgoe.serving.online.base_values import LEVELS
from mgoe.serving.online.nodes import Nodes
from mgoe.serving.online.pairs import LivePairs

ROUNDS: tuple[tuple[Side, int, tuple[int, ...]], ...] = (
    ("user", 1, (0,)),
    ("item", 2, (0, 1)),
    ("user", 3, (0, 2)),
    ("item", 4, (0, 1, 3)),
)
"""Which side is placed, the level that it gets, and the levels of the other side that it is placed by."""
Slots = NDArray[np.int64]


@dataclass(frozen=True)
class Sketched:
    """What projects newcomers of one side, see `Projection`. Nodes whose code is below `first` keep the snapshot's vector."""

    sums: NDArray[np.float64]
    vectors: NDArray[np.float32]
    stretch: NDArray[np.float32]
    normalize: str
    first: int


def sketched(graph: MacroGraph, user_sums: NDArray[np.int64]) -> dict[Side, Sketched]:
    """What projects newcomers, see `mgoe.graph.place`."""
    arrays, settings = graph.latest.arrays, graph.meta["settings"]
    learned, normalize = Sketch(arrays["basis"], arrays["singular"], settings["scale"]), settings["normalize"]
    inverse = divided(np.ones_like(learned.singular), learned.singular)
    return {
        "user": Sketched(arrays["basis_sum"] / UNIT, arrays["basis"], learned.stretch, normalize, 0),
        "item": Sketched(user_sums / UNIT, arrays["user_vectors"], inverse, normalize, graph.latest.n_items),
    }


class ColdStart:
    """Places newcomers.

    Args:
        sides: Live nodes.
        pairs: Live pairs.
        scores: Fixed-point score of every code. Shape (2^T,).
        sketched: By side.
    """

    def __init__(
        self,
        sides: dict[Side, Nodes],
        pairs: LivePairs,
        scores: NDArray[np.int64],
        sketched: dict[Side, Sketched],
    ):
        self.sides, self.pairs, self.scores, self.sketched = sides, pairs, scores, sketched

    def settle(self, changed: dict[Side, Slots]) -> dict[Side, Slots]:
        """Place newcomers whose pairs have changed, and whom that moves.

        Args:
            changed: Slots with changed pairs.

        Returns:
            Slots whose values have changed, these included.
        """
        touched: dict[Side, list[Slots]] = {side: [changed[side]] for side in SIDES}
        waiting: dict[Side, Slots] = {side: self._newcomers(side, changed[side]) for side in SIDES}
        if not any(len(waiting[side]) for side in SIDES):
            return changed
        for side in SIDES:
            self._project(side, waiting[side])
        for side, level, by in ROUNDS:
            nodes = self.sides[side]
            slots = waiting[side][nodes.level[waiting[side]] >= level]
            if len(slots):
                self._move(side, *self._placed(side, slots, by, level), touched, waiting)
        for side in SIDES:
            lost = waiting[side][self.sides[side].level[waiting[side]] == LEVELS]
            if len(lost):
                self._move(
                    side,
                    lost,
                    np.zeros((len(lost), self.sides[side].macro.shape[1]), np.int32),
                    LEVELS,
                    touched,
                    waiting,
                )
        return {side: np.unique(np.concatenate(touched[side])) for side in SIDES}

    def _newcomers(self, side: Side, slots: Slots) -> Slots:
        return slots[self.sides[side].level[slots] > 0]

    def _placed(
        self, side: Side, slots: Slots, by: tuple[int, ...], level: int
    ) -> tuple[Slots, NDArray[np.int32], int]:
        """Those that the nodes of some levels can place, and their macro nodes (n, Z)."""
        nodes, other = self.sides[side], self.sides[OTHER[side]]
        indptr, numbers = self.pairs.of(side, nodes, slots)
        others = self._others(side, numbers)
        allowed = np.isin(other.level[others], by)
        block = _block(indptr, np.arange(len(numbers)), self.pairs.task_mask[numbers])
        found = []
        for r, part in enumerate(nodes.base_values.snapshot.resolutions):
            macro = np.where(allowed, other.macro[others, r], nodes.base_values.other_widths[r]).astype(
                np.int32
            )
            found.append(Likeliest(self.scores, macro, getattr(part, f"{side}_chances"))(block)["macro"])
        macro = np.stack(found, axis=1)
        able = macro[:, 0] < nodes.base_values.widths[0]
        nodes.level[slots[~able]] = LEVELS
        return slots[able], macro[able], level

    def _move(
        self,
        side: Side,
        slots: Slots,
        macro: NDArray[np.int32],
        level: int,
        touched: dict[Side, list[Slots]],
        waiting: dict[Side, Slots],
    ) -> None:
        """Give macro nodes, and bring the edges of their neighbours along."""
        nodes, other = self.sides[side], self.sides[OTHER[side]]
        differs = (nodes.macro[slots] != macro).any(axis=1)
        wakes = differs | (nodes.level[slots] != level)
        nodes.level[slots] = level
        indptr, numbers = self.pairs.of(side, nodes, slots[wakes])
        waiting[OTHER[side]] = np.union1d(
            waiting[OTHER[side]], self._newcomers(OTHER[side], self._others(side, numbers))
        ).astype(np.int64)
        slots, macro = slots[differs], macro[differs]
        indptr, numbers = self.pairs.of(side, nodes, slots)
        others, degree = self._others(side, numbers), np.diff(indptr)
        codes, scores = self.pairs.task_mask[numbers], self.scores[self.pairs.task_mask[numbers]]
        other.move(
            others,
            np.repeat(nodes.macro[slots], degree, axis=0),
            np.repeat(macro, degree, axis=0),
            scores,
            codes,
        )
        nodes.replace(slots, macro, indptr, other.index[others], scores)
        touched[side].append(slots)
        touched[OTHER[side]].append(others)

    def _project(self, side: Side, slots: Slots) -> None:
        """Vectors from a node's pairs with nodes of the snapshot, in the order of their codes."""
        nodes, how = self.sides[side], self.sketched[side]
        slots = slots[nodes.index[slots] >= how.first]
        indptr, numbers = self.pairs.of(side, nodes, slots)
        row, other = (
            np.repeat(np.arange(len(slots)), np.diff(indptr)),
            self.sides[OTHER[side]].index[self._others(side, numbers)],
        )
        order = np.lexsort((other, row))
        block = _block(indptr, other[order], self.pairs.task_mask[numbers][order])
        own = nodes.fixed_sum[slots] / UNIT
        projection = Projection(self.scores / UNIT, own, how.sums, how.vectors, how.stretch, how.normalize)
        nodes.vectors[slots] = projection(block)["vectors"]

    def _others(self, side: Side, numbers: NDArray[np.int64]) -> Slots:
        return (self.pairs.item if side == "user" else self.pairs.user)[numbers].astype(np.int64)


def _block(indptr: NDArray[np.int64], other: NDArray[np.int64], code: NDArray[np.int64]) -> PairRows:
    return PairRows(
        indptr,
        other.astype(np.int32),
        code.astype(np.uint16),
        np.empty(0, np.int64),
        np.empty(0, np.uint16),
    )
