"""A log in numbers, before anything is made of it: size, span, density, funnel, drift, and what is wrong with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe._util.tables import Frame
from mgoe.config import RunSettings
from mgoe.data.drift import measure_drift
from mgoe.data.expr import Expr, Table
from mgoe.data.log import connect, open_source, place_of, stage, unreadable
from mgoe.data.schema import find_columns, read_columns
from mgoe.data.windows import bucket_of, moment_of, within
from mgoe.errors import DataError


def profile(settings: RunSettings, table: Frame | None = None) -> dict[str, Any]:
    """Describe a log. Rows without an id or a readable time, or outside `data.start` and `data.end`, are counted and left out of the rest.

    Args:
        settings: Which columns mean what.
        table: The log as a table of any Ibis backend, or a frame of pandas, polars or Arrow, instead of the files that `data.log` names.

    Returns:
        rows, nulls (a column), outside_time, duplicates; users, items, pairs, density (pairs over users times items); span; activity
        (rows a user and an item); behaviors (event logs: rows, users and items of each value); tasks (times done, pairs, rate a row);
        funnel (of the pairs with a task, the share with the next one); drift (first against last tenth of the rows).

    Raises:
        DataError: The log cannot be read, lacks a column, or has no row that counts.
    """
    place = "the table" if table is not None else place_of(settings.data.log)
    with TemporaryDirectory(prefix="mgoe-") as folder:
        con = connect(Path(folder))
        try:
            source = open_source(con, settings.data, table)
            names = find_columns(source, settings, place)
            raw = stage(con, source, names, "raw", place)
            values, _ = read_columns(raw, settings, names, place)
            read = raw.select(**values)
            counted, missing = _counted(read, settings)
            rows = con.create_table("rows", counted.mutate(**_tasks(counted, settings)))
            return {
                "form": settings.form,
                **missing,
                "nulls": _nulls(raw, values, names),
                **_describe(rows, settings, place),
            }
        except duckdb.Error as error:
            raise unreadable(place, error) from None
        finally:
            con.disconnect()


def _counted(read: Table, settings: RunSettings) -> tuple[Table, dict[str, int]]:
    """The rows that count, and how many there are of the others."""
    whole = read.filter(read.user.notnull() & read.item.notnull() & read.time.notnull())
    inside = within(whole, settings.data.start, settings.data.end)
    sizes = {
        name: int(part.count().to_pyarrow().as_py())
        for name, part in {"read": read, "whole": whole, "inside": inside}.items()
    }
    distinct = int(inside.distinct().count().to_pyarrow().as_py())
    counts = {
        "rows": sizes["read"],
        "outside_time": sizes["whole"] - sizes["inside"],
        "duplicates": sizes["inside"] - distinct,
    }
    return inside.mutate(bucket=bucket_of(inside.time, settings.data.bucket)), counts


def _tasks(rows: Table, settings: RunSettings) -> dict[str, Expr]:
    """Whether each task is done in a row."""
    if settings.form == "events":
        return {f"task_{task.name}": rows.behavior.isin(task.done_by) for task in settings.tasks}
    return {f"task_{task.name}": rows[f"label_{task.name}"].fill_null(0) > 0 for task in settings.tasks}


def _nulls(raw: Table, values: dict[str, Expr], names: dict[str, str]) -> dict[str, int]:
    """Missing values by the log's column; a time that cannot be read is one."""
    times = {ours for ours in names if ours == "time" or ours.startswith("known_")}
    missing = {ours: (values[ours] if ours in times else raw[ours]).isnull().sum() for ours in names}
    held = raw.aggregate(**missing).to_pyarrow().to_pylist()[0]
    return {names[ours]: int(count or 0) for ours, count in held.items()}


