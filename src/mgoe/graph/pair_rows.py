"""The pairs of a snapshot as rows of nodes, read in blocks that fit in memory.

Both sides are read alike: pairs are stored by user, and a build sorts them by item once more. What a function
makes of a block of rows is called a reading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped
from mgoe._util.kernels import kernel

Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")
OTHER: dict[Side, Side] = {"user": "item", "item": "user"}
BLOCK_PAIRS = 1 << 20
BLOCK_NODES = 1 << 15
SORT_MEMORY = 1 << 28
"""Bytes in which a finished snapshot is sorted by item."""
BYTES_PER_PAIR = 27
"""Memory of a pair while it is sorted by item: user 4, task mask 1, time 8, events 2, first 8, total 4."""


class PairColumns(NamedTuple):
    """What is known of each pair, from one of its nodes. Shape (E,) each.

    Attributes:
        other: Index of the other node.
        task_mask: Bit t is set if task t was done.
        time: Of the last event, in microseconds. Empty where nothing reads it.
        events: Number of events since the previous snapshot. Empty where nothing reads it.
        first: Time of the first event, in microseconds. Empty where nothing reads it.
        total: Number of all events. Empty where nothing reads it.
    """

    other: NDArray[np.int32]
    task_mask: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]
    events: NDArray[np.uint16]
    first: NDArray[np.int64]
    total: NDArray[np.uint32]

    @classmethod
    def empty(cls, pairs: int, task_mask: np.dtype) -> PairColumns:
        """Return columns to be filled."""
        kinds = np.int32, task_mask, np.int64, np.uint16, np.int64, np.uint32
        return cls._make(np.empty(pairs, kind) for kind in kinds)

    def at(self, index: slice | NDArray) -> PairColumns:
        """Return the pairs at some positions."""
        return PairColumns._make(column[index] for column in self)


class ScoredRows(NamedTuple):
    """Rows of the merged graph, `S` in the equations, as kernels take them: pair e scores
    `scores[task_mask[e]]`.

    Attributes:
        indptr, other, task_mask: See `PairRows`.
        scores: Fixed-point score of every task mask. Shape (2^T,).
    """

    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    task_mask: NDArray[np.unsignedinteger]
    scores: NDArray[np.number]


NO_TIMES = np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.uint32)
"""`time` and what follows where nothing reads them."""


@dataclass(frozen=True)
class PairRows:
    """The pairs of consecutive nodes of one side, one row per node. Neighbours ascend within a row.

    Attributes:
        indptr: Where the pairs of each node start. Shape (n + 1,).
        other, task_mask, time, events, first, total: See `PairColumns`. Shape (E,).
        start: Index of the first node.
    """

    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    task_mask: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]
    events: NDArray[np.uint16]
    first: NDArray[np.int64]
    total: NDArray[np.uint32]
    start: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def columns(self) -> PairColumns:
        """All but where rows start, as a kernel takes it."""
        return PairColumns(*(getattr(self, name) for name in PairColumns._fields))

    def scored(self, scores: NDArray[np.number]) -> ScoredRows:
        """Return the rows with the score of every task mask."""
        return ScoredRows(self.indptr, self.other, self.task_mask, scores)

    def block(self, first: int, last: int) -> PairRows:
        """Return rows `first` to `last - 1`."""
        indptr = np.asarray(self.indptr[first : last + 1]) - self.indptr[first]
        pairs = slice(int(self.indptr[first]), int(self.indptr[last]))
        return PairRows(indptr, *self.columns.at(pairs), start=self.start + first)

    def nodes(self) -> NDArray[np.int64]:
        """Return the node of each pair. Shape (E,)."""
        return np.repeat(np.arange(self.start, self.start + len(self)), np.diff(self.indptr))

    def of(self, values: NDArray) -> NDArray:
        """Return the part of an array of all nodes that belongs to these rows."""
        return values[self.start : self.start + len(self)]

    def blocks(self, pairs: int = BLOCK_PAIRS, nodes: int = BLOCK_NODES) -> Iterator[PairRows]:
        """Yield all rows in blocks; see `block_bounds`."""
        for first, last in block_bounds(self.indptr, pairs, nodes):
            yield self.block(first, last)

    def some(self, nodes: NDArray[np.int64] | None) -> PairRows:
        """Return the rows of some nodes, or of all if None, without times."""
        if nodes is None:
            return PairRows(np.asarray(self.indptr), self.other, self.task_mask, *NO_TIMES)
        indptr = starts(np.asarray(self.indptr[nodes + 1]) - np.asarray(self.indptr[nodes]))
        other, task_mask = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], self.task_mask.dtype)
        copy_rows(self.indptr, self.other, self.task_mask, nodes, indptr[:-1], other, task_mask)
        return PairRows(indptr, other, task_mask, *NO_TIMES)

    def transposed(self, others: int) -> PairRows:
        """Return the same pairs by the other side, which has `others` nodes; in memory, without times."""
        by_other = sp.csr_array((self.task_mask, self.other, self.indptr), (len(self), others)).T.tocsr()
        indptr, own = by_other.indptr.astype(np.int64), by_other.indices.astype(np.int32, copy=False)
        return PairRows(indptr, own, by_other.data, *NO_TIMES)

    @classmethod
    def by_user(cls, folder: Path) -> PairRows:
        """Map the pairs in a snapshot's folder."""
        names = ("indptr", "item", *PairColumns._fields[1:])
        return cls(*(mapped(folder / f"pairs.{name}.npy") for name in names))

    @staticmethod
    def item_indptr(folder: Path) -> NDArray[np.int64]:
        """Map where the pairs of each item start once they are sorted by item. Shape (I + 1,)."""
        return mapped(folder / "pairs.item_indptr.npy")

    @classmethod
    def by_item(cls, folder: Path) -> PairRows:
        """Map the pairs that `write_by_item` wrote, without times."""
        files = (folder / f"by_item.{name}.npy" for name in ("indptr", "user", "task_mask"))
        indptr, user, task_mask = map(mapped, files)
        return cls(indptr, user, task_mask, *NO_TIMES)


