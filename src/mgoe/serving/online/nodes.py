"""Live values of the nodes of one side: what a snapshot holds of them, for those that events have touched since, and nothing of the others.

A slot is a touched node. Sums are integers, so that they are the same in any order of events; what a model reads is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.counts import node_counts
from mgoe.graph.edges import log_scores, to_units
from mgoe.graph.pair_rows import OTHER
from mgoe.graph.scores import UNIT
from mgoe.serving.online import kernels
from mgoe.serving.online.base_values import BaseValues

LEAST = 64
"""Rows of an array that is empty."""
NEVER = np.iinfo(np.int64).min


class Growing:
    """Arrays with one row an entry, replaced by ones of twice the length when they are full.

    Args:
        columns: Type, shape of a row and first value of each array.
    """

    def __init__(self, columns: Mapping[str, tuple[Any, tuple[int, ...], int]]):
        self.size, self._columns = 0, columns
        for name, (dtype, row, fill) in columns.items():
            setattr(self, name, np.full((LEAST, *row), fill, dtype))

    def extend(self, n: int) -> NDArray[np.int64]:
        """Make room for n more entries and return their numbers."""
        first, self.size = self.size, self.size + n
        for name, (dtype, row, fill) in self._columns.items():
            setattr(self, name, grown(getattr(self, name), self.size, np.full((1, *row), fill, dtype)))
        return np.arange(first, self.size)

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        return sum(getattr(self, name).nbytes for name in self._columns)


def grown(array: NDArray, size: int, fill: NDArray) -> NDArray:
    """An array of at least so many rows: itself, or one of twice the length."""
    if size <= len(array):
        return array
    longer = np.empty((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    longer[: len(array)], longer[len(array) :] = array, fill
    return longer


class Nodes(Growing):
    """Touched nodes of one side; n of them. Arrays are longer than that, and are replaced when they grow.

    Args:
        before: What the snapshot holds.
        codes: Nodes that have a code.

    Attributes:
        slot: Slot of each code, -1 where it is untouched. Shape (at least the codes,).
        rank: By what newcomers with the same moment and score come in recents. Shape (at least the newcomers,).
        index: Of the node. Shape (n,).
        version: Of the live state at the last change. Shape (n,).
        level: 0 where the snapshot has placed the node, else the round in which live events have. Shape (n,).
        macro: Own macro node at each of Z resolutions; the cold one is the last. Shape (n, Z).
        edges: 1st-order edges of all resolutions side by side, fixed point 2^-12, the cold macro node included. Shape (n, W).
        starts: First column of each resolution. Shape (Z + 1,).
        fixed_sum, fixed_second_sum: Score sums over one and two steps, units 2^-12 and 2^-24. Shape (n,).
        fixed_second: 2nd-order edge to the own macro node, unit 2^-24. Shape (n, Z).
        fixed_two: All 2nd-order edges at the dense resolution, unit 2^-24. Shape (n, K).
        done, degree, events, last: Pairs by task (n, T), pairs, events since the snapshot before the latest, last moment (n,).
        done_at: Neighbours by task and their macro node. Shape (n, T, other K + 1).
        recent, recent_task_mask, recent_time: Newest first, -1 at the end. Shape (n, R).
        head: First live pair, -1 where there is none. Shape (n,).
        sum, second_sum, second, counts, one, two, table, vectors: What a model reads, as in `Snapshot` and `Resolution`.
    """

    index: NDArray[np.int64]
    version: NDArray[np.int64]
    level: NDArray[np.int8]
    macro: NDArray[np.int32]
    edges: NDArray[np.int64]
    fixed_sum: NDArray[np.int64]
    fixed_second_sum: NDArray[np.int64]
    fixed_second: NDArray[np.int64]
    fixed_two: NDArray[np.int64]
    done: NDArray[np.int32]
    degree: NDArray[np.int64]
    events: NDArray[np.int32]
    last: NDArray[np.int64]
    done_at: NDArray[np.int32]
    recent: NDArray[np.int32]
    recent_task_mask: NDArray[np.unsignedinteger]
    recent_time: NDArray[np.int64]
    head: NDArray[np.int32]
    sum: NDArray[np.float32]
    second_sum: NDArray[np.float32]
    second: NDArray[np.float32]
    counts: NDArray[np.float32]
    one: NDArray[np.float16]
    two: NDArray[np.float16]
    table: NDArray[np.int32]
    vectors: NDArray[np.float32]

    def __init__(self, before: BaseValues, codes: int):
        s, tasks = before.snapshot, len(before.share)
        widths, to = before.widths, before.other_widths
        self.base_values, self.known = before, codes
        self.starts = np.concatenate([[0], np.cumsum(np.array(to) + 1)]).astype(np.int64)
        self.slot = np.full(max(codes, 1), -1, np.int32)
        self.rank = np.zeros(LEAST, np.int64)
        self.newcomers = 0
        recents = s.arrays[f"recent_{OTHER[before.side]}s"].shape[1]
        i64, f32, f16, i32 = np.int64, np.float32, np.float16, np.int32
        super().__init__({
            "index": (i64, (), -1), "version": (i64, (), 0), "level": (np.int8, (), 0), "macro": (i32, (len(widths),), 0),
            "edges": (i64, (int(self.starts[-1]),), 0), "fixed_sum": (i64, (), 0), "fixed_second_sum": (i64, (), 0),
            "fixed_second": (i64, (len(widths),), 0), "fixed_two": (i64, (widths[s.dense],), 0), "done": (i32, (tasks,), 0),
            "degree": (i64, (), 0), "events": (i32, (), 0), "last": (i64, (), NEVER), "done_at": (i32, (tasks, to[s.dense] + 1), 0),
            "recent": (i32, (recents,), -1), "recent_task_mask": (s.arrays["pairs.task_mask"].dtype, (recents,), 0),
            "recent_time": (i64, (recents,), 0), "head": (i32, (), -1), "sum": (f32, (), 0), "second_sum": (f32, (), 0),
            "second": (f32, (len(widths),), 0), "counts": (f32, (2 * tasks + 3,), 0), "one": (f16, (to[s.dense],), 0),
            "two": (f16, (widths[s.dense],), 0), "table": (i32, (tasks,), 0),
            "vectors": (f32, (s.arrays[f"{before.side}_vectors"].shape[1],), 0),
        })  # fmt: skip

    @property
    def count(self) -> int:
        """Nodes that have a code, newcomers included."""
        return self.known + self.newcomers

    def born(self, ranks: list[int]) -> None:
        """Give codes to newcomers, after all others."""
        first, self.newcomers = self.newcomers, self.newcomers + len(ranks)
        self.rank = grown(self.rank, self.newcomers, np.zeros(1, np.int64))
        self.rank[first : self.newcomers] = ranks
        self.slot = grown(self.slot, self.count, np.full(1, -1, np.int32))

    def untouched(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those without a slot, each once."""
        codes = np.unique(codes)
        seen = codes < self.count
        seen[seen] = self.slot[codes[seen]] >= 0
        return codes[~seen]

    def touch(self, values: Mapping[str, NDArray]) -> None:
        """Give slots to nodes, from what `BaseValues.read` found."""
        slots = self.extend(len(values["index"]))
        for name, rows in values.items():
            getattr(self, name)[slots] = rows
        self.slot[values["index"]] = slots

    def add(self, change: Change) -> None:
        """Add changed pairs to the sums of their nodes of this side."""
        b, c = self.base_values, change
        kernels.sums(c.own, c.other, c.score, c.old_score, c.base_score, c.task_mask, c.old_task_mask, c.new, c.events, c.time, b.other_sums,
              self.fixed_sum, self.fixed_second_sum, self.done, self.degree, self.events, self.last)  # fmt: skip
        kernels.recents(
            c.own,
            c.other,
            c.task_mask,
            c.time,
            b.scores,
            c.known,
            c.rank,
            self.recent,
            self.recent_task_mask,
            self.recent_time,
        )
        step = c.score - c.old_score
        for r in range(len(b.widths)):
            edges, dense = b.edges(r), r == b.snapshot.dense
            kernels.edges(c.own, c.other_macro[:, r], step, self.edges[:, self.starts[r] :])
            kernels.second_own(c.own, c.other, step, c.base_score, edges.indptr, edges.macro, edges.score, self.macro[:, r],
                        self.fixed_second[:, r])  # fmt: skip
            if dense:
                kernels.second_all(c.own, c.other, step, c.base_score, edges.indptr, edges.macro, edges.score, self.macro[:, r],
                            self.fixed_two)  # fmt: skip
                kernels.tally(c.own, c.other_macro[:, r], c.task_mask & ~c.old_task_mask, 1, self.done_at)

    def move(
        self, slots: NDArray, former: NDArray, now: NDArray, scores: NDArray[np.int64], codes: NDArray
    ) -> None:
        """Pairs whose other node has another macro node than before. Shapes (m,), (m, Z), (m, Z), (m,), (m,)."""
        for r in range(len(self.base_values.widths)):
            for macro, sign in ((former, -1), (now, 1)):
                kernels.edges(slots, macro[:, r], sign * scores, self.edges[:, self.starts[r] :])
        dense = self.base_values.snapshot.dense
        kernels.tally(slots, former[:, dense], codes, -1, self.done_at)
        kernels.tally(slots, now[:, dense], codes, 1, self.done_at)

    def replace(
        self,
        slots: NDArray,
        macro: NDArray[np.int32],
        indptr: NDArray[np.int64],
        other: NDArray[np.int64],
        scores: NDArray,
    ) -> None:
        """Give macro nodes to newcomers, whose 2nd-order edges to them are sums over all their pairs.

        Shapes (n,), (n, Z), (n + 1,), (m,), (m,).
        """
        self.macro[slots] = macro
        for r in range(macro.shape[1]):
            edges, own = self.base_values.edges(r), np.repeat(slots, np.diff(indptr))
            self.fixed_second[slots, r] = 0
            kernels.second_own(own, other, scores, np.zeros_like(scores), edges.indptr, edges.macro, edges.score, self.macro[:, r],
                        self.fixed_second[:, r])  # fmt: skip

    def finish(self, slots: NDArray[np.int64], version: int) -> None:
        """What a model reads of nodes that have changed. Idle buckets count from the snapshot's cut, rates go by its shares."""
        b, s = self.base_values, self.base_values.snapshot
        self.version[slots] = version
        self.sum[slots], self.second[slots] = (
            to_units(self.fixed_sum[slots], UNIT),
            to_units(self.fixed_second[slots], UNIT**2),
        )
        self.second_sum[slots] = to_units(self.fixed_second_sum[slots], UNIT**2)
        degree = self.degree[slots]
        idle = np.where(degree > 0, np.maximum(s.cut - self.last[slots] // s.bucket, 0), 0)
        self.counts[slots] = node_counts(self.done[slots], degree, self.events[slots], idle, b.share)
        width = b.other_widths[s.dense]
        edges = self.edges[slots, self.starts[s.dense] : self.starts[s.dense] + width]
        self.one[slots], self.two[slots] = log_scores(edges, UNIT), log_scores(self.fixed_two[slots], UNIT**2)
        table = np.full((len(slots), len(b.share)), width, np.int32)
        kernels.table(edges, self.done_at[slots], degree, table)
        self.table[slots] = table


@dataclass(frozen=True)
class Change:
    """Pairs that have changed, as one side sees them. Shape (m,) each, but for `other_macro` (m, Z).

    Attributes:
        own: Slot of the node of this side.
        other: Code of the other node.
        other_macro: Its macro nodes.
        score, old_score, base_score: Fixed point: now, before this change, and in the snapshot.
        task_mask, old_task_mask: Tasks done, as bits: now and before.
        new: Whether the pair was not there before.
        events: How many more.
        time: Of the last event.
        known: Codes of the other side from which on nodes are newcomers.
        rank: Of those newcomers.
    """

    own: NDArray[np.int64]
    other: NDArray[np.int64]
    other_macro: NDArray[np.int32]
    score: NDArray[np.int64]
    old_score: NDArray[np.int64]
    base_score: NDArray[np.int64]
    task_mask: NDArray[np.int64]
    old_task_mask: NDArray[np.int64]
    new: NDArray[np.bool_]
    events: NDArray[np.int64]
    time: NDArray[np.int64]
    known: int
    rank: NDArray[np.int64]
