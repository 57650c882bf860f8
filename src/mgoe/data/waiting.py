"""When the labels of a log are known."""

from collections.abc import Iterable

import ibis

from mgoe.config import DataSettings, TaskSettings, seconds
from mgoe.data.columns import Expr, Table
from mgoe.data.times import last_moment

SQUEEZED = 1_000_000
"""Labels that count from the end of their bucket do so within this part of it, in the order of their rows."""


def final_at(time: Expr, known_at: Expr | None, task: TaskSettings) -> Expr:
    """Return when a label is final: once its delay has passed and, where its column says so, it is known.

    A 1 that is known early waits for the delay too. Otherwise the newest rows would be mostly ones, since a 0
    is known only after the delay.
    """
    delayed = time + seconds(task.delay) * 1_000_000
    return delayed if known_at is None else ibis.greatest(delayed, ibis.coalesce(known_at, delayed))


def known_from(rows: Table, task: TaskSettings, data: DataSettings) -> Expr:
    """Return the moment from which a label counts: `known_at` if it is given, else after `delay`.

    Where rows read up to moments, a label of which neither says when it was known counts from the end of its
    bucket: at the exposure itself no service knows it.
    """
    after = rows.time + seconds(task.delay) * 1_000_000
    if data.history != "cut" and not seconds(task.delay):
        last = last_moment(rows.time, data)
        after = last - ((last - rows.time) // SQUEEZED).cast("int64")
    if task.known_at is None:
        return after
    given = rows[f"known_{task.name}"]
    return ibis.ifelse(given.isnull() | (given < rows.time), after, given)


def longest_delay(tasks: Iterable[TaskSettings]) -> int:
    """Return the microseconds after an exposure when the labels of all tasks are known."""
    return max(seconds(task.delay) for task in tasks) * 1_000_000
