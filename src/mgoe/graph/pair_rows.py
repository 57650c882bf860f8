"""The pairs of a snapshot as rows of nodes, in blocks that fit in memory. What is made of a block of rows is called a reading.

Either side reads the same way: pairs lie sorted by user as they were written, and once more sorted by item.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped

Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")
OTHER: dict[Side, Side] = {"user": "item", "item": "user"}
BLOCK_PAIRS = 1 << 20
BLOCK_ROWS = 1 << 15
BYTES_A_PAIR = 15
"""Of a block by item while it is collected: user 4, code 1, time 8, events 2."""


@dataclass(frozen=True)
class Block:
    """Consecutive nodes of one side with their pairs.

    Attributes:
        first: The first node.
        indptr: Where each node's pairs start. Shape (n + 1,).
        other: The other node of each pair, rising within a node. Shape (E,).
        code: Tasks done, as bits. Shape (E,).
        time: Of the last event, microseconds. Shape (E,).
        events: Since the snapshot before. Shape (E,).
    """

    first: int
    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    code: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]
    events: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.indptr) - 1


Reading = Callable[[Block], dict[str, NDArray]]
"""Arrays of as many rows as the block has, by name."""


@dataclass(frozen=True)
class Rows:
    """All pairs of a snapshot by one side; arrays as in `Block`, of all nodes. `time` and `events` are empty where nothing reads them."""

    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    code: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]
    events: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def block(self, first: int, last: int) -> Block:
        """Nodes `first` to `last - 1`."""
        pairs = slice(int(self.indptr[first]), int(self.indptr[last]))
        indptr = np.asarray(self.indptr[first : last + 1]) - self.indptr[first]
        return Block(first, indptr, self.other[pairs], self.code[pairs], self.time[pairs], self.events[pairs])

    def blocks(self, pairs: int = BLOCK_PAIRS, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """All nodes, in blocks of at most so many rows and, one long row aside, pairs."""
        for first, last in cuts(self.indptr, pairs, rows):
            yield self.block(first, last)

    def some(self, nodes: NDArray[np.int64] | None) -> Rows:
        """Rows of some nodes, without times; of all where not given."""
        times = np.empty(0, np.int64), np.empty(0, np.uint16)
        if nodes is None:
            return Rows(np.asarray(self.indptr), self.other, self.code, *times)
        degree = np.asarray(self.indptr[nodes + 1]) - np.asarray(self.indptr[nodes])
        indptr = starts(degree)
        other, code = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], self.code.dtype)
        _copy_rows(self.indptr, self.other, self.code, nodes, indptr, other, code)
        return Rows(indptr, other, code, *times)

    def turned(self, others: int) -> Rows:
        """The same pairs by the other side, of which there are so many nodes; in memory, without times."""
        turned = sp.csr_array((self.code, self.other, self.indptr), shape=(len(self), others)).T.tocsr()
        return Rows(
            turned.indptr.astype(np.int64),
            turned.indices.astype(np.int32, copy=False),
            turned.data,
            self.time[:0],
            self.events[:0],
        )

    @classmethod
    def by_user(cls, folder: Path) -> Rows:
        """As `write_pairs` left them."""
        return cls(
            *(
                mapped(folder / f"pairs.{name}.npy")
                for name in ("indptr", "item", "task_mask", "time", "events")
            )
        )

    @staticmethod
    def item_indptr(folder: Path) -> NDArray[np.int64]:
        """Where each item's pairs start once they are sorted by item. Shape (I + 1,)."""
        return mapped(folder / "pairs.item_indptr.npy")

    @classmethod
    def by_item(cls, folder: Path) -> Rows:
        """As `write_by_item` left them, without times."""
        indptr, other, code = (mapped(folder / f"by_item.{name}.npy") for name in ("indptr", "user", "code"))
        return cls(indptr, other, code, np.empty(0, np.int64), np.empty(0, np.uint16))


