"""A log's rows under our own column names, checked: the columns that settings name, and what each may
hold."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
from ibis.backends.duckdb import Backend

from mgoe.config import NegativeSettings, RunSettings, seconds
from mgoe.data.columns import (
    Check,
    Expr,
    Table,
    enforce,
    read_behavior,
    read_id,
    read_label,
    read_position,
    read_request,
    read_uniform,
    read_weight,
)
from mgoe.data.erasures import Erasures
from mgoe.data.features import check_names, read_feature
from mgoe.data.log import NO_ROWS, open_source, place_of, require_columns, stage, work_database
from mgoe.data.times import read_time, too_far, within
from mgoe.data.where import rows_where
from mgoe.errors import ConfigError, DataError

NODES = ("user", "item")
NOBODY = "nobody: the log has no users"
"""The user of every row of a log without users, whom no example names."""


def read_rows(
    source: Table, settings: RunSettings, place: str, con: Backend | None = None
) -> tuple[Table, int]:
    """Check every row of a log and return those between `data.start` and `data.end`, without users who were
    erased (`data.erased`).

    Args:
        source: The log.
        settings: Settings of the run; `data` and `tasks` are read.
        place: What the log is, for messages.
        con: The work database to copy the rows to. Without one the rows stay where they are, and every
            expression runs in the engine of the table.

    Returns:
        The rows, lazy: user, item (ids), time (microseconds); behavior for an event log; for an exposure log
        label_<task>, known_<task> (microseconds), request, weight, position, uniform and context_<name> where
        the settings name them. And the number of rows before the times were compared.

    Raises:
        DataError: A column is missing or of a wrong type, a row breaks a rule, or there are no rows.

    Example:
        >>> import ibis
        >>> from mgoe.data import open_log
        >>> rows, number = read_rows(open_log(ibis.duckdb.connect(), [log]), settings, "the log")
        >>> rows.columns
        ('user', 'item', 'time', 'behavior')
    """
    rows, count = checked_rows(source, settings, place, con)
    if not count:
        raise DataError(place, NO_ROWS)
    return rows, count


def check_ids(settings: RunSettings) -> None:
    """Refuse files with rows without a user or an item, by a scan of these two columns.

    Preparing a log finds them too, but copies the log before. What is read on Spark is not looked at.

    Raises:
        DataError: The log cannot be read, lacks a column, or has such a row.

    Example:
        >>> check_ids(settings)
    """
    data, place = settings.data, place_of(settings.data.log)
    if data.missing_ids == "drop" or data.engine == "spark":
        return
    with (
        TemporaryDirectory(prefix="mgoe-") as folder,
        work_database(Path(folder, "work"), place, settings.memory, data.timezone) as con,
    ):
        source = rows_where(open_source(con, data, None), data)
        found = find_columns(source, settings, place)
        names = {node: found[node] for node in NODES if node in found}
        missing = ibis.or_(*(source[column].isnull() for column in names.values()))
        if source.filter(missing).count().to_pyarrow().as_py():
            raw = stage(con, source, names, "ids", place)
            enforce(raw, [read_id(raw[node], names[node], place)[1][0] for node in names], place)


def checked_rows(
    source: Table, settings: RunSettings, place: str, con: Backend | None = None
) -> tuple[Table, int]:
    """Return the rows of a log that may be empty; otherwise as `read_rows`."""
    source = rows_where(source, settings.data)
    names = find_columns(source, settings, place)
    if settings.data.missing_ids == "drop":
        source = source.filter(*(source[names[node]].notnull() for node in NODES if node in names))
    raw: Table = (
        source.select(**{ours: source[column] for ours, column in names.items()})
        if con is None
        else stage(con, source, names, "raw", place)
    )
    values, checks = read_columns(raw, settings, names, place)
    count = enforce(raw, checks, place, numbered=con is not None)
    rows = within(raw.select(**values), settings.data)
    erased = settings.data.erased
    return rows if erased is None else Erasures.read(Path(erased)).without(rows), count


def find_columns(source: Table, settings: RunSettings, place: str) -> dict[str, str]:
    """Return the log's column for each of ours.

    Raises:
        ConfigError: A setting belongs to the other form of log.
        DataError: A column is missing.
    """
    data = settings.data
    found = {} if data.user is None else {"user": ("data.user", data.user)}
    found |= {"item": ("data.item", data.item), "time": ("data.time", data.time)}
    _refuse_other_form(settings)
    if settings.form == "events":
        if data.behavior is not None:
            found["behavior"] = "data.behavior", data.behavior
    else:
        check_names(data.context, "data.context")
        for task in settings.tasks:
            found[f"label_{task.name}"] = f"tasks.{task.name}.label", str(task.label)
            if task.known_at is not None:
                found[f"known_{task.name}"] = f"tasks.{task.name}.known_at", task.known_at
        for key, column in (
            ("request", data.request),
            ("weight", data.weight),
            ("position", data.position),
            ("uniform", data.uniform),
        ):
            if column is not None:
                found[key] = f"data.{key}", column
        found |= {f"context_{feature.name}": ("data.context", feature.name) for feature in data.context}
    require_columns(source, found.values(), place)
    return {ours: column for ours, (_, column) in found.items()}


def read_columns(
    raw: Table, settings: RunSettings, names: dict[str, str], place: str
) -> tuple[dict[str, Expr], list[Check]]:
    """Return the value of each of our columns, and the checks on them."""
    unit, zone = settings.data.time_unit, settings.data.timezone
    read: dict[str, tuple[Expr, list[Check]]] = {
        node: read_id(raw[node], names[node], place) if node in names else (ibis.literal(NOBODY), [])
        for node in NODES
    }
    moment = read_time(raw["time"], names["time"], unit, place, zone=zone)
    rule = (
        "a time must be given and readable (a date, a timestamp, ISO 8601, or a number since 1970), "
        "within 9,000 years of 1970"
    )
    bad = moment.isnull() | too_far(moment)
    read["time"] = moment, [Check(names["time"], bad, raw["time"], rule, "fix or leave out such rows")]
    if settings.form == "events":
        read["behavior"] = (
            read_behavior(raw["behavior"], names["behavior"], place)
            if "behavior" in names
            else ibis.literal(settings.tasks[0].done_by[0]),
            [],
        )
    else:
        for task in settings.tasks:
            label, known = f"label_{task.name}", f"known_{task.name}"
            read[label] = read_label(raw[label], names[label], task.kind == "binary", place)
            if known in names:
                known_at = read_time(raw[known], names[known], unit, place, zone=zone)
                bad = (read[label][0] > 0) & (known_at.isnull() | (known_at < moment) | too_far(known_at))
                rule = (
                    f"a label above 0 of task {task.name} must be known within 9,000 years of 1970, "
                    "and not before its exposure"
                )
                read[known] = (
                    known_at,
                    [Check(names[known], bad, raw[known], rule, "fix the column, or use `delay` instead")],
                )
        for name, reader in (
            ("request", read_request),
            ("weight", read_weight),
            ("position", read_position),
            ("uniform", read_uniform),
        ):
            if name in names:
                read[name] = reader(raw[name], names[name], place)
        read |= {
            f"context_{feature.name}": read_feature(raw[f"context_{feature.name}"], feature, place)
            for feature in settings.data.context
        }
    return (
        {ours: value for ours, (value, _) in read.items()},
        [check for _, checks in read.values() for check in checks],
    )


def _refuse_other_form(settings: RunSettings) -> None:
    """Refuse settings that this form of log would leave unread."""
    data, tasks = settings.data, settings.tasks
    if settings.form == "exposures":
        given, usual = settings.negatives, NegativeSettings()
        unread = ("ratio", "distribution", "seed")
        used = [
            *(f"tasks.{task.name}.behaviors" for task in tasks if task.behaviors),
            *(f"negatives.{key}" for key in unread if getattr(given, key) != getattr(usual, key)),
        ]
        rule = (
            "belongs to an event log, found an exposure log (data.form); leave it out, or the label columns"
        )
    else:
        used = [
            *(
                f"data.{key}"
                for key in ("request", "weight", "context", "position", "uniform")
                if getattr(data, key)
            ),
            *(f"tasks.{task.name}.known_at" for task in tasks if task.known_at),
            *(f"tasks.{task.name}.delay" for task in tasks if seconds(task.delay)),
        ]
        rule = (
            "belongs to an exposure log, found an event log (data.form); leave it out, "
            "or give each task a label column"
        )
    if used:
        raise ConfigError(used[0], rule)
