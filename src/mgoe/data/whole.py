"""A whole log as history, without examples: numbered and read where it lies, never copied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgoe._util.files import sha256, write_json
from mgoe._util.tables import checksum, digest, hand_over, mixed
from mgoe.config import RunSettings
from mgoe.data.checks import enforce
from mgoe.data.columns import is_text, one_array
from mgoe.data.events import behavior_masks
from mgoe.data.exposures import label_history
from mgoe.data.expr import Table
from mgoe.data.log import NO_ROWS
from mgoe.data.schema import find_columns, read_columns
from mgoe.data.vocabulary import Vocabulary
from mgoe.data.windows import bucket_of, within
from mgoe.errors import DataError

NODES = ("user", "item")


@dataclass(frozen=True)
class WholeLog:
    """History of a log, and who is in it.

    Attributes:
        history: `user`, `item` (codes), `time` (microseconds), `task`; lazy.
        counts: Users and items numbered, by `user` and `item`.
        facts: `events`, `first` and `last` moment, and a `checksum` that does not depend on the order of rows.
    """

    history: Table
    counts: dict[str, int]
    facts: dict[str, int]


def whole_log(
    source: Table, settings: RunSettings, folder: Path, place: str, known: Mapping[str, Path] | None = None
) -> WholeLog:
    """Check a log, number its users and items, and read it as history.

    Every expression runs in the engine of the table, which may be any of Ibis that can join what this process holds.

    Args:
        source: The log.
        settings: Of the run; `data` and `tasks` are read.
        folder: Gets `users.parquet` and `items.parquet`, ids in the order of their codes; used again where those of the same log lie
            there already.
        place: What the log is, for messages.
        known: Vocabularies of a graph, by `user` and `item`: their ids keep their codes, and later ones follow. Of such further events
            no task has to happen.

    Raises:
        DataError: A column is missing or of a wrong type, a row breaks a rule, or nothing is left.
    """
    rows, facts = task_rows(source, settings, place, every_task=known is None)
    numbered, these = (
        folder / "numbered.json",
        {"log": facts, "known": {node: sha256(file) for node, file in (known or {}).items()}},
    )
    if not numbered.exists() or json.loads(numbered.read_text()) != these:
        for node in NODES:
            found = _number(rows, node, settings.data.bucket, known[node] if known else None, place)
            found.save(folder / f"{node}s.parquet")
        write_json(numbered, these)
    tables, counts = {}, {}
    for node in NODES:
        ids = pq.read_table(folder / f"{node}s.parquet")["id"]
        counts[node] = len(ids)
        rows = rows.mutate(**{node: rows[node].cast(dt.DataType.from_pyarrow(ids.type))})
        codes = {f"{node}_id": ids, f"{node}_code": pa.array(np.arange(len(ids)))}
        tables[node] = hand_over(source.get_backend(), f"{node}_codes", pa.table(codes))
    joined = rows.join(tables["user"], rows.user == tables["user"].user_id).join(
        tables["item"], rows.item == tables["item"].item_id
    )
    history = joined.select(user="user_code", item="item_code", time="time", task="task")
    return WholeLog(history, counts, facts)


def task_rows(
    source: Table, settings: RunSettings, place: str, every_task: bool = True
) -> tuple[Table, dict[str, int]]:
    """The events of a log that do a task, `user`, `item` (ids), `time`, `task`, and their facts.

    Args:
        source: The log.
        settings: Of the run; `data` and `tasks` are read.
        place: What the log is, for messages.
        every_task: Whether each has to happen.

    Raises:
        DataError: A column is missing or of a wrong type, a row breaks a rule, or nothing is left.
    """
    names = find_columns(source, settings, place)
    raw: Table = source.select(**{ours: source[column] for ours, column in names.items()})
    values, checks = read_columns(raw, settings, names, place)
    if not enforce(raw, checks, place, numbered=False):
        raise DataError(place, NO_ROWS)
    every: Table = within(raw.select(**values), settings.data.start, settings.data.end)
    if settings.form == "exposures":
        history = label_history(every, settings)
        told = _told(history, [history.task]).to_pyarrow().to_pylist()
        return history, _facts(told, {row["task"]: [row["task"]] for row in told}, "task", history, place)
    told = _told(every, [every.behavior]).order_by("behavior").to_pyarrow().to_pylist()
    counts: dict[str, int] = {row["behavior"]: row["events"] for row in told}
    masks = behavior_masks(counts, settings, place, every_task)
    history = _one_row_a_task(every, masks)
    tasks = {
        behavior: [t for t in range(len(settings.tasks)) if mask >> t & 1] for behavior, mask in masks.items()
    }
    return history, _facts(told, tasks, "behavior", history, place)


def _one_row_a_task(every: Table, masks: dict[str, int]) -> Table:
    """Events with the number of their task; an event whose behaviour does several, once for each."""
    columns, parts = ("user", "item", "time"), []
    rest = dict(masks)
    while rest:  # one pass where every behaviour does one task
        first = {behavior: (mask & -mask).bit_length() - 1 for behavior, mask in rest.items()}
        task = ibis.cases(
            *((every.behavior == behavior, ibis.literal(t, "int8")) for behavior, t in first.items())
        )
        parts.append(every.filter(every.behavior.isin(list(rest))).select(*columns, task=task))
        rest = {behavior: mask & (mask - 1) for behavior, mask in rest.items() if mask & (mask - 1)}
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _told(rows: Table, group: list[Any]) -> Table:
    """What one pass tells of the rows of each behaviour or task: number, first and last moment, and a checksum."""
    mix = mixed(rows.time, *(rows[node] for node in NODES if rows[node].type().is_integer()))
    return rows.group_by(group).aggregate(
        events=rows.count(), first=rows.time.min(), last=rows.time.max(), checksum=checksum(mix)
    )


def _facts(
    told: list[dict[str, Any]], tasks: Mapping[Any, list[int]], key: str, history: Table, place: str
) -> dict[str, int]:
    """Of all events that do a task. Alike in every engine, so that a build that was begun on one goes on on another."""
    done = [(row, task) for row in told for task in tasks.get(row[key], ())]
    if not done:
        raise DataError(
            place,
            "some events must do a task between data.start and data.end, found none; move them, or mend the tasks",
        )
    mark = sum(row["checksum"] * (task + 1) for row, task in done)
    for node in NODES:
        if not history[node].type().is_integer():
            ids = history.group_by(node).aggregate(n=history.count())
            mark += int(ids.aggregate(n=checksum(ids.n * digest(ids[node]))).to_pyarrow()["n"][0].as_py())
    return {
        "events": sum(row["events"] for row, _ in done),
        "first": min(row["first"] for row, _ in done),
        "last": max(row["last"] for row, _ in done),
        "checksum": mark % (1 << 61),
    }


def _number(rows: Table, node: str, bucket: str, known: Path | None, place: str) -> Vocabulary:
    """Ids in the order of their codes: known ones as they are, then by first bucket, then id."""
    found = rows.group_by(node).aggregate(first=bucket_of(rows.time.min(), bucket))
    ids = one_array(found.order_by(["first", node]).select(id=found[node]).to_pyarrow()["id"])
    if known is None:
        return Vocabulary(ids)
    before = Vocabulary.load(known)
    new = ids.filter(pa.array(before.indices(ids) < 0))
    rule, mend = f"ids of {node}s must be as in the graph ({before.type})", "mend the column"
    kind = pa.large_string() if is_text(before.type) else before.type  # all together may be much text
    try:
        read = new.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(place, f"{rule}: {error}; {mend}") from None
    changed = new.filter(pc.not_equal(read.cast(new.type), new))  # type: ignore[attr-defined]
    if len(changed):  # "07" would be taken for 7, which is another id
        raise DataError(place, f"{rule}, found {changed[0].as_py()!r}, which no {before.type} says; {mend}")
    held = before.ids(np.arange(before.size))
    return Vocabulary(pa.chunked_array([held.cast(kind), read]))
