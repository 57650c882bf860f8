"""A first configuration for a log that nobody has described."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import ibis

from mgoe.data.columns import read_time
from mgoe.data.draft import Draft, measure, write_draft
from mgoe.data.expr import Table
from mgoe.data.log import NO_ROWS, connect, open_log, place_of, stage, unreadable
from mgoe.data.roles import (
    AMOUNT,
    BEHAVIOR,
    ITEM,
    POSITION,
    SAMPLE,
    TIME,
    USER,
    WEIGHT,
    Column,
    look,
    pick,
    strength,
)
from mgoe.errors import DataError

RARE = 0.002
"""Share of the rows below which a behaviour is no task of its own."""
LEAST = 4
"""Rows that are looked at, at least."""
MOST_TASKS = 6
MOST_BEHAVIORS = 50


def guess(paths: str | Path | Sequence[str | Path]) -> str:
    """Look at a log and write the configuration that a person would start with, as commented YAML.

    Raises:
        DataError: The log cannot be read, or it does not tell which column is the user, the item, the time or what happened.
    """
    named = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    with TemporaryDirectory(prefix="mgoe-") as folder:
        con = connect(Path(folder))
        try:
            source = open_log(con, named, "LOG")
            sample = stage(
                con, source.limit(SAMPLE), {name: name for name in source.columns}, "sample", named[0]
            )
            _check_rows(sample, place_of(named))
            columns = look(sample)
            draft = _roles(columns, source, place_of(named))
            return write_draft(named, draft, measure(draft, source, place_of(named)))
        except duckdb.Error as error:
            raise unreadable(place_of(named), error) from None
        finally:
            con.disconnect()


def _check_rows(sample: Table, place: str) -> None:
    """See that there is enough to tell columns apart by: a history and three windows take a row each."""
    rows = sample.count().to_pyarrow().as_py()
    if not rows:
        raise DataError(place, NO_ROWS)
    if rows < LEAST:
        raise DataError(
            place,
            f"columns are told from at least {LEAST} rows, found {rows}; add more rows, or write the configuration by hand",
        )


def _roles(columns: list[Column], source: Table, place: str) -> Draft:
    time = _time(columns, source, place)
    ids = [column for column in columns if column.id and column.name != time]
    labels = [column for column in columns if column.binary and column.name != time]
    behavior = _behavior(ids, labels)
    ids = [column for column in ids if column.name != behavior]
    user = pick(ids, USER, ())
    item = pick(ids, ITEM, [user.name] if user else [])
    if user is None or item is None:  # the columns with most values, the user written before the item
        rest = sorted(
            (c for c in ids if c not in (user, item) and c.distinct > 2), key=lambda c: -c.distinct
        )[: 2 - bool(user) - bool(item)]
        rest = iter(sorted(rest, key=columns.index))
        user, item = user or next(rest, None), item or next(rest, None)
    if user is None or item is None:
        names = ", ".join(column.name for column in columns)
        alike = [
            column.name for column in columns if column.kind in ("integer", "string") and column.distinct == 1
        ]
        more = f"{', '.join(alike)} hold one value alone, so add more rows, or " if alike else ""
        rule = f"a log needs a user and an item, found no column like them among {names}"
        raise DataError(place, f"{rule}; {more}write the configuration by hand")
    draft = Draft(user.name, item.name, time)
    if behavior is not None:
        _tasks_of_behaviors(draft, behavior, source)
        return draft
    _tasks_of_labels(draft, columns, labels, place)
    return draft


def _time(columns: list[Column], source: Table, place: str) -> str:
    moments = [column for column in columns if column.moment]
    if not moments:
        for column in columns:
            if column.named(TIME) and column.kind in ("integer", "float"):
                read_time(source[column.name], column.name, "auto", place)  # it may say why they are none
        names = ", ".join(column.name for column in columns)
        raise DataError(
            place,
            f"a log needs a time (a date, a timestamp, or a number since 1970), found none among {names}; add one",
        )
    return max(
        moments,
        key=lambda column: (column.named(TIME), column.kind == "time", column.parses, column.distinct),
    ).name


def _behavior(ids: list[Column], labels: list[Column]) -> str | None:
    """The column of behaviours: by its values, or by its name alone where no label has the name of a behaviour."""
    few = [column for column in ids if 1 < column.distinct <= MOST_BEHAVIORS]
    speaking = [
        column
        for column in few
        if column.kind == "string"
        and strength(str(column.low)) is not None
        and strength(str(column.high)) is not None
    ]
    named = (
        []
        if any(strength(column.name) is not None for column in labels)
        else [c for c in few if c.named(BEHAVIOR)]
    )
    speaking.sort(key=lambda column: not column.named(BEHAVIOR))
    return next((column.name for column in [*speaking, *named]), None)


def _tasks_of_behaviors(draft: Draft, behavior: str, source: Table) -> None:
    counted = (
        source.filter(source[behavior].notnull())
        .group_by(value=source[behavior].cast("string"))
        .aggregate(n=ibis._.count())
    )
    counts = {
        row["value"]: row["n"] for row in counted.order_by([ibis.desc("n"), "value"]).to_pyarrow().to_pylist()
    }
    total = sum(counts.values())
    kept = [value for value, n in counts.items() if n >= RARE * total][:MOST_TASKS]
    order = {
        value: place for place, value in enumerate(kept)
    }  # the rarer, the stronger, where the names say nothing
    known = all(strength(value) is not None for value in kept)
    kept.sort(key=lambda value: (strength(value) if known else 0, order[value]))
    draft.behavior = behavior
    draft.tasks = _names(kept)
    draft.rare = {value: n for value, n in counts.items() if value not in kept}


def _tasks_of_labels(draft: Draft, columns: list[Column], labels: list[Column], place: str) -> None:
    used = [draft.user, draft.item, draft.time]
    free = [column for column in columns if column.name not in used]
    position, weight = (
        pick([c for c in free if c.kind == "integer"], POSITION, ()),
        pick([c for c in free if c.kind == "float"], WEIGHT, ()),
    )
    speaking = [
        column for column in labels if strength(column.name) is not None or column.named("label|target|y")
    ] or labels
    speaking = sorted(
        (c for c in speaking if c.name not in used), key=lambda column: strength(column.name) or 0
    )[:MOST_TASKS]
    amounts = [
        column
        for column in free
        if column.kind in ("integer", "float")
        and column.named(AMOUNT)
        and not column.binary
        and column.distinct > 2
    ]
    tasks = speaking or amounts[:1]
    if not tasks:
        raise DataError(
            place,
            "a log needs a column of behaviours, or label columns of 0 and 1, found neither; add one, or write the configuration by hand",
        )
    draft.tasks = _names([column.name for column in tasks])
    draft.amounts = [
        name for name, column in draft.tasks.items() if column in [c.name for c in tasks if not c.binary]
    ]
    draft.position, draft.weight = position and position.name, weight and weight.name
    taken = {*used, *draft.tasks.values(), draft.position, draft.weight}
    draft.context = [
        column
        for column in free
        if column.name not in taken and column.kind not in ("time", "other") and not column.moment
    ]


def _names(values: Sequence[str]) -> dict[str, str]:
    """A task name for each value, of the characters that a name may have."""
    named: dict[str, str] = {}
    for value in values:
        name = re.sub(r"\W+", "_", value, flags=re.ASCII).strip("_").lower() or "task"
        name = name.removeprefix("is_") if name != "is_" else name
        name = name if name[0].isalpha() else f"task_{name}"
        while name in named:
            name += "_"
        named[name] = value
    return named
