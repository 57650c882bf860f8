"""Pairs that live events have touched."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pair_rows import OTHER, PairRows, Side
from mgoe.serving.online import kernels
from mgoe.serving.online.growing import GrowingArrays
from mgoe.serving.online.nodes import NEVER, Nodes


class LivePairs(GrowingArrays):
    """E pairs, as the snapshot and all events since have them, chained by user and by item.

    Attributes:
        user, item: Slots of the nodes. Shape (E,).
        task_mask, base_task_mask: Tasks done, now and in the snapshot. Shape (E,).
        time: Of the last event. Shape (E,).
        events: Since the snapshot before the latest. Shape (E,).
        next_user, next_item: The next pair of the same user or item, -1 at the end. Shape (E,).
    """

    def __init__(self) -> None:
        node, number = (np.int32, (), -1), (np.int64, (), 0)
        super().__init__(
            {
                "user": node,
                "item": node,
                "task_mask": number,
                "base_task_mask": number,
                "time": (np.int64, (), NEVER),
                "events": number,
                "next_user": node,
                "next_item": node,
            }
        )
        self._numbers: dict[tuple[int, int], int] = {}

    def add(
        self, users: NDArray[np.int64], items: NDArray[np.int64], sides: Mapping[Side, Nodes], rows: PairRows
    ) -> NDArray[np.int64]:
        """Return the numbers of distinct pairs; new ones start from what the snapshot has of them.

        Args:
            users, items: Indices of touched nodes. Shape (n,) each.
            sides: Live nodes.
            rows: The snapshot's pairs by user.

        Returns:
            Shape (n,).
        """
        keys = list(zip(users.tolist(), items.tolist(), strict=True))
        new = [k for k, key in enumerate(keys) if key not in self._numbers]
        if new:
            numbers = self.extend(len(new))
            at = kernels.find_pairs(rows.indptr, rows.other, users[new], items[new])
            there, known = numbers[at >= 0], at[at >= 0]
            self.task_mask[there] = self.base_task_mask[there] = rows.task_mask[known]
            self.time[there], self.events[there] = rows.time[known], rows.events[known]
            self.user[numbers] = sides["user"].slot[users[new]]
            self.item[numbers] = sides["item"].slot[items[new]]
            kernels.link(self.user[numbers], numbers[0], sides["user"].head, self.next_user)
            kernels.link(self.item[numbers], numbers[0], sides["item"].head, self.next_item)
            self._numbers.update(zip((keys[k] for k in new), numbers.tolist(), strict=True))
        return np.fromiter((self._numbers[key] for key in keys), np.int64, len(keys))

    def of(
        self, nodes: Nodes, slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of some nodes: where each node's pairs start, their numbers, and their other
        nodes.

        Args:
            nodes: Live nodes of one side.
            slots: Which of them. Shape (n,).

        Returns:
            Shapes (n + 1,), (m,), (m,); other nodes are slots.
        """
        side = nodes.base_values.side
        indptr, numbers = kernels.walk(slots, nodes.head, getattr(self, f"next_{side}"))
        return indptr, numbers, getattr(self, OTHER[side])[numbers].astype(np.int64)
