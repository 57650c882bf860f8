"""A log in numbers, before anything is built from it: size, span, density, funnel, drift, and what is wrong
with it."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe._util.tables import Frame
from mgoe.config import DataSettings, RunSettings
from mgoe.data.auto import advice
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.log import open_source, place_of, stage, work_database
from mgoe.data.requests import merged
from mgoe.data.schema import NODES, find_columns, read_columns
from mgoe.data.times import bucket_of, moment_of, rows_per_bucket, within
from mgoe.data.where import rows_where
from mgoe.errors import DataError

ENDS = 0.1
"""Share of the rows in each end of a log that drift compares, rounded up to whole buckets."""


def profile(settings: RunSettings, table: Frame | None = None) -> dict[str, Any]:
    """Describe a log.

    Rows without an id or a readable time, or outside `data.start` and `data.end`, are counted and left out of
    the rest.

    Args:
        settings: The columns and tasks.
        table: The log as a table of any Ibis backend, or a frame of pandas, polars or Arrow, instead of the
            files that `data.log` names.

    Returns:
        rows, nulls (per column), outside_time, duplicates; users, items, pairs, density (pairs over users
        times items); span; activity (rows per user and per item); behaviors (event logs: rows, users and
        items of each value); tasks (times done, pairs, rate per row); funnel (of the pairs with a task, the
        share with the next one); drift (first against last tenth of the rows); rules (what those of
        `mgoe.data.rules` would choose for settings that may be `auto`, why, and what the settings have).

    Raises:
        DataError: The log cannot be read, lacks a column, or has no row that counts.

    Example:
        >>> found = profile(settings)
        >>> found["form"], found["users"] == int(prepared.users_at[-1])
        ('events', True)
    """
    place = "the table" if table is not None else place_of(settings.data.log)
    with (
        TemporaryDirectory(prefix="mgoe-") as folder,
        work_database(Path(folder, "work"), place, settings.memory, settings.data.timezone) as con,
    ):
        source = rows_where(open_source(con, settings.data, table), settings.data)
        names = find_columns(source, settings, place)
        raw = stage(con, source, names, "raw", place)
        values, _ = read_columns(raw, settings, names, place)
        counted, missing = _counted(raw.select(**values), settings)
        done = {
            f"task_{task.name}": (
                counted.behavior.isin(task.done_by)
                if settings.form == "events"
                else counted[f"label_{task.name}"].fill_null(0) > 0
            )
            for task in settings.tasks
        }
        rows = con.create_table("rows", counted.mutate(**done))
        return {
            "form": settings.form,
            **missing,
            "nulls": _nulls(raw, values, names),
            **_describe(rows, settings, place),
            "rules": advice(settings, source),
        }


def _counted(read: Table, settings: RunSettings) -> tuple[Table, dict[str, int]]:
    """Return the rows that count, and the number of others."""
    complete = read.filter(read.user.notnull() & read.item.notnull() & read.time.notnull())
    inside = within(complete, settings.data)
    once = merged(inside, settings).distinct()
    sizes = [int(part.count().to_pyarrow().as_py()) for part in (read, complete, inside, once)]
    return inside.mutate(bucket=bucket_of(inside.time, settings.data.bucket)), {
        "rows": sizes[0],
        "outside_time": sizes[1] - sizes[2],
        "duplicates": sizes[2] - sizes[3],
    }


def _nulls(raw: Table, values: dict[str, Expr], names: dict[str, str]) -> dict[str, int]:
    """Count missing values by the log's column; a time that cannot be read is missing."""
    missing = {
        ours: (values if ours == "time" or ours.startswith("known_") else raw)[ours].isnull().sum()
        for ours in names
    }
    return {names[ours]: int(count or 0) for ours, count in only_row(raw.aggregate(**missing)).items()}


def _describe(rows: Table, settings: RunSettings, place: str) -> dict[str, Any]:
    size = only_row(rows.aggregate(rows=rows.count(), users=rows.user.nunique(), items=rows.item.nunique()))
    if not size["rows"]:
        raise DataError(
            place,
            "some row must have a user, an item and a time between data.start and data.end, found none; fix "
            "them",
        )
    buckets, counts = rows_per_bucket(rows)
    on_pairs = _on_pairs(rows, settings.task_names)
    return {
        "users": size["users"],
        "items": size["items"],
        "pairs": on_pairs["pairs"],
        "density": on_pairs["pairs"] / (size["users"] * size["items"]),
        "span": _span(buckets, counts, settings.data),
        "activity": {node: _activity(rows, node) for node in NODES},
        "behaviors": _behaviors(rows) if settings.form == "events" else {},
        "tasks": _done(rows, on_pairs, settings),
        "funnel": on_pairs["funnel"],
        "drift": _drift(rows, buckets, counts, settings),
    }


def _span(buckets: NDArray[np.int64], counts: NDArray[np.int64], data: DataSettings) -> dict[str, Any]:
    top = int(counts.argmax())
    return {
        "first": moment_of(int(buckets[0]), data.bucket, data.timezone),
        "last": moment_of(int(buckets[-1]), data.bucket, data.timezone),
        "bucket": data.bucket,
        "buckets": len(buckets),
        "empty_buckets": int(buckets[-1] - buckets[0] + 1 - len(buckets)),
        "busiest": {
            "bucket": moment_of(int(buckets[top]), data.bucket, data.timezone),
            "share": float(counts[top] / counts.sum()),
        },
    }