def cuts(indptr: NDArray[np.int64], pairs: int, rows: int) -> Iterator[tuple[int, int]]:
    """First and last node of blocks of at most so many rows and, one long row aside, pairs. Without any node, one empty block."""
    first, n = 0, len(indptr) - 1
    if n == 0:
        yield 0, 0
    while first < n:
        last = int(np.searchsorted(indptr, indptr[first] + pairs, side="right")) - 1
        last = min(max(last, first + 1), first + rows, n)
        yield first, last
        first = last


def starts(degree: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each node's pairs start, and where the last one's end. Shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)


def by_item(rows: Rows, item_indptr: NDArray[np.int64], memory: int, threads: int = 1) -> Iterator[Block]:
    """The same pairs by item, block by block. Each pass over the pairs collects as many items as the memory holds.

    Args:
        rows: By user.
        item_indptr: Where each item's pairs start. Shape (I + 1,).
        memory: Bytes.
        threads: Each passes over all pairs and collects its share of the items.
    """
    for first, last in cuts(item_indptr, max(1, memory // BYTES_A_PAIR), len(item_indptr)):
        yield from some_by_item(rows, item_indptr, first, last, threads)


def some_by_item(
    rows: Rows, item_indptr: NDArray[np.int64], first: int, last: int, threads: int = 1
) -> Iterator[Block]:
    """Blocks of items `first` to `last - 1` alone, in one pass over the pairs by user."""
    indptr = np.asarray(item_indptr[first : last + 1]) - item_indptr[first]
    for block in _collect(rows, first, indptr, threads).blocks():
        yield Block(first + block.first, block.indptr, block.other, block.code, block.time, block.events)


def _collect(rows: Rows, first: int, indptr: NDArray[np.int64], threads: int) -> Rows:
    """The pairs of consecutive items, by item."""
    n, at = int(indptr[-1]), indptr[:-1].copy()
    taken = np.empty(n, np.int32), np.empty(n, rows.code.dtype), np.empty(n, np.int64), np.empty(n, np.uint16)
    with ThreadPoolExecutor(threads) as pool:
        shares = cuts(indptr, max(1, -(-n // threads)), len(indptr))
        args = rows.indptr, rows.other, rows.code, rows.time, rows.events
        for done in [
            pool.submit(_take, *args, first, first + low, first + high, at, *taken) for low, high in shares
        ]:
            done.result()
    return Rows(indptr, *taken)


def write_by_item(
    folder: Path, rows: Rows, item_indptr: NDArray[np.int64], memory: int, threads: int
) -> Iterator[Block]:
    """`by_item`, writing users and codes as the blocks pass: `by_item.indptr` (I + 1,), `by_item.user` and `by_item.code` (E,)."""
    with ArrayFolder(folder) as out:
        out.append(
            {"by_item.indptr": item_indptr, "by_item.user": rows.other[:0], "by_item.code": rows.code[:0]}
        )
        for block in by_item(rows, item_indptr, memory, threads):
            out.append({"by_item.user": block.other, "by_item.code": block.code})
            yield block


def available_threads() -> int:
    """Processors of this process, or what OMP_NUM_THREADS allows."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, int(asked)) if asked.isdigit() and int(asked) else here


@numba.njit(cache=True, nogil=True)
def _copy_rows(indptr, other, code, nodes, to, to_other, to_code):  # pragma: no cover - compiled
    for row in range(len(nodes)):
        start, at = indptr[nodes[row]], to[row]
        for e in range(to[row + 1] - at):
            to_other[at + e], to_code[at + e] = other[start + e], code[start + e]


@numba.njit(cache=True, nogil=True)
def _take(
    indptr, item, code, time, events, origin, first, last, at, to_user, to_code, to_time, to_events
):  # pragma: no cover - compiled
    for user in range(len(indptr) - 1):
        for e in range(indptr[user], indptr[user + 1]):
            i = item[e]
            if first <= i < last:
                to = at[i - origin]
                at[i - origin] = to + 1
                to_user[to], to_code[to], to_time[to], to_events[to] = user, code[e], time[e], events[e]