Reading = Callable[[PairRows], dict[str, NDArray]]
"""Makes arrays of a block, by name, most with one row per node."""


def block_bounds(indptr: NDArray[np.int64], pairs: int, nodes: int) -> Iterator[tuple[int, int]]:
    """Yield the first node of each block and the node after its last.

    A block has at most `nodes` rows and at most `pairs` pairs, unless a single row has more. A side without
    nodes has one empty block.
    """
    first, n = 0, len(indptr) - 1
    if n == 0:
        yield 0, 0
    while first < n:
        last = int(np.searchsorted(indptr, indptr[first] + pairs, side="right")) - 1
        last = min(max(last, first + 1), first + nodes, n)
        yield first, last
        first = last


def starts(degree: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return where the pairs of each node start, and where those of the last end. Shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)


def by_item(
    rows: PairRows, item_indptr: NDArray[np.int64], memory: int, threads: int = 1
) -> Iterator[PairRows]:
    """Yield the same pairs by item, in blocks. Each pass over the pairs collects as many items as the memory
    holds.

    Args:
        rows: By user.
        item_indptr: Where the pairs of each item start. Shape (I + 1,).
        memory: In bytes.
        threads: Each passes over all pairs and collects its share of the items.
    """
    for first, last in block_bounds(item_indptr, max(1, memory // BYTES_PER_PAIR), len(item_indptr)):
        yield from some_by_item(rows, item_indptr, first, last, threads)


def some_by_item(
    rows: PairRows, item_indptr: NDArray[np.int64], first: int, last: int, threads: int = 1
) -> Iterator[PairRows]:
    """Yield the blocks of items `first` to `last - 1`, collected in one pass over the pairs by user."""
    indptr = np.asarray(item_indptr[first : last + 1]) - item_indptr[first]
    n, to = int(indptr[-1]), indptr[:-1].copy()
    collected = PairColumns.empty(n, rows.task_mask.dtype)
    with ThreadPoolExecutor(threads) as pool:
        shares = block_bounds(indptr, max(1, -(-n // threads)), len(indptr))
        tasks = [
            pool.submit(_collect, rows.indptr, rows.columns, first, first + low, first + high, to, collected)
            for low, high in shares
        ]
        for task in tasks:
            task.result()
    yield from PairRows(indptr, *collected, start=first).blocks()


def write_by_item(
    folder: Path, rows: PairRows, item_indptr: NDArray[np.int64], memory: int, threads: int
) -> Iterator[PairRows]:
    """Yield the blocks of `by_item`, and write their pairs without times on the way; `PairRows.by_item` maps
    them.
    """
    with ArrayFolder(folder) as out:
        out.append({"by_item.indptr": item_indptr, **by_item_arrays(rows.block(0, 0))})
        for block in by_item(rows, item_indptr, memory, threads):
            out.append(by_item_arrays(block))
            yield block


def by_user_arrays(pairs: PairColumns) -> dict[str, NDArray]:
    """Return the arrays of pairs by user, by the names of their files."""
    return {
        f"pairs.{'item' if name == 'other' else name}": column for name, column in pairs._asdict().items()
    }


def by_item_arrays(block: PairRows) -> dict[str, NDArray]:
    """Return the arrays of a block by item that a build keeps, by the names of their files."""
    return {"by_item.user": block.other, "by_item.task_mask": block.task_mask}


def untimed(
    indptr: NDArray[np.int64], other: NDArray[np.integer], task_mask: NDArray[np.integer]
) -> PairRows:
    """Return rows of pairs whose times do not matter, in the types that kernels are compiled for."""
    return PairRows(indptr, other.astype(np.int32), task_mask.astype(np.uint16), *NO_TIMES)


def available_threads() -> int:
    """Return the number of processors of this process, or fewer if OMP_NUM_THREADS asks for fewer."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, int(asked)) if asked.isdigit() and int(asked) else here


@kernel("to_one", "to_two")
def copy_rows(indptr, one, two, rows, to, to_one, to_two):  # pragma: no cover - compiled
    """Copy some rows of two columns, each to where it starts."""
    for k in range(len(rows)):
        start, at = indptr[rows[k]], to[k]
        for e in range(indptr[rows[k] + 1] - start):
            to_one[at + e], to_two[at + e] = one[start + e], two[start + e]


@kernel("at", "out")
def _collect(indptr, pairs, origin, first, last, at, out):  # pragma: no cover - compiled
    items, task_mask, time, events, first_time, total = pairs
    to_user, to_task_mask, to_time, to_events, to_first, to_total = out
    for user in range(len(indptr) - 1):
        for e in range(indptr[user], indptr[user + 1]):
            i = items[e]
            if first <= i < last:
                to = at[i - origin]
                at[i - origin] = to + 1
                to_user[to], to_task_mask[to] = user, task_mask[e]
                to_time[to], to_events[to] = time[e], events[e]
                to_first[to], to_total[to] = first_time[e], total[e]
