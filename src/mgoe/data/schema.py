"""A log in one form: our column names, checked values, buckets, no duplicates, no rows outside the time that counts."""

from __future__ import annotations

from dataclasses import dataclass

import ibis
from ibis.backends.duckdb import Backend

from mgoe.config import NegativeSettings, RunSettings, seconds
from mgoe.data.checks import Check, enforce
from mgoe.data.columns import (
    read_id,
    read_label,
    read_position,
    read_time,
    read_weight,
    time_check,
    too_far,
    wrong_type,
)
from mgoe.data.expr import Expr, Table
from mgoe.data.fit import check_names, read_feature
from mgoe.data.log import NO_ROWS, drop, require_columns, stage
from mgoe.data.windows import bucket_of, within
from mgoe.errors import ConfigError, DataError


@dataclass(frozen=True)
class Log:
    """A checked log in the work database.

    Args:
        table: user, item (ids), time (microseconds), bucket; events: behavior; exposures: label_<task>, known_<task> (microseconds),
            weight, position, context_<name> as far as the settings name them.
        place: What the log is, for messages.
        rows: Rows read.
        dropped: Rows left out, by reason.
    """

    table: Table
    place: str
    rows: int
    dropped: dict[str, int]


def read_log(con: Backend, source: Table, settings: RunSettings, place: str) -> Log:
    """Check every row of a log and bring it into one form.

    Raises:
        DataError: A column is missing or of a wrong type, a row breaks a rule, or nothing is left.
    """
    names = find_columns(source, settings, place)
    raw = stage(con, source, names, "raw", place)
    values, checks = read_columns(raw, settings, names, place)
    rows = enforce(raw, checks, place)
    if not rows:
        raise DataError(place, NO_ROWS)
    every: Table = raw.select(**values)
    every = every.mutate(bucket=bucket_of(every.time, settings.data.bucket))
    counted = within(every, settings.data.start, settings.data.end)
    log: Table = con.create_table("log", counted.distinct())
    inside, kept = int(counted.count().to_pyarrow().as_py()), _check_buckets(log, settings.data.bucket, place)
    if not inside:
        span = f"from {settings.data.start or 'the first'} to {settings.data.end or 'the last'}"
        raise DataError(
            place,
            f"some rows must lie between data.start and data.end, found none of {rows} {span}; move them",
        )
    if settings.data.duplicates == "refuse" and inside > kept:
        _refuse_duplicates(counted, inside - kept, place)
    drop(con, "raw")
    return Log(log, place, rows, {"outside_time": rows - inside, "duplicates": inside - kept})


def find_columns(source: Table, settings: RunSettings, place: str) -> dict[str, str]:
    """The log's column for each of ours.

    Raises:
        DataError: A column is missing.
    """
    columns = wanted_columns(settings)
    for key, column in columns.values():
        require_columns(source, {key: column}, place)
    return {ours: column for ours, (_, column) in columns.items()}


def wanted_columns(settings: RunSettings) -> dict[str, tuple[str, str]]:
    """Our name of a column to the setting that names the log's column, and that column."""
    data = settings.data
    columns = {
        "user": ("data.user", data.user),
        "item": ("data.item", data.item),
        "time": ("data.time", data.time),
    }
    _refuse_other_form(settings)
    if settings.form == "events":
        return columns | {"behavior": ("data.behavior", data.behavior)}
    check_names(data.context, "data.context")
    for task in settings.tasks:
        columns[f"label_{task.name}"] = (f"tasks.{task.name}.label", str(task.label))
        if task.known_at is not None:
            columns[f"known_{task.name}"] = (f"tasks.{task.name}.known_at", task.known_at)
    if data.weight is not None:
        columns["weight"] = ("data.weight", data.weight)
    if data.position is not None:
        columns["position"] = ("data.position", data.position)
    return columns | {f"context_{feature.name}": ("data.context", feature.name) for feature in data.context}


