"""From history to distinct pairs: which tasks a user did on an item, as of every snapshot.

Events come in the order of pair, then time, from whatever engine holds them. One pass over them folds each pair's events and writes it to
every snapshot that holds it, so that memory depends neither on events nor on snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, save_arrays
from mgoe.graph.pair_rows import starts

CHUNK = 1 << 19
"""Events folded at once."""
MOST_TASKS = 16
"""A task code fits 16 bits, and a task's number the lowest four bits of an event."""
MOST_EVENTS = 65535
"""Where the counting of a pair's events stops."""
_USER = 1 << 32


def in_order(history: ir.Table) -> ir.Table:
    """Events in the order in which they are folded, as an Ibis expression.

    Args:
        history: One row an event and task: `user`, `item` (codes below 2^31), `time` (microseconds), `task`.

    Returns:
        `key`, the user in the upper and the item in the lower half, and `event`, the time with the task in its lowest four bits. Sorted.
    """
    return packed(history).order_by(["key", "event"])


def packed(history: ir.Table) -> ir.Table:
    """`in_order` without the order, for an engine that sorts by itself."""
    key = history.user.cast("int64") * _USER + history.item.cast("int64")
    event = history.time.cast("int64") * MOST_TASKS + history.task.cast("int64")
    return history.select(key=key, event=event)


@dataclass(frozen=True)
class Moments:
    """What the snapshots of a graph hold.

    Attributes:
        ends: First moment (microseconds) after each snapshot but the latest. Shape (n - 1,).
        users, items: Nodes known at each snapshot. Shape (n,).
    """

    ends: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Folded:
    """Pairs of one snapshot, sorted by user, then item. Shape (E,) each.

    Attributes:
        user, item: Codes.
        code: Tasks done, as bits.
        time: Of the last event, microseconds.
        events: Since the snapshot before; counting stops at `MOST_EVENTS`.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    code: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]
    events: NDArray[np.uint16]


def code_type(tasks: int) -> type[np.unsignedinteger]:
    """The smallest integer that holds every task code."""
    return np.uint8 if tasks <= 8 else np.uint16


def fold(
    keys: NDArray[np.int64], events: NDArray[np.int64], ends: NDArray[np.int64], tasks: int
) -> list[Folded]:
    """Pairs of every snapshot from events of whole pairs in order. An event that repeats another counts once.

    Args:
        keys, events: Columns of `in_order`. Shape (n,) each.
        ends: Of `Moments`.
        tasks: T.

    Returns:
        One a snapshot.
    """
    snapshots = len(ends) + 1
    key = np.empty((snapshots, len(keys)), np.int64)
    code = np.empty((snapshots, len(keys)), code_type(tasks))
    time = np.empty((snapshots, len(keys)), np.int64)
    count = np.empty((snapshots, len(keys)), np.uint16)
    filled = np.zeros(snapshots, np.int64)
    _fold(keys, events, ends, filled, key, code, time, count)
    return [
        Folded(
            (key[s, :n] >> 32).astype(np.int32),
            key[s, :n].astype(np.int32),
            code[s, :n],
            time[s, :n],
            count[s, :n],
        )
        for s, n in enumerate(filled)
    ]


def whole_pairs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Keys and events of `in_order` in chunks that never cut a pair."""
    held: list[tuple[NDArray, NDArray]] = []
    rows = 0
    for batch in batches:
        held.append((_column(batch, "key"), _column(batch, "event")))
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


def write_pairs(
    chunks: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]],
    moments: Moments,
    tasks: int,
    folders: list[Path],
    advance: Callable[[int], None] = lambda rows: None,
) -> None:
    """Fold chunks of events and write the pairs of every snapshot; see `write_folded`.

    Args:
        chunks: Of `whole_pairs`.
        moments: Of the snapshots.
        tasks: T.
        folders: Of the snapshots.
        advance: Called with the events done.
    """
    folded = ((len(keys), fold(keys, events, moments.ends, tasks)) for keys, events in chunks)
    write_folded(folded, moments, folders, advance)


def write_folded(
    chunks: Iterable[tuple[int, list[Folded]]],
    moments: Moments,
    folders: list[Path],
    advance: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write the pairs of every snapshot, by user.

    Args:
        chunks: Events, and what `fold` made of them, in the order of pair.
        moments: Of the snapshots.
        folders: Of the snapshots: `pairs.item`, `pairs.code`, `pairs.time`, `pairs.events` (E,), `pairs.indptr` (U + 1,) and, where the
            pairs of each item start, `pairs.item_indptr` (I + 1,).
        advance: Called with the events done.
    """
    degree = [
        (np.zeros(u, np.int64), np.zeros(i, np.int64))
        for u, i in zip(moments.users, moments.items, strict=True)
    ]
    with ExitStack() as stack:
        writers = [stack.enter_context(ArrayFolder(folder)) for folder in folders]
        for events, folded in chunks:
            for writer, pairs, (by_user, by_item) in zip(writers, folded, degree, strict=True):
                writer.append(
                    {
                        "pairs.item": pairs.item,
                        "pairs.task_mask": pairs.code,
                        "pairs.time": pairs.time,
                        "pairs.events": pairs.events,
                    }
                )
                _tally(pairs.user, by_user)
                _tally(pairs.item, by_item)
            advance(events)
    for folder, (by_user, by_item) in zip(folders, degree, strict=True):
        save_arrays(folder, {"pairs.indptr": starts(by_user), "pairs.item_indptr": starts(by_item)})


def _column(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)


@numba.njit(cache=True, nogil=True)
def _tally(nodes, degree):  # pragma: no cover - compiled
    for node in nodes:
        degree[node] += 1


@numba.njit(cache=True, nogil=True)
def _fold(keys, events, ends, filled, key, code, time, count):  # pragma: no cover - compiled
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
                    _emit(at, pair, done, last, since, filled, key, code, time, count)
                at += 1
                since = 0
            done |= 1 << (event & 15)
            last = moment
            since = min(since + 1, MOST_EVENTS)
        while at <= latest:
            _emit(at, pair, done, last, since, filled, key, code, time, count)
            at += 1
            since = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _emit(at, pair, done, last, since, filled, key, code, time, count):  # pragma: no cover - compiled
    to = filled[at]
    key[at, to], code[at, to], time[at, to], count[at, to] = pair, done, last, since
    filled[at] = to + 1
