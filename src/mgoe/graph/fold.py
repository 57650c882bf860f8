"""Folding a history into distinct pairs: which tasks a user did on an item, as of every snapshot.

An engine brings the events in the order of pair, then time. One pass over them folds the events of each pair
and writes it to every snapshot that holds it, so memory depends neither on the number of events nor on that
of snapshots.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, save_arrays
from mgoe.graph.pair_rows import PairColumns, by_user_arrays, starts

CHUNK = 1 << 19
"""Events folded at once."""
MOST_TASKS = 16
"""A task mask has 16 bits, and an event holds the number of its task in its lowest four bits."""
MOST_EVENTS = 65535
"""Counting the events of a pair stops here."""
Folded = tuple[NDArray[np.int32], PairColumns]
"""Pairs of one snapshot, sorted by user, then item: the user of each, and the rest. Shape (E,)."""
_USER = 1 << 32


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
        key=history.user.cast("int64") * _USER + history.item.cast("int64"),
        event=history.time.cast("int64") * MOST_TASKS + history.task.cast("int64"),
    )


def in_order(history: ir.Table) -> ir.Table:
    """Return `packed` events in the order in which they are folded."""
    return packed(history).order_by(["key", "event"])


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
        keys, events: Columns of `in_order`, with all events of each pair. Shape (n,) each.
        ends: Of `SnapshotCuts`.
        tasks: T.
    """
    shape = len(ends) + 1, len(keys)
    key, time = np.empty(shape, np.int64), np.empty(shape, np.int64)
    task_mask, count = np.empty(shape, task_mask_type(tasks)), np.empty(shape, np.uint16)
    filled = np.zeros(len(ends) + 1, np.int64)
    _fold(keys, events, ends, filled, (key, task_mask, time, count))
    return [
        (
            (key[s, :n] >> 32).astype(np.int32),
            PairColumns(key[s, :n].astype(np.int32), task_mask[s, :n], time[s, :n], count[s, :n]),
        )
        for s, n in enumerate(filled)
    ]


def whole_pairs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield keys and events of `in_order` in chunks that never split a pair."""
    held: list[tuple[NDArray, NDArray]] = []
    rows = 0
    for batch in batches:
        held.append((batch.column("key").to_numpy(), batch.column("event").to_numpy()))
        rows += len(batch)
        if rows >= CHUNK:
            keys, events = (np.concatenate(parts) for parts in zip(*held, strict=True))
            end = int(np.searchsorted(keys, keys[-1]))  # where the last pair starts
            if end:
                yield keys[:end], events[:end]
            held, rows = [(keys[end:], events[end:])], len(keys) - end
    if rows:
        keys, events = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield keys, events


@contextmanager
def pairs_writer(folders: list[Path], cuts: SnapshotCuts) -> Iterator[Callable[[list[Folded]], None]]:
    """Yield a function that adds the next pairs of every snapshot, by user, in the order of pair.

    A snapshot's folder gets `pairs.item`, `pairs.task_mask`, `pairs.time` and `pairs.events` (E,),
    `pairs.indptr` (U + 1,) and `pairs.item_indptr` (I + 1,), where the pairs of each item start once they are
    sorted by item.

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


@numba.njit(cache=True, nogil=True)
def _tally(nodes, degree):  # pragma: no cover - compiled
    for node in nodes:
        degree[node] += 1


@numba.njit(cache=True, nogil=True)
def _fold(keys, events, ends, filled, out):  # pragma: no cover - compiled
    n, latest = len(keys), len(ends)
    row = 0
    while row < n:
        pair, done, last, since, at = keys[row], 0, np.int64(0), 0, 0
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
                    _emit(at, pair, done, last, since, filled, out)
                at += 1
                since = 0
            done |= 1 << (event & 15)
            last = moment
            since = min(since + 1, MOST_EVENTS)
        while at <= latest:
            _emit(at, pair, done, last, since, filled, out)
            at += 1
            since = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _emit(at, pair, done, last, since, filled, out):  # pragma: no cover - compiled
    key, task_mask, time, count = out
    to = filled[at]
    key[at, to], task_mask[at, to], time[at, to], count[at, to] = pair, done, last, since
    filled[at] = to + 1