def _activity(rows: Table, node: str) -> dict[str, float]:
    """Measure the number of rows per user or per item."""
    held = rows.group_by(node).aggregate(n=ibis._.count())
    return only_row(
        held.aggregate(mean=held.n.mean(), median=held.n.median(), p90=held.n.quantile(0.9), max=held.n.max())
    )


def _behaviors(rows: Table) -> dict[str, dict[str, int]]:
    """Count rows, users and items of each behaviour, the most frequent first."""
    counted = rows.group_by("behavior").aggregate(
        rows=ibis._.count(), users=ibis._.user.nunique(), items=ibis._.item.nunique()
    )
    ordered = counted.order_by([ibis.desc("rows"), "behavior"])
    return {row.pop("behavior"): row for row in ordered.to_pyarrow().to_pylist()}


def _on_pairs(rows: Table, tasks: Sequence[str]) -> dict[str, Any]:
    """Count distinct pairs of user and item, those with each task, and the share of these that has the next
    task."""
    pairs = rows.group_by(["user", "item"]).aggregate(
        **{f"task_{name}": rows[f"task_{name}"].any() for name in tasks}
    )
    both = {
        f"both {one}": (pairs[f"task_{one}"] & pairs[f"task_{other}"]).sum()
        for one, other in itertools.pairwise(tasks)
    }
    with_task = {f"with {name}": pairs[f"task_{name}"].sum() for name in tasks}
    held = only_row(pairs.aggregate(pairs=pairs.count(), **with_task, **both))
    return {
        "pairs": held["pairs"],
        "tasks": {name: int(held[f"with {name}"]) for name in tasks},
        "funnel": [
            {"task": one, "next": other, "share": int(held[f"both {one}"]) / max(1, int(held[f"with {one}"]))}
            for one, other in itertools.pairwise(tasks)
        ],
    }


def _done(rows: Table, on_pairs: dict[str, Any], settings: RunSettings) -> dict[str, dict[str, float]]:
    """Count the rows that do each task and the pairs that have it, and its rate among rows with a label."""
    done = {f"done {name}": rows[f"task_{name}"].sum() for name in settings.task_names}
    labelled = {
        f"of {name}": (rows[f"label_{name}"] if settings.form == "exposures" else rows).count()
        for name in settings.task_names
    }
    held = {key: int(count) for key, count in only_row(rows.aggregate(**done, **labelled)).items()}
    return {
        name: {
            "done": held[f"done {name}"],
            "pairs": on_pairs["tasks"][name],
            "rate": held[f"done {name}"] / max(1, held[f"of {name}"]),
        }
        for name in settings.task_names
    }


def _drift(
    rows: Table, buckets: NDArray[np.int64], counts: NDArray[np.int64], settings: RunSettings
) -> dict[str, Any] | None:
    """Compare the first with the last tenth of the rows.

    Args:
        rows: user, item, bucket and `task_<name>`, whether it is done.
        buckets: Buckets with rows, rising. Shape (b,).
        counts: Rows in each. Shape (b,).
        settings: Settings of the run.

    Returns:
        Where the ends begin and stop; each task's share of the rows in both; popularity_shift, the total
        variation between the items' shares; and for the last end, the share of rows with a user, item or pair
        that no earlier row has. None if the ends overlap.
    """
    share = np.cumsum(counts) / counts.sum()
    first = buckets[np.searchsorted(share, ENDS)]
    last = buckets[np.searchsorted(share, 1 - ENDS, side="right")]
    if first >= last:
        return None
    marked = rows.mutate(early=rows.bucket <= int(first), late=rows.bucket >= int(last))
    length, zone = settings.data.bucket, settings.data.timezone
    early, late = (_rates(marked.filter(part), settings) for part in (marked.early, marked.late))
    return {
        "first": {"upto": moment_of(int(first) + 1, length, zone), "rates": early},
        "last": {"since": moment_of(int(last), length, zone), "rates": late},
        "popularity_shift": _popularity_shift(marked),
        "new_users": _new(marked, ["user"]),
        "new_items": _new(marked, ["item"]),
        "new_pairs": _new(marked, ["user", "item"]),
    }


def _rates(part: Table, settings: RunSettings) -> dict[str, float]:
    return only_row(
        part.aggregate(**{n: part[f"task_{n}"].cast("float64").mean() for n in settings.task_names})
    )


def _popularity_shift(marked: Table) -> float:
    items = marked.group_by("item").aggregate(early=ibis._.early.sum(), late=ibis._.late.sum())
    held = only_row(items.aggregate(early=items.early.sum(), late=items.late.sum()))
    gap = (items.early / int(held["early"]) - items.late / int(held["late"])).abs()
    return float(only_row(items.aggregate(gap=gap.sum() / 2))["gap"])


def _new(marked: Table, columns: list[str]) -> float:
    groups = marked.group_by(columns).aggregate(late=ibis._.late.sum(), old=(~ibis._.late).any())
    fresh: Expr = ibis.ifelse(groups.old, 0, groups.late)
    held = only_row(groups.aggregate(new=fresh.sum(), all=groups.late.sum()))
    return int(held["new"]) / int(held["all"])
