"""Where newcomers go: nodes that the snapshot has not placed join a macro node by their live events, see
`mgoe.graph.newcomers`.

Axes: `n` nodes, `m` events, `Z` resolutions.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts
from mgoe.features.overlay import walk
from mgoe.graph import newcomers
from mgoe.graph.counts import LATEST
from mgoe.graph.likelihood import Placement
from mgoe.graph.newcomers import Doings, Placements, place, power_of
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.graph.snapshot import Snapshot
from mgoe.serving.online.touched import GrowingArrays, LivePairs, Nodes

Slots = NDArray[np.int64]


class ColdStart:
    """The events of newcomers, and where they have placed them.

    A node is placed again when its neighbours reach a power of two, when an event comes that is not newer
    than its placement, and, if it is an item, when one of its new users turns out to have been elsewhere at
    that time. So the events of a newcomer that come in the order of time cost little each, however many there
    are. One that is late costs as much as all until the last placement.

    Args:
        snapshot: What newcomers are new to.
        placements: Places nodes of each side.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        sides, pairs: Touched nodes and pairs of the live state, which are changed.

    Attributes:
        doings: Events of the newcomers of each side, chained by node.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        placements: Mapping[Side, Placement],
        scores: NDArray[np.int64],
        sides: Mapping[Side, Nodes],
        pairs: LivePairs,
    ):
        self._snapshot, self._placements, self._scores = snapshot, placements, scores
        self._sides, self._pairs = sides, pairs
        number = np.int64, (), 0
        columns = dict.fromkeys(("other", "time", "task_mask"), number) | {"next": (np.int32, (), -1)}
        self.doings = {side: GrowingArrays(columns) for side in SIDES}

    def add(
        self, side: Side, slots: Slots, others: NDArray, time: NDArray[np.int64], task_mask: NDArray
    ) -> Slots:
        """Note events, and return the newcomers among their nodes that have to be placed again.

        Args:
            side: Of the nodes.
            slots: Node of each event, whose sums hold the events. Shape (m,).
            others: Index of the other node. Shape (m,).
            time: Microseconds. Shape (m,).
            task_mask: Tasks done. Shape (m,).
        """
        nodes, doings = self._sides[side], self.doings[side]
        settled = (nodes.power[slots] == newcomers.POWERS) & (time > nodes.placed_at[slots])
        rows = np.flatnonzero(nodes.new[slots] & ~settled)
        if not len(rows):
            return np.empty(0, np.int64)
        own, numbers = slots[rows], doings.extend(len(rows))
        doings.other[numbers], doings.time[numbers] = others[rows], time[rows]
        doings.task_mask[numbers] = task_mask[rows]
        order = np.argsort(own, kind="stable")
        of, chain = own[order], numbers[order]
        doings.next[chain] = np.where(run_starts(of), nodes.doing[of], np.roll(chain, 1))
        nodes.doing[of] = chain  # the last of each node
        np.minimum.at(nodes.since, own, time[rows])
        late = nodes.since[own] <= nodes.placed_at[own]
        more = power_of(nodes.degree[own]) != nodes.power[own]
        nodes.power[own] = power_of(nodes.degree[own])
        return np.unique(own[late | more])

    def place(self, waiting: Mapping[Side, Slots], changed: dict[Side, Slots]) -> dict[Side, Slots]:
        """Place newcomers.

        Args:
            waiting: Those that have to be placed, as `add` returned them.
            changed: Slots with changed pairs, each once, by side.

        Returns:
            Slots whose values have changed, newcomers that move and their neighbours included.
        """
        users, items = waiting["user"], waiting["item"]
        of_user, of_item = self._sides["user"], self._sides["item"]
        if len(users):
            indptr, _, tied = self._pairs.of(of_user, users)
            since = np.repeat(of_user.since[users], np.diff(indptr))
            items = np.union1d(items, tied[of_item.new[tied] & (since <= of_item.placed_at[tied])])
            placed = self._place("user", users, None, changed)
            row, number = of_user.slots(placed.node), np.arange(len(placed.node))
            number -= np.searchsorted(placed.node, placed.node)
            of_user.was_at[users] = LATEST
            of_user.was_at[row, number], of_user.was[row, number] = placed.time, placed.macro
        if len(items):
            tied = self._pairs.of(of_item, items)[2]
            near = of_user.slots(np.unique(of_user.index[tied[of_user.new[tied]]]))
            time, macro = of_user.was_at[near], of_user.was[near]
            row, number = np.nonzero(time < LATEST)
            among = of_user.index[near][row], time[row, number], macro[row, number], of_user.vectors[:0]
            self._place("item", items.astype(np.int64), Placements(*among), changed)
        return changed

    def _place(
        self, side: Side, slots: Slots, among: Placements | None, changed: dict[Side, Slots]
    ) -> Placements:
        nodes, doings = self._sides[side], self.doings[side]
        slots = slots[np.argsort(nodes.index[slots])]
        indptr, numbers = walk(slots, nodes.doing, doings.next)
        row = np.repeat(np.arange(len(slots)), np.diff(indptr))
        numbers = numbers[np.lexsort((doings.time[numbers], row))]
        done = Doings(
            nodes.index[slots][row], doings.other[numbers], doings.time[numbers], doings.task_mask[numbers]
        )
        placed = place(done, self._placements[side], self._snapshot, side, among)
        last = np.searchsorted(placed.node, nodes.index[slots], side="right") - 1
        nodes.placed_at[slots], nodes.since[slots] = placed.time[last], LATEST
        # items that the snapshot has a vector of keep it
        own = np.flatnonzero((nodes.index[slots] >= self._snapshot.n_items) | (side == "user"))
        nodes.vectors[slots[own]] = placed.vectors[last[own]]
        self._move(side, slots, placed.macro[last], changed)
        changed[side] = np.union1d(changed[side], slots)
        return placed

    def _move(self, side: Side, slots: Slots, macro: NDArray[np.int32], changed: dict[Side, Slots]) -> None:
        """Give macro nodes (n, Z), and adapt the edges of the neighbours."""
        nodes, other = self._sides[side], self._sides[OTHER[side]]
        moves = (nodes.macro[slots] != macro).any(axis=1)
        slots, macro = slots[moves], macro[moves]
        indptr, numbers, others = self._pairs.of(nodes, slots)
        scores = self._scores[self._pairs.task_mask[numbers]]
        former, now = (np.repeat(values, np.diff(indptr), axis=0) for values in (nodes.macro[slots], macro))
        other.move_neighbors(others, former, now, scores)
        nodes.macro[slots] = macro
        changed[OTHER[side]] = np.union1d(changed[OTHER[side]], others)
