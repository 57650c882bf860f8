"""Folding a history into distinct pairs: which tasks a user did on an item, as of every snapshot.

An engine brings the events in the order of pair, then time (`mgoe.graph.event_sort`, or Spark). One pass over
them folds the events of each pair and writes it to every snapshot that holds it, so memory depends neither on
the number of events nor on that of snapshots.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, save_arrays
from mgoe._util.kernels import kernel
from mgoe.graph.pair_rows import PairColumns, by_user_arrays, starts

CHUNK = 1 << 19
"""Events folded at once, counting one per event and snapshot."""
MOST_TASKS = 16
"""A task mask has 16 bits, and an event holds the number of its task in its lowest four bits."""
MOST_EVENTS = 65535
"""Counting the events of a pair stops here."""
Folded = tuple[NDArray[np.int32], PairColumns]
"""Pairs of one snapshot, sorted by user, then item: the user of each, and the rest. Shape (E,)."""
Events = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Columns of `packed`. Shape (n,) each."""
USER_BITS = 32
"""A key holds the user above so many bits, and the item in them."""
LAST_ITEM = (1 << 31) - 1


def packed(history: ir.Table) -> ir.Table:
    """Return the events of a history as two integers each, in any order.

    Args:
        history: One row per event and task: `user`, `item` (indices below 2^31), `time` (microseconds),
            `task`.

    Returns:
        `key`, with the user in the upper and the item in the lower 32 bits, and `event`, the time with the
        task in its lowest four bits.
    """
    return history.select(
        key=history.user.cast("int64") * (1 << USER_BITS) + history.item.cast("int64"),
        event=history.time.cast("int64") * MOST_TASKS + history.task.cast("int64"),
    )


def unpacked(batch: pa.RecordBatch) -> Events:
    """Return the columns of some `packed` events."""
    return batch.column("key").to_numpy(), batch.column("event").to_numpy()


def pack(batch: pa.RecordBatch) -> Events:
    """Return what `packed` computes, of some events of a history in this process."""
    user, item, time, task = (batch[name].to_numpy() for name in ("user", "item", "time", "task"))
    return user << USER_BITS | item, time * MOST_TASKS + task


@dataclass(frozen=True)
class SnapshotCuts:
    """Where the snapshots of a graph end, and which nodes each knows.

    Attributes:
        ends: First moment (microseconds) after each snapshot but the latest. Shape (n - 1,).
        users, items: Nodes known at each snapshot. Shape (n,).
    """

    ends: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


def task_mask_type(tasks: int) -> type[np.unsignedinteger]:
    """Return the smallest integer type that holds every task mask."""
    return np.uint8 if tasks <= 8 else np.uint16


def fold(
    keys: NDArray[np.int64], events: NDArray[np.int64], ends: NDArray[np.int64], tasks: int
) -> list[Folded]:
    """Return the pairs of every snapshot. An event that repeats another counts once.

    Args:
        keys, events: Columns of `packed` in the order of key, then event, with all events of each pair. Shape
            (n,) each.
        ends: Of `SnapshotCuts`.
        tasks: T.
    """
    shape, filled = (len(ends) + 1, len(keys)), np.zeros(len(ends) + 1, np.int64)
    kinds: Any = np.int32, np.int32, task_mask_type(tasks), np.int64, np.uint16, np.int64, np.uint32
    out: Any = tuple(np.empty(shape, kind) for kind in kinds)
    _fold(keys, events, ends, filled, out)
    return [
        (out[0][s, :n], PairColumns(*(column[s, :n] for column in out[1:]))) for s, n in enumerate(filled)
    ]


def in_chunks(ranges: Iterable[Events], size: int) -> Iterator[Events]:
    """Yield events in the order of key, then event, in chunks of about `size`, or of a range that has fewer.

    Neither ranges nor chunks split a pair.
    """
    for keys, events in ranges:
        first = 0
        while first < len(keys):
            last = int(np.searchsorted(keys, keys[min(first + size, len(keys)) - 1], side="right"))
            yield keys[first:last], events[first:last]
            first = last


def joined(chunks: Sequence[Events]) -> Events:
    """Return chunks of events as one."""
    keys, events = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return keys, events


@contextmanager
def pairs_writer(folders: list[Path], cuts: SnapshotCuts) -> Iterator[Callable[[list[Folded]], None]]:
    """Yield a function that adds the next pairs of every snapshot, by user, in the order of pair.

    A snapshot's folder gets the columns of its pairs (E,), `pairs.indptr` (U + 1,) and `pairs.item_indptr` (I
    + 1,), where the pairs of each item start once they are sorted by item.

    Args:
        folders: One per snapshot.
        cuts: Of the snapshots.
    """
    degrees = [
        (np.zeros(users, np.int64), np.zeros(items, np.int64))
        for users, items in zip(cuts.users, cuts.items, strict=True)
    ]
    with ExitStack() as stack:
        arrays = [stack.enter_context(ArrayFolder(folder)) for folder in folders]

        def append(folded: list[Folded]) -> None:
            for out, (user, pairs), (user_degree, item_degree) in zip(arrays, folded, degrees, strict=True):
                out.append(by_user_arrays(pairs))
                _tally(user, user_degree)
                _tally(pairs.other, item_degree)

        yield append
    for folder, (user_degree, item_degree) in zip(folders, degrees, strict=True):
        save_arrays(folder, {"pairs.indptr": starts(user_degree), "pairs.item_indptr": starts(item_degree)})


@kernel("degree")
def _tally(nodes, degree):  # pragma: no cover - compiled
    for node in nodes:
        degree[node] += 1


@kernel("filled", "out")
def _fold(keys, events, ends, filled, out):  # pragma: no cover - compiled
    n, latest = len(keys), len(ends)
    row = 0
    while row < n:
        pair, done, last, since, at = keys[row], 0, np.int64(0), 0, 0
        first, every = events[row] >> 4, 0
        before = events[row] - 1
        while row < n and keys[row] == pair:
            event = events[row]
            row += 1
            if event == before:
                continue
            before = event
            moment = event >> 4
            while at < latest and moment >= ends[at]:
                if done:
                    _emit(at, pair, done, last, since, first, every, filled, out)
                at += 1
                since = 0
            done |= 1 << (event & 15)
            last = moment
            since = min(since + 1, MOST_EVENTS)
            every += 1
        while at <= latest:
            _emit(at, pair, done, last, since, first, every, filled, out)
            at += 1
            since = 0


@kernel("filled", "out", inline="always")
def _emit(at, pair, done, last, since, first, every, filled, out):  # pragma: no cover - compiled
    user, item, task_mask, time, events, begin, count = out
    to = filled[at]
    user[at, to], item[at, to] = pair >> USER_BITS, pair & LAST_ITEM
    task_mask[at, to], time[at, to], events[at, to] = done, last, since
    begin[at, to], count[at, to] = first, every
    filled[at] = to + 1
