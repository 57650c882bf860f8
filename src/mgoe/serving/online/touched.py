"""Nodes and pairs that live events have touched, with the values that a model reads of them."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import take, with_room
from mgoe.features import EventTimes, NodeOverlay
from mgoe.features.overlay import walk
from mgoe.graph.counts import LATEST, node_counts
from mgoe.graph.edges import log_scores, to_units
from mgoe.graph.newcomers import POWERS
from mgoe.graph.pair_rows import OTHER, PairRows, Side
from mgoe.graph.placing import Placing, SomeNodes
from mgoe.graph.scores import UNIT
from mgoe.serving.events.event import Id
from mgoe.serving.online import kernels
from mgoe.serving.online.base_values import BaseValues
from mgoe.serving.online.kernels import Change

MIN_ROWS = 64
"""Rows that an array has before the first entry."""
NEVER = np.iinfo(np.int64).min


class GrowingArrays:
    """Arrays with one row per entry. A full array is replaced by one of twice the length.

    Args:
        columns: Type, shape of a row, and first value of each array.

    Attributes:
        size: Entries; the arrays are at least as long.
    """

    def __init__(self, columns: Mapping[str, tuple[Any, tuple[int, ...], int]]):
        self.size, self._columns = 0, columns
        for name, (dtype, row, fill) in columns.items():
            setattr(self, name, np.full((MIN_ROWS, *row), fill, dtype))

    def __getattr__(self, name: str) -> NDArray:  # the columns are attributes
        raise AttributeError(name)

    def extend(self, n: int) -> NDArray[np.int64]:
        """Append n entries and return their numbers."""
        first, self.size = self.size, self.size + n
        for name, (_, _, fill) in self._columns.items():
            setattr(self, name, with_room(getattr(self, name), self.size, fill))
        return np.arange(first, self.size)

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        return sum(getattr(self, name).nbytes for name in self._columns)


class Nodes(GrowingArrays):
    """Touched nodes of one side, a slot each. Untouched nodes are read from the snapshot.

    Sums are integers, so they are the same in any order of events; `finish` computes the other arrays from
    them. The arrays have at least n rows, and are replaced when they grow.

    Args:
        base_values: What the snapshot holds of this side.
        known: Nodes that have an index in the bundle.

    Attributes:
        new_ids: Indices of newcomers, which follow the known nodes, by id.
        rank: Order of newcomers whose time and score are equal among recent neighbours: a number made of the
            id, so that it does not depend on who came first. Shape (at least the newcomers,).
        slot: Slot of each node, -1 where it is untouched. Shape (at least `indexed`,).
        index: Node of each slot. Shape (n,).
        version: Version of the live state at the last change. Shape (n,).
        new: Whether the snapshot has not placed the node. Shape (n,).
        power, placed_at, since: Of a newcomer, how many powers of two its pairs have reached, the time of its
            placement, and that of the oldest event that came after it was placed. Shape (n,).
        was_at, was: Of a new user, since when it has been where; `LATEST` behind its placements. Shapes
            (n, POWERS) and (n, POWERS, Z).
        doing: Its latest event in `ColdStart`. Shape (n,).
        macro: Own macro node at each of Z resolutions; the cold one is the last. Shape (n, Z).
        edges: 1st-order edges of all resolutions side by side, unit 2^-12, cold macro nodes included. Shape
            (n, W).
        starts: First column of each resolution in `edges`. Shape (Z + 1,).
        fixed_sum, fixed_second_sum: Score sums over one and two steps, units 2^-12 and 2^-24. Shape (n,).
        fixed_second: 2nd-order edge to the own macro node, unit 2^-24; 0 of a newcomer. Shape (n, Z).
        done, degree, events: Pairs per task (n, T), pairs, and events since the snapshot before the latest
            (n,).
        first, last, total, again: See `own_pairs`. Shape (n,).
        start, number, room: Where the times of the live events of each node start in `times`, how many there
            are, and for how many there is room. Shape (n,).
        times: See `EventTimes`. Shape (at least all times,).
        recent, recent_task_mask, recent_time: Neighbours, newest first, -1 at the end. Shape (n, R).
        head: First live pair, -1 if there is none. Shape (n,).
        sum, second_sum, second, counts, log_first, vectors: What a model reads, as in `Snapshot` and
            `Resolution`; `log_first` is log(1 + edge) of the 1st order.
        content: What nodes are about of which the snapshot does not know it. Shape (n, D).
        kappa, read_edges, read_macro, read_vectors: What a model reads where content places nodes, see
            `mgoe.graph.placing`.
    """

    def __init__(self, base_values: BaseValues, known: int):
        snapshot, tasks = base_values.snapshot, len(base_values.share)
        widths, to = base_values.widths, base_values.other_widths
        self.base_values, self.known = base_values, known
        self._placed = snapshot.placed.get(base_values.side, {})
        rank = snapshot.arrays[f"{base_values.side}_vectors"].shape[1]
        self.new_ids: dict[Id, int] = {}
        self.times, self._used = np.zeros(MIN_ROWS, np.int64), 0
        self.rank = np.zeros(MIN_ROWS, np.int64)
        self.slot = np.full(max(known, 1), -1, np.int32)
        self.starts = np.concatenate([[0], np.cumsum(np.array(to) + 1)]).astype(np.int64)
        resolutions, dense = (len(widths),), to[snapshot.dense]
        recents = (base_values.recents,)
        super().__init__(
            {
                "index": (np.int64, (), -1),
                "version": (np.int64, (), 0),
                "new": (np.bool_, (), 0),
                "power": (np.int8, (), 0),
                "placed_at": (np.int64, (), NEVER),
                "since": (np.int64, (), LATEST),
                "was_at": (np.int64, (POWERS if base_values.side == "user" else 0,), LATEST),
                "was": (np.int32, (POWERS if base_values.side == "user" else 0, len(widths)), 0),
                "doing": (np.int32, (), -1),
                "macro": (np.int32, resolutions, 0),
                "edges": (np.int64, (int(self.starts[-1]),), 0),
                "fixed_sum": (np.int64, (), 0),
                "fixed_second_sum": (np.int64, (), 0),
                "fixed_second": (np.int64, resolutions, 0),
                "done": (np.int32, (tasks,), 0),
                "degree": (np.int64, (), 0),
                "events": (np.int32, (), 0),
                "first": (np.int64, (), LATEST),
                "last": (np.int64, (), NEVER),
                "total": (np.int64, (), 0),
                "again": (np.int64, (), 0),
                "start": (np.int64, (), 0),
                "number": (np.int64, (), 0),
                "room": (np.int64, (), 0),
                "recent": (np.int32, recents, -1),
                "recent_task_mask": (snapshot.arrays["pairs.task_mask"].dtype, recents, 0),
                "recent_time": (np.int64, recents, 0),
                "head": (np.int32, (), -1),
                "sum": (np.float32, (), 0),
                "second_sum": (np.float32, (), 0),
                "second": (np.float32, resolutions, 0),
                "counts": (np.float32, (2 * tasks + 3,), 0),
                "log_first": (np.float16, (dense,), 0),
                "vectors": (np.float32, (rank,), 0),
                "kappa": (np.float32, (), 0),
                "content": (np.float32, self._placed["content"].shape[1:] if self._placed else (0,), 0),
                "read_edges": (np.int64, (int(self.starts[-1]) if self._placed else 0,), 0),
                "read_macro": (np.int32, resolutions if self._placed else (0,), 0),
                "read_vectors": (np.float32, (rank if self._placed else 0,), 0),
            }
        )

    @property
    def indexed(self) -> int:
        """Nodes that have an index, newcomers included."""
        return self.known + len(self.new_ids)

    def add_newcomers(self, ids: Sequence[Id]) -> None:
        """Give the next indices to nodes that the bundle does not know."""
        self.new_ids.update(zip(ids, range(self.indexed, self.indexed + len(ids)), strict=True))
        self.rank = with_room(self.rank, len(self.new_ids), 0)
        self.rank[len(self.new_ids) - len(ids) : len(self.new_ids)] = [_rank(one) for one in ids]
        self.slot = with_room(self.slot, self.indexed, -1)

    def overlay(self) -> NodeOverlay:
        """Return what a model reads of the nodes, not copied."""
        own = {name: f"read_{name}" for name in ("edges", "macro", "vectors") if self._placed}
        times = EventTimes(self.start, self.number, self.times)
        plain = (getattr(self, own.get(name, name)) for name in NodeOverlay._fields)
        return NodeOverlay(*plain)._replace(times=times)

    def macro_of(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the own macro nodes of nodes, the cold ones for those without history. Shape (n, Z)."""
        slots, base = self.slots(indices), self.base_values
        former = base.snapshot.macro_nodes(base.side, indices)
        return np.where((slots >= 0)[:, None], self.macro[np.maximum(slots, 0)], former)

    def slots(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return slots of nodes, -1 for those that are untouched or unknown. Shape (n,)."""
        return take(self.slot, indices, -1).astype(np.int64)

    def untouched(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some nodes that have no slot, each once and in order."""
        distinct = np.unique(indices)
        return distinct[self.slots(distinct) < 0]

    def touch(self, values: Mapping[str, NDArray]) -> None:
        """Give slots to nodes, which start from what `BaseValues.read` returned."""
        slots = self.extend(len(values["index"]))
        for name, rows in values.items():
            getattr(self, name)[slots] = rows
        self.slot[values["index"]] = slots

    def place(self, indices: NDArray[np.int64], content: NDArray[np.float32], version: int) -> None:
        """Note what nodes are about of which the snapshot does not know it.

        Args:
            indices: Nodes, each once. Shape (n,).
            content: Zeros throughout where it is unknown. Shape (n, D).
            version: Version of the live state.
        """
        new = content.any(axis=1) & ~take(self._placed.get("content", content[:0]), indices, 0).any(axis=1)
        if self._placed and new.any():
            self.touch(self.base_values.read(self.untouched(indices[new])))
            slots = self.slots(indices[new])
            self.content[slots] = content[new]
            self.finish(slots, version)

    def add(self, change: Change, other: Self) -> None:
        """Add changed pairs with nodes of the other side to the sums of this side's nodes."""
        base, step = self.base_values, change.score - change.old_score
        kernels.add_totals(
            change,
            base.other_sums,
            kernels.Totals(
                *(getattr(self, name) for name in kernels.Totals._fields),
            ),
        )
        kernels.add_recents(
            change,
            base.scores,
            other.known,
            other.rank,
            self.recent,
            self.recent_task_mask,
            self.recent_time,
        )
        known = ~self.new[change.own]
        steps = change.own[known], change.other[known], step[known], change.base_score[known]
        for r in range(len(base.widths)):
            kernels.add_edges(change.own, change.other_macro, r, step, self.starts[r], self.edges)
            kernels.add_own_second_order(*steps, base.edges(r), self.macro, r, self.fixed_second)

    def add_times(self, slots: NDArray[np.int64], time: NDArray[np.int64], many: NDArray[np.integer]) -> None:
        """Note when live events were.

        Args:
            slots: Node of each event. Shape (m,).
            time: Microseconds. Shape (m,).
            many: As how many events each counts. Shape (m,).
        """
        own, more = np.unique(slots, return_inverse=True)
        wanted = self.number[own] + np.bincount(more, many, len(own)).astype(np.int64)
        full = wanted > self.room[own]
        own, room = own[full], 2 * wanted[full]
        to = self._used + np.cumsum(room) - room
        self._used += int(room.sum())
        self.times = with_room(self.times, self._used, 0)
        held = self.number[own]
        at = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held)
        self.times[np.repeat(to, held) + at] = self.times[np.repeat(self.start[own], held) + at]
        self.start[own], self.room[own] = to, room
        kernels.add_times(slots, time, many.astype(np.int64), self.start, self.number, self.times)

    def move_neighbors(
        self,
        slots: NDArray[np.int64],
        former: NDArray[np.int32],
        now: NDArray[np.int32],
        scores: NDArray[np.int64],
    ) -> None:
        """Adapt the edges of nodes to newcomers that have moved to other macro nodes, pair by pair.

        Args:
            slots: Nodes of this side. Shape (m,).
            former, now: Macro nodes of the other node. Shape (m, Z) each.
            scores: Of the pair. Shape (m,).
        """
        for r in range(len(self.base_values.widths)):
            for macro, sign in ((former, -1), (now, 1)):
                kernels.add_edges(slots, macro, r, sign * scores, self.starts[r], self.edges)

    def finish(self, slots: NDArray[np.int64], version: int) -> None:
        """Compute what a model reads of nodes that have changed.

        Idle buckets count from the snapshot's cut, and rates compare with its task shares.
        """
        base, snapshot = self.base_values, self.base_values.snapshot
        self.version[slots] = version
        self.sum[slots] = to_units(self.fixed_sum[slots], UNIT)
        self.second[slots] = to_units(self.fixed_second[slots], UNIT**2)
        self.second_sum[slots] = to_units(self.fixed_second_sum[slots], UNIT**2)
        degree = self.degree[slots]
        idle = np.where(degree > 0, np.maximum(snapshot.cut - self.last[slots] // snapshot.bucket, 0), 0)
        self.counts[slots] = node_counts(self.done[slots], degree, self.events[slots], idle, base.share)
        width, start = base.other_widths[snapshot.dense], self.starts[snapshot.dense]
        edges = self.edges[slots, start : start + width]
        self.log_first[slots] = log_scores(edges, UNIT)
        if self._placed:
            self._place(slots)

    def _place(self, slots: NDArray[np.int64]) -> None:
        """Let nodes read what their content adds."""
        snapshot, side, held = self.base_values.snapshot, self.base_values.side, self._placed
        index = np.where(self.index[slots] < self.known, self.index[slots], -1)
        some = SomeNodes(
            self.content[slots] + take(held["content"], index, 0),
            self.fixed_sum[slots],
            self.vectors[slots],
            [self.edges[slots, start : end - 1] for start, end in pairwise(self.starts.tolist())],
            [*self.macro[slots].T],
        )
        chances = [getattr(part, f"{side}_chances") for part in snapshot.resolutions]
        found = Placing(held["targets"], held["worth"]).read(some, chances, snapshot.dense)
        for name in ("kappa", "sum", "log_first"):
            getattr(self, name)[slots] = found[name]
        self.read_vectors[slots] = found["vectors"]
        for r, start in enumerate(self.starts[:-1]):
            self.read_macro[slots, r] = found[f"macro{r}"]
            self.read_edges[slots, start : self.starts[r + 1] - 1] = found[f"edges{r}"]


class LivePairs(GrowingArrays):
    """E pairs, as the snapshot and all events since have them, chained by user and by item.

    Attributes:
        user, item: Slots of the nodes. Shape (E,).
        task_mask, base_task_mask: Tasks done, now and in the snapshot. Shape (E,).
        time, first: Of the last and the first event. Shape (E,).
        total: All events. Shape (E,).
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
                "first": (np.int64, (), LATEST),
                "total": number,
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
            for name in ("time", "events", "first", "total"):
                getattr(self, name)[there] = getattr(rows, name)[known]
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
        indptr, numbers = walk(slots, nodes.head, getattr(self, f"next_{side}"))
        return indptr, numbers, getattr(self, OTHER[side])[numbers].astype(np.int64)


def _rank(one: Id) -> int:
    if isinstance(one, int):
        return one if one < 1 << 63 else one - (1 << 64)
    return int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "big", signed=True)
