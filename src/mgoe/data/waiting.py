"""When the labels of a log are known."""

from collections.abc import Iterable

import ibis

from mgoe.config import TaskSettings, seconds
from mgoe.data.columns import Expr, Table


def final_at(time: Expr, known_at: Expr | None, task: TaskSettings) -> Expr:
    """Return when a label is final: once its delay has passed and, where its column says so, it is known.

    A 1 that is known early waits for the delay too. Otherwise the newest rows would be mostly ones, since a 0
    is known only after the delay.
    """
    delayed = time + seconds(task.delay) * 1_000_000
    return delayed if known_at is None else ibis.greatest(delayed, ibis.coalesce(known_at, delayed))


def known_from(rows: Table, task: TaskSettings) -> Expr:
    """Return the moment from which a label counts: `known_at` if it is given, else after `delay`."""
    after = rows.time + seconds(task.delay) * 1_000_000
    if task.known_at is None:
        return after
    given = rows[f"known_{task.name}"]
    return ibis.ifelse(given.isnull() | (given < rows.time), after, given)


def longest_delay(tasks: Iterable[TaskSettings]) -> int:
    """Return the microseconds after an exposure when the labels of all tasks are known."""
    return max(seconds(task.delay) for task in tasks) * 1_000_000
