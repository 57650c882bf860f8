"""Pairs that live events have touched: the union of what the snapshot knows of them and what has happened since."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pair_rows import SIDES, PairRows, Side
from mgoe.serving.online import kernels
from mgoe.serving.online.nodes import NEVER, Growing, Nodes


class LivePairs(Growing):
    """E pairs, in lists by user and by item.

    Attributes:
        user, item: Slots. Shape (E,).
        task_mask, base_task_mask: Tasks done, as bits, now and in the snapshot. Shape (E,).
        time: Of the last event. Shape (E,).
        events: Since the snapshot before the latest. Shape (E,).
        next_user, next_item: The next pair of the same user or item, -1 at the end. Shape (E,).
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    task_mask: NDArray[np.int64]
    base_task_mask: NDArray[np.int64]
    time: NDArray[np.int64]
    events: NDArray[np.int64]
    next_user: NDArray[np.int32]
    next_item: NDArray[np.int32]

    def __init__(self) -> None:
        i64, i32 = np.int64, np.int32
        super().__init__({
            "user": (i32, (), -1), "item": (i32, (), -1), "task_mask": (i64, (), 0), "base_task_mask": (i64, (), 0), "time": (i64, (), NEVER),
            "events": (i64, (), 0), "next_user": (i32, (), -1), "next_item": (i32, (), -1),
        })  # fmt: skip
        self._number: dict[tuple[int, int], int] = {}

    def number(self, user: int, item: int) -> int:
        """Of the pair of two codes, -1 where no live event has touched it."""
        return self._number.get((user, item), -1)

    def add(
        self, users: NDArray[np.int64], items: NDArray[np.int64], sides: dict[Side, Nodes], rows: PairRows
    ) -> NDArray[np.int64]:
        """Numbers of pairs of codes; those that are new here start from the snapshot, given by its rows. Shape (n,)."""
        keys = list(zip(users.tolist(), items.tolist(), strict=True))
        new = [k for k, key in enumerate(keys) if key not in self._number]
        if new:
            numbers = self.extend(len(new))
            at = np.empty(len(new), np.int64)
            kernels.pair_at(rows.indptr, rows.other, users[new], items[new], at)
            there, known = numbers[at >= 0], at[at >= 0]
            self.task_mask[there] = self.base_task_mask[there] = rows.task_mask[known]
            self.time[there], self.events[there] = rows.time[known], rows.events[known]
            self.user[numbers], self.item[numbers] = (
                sides["user"].slot[users[new]],
                sides["item"].slot[items[new]],
            )
            kernels.link(self.user[numbers], numbers[0], sides["user"].head, self.next_user)
            kernels.link(self.item[numbers], numbers[0], sides["item"].head, self.next_item)
            self._number.update(zip((keys[k] for k in new), numbers.tolist(), strict=True))
        return np.fromiter((self._number[key] for key in keys), np.int64, len(keys))

    def of(
        self, side: Side, nodes: Nodes, slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Live pairs of nodes of one side: where each one's start (n + 1,), and their numbers."""
        following, indptr = (
            (self.next_user, self.next_item)[SIDES.index(side)],
            np.zeros(len(slots) + 1, np.int64),
        )
        kernels.walk(slots, nodes.head, following, indptr, np.empty(0, np.int64))
        found = np.empty(indptr[-1], np.int64)
        if len(found):
            kernels.walk(slots, nodes.head, following, indptr, found)
        return indptr, found