def _describe(rows: Table, settings: RunSettings, place: str) -> dict[str, Any]:
    size = (
        rows.aggregate(rows=rows.count(), users=rows.user.nunique(), items=rows.item.nunique())
        .to_pyarrow()
        .to_pylist()[0]
    )
    if not size["rows"]:
        raise DataError(
            place,
            "some row must have a user, an item and a time between data.start and data.end, found none; mend them",
        )
    counted = rows.group_by("bucket").aggregate(n=ibis._.count()).order_by("bucket").to_pyarrow()
    buckets, counts = counted["bucket"].to_numpy().astype(np.int64), counted["n"].to_numpy().astype(np.int64)
    on_pairs = _on_pairs(rows, settings.task_names)
    return {
        "users": size["users"],
        "items": size["items"],
        "pairs": on_pairs["pairs"],
        "density": on_pairs["pairs"] / (size["users"] * size["items"]),
        "span": _span(buckets, counts, settings.data.bucket),
        "activity": {node: _activity(rows, node) for node in ("user", "item")},
        "behaviors": _behaviors(rows) if settings.form == "events" else {},
        "tasks": _done(rows, on_pairs, settings),
        "funnel": on_pairs["funnel"],
        "drift": measure_drift(rows, buckets, counts, settings),
    }


def _span(buckets: NDArray[np.int64], counts: NDArray[np.int64], length: str) -> dict[str, Any]:
    top = int(counts.argmax())
    return {
        "first": moment_of(int(buckets[0]), length),
        "last": moment_of(int(buckets[-1]), length),
        "bucket": length,
        "buckets": len(buckets),
        "empty_buckets": int(buckets[-1] - buckets[0] + 1 - len(buckets)),
        "busiest": {
            "bucket": moment_of(int(buckets[top]), length),
            "share": float(counts[top] / counts.sum()),
        },
    }


def _activity(rows: Table, node: str) -> dict[str, float]:
    """Rows a node has."""
    held = rows.group_by(node).aggregate(n=ibis._.count())
    measures = {
        "mean": held.n.mean(),
        "median": held.n.median(),
        "p90": held.n.quantile(0.9),
        "max": held.n.max(),
    }
    return held.aggregate(**measures).to_pyarrow().to_pylist()[0]


def _behaviors(rows: Table) -> dict[str, dict[str, int]]:
    """Rows, users and items of each value, the most frequent first."""
    counted = rows.group_by("behavior").aggregate(
        rows=ibis._.count(), users=ibis._.user.nunique(), items=ibis._.item.nunique()
    )
    held = counted.order_by([ibis.desc("rows"), "behavior"]).to_pyarrow().to_pylist()
    return {row.pop("behavior"): row for row in held}


def _on_pairs(rows: Table, tasks: Sequence[str]) -> dict[str, Any]:
    """Distinct pairs of user and item, how many have each task, and which part of these also has the next one."""
    done = [f"task_{name}" for name in tasks]
    pairs = rows.group_by(["user", "item"]).aggregate(**{name: rows[name].any() for name in done})
    steps = list(itertools.pairwise(tasks))
    both = {
        f"step {k}": (pairs[one] & pairs[other]).sum()
        for k, (one, other) in enumerate(itertools.pairwise(done))
    }
    held = (
        pairs.aggregate(pairs=pairs.count(), **{name: pairs[name].sum() for name in done}, **both)
        .to_pyarrow()
        .to_pylist()[0]
    )
    with_task = {name: int(held[f"task_{name}"]) for name in tasks}
    shares = [int(held[f"step {k}"]) / max(1, with_task[one]) for k, (one, _) in enumerate(steps)]
    funnel = [
        {"from": one, "to": other, "share": share} for (one, other), share in zip(steps, shares, strict=True)
    ]
    return {"pairs": held["pairs"], "tasks": with_task, "funnel": funnel}


def _done(rows: Table, on_pairs: dict[str, Any], settings: RunSettings) -> dict[str, dict[str, float]]:
    """Rows that do each task, pairs that have it, and its rate among rows with a label."""
    names = settings.task_names
    labels = {
        name: rows[f"label_{name}"].count() if settings.form == "exposures" else rows.count()
        for name in names
    }
    measures = {f"done {name}": rows[f"task_{name}"].sum() for name in names} | {
        f"of {name}": count for name, count in labels.items()
    }
    held = rows.aggregate(**measures).to_pyarrow().to_pylist()[0]
    counts = {name: (int(held[f"done {name}"]), int(held[f"of {name}"])) for name in names}
    return {
        name: {"done": done, "pairs": on_pairs["tasks"][name], "rate": done / max(1, of)}
        for name, (done, of) in counts.items()
    }
