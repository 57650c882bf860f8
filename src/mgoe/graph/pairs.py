"""From history to distinct pairs: which tasks a user did on an item, snapshot by snapshot.

A *step* is a moment at which a pair's task code (or its last time) changes: one row a pair and snapshot interval in which it has events.
Codes are running unions, so the pairs of snapshot `s` are the steps with `since <= s < until`, whatever the engine.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow.parquet as pq
from ibis import _
from numpy.typing import NDArray

from mgoe.graph.scores import UNIT


def pair_steps(history: ir.Table, snapshots: int, scores: NDArray[np.int64]) -> ir.Table:
    """Running task codes of every pair, as an Ibis expression.

    Args:
        history: One row an event and task: `user`, `item`, `time`, `bucket`, `snapshot` (the first that holds it), `task`.
        snapshots: How many snapshots there are.
        scores: Fixed-point score of every code. Shape (2^T,).

    Returns:
        `user, item, since, until, code, score, time, bucket, events`: the code, score, last time and last bucket of a pair in
        snapshots `[since, until)`, and the events that came with this step. Sorted by user, item, since.
    """
    bits = history.mutate(bit=(2 ** _.task.cast("int64")).cast("int64"))
    steps = bits.group_by(["user", "item", "snapshot"]).agg(code=_.bit.bit_or(), time=_.time.max(), bucket=_.bucket.max(), events=_.count())
    earlier = ibis.window(group_by=["user", "item"], order_by="snapshot", preceding=None, following=0)
    pair = ibis.window(group_by=["user", "item"], order_by="snapshot")
    running = steps.select(
        "user",
        "item",
        since=_.snapshot,
        until=ibis.coalesce(_.snapshot.lead().over(pair), snapshots),
        code=_.code.bit_or().over(earlier),
        time=_.time.max().over(earlier),
        bucket=_.bucket.max().over(earlier),
        events=_.events,
    )
    table = ibis.memtable({"code": np.arange(len(scores)), "score": scores})
    return running.join(table, "code").order_by(["user", "item", "since"])


def pairs_at(steps: ir.Table, snapshot: int) -> ir.Table:
    """The steps that hold at a snapshot: one row a pair."""
    return steps.filter(_.since <= snapshot, _.until > snapshot)


@dataclass(frozen=True)
class Pairs:
    """The distinct pairs of one snapshot, sorted by user, then item.

    Attributes:
        indptr: Where each user's pairs start. Shape (U + 1,).
        user, item: Shape (E,).
        code: Tasks done, as bits. Shape (E,).
        score: Fixed-point merging score. Shape (E,).
        time, bucket: Of the last event. Shape (E,).
        events: Since the snapshot before. Shape (E,).
        by_item: Order of the pairs by item, then user. Shape (E,).
        item_indptr: Where each item's pairs start in that order. Shape (I + 1,).
    """

    indptr: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    code: NDArray[np.int64]
    score: NDArray[np.int64]
    time: NDArray[np.int64]
    bucket: NDArray[np.int32]
    events: NDArray[np.int64]
    by_item: NDArray[np.int64]
    item_indptr: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.item)

    @property
    def shape(self) -> tuple[int, int]:
        """(U, I)."""
        return len(self.indptr) - 1, len(self.item_indptr) - 1

    @cached_property
    def sums(self) -> dict[str, NDArray]:
        """Score sum of each `user` and `item`, in units of the merging score. Shape (U,), (I,)."""
        score = self.score / UNIT
        return {"user": np.bincount(self.user, score, self.shape[0]), "item": np.bincount(self.item, score, self.shape[1])}

    @cached_property
    def second(self) -> dict[str, NDArray]:
        """2nd-order score each pair gives its `user` and its `item`: what comes back over the other node, without the pair itself. (E,)."""
        score = self.score / UNIT
        return {
            "user": score * (self.sums["item"][self.item] - score),
            "item": score * (self.sums["user"][self.user] - score),
        }

    def by(self, side: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | slice]:
        """Pairs grouped by one side: where each node starts (n + 1,), the other nodes (E,), and what brings columns to that order."""
        if side == "user":
            return self.indptr, self.item, slice(None)
        return self.item_indptr, self.user[self.by_item], self.by_item

    @classmethod
    def at(cls, steps: dict[str, NDArray], snapshot: int, n_users: int, n_items: int) -> Self:
        """Select the steps that hold at a snapshot.

        Args:
            steps: Columns of `pair_steps`, sorted by user, item, since.
            snapshot: Its index.
            n_users, n_items: Nodes known by then.
        """
        now = (steps["since"] <= snapshot) & (steps["until"] > snapshot)
        user, item = steps["user"][now], steps["item"][now]
        by_item = np.argsort(item, kind="stable")
        return cls(
            indptr=_indptr(user, n_users),
            user=user,
            item=item,
            code=steps["code"][now],
            score=steps["score"][now],
            time=steps["time"][now],
            bucket=steps["bucket"][now].astype(np.int32),
            events=np.where(steps["since"][now] == snapshot, steps["events"][now], 0),
            by_item=by_item,
            item_indptr=_indptr(item, n_items),
        )


def _indptr(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)


def read_steps(file: Path) -> dict[str, NDArray]:
    """The columns of `pair_steps` as they were written."""
    table = pq.read_table(file)
    return {name: table[name].to_numpy() for name in table.column_names}
