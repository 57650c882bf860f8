"""Rows of a log whose labels are not all known yet: they wait, so that each is learned from once, with all of
its labels."""

from collections.abc import Iterable

import ibis

from mgoe.config import RunSettings, TaskSettings, seconds
from mgoe.data.columns import Expr, Table, enforce, only_row
from mgoe.data.log import NO_ROWS
from mgoe.data.schema import find_columns, read_columns
from mgoe.errors import DataError


def final_at(time: Expr, known_at: Expr | None, task: TaskSettings) -> Expr:
    """Return when a label is final: once its delay has passed and, where its column says so, it is known.

    A 1 that is known early waits for the delay too. Otherwise the newest rows would be mostly ones, since a 0
    is known only after the delay.
    """
    delayed = time + seconds(task.delay) * 1_000_000
    return delayed if known_at is None else ibis.greatest(delayed, ibis.coalesce(known_at, delayed))


def longest_delay(tasks: Iterable[TaskSettings]) -> int:
    """Return the microseconds after an exposure when the labels of all tasks are known."""
    return max(seconds(task.delay) for task in tasks) * 1_000_000


def waits(settings: RunSettings) -> bool:
    """Return whether a label may be known later than its exposure."""
    return any(seconds(task.delay) or task.known_at is not None for task in settings.tasks)


def span(source: Table, settings: RunSettings, place: str) -> tuple[int, int]:
    """Return the times of the first and of the last row of a log, in microseconds since 1970.

    Raises:
        DataError: A row breaks a rule, or there is none.
    """
    rows, _ = _read(source, settings, place)
    found = only_row(rows.aggregate(first=rows.time.min(), last=rows.time.max()))
    if found["first"] is None:
        raise DataError(place, NO_ROWS)
    return int(found["first"]), int(found["last"])


def later_rows(source: Table, settings: RunSettings, place: str, after: int, now: int) -> tuple[Table, int]:
    """Return the rows of a log after a moment whose labels are all known, in the log's columns.

    Args:
        source: The log.
        settings: Settings of the run; `data` and `tasks` are read.
        place: What the log is, for messages.
        after: The moment in microseconds since 1970.
        now: The present in microseconds since 1970.

    Returns:
        The rows, and the number of rows that are later than the present.

    Raises:
        DataError: A row breaks a rule.
    """
    rows, columns = _read(source, settings, place)
    ahead = only_row(rows.aggregate(ahead=(rows.time > now).sum()))["ahead"]
    return _in_own_columns(rows.filter(rows.time > after, rows.known <= now), columns), int(ahead or 0)


def split_by_labels(source: Table, settings: RunSettings, place: str, now: int) -> tuple[Table, Table]:
    """Return the rows of an exposure log whose labels are all known, and the others, in the log's columns.

    Args:
        source: The log.
        settings: Settings of the run; `data` and `tasks` are read.
        place: What the log is, for messages.
        now: The present in microseconds since 1970.

    Raises:
        DataError: A row breaks a rule.
    """
    rows, columns = _read(source, settings, place)
    known = rows.known <= now
    return _in_own_columns(rows.filter(known), columns), _in_own_columns(rows.filter(~known), columns)


def _in_own_columns(rows: Table, columns: dict[str, str]) -> Table:
    """Return rows of `_read` in the columns that the log gave them."""
    return rows.select(**{name: rows[held] for held, name in columns.items()})


def _read(source: Table, settings: RunSettings, place: str) -> tuple[Table, dict[str, str]]:
    """Return the rows with `time` and `known`, when all labels are; and their own columns by name here."""
    names = find_columns(source, settings, place)
    columns = {f"column_{k}": name for k, name in enumerate(source.columns)}
    both = source.select(
        **{held: source[name] for held, name in columns.items()},
        **{ours: source[name] for ours, name in names.items()},
    )
    values, checks = read_columns(both, settings, names, place)
    enforce(both, checks, place, numbered=False)
    time = values["time"]
    moments = [
        final_at(time, None if task.known_at is None else values[f"known_{task.name}"], task)
        for task in settings.tasks
    ]
    known = ibis.greatest(*moments) if len(moments) > 1 else moments[0]
    return both.select(*columns, time=time, known=known), columns
