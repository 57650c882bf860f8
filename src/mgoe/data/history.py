"""A whole log as history, without examples: numbered and read where it is stored, never copied."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ibis.expr.datatypes as dt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from mgoe._util.files import GIB, sha256, write_json
from mgoe._util.hash_table import IntegerTable, LeastNumbers
from mgoe._util.prefetch import in_turn, prefetched
from mgoe._util.tables import batches, checksum, computed, digest, hand_over, mixed
from mgoe.config import RunSettings
from mgoe.data.arrow import is_text, one_array, pc
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.events import check_behaviors, rows_per_task, task_masks
from mgoe.data.exposure_history import exposure_history, fit_context, with_codes, with_lists
from mgoe.data.exposures import label_history
from mgoe.data.features import FeatureEncoders
from mgoe.data.requests import merged
from mgoe.data.schema import NODES
from mgoe.data.times import bucket_of, seconds
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError

TABLE_SHARE, INDEX_BYTES = 0.25, 20
"""Share of the memory for tables of ids, and the most that an id takes in a table of indices."""


@dataclass(frozen=True)
class WholeLog:
    """The history of a log, and who is in it.

    Attributes:
        history: `user`, `item` (indices), `time` (microseconds), `task`; lazy.
        counts: Number of users and items, by `user` and `item`.
        facts: `events`, `first` and `last` moment, and a `checksum` of all that a graph counts, whatever the
            order of rows.
        records: What was shown, as `exposure_history` returns it; None for an event log.
        context: Encoders of the context of an exposure; None for an event log.
        batches: Yields the rows of `history`, numbered on so many threads of this process in a fraction of
            the time of joins; None where `ids_by_first_bucket` would not number them here.

    Example:
        >>> import ibis
        >>> from mgoe.data import open_log, read_rows
        >>> Path("work").mkdir()
        >>> rows, _ = read_rows(open_log(ibis.duckdb.connect(), [log]), settings, "the log")
        >>> found = whole_log(rows, settings, Path("work"), "the log")
        >>> found.history.columns
        ('user', 'item', 'time', 'task')
    """

    history: Table
    counts: dict[str, int]
    facts: dict[str, int]
    records: Table | None = None
    context: FeatureEncoders | None = None
    batches: Callable[[int], Iterator[pa.RecordBatch]] | None = None


def whole_log(
    rows: Table,
    settings: RunSettings,
    folder: Path,
    place: str,
    known: Mapping[str, Path] | None = None,
    encoders: FeatureEncoders | None = None,
) -> WholeLog:
    """Number the users and items of a log, and return it as history.

    Every expression runs in the engine of the table, which may be any of Ibis that can join rows of this
    process.

    Args:
        rows: The log, as `read_rows` returns it.
        settings: Settings of the run; `data` and `tasks` are read.
        folder: Receives `users.parquet` and `items.parquet`, ids in the order of their indices. Files of the
            same log that are already there are used again.
        place: What the log is, for messages.
        known: Vocabularies of a graph, by `user` and `item`: their ids keep their indices, and new ids
            follow. In such further events, not every task has to happen.
        encoders: Encoders of the context that the graph was built with; fitted on this log by default.

    Raises:
        DataError: No row does a task, or new ids are not as the known ones.

    Example:
        >>> import ibis
        >>> from mgoe.data import open_log, read_rows
        >>> Path("work").mkdir()
        >>> rows, _ = read_rows(open_log(ibis.duckdb.connect(), [log]), settings, "the log")
        >>> found = whole_log(rows, settings, Path("work"), "the log")
        >>> sorted(found.counts)
        ['item', 'user']
    """
    shown, rows, facts = _task_rows(rows, settings, place, every_task=known is None)
    numbered_rows = rows if shown is None else shown
    known = known or {}
    numbered = folder / "numbered.json"
    these = {"log": facts, "known": {node: sha256(file) for node, file in known.items()}}
    if not numbered.exists() or json.loads(numbered.read_text()) != these:
        length = seconds(settings.data.bucket) * 1_000_000
        ordered = ids_by_first_bucket(numbered_rows, numbered_rows.time, length, settings.memory)
        for node in NODES:
            found = one_array(ordered[node]["id"])
            ids = _appended(Vocabulary.load(known[node]), found, node, place) if known else found
            Vocabulary(ids).save(folder / f"{node}s.parquet")
        write_json(numbered, these)
    history = with_indices(rows, folder).select("user", "item", "time", "task")
    counts = {node: pq.read_metadata(folder / f"{node}s.parquet").num_rows for node in NODES}
    fit = sum(counts.values()) * INDEX_BYTES <= settings.memory * TABLE_SHARE * GIB
    here = partial(_with_indices_here, rows, folder) if _numbered_here(rows) and fit and not known else None
    if shown is None:
        return WholeLog(history, counts, facts, batches=here)
    length = settings.data.bucket
    context = encoders or fit_context(shown.mutate(bucket=bucket_of(shown.time, length)), settings)
    labels = (f"label_{task.name}" for task in settings.tasks if task.kind == "binary")
    narrow = with_codes(shown.mutate(**{label: shown[label].cast("int8") for label in labels}), context)
    mark = _mark_of(exposure_history(narrow.mutate(bucket=bucket_of(narrow.time, length)), settings))
    facts |= {"checksum": (facts["checksum"] + mark) % (1 << 61)}
    once = with_indices(narrow, folder).distinct()
    once = with_lists(once.mutate(bucket=bucket_of(once.time, length)), context)
    records = exposure_history(once, settings)
    return WholeLog(history, counts, facts, records, context, here)


def ids_by_first_bucket(rows: Table, moment: Expr, length: int, memory: float) -> dict[str, pa.Table]:
    """Return the distinct ids of users and items and the first bucket of each, ordered by bucket, then id.

    Integers in DuckDB are numbered by hash tables in this process, in one pass over the rows. The engine of
    the table groups all others, and ids whose tables would take too much memory.

    Args:
        rows: Rows of a log.
        moment: A number of each row that rises with its bucket.
        length: Of a bucket, in the unit of `moment`.
        memory: Limit of the process, in GiB.

    Returns:
        By `user` and `item`: columns `id` and `first`.
    """
    found, least = {}, _least_moments(rows, moment, memory) if _numbered_here(rows) else {}
    for node in NODES:
        if table := least.get(node):
            ids, moments = table.taken
            one = {"id": ids.view(rows[node].type().to_numpy()), "first": moments // length}
            found[node] = pa.table(one).take(np.lexsort((one["id"], one["first"])))
        else:
            grouped = rows.group_by(node).aggregate(first=moment.min() // length).rename(id=node)
            found[node] = grouped.order_by(["first", "id"]).to_pyarrow()
    return found


def _numbered_here(rows: Table) -> bool:
    """Return whether all ids are integers of DuckDB, which this process numbers."""
    return isinstance(rows.get_backend(), Backend) and all(rows[node].type().is_integer() for node in NODES)


def _least_moments(rows: Table, moment: Expr, memory: float) -> dict[str, LeastNumbers]:
    """Return the first moment of every id; none if that takes more than a part of the memory (GiB)."""
    tables = {node: LeastNumbers() for node in NODES}
    with closing(prefetched(batches(rows.select(*NODES, moment=moment.cast("int64"))))) as found:
        for batch in found:
            for node, table in tables.items():
                table.add(batch[node].to_numpy(), batch["moment"].to_numpy())
            if sum(table.entries.nbytes for table in tables.values()) > memory * TABLE_SHARE * GIB:
                return {}
    return tables


def _with_indices_here(rows: Table, folder: Path, threads: int) -> Iterator[pa.RecordBatch]:
    """Yield what `with_indices` returns, with ids looked up in tables of this process, on threads."""
    files = {node: folder / f"{node}s.parquet" for node in NODES}
    tables = {node: IntegerTable(pq.read_table(file)["id"].to_numpy()) for node, file in files.items()}

    def numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {name: batch[name] for name in batch.schema.names}
        nodes = {node: table.indices(batch[node].to_numpy()) for node, table in tables.items()}
        return pa.RecordBatch.from_pydict(columns | nodes)

    with closing(in_turn(numbered, batches(rows), threads, threads + 1)) as found:
        yield from found


def with_indices(rows: Table, folder: Path) -> Table:
    """Return the rows with indices in place of ids, in the engine of the table.

    Args:
        rows: Rows of a log.
        folder: Holds `users.parquet` and `items.parquet`, ids in the order of their indices.
    """
    tables = {}
    for node in NODES:
        ids = pq.read_table(folder / f"{node}s.parquet")["id"]
        rows = rows.mutate(**{node: rows[node].cast(dt.DataType.from_pyarrow(ids.type))})
        columns = pa.table({f"{node}_id": ids, f"{node}_index": np.arange(len(ids))})
        tables[node] = hand_over(rows.get_backend(), f"{node}_indices", columns)
    users, items = tables["user"], tables["item"]
    joined = rows.join(users, rows.user == users.user_id).join(items, rows.item == items.item_id)
    return joined.select(
        joined.user_index.name("user"),
        joined.item_index.name("item"),
        *(name for name in rows.columns if name not in NODES),
    )


def _task_rows(
    rows: Table, settings: RunSettings, place: str, every_task: bool
) -> tuple[Table | None, Table, dict[str, int]]:
    """Return the rows of an exposure log, the events that do a task, with ids, as `user`, `item`, `time`,
    `task`, and their facts; the checksum holds for all rows."""
    if settings.data.request is not None:
        rows = computed(merged(rows, settings))
    if settings.form == "exposures":
        history = label_history(rows, settings)
        tasks = {t: [t] for t in range(len(settings.tasks))}
        found = _measured(history, "task")
        facts = _facts(found, tasks, "task", history, place) if found or every_task else {"events": 0}
        mark = only_row(rows.aggregate(n=checksum(_mix(rows))))["n"] or 0
        return rows, history, facts | {"checksum": (facts.get("checksum", 0) + mark) % (1 << 61)}
    found = _measured(rows, "behavior")
    if every_task:
        check_behaviors({row["behavior"]: row["events"] for row in found}, settings, place)
    masks = task_masks(settings)
    history = rows_per_task(rows, rows.behavior, masks).select("user", "item", "time", "task")
    tasks = {b: [t for t in range(len(settings.tasks)) if mask >> t & 1] for b, mask in masks.items()}
    return None, history, _facts(found, tasks, "behavior", history, place)


def _measured(rows: Table, key: str) -> list[dict[str, Any]]:
    """Measure the rows of each behaviour or task in one scan: number, first and last moment, and a
    checksum."""
    measured = rows.group_by(key).aggregate(
        events=rows.count(), first=rows.time.min(), last=rows.time.max(), checksum=checksum(_mix(rows))
    )
    return measured.order_by(key).to_pyarrow().to_pylist()


def _mix(rows: Table) -> Expr:
    """Return a number per row that follows from its time and its ids, where these are integers."""
    return mixed(rows.time, *(rows[node] for node in NODES if rows[node].type().is_integer()))


def _mark_of(records: Table) -> int:
    """Return a checksum of all that records of exposures say, ids where these are integers."""
    number, *rest = (records[name] for name in records.columns if records[name].type().is_integer())
    while rest:  # a few at a time, as `mixed` takes them
        number, rest = mixed(number, *rest[:4]), rest[4:]
    return only_row(records.aggregate(n=checksum(number)))["n"] or 0


def _facts(
    found: list[dict[str, Any]], tasks: Mapping[Any, list[int]], key: str, history: Table, place: str
) -> dict[str, int]:
    """Return the facts of all events that do a task: the same on every engine, so that another one can
    resume."""
    done = [(row, task) for row in found for task in tasks.get(row[key], ())]
    if not done:
        raise DataError(
            place,
            "some events must do a task between data.start and data.end, found none; "
            "change these dates, or fix the tasks",
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


def _appended(known: Vocabulary, found: pa.Array, node: str, place: str) -> pa.ChunkedArray:
    """Return known ids, followed by those found that are new, in the type of the known ones."""
    new = found.filter(pa.array(known.indices(found) < 0))
    rule = f"ids of {node}s must be as in the graph ({known.type})"
    kind = pa.large_string() if is_text(known.type) else known.type  # all ids together may be much text
    try:
        read = new.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(place, f"{rule}: {error}; fix the column") from None
    changed = new.filter(pc.not_equal(read.cast(new.type), new))
    if len(changed):  # "07" would become 7, which is another id
        raise DataError(
            place,
            f"{rule}, found {changed[0].as_py()!r}, which cannot be read as {known.type}; fix the column",
        )
    return pa.chunked_array([known.ids(np.arange(known.size)).cast(kind), read])