def read_columns(
    raw: Table, settings: RunSettings, names: dict[str, str], place: str
) -> tuple[dict[str, Expr], list[Check]]:
    """The value of each of our columns, and what must hold of it."""
    values: dict[str, Expr] = {}
    checks: list[Check] = []
    for node in ("user", "item"):
        values[node], more = read_id(raw[node], names[node], place)
        checks += more
    values["time"] = read_time(raw["time"], names["time"], settings.data.time_unit, place)
    checks.append(time_check(raw["time"], values["time"], names["time"]))
    if settings.form == "events":
        values["behavior"] = _read_behavior(raw["behavior"], names["behavior"], place)
        return values, checks
    for task in settings.tasks:
        label, known = f"label_{task.name}", f"known_{task.name}"
        values[label], more = read_label(raw[label], names[label], task.kind == "binary", place)
        checks += more
        if known in names:
            values[known] = read_time(raw[known], names[known], settings.data.time_unit, place)
            late = values[known].isnull() | (values[known] < values["time"]) | too_far(values[known])
            rule = f"a label above 0 of task {task.name} must be known within 9,000 years of 1970, and not before its exposure"
            checks.append(
                Check(
                    names[known],
                    (values[label] > 0) & late,
                    raw[known],
                    rule,
                    "mend the column, or use `delay` instead",
                )
            )
    for name, read in (("weight", read_weight), ("position", read_position)):
        if name in names:
            values[name], more = read(raw[name], names[name], place)
            checks += more
    for feature in settings.data.context:
        ours = f"context_{feature.name}"
        values[ours], more = read_feature(raw[ours], feature, place)
        checks += more
    return values, checks


def _refuse_other_form(settings: RunSettings) -> None:
    """Settings that this form of log would leave unread."""
    data, tasks = settings.data, settings.tasks
    if settings.form == "exposures":
        used = [f"tasks.{task.name}.behaviors" for task in tasks if task.behaviors]
        sampling = settings.negatives.model_copy(
            update={"training_seed": None}
        )  # which a comparison gives to every log
        used += ["negatives"] if sampling != NegativeSettings() else []
        wrong = (
            "belongs to an event log, found an exposure log (data.form); leave it out, or the label columns"
        )
    else:
        used = [f"data.{key}" for key in ("weight", "context", "position") if getattr(data, key)]
        used += [f"tasks.{task.name}.known_at" for task in tasks if task.known_at]
        used += [f"tasks.{task.name}.delay" for task in tasks if seconds(task.delay)]
        wrong = "belongs to an exposure log, found an event log (data.form); leave it out, or give each task a label column"
    if used:
        raise ConfigError(used[0], wrong)


def _read_behavior(column: Expr, name: str, place: str) -> Expr:
    kind = column.type()
    if kind.is_string() or kind.is_integer() or kind.is_boolean():
        return column.cast("string").fill_null("null")
    raise wrong_type(place, name, kind, "a behaviour must be a string or an integer")


def _refuse_duplicates(table: Table, count: int, place: str) -> None:
    repeated = table.group_by(table.columns).aggregate(times=ibis._.count())
    first = (
        repeated.filter(repeated.times > 1)
        .order_by(["bucket", "user", "item"])
        .limit(1)
        .to_pyarrow()
        .to_pylist()[0]
    )
    shown = ", ".join(f"{name} {first[name]}" for name in ("user", "item") if name in first)
    raise DataError(
        place,
        f"no row may repeat every column, found {count} repeats, the first of {shown}; remove them or set data.duplicates: drop",
    )


def _check_buckets(log: Table, length: str, place: str) -> int:
    """Bucket numbers fit 32 bits. Returns the rows."""
    held = (
        log.aggregate(rows=log.count(), low=log.bucket.min(), high=log.bucket.max())
        .to_pyarrow()
        .to_pylist()[0]
    )
    far = max(held["low"] or 0, held["high"] or 0, key=abs)
    if abs(far) >= 2**31:
        mend = "take longer buckets or mend the times"
        raise DataError(
            place, f"bucket numbers must fit 32 bits, found {far} with data.bucket {length}; {mend}"
        )
    return int(held["rows"])
