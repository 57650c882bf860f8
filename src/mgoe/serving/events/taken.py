"""The exposures that a service has taken, as rows of the log that its bundle was trained on."""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.json as pj

from mgoe.config import FeatureSettings, RunSettings, TaskSettings, seconds
from mgoe.data.arrow import pc
from mgoe.data.waiting import longest_delay
from mgoe.serving.events.event import canonical_id
from mgoe.serving.events.exposure_log import EXPOSURE_OF, ExposureLog

ROWS = 65_536
"""Rows of a batch."""
_FEATURES = {"categorical": pa.string(), "multi": pa.list_(pa.string()), "numeric": pa.float64()}


class _Column(NamedTuple):
    """A column of the log: its type, and its value in SQL, of an exposure e and its labels l."""

    type: pa.DataType
    value: str


def taken_rows(
    log: ExposureLog,
    settings: RunSettings,
    kinds: Mapping[str, pa.DataType],
    as_of: int,
    after: int = 0,
    upto: int | None = None,
) -> pa.RecordBatchReader:
    """Return exposures with their labels as rows of a log, in the columns that settings name.

    A label is null where none was sent, and where it was not yet known: at the exposure plus the task's
    `delay`, or where the task has a column `known_at`, at the time that was sent with the label. Of several
    labels of a task the largest counts (done wins), and of its times the first. A sample weight is 1,
    and no row is marked as random. What a client did not send is null. Besides, there are the columns
    `request`, unless the settings name it otherwise, and `propensity`.

    Args:
        log: The exposures of a service.
        settings: Settings of a run on an exposure log.
        kinds: Arrow type of the ids of each `user` and `item`.
        as_of: Microseconds since 1970. Records that were taken later are left out.
        after: Position after which exposures are read.
        upto: Position up to which they are read, by default all. Up to `log.settled(...)` the rows are final.

    Returns:
        The rows in the order in which they were taken, in batches. Those with ids of another type are left
        out.
    """
    columns = _columns(settings, kinds)
    values: dict[str, Any] = {
        "as_of": as_of, "wait": log.wait(longest_delay(settings.tasks)), "after": after,
        "upto": (1 << 62) if upto is None else upto,
        **{f"task{t}": task.name for t, task in enumerate(settings.tasks)},
    }  # fmt: skip
    schema = pa.schema({name: column.type for name, column in columns.items()} | _context_types(settings))

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in log.stream(_query(settings.tasks, columns), values, ROWS):
            *found, contexts = zip(*rows, strict=True)
            arrays = [_array(one, column) for one, column in zip(found, columns.values(), strict=True)]
            arrays += read_context(contexts, settings.data.context)
            batch = pa.record_batch(arrays, schema=schema)
            known = pc.and_(*(pc.is_valid(batch[name]) for name in (settings.data.user, settings.data.item)))
            yield batch.filter(known)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _columns(settings: RunSettings, kinds: Mapping[str, pa.DataType]) -> dict[str, _Column]:
    """Return the columns of the log, context features aside."""
    data = settings.data
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    columns = {
        data.request or "request": _Column(
            pa.string(), "CASE WHEN e.request LIKE 'r%' THEN substr(e.request, 2) END"
        ),
        "propensity": _Column(pa.float64(), "e.propensity"),
        data.user: _Column(kinds["user"], "e.user"),
        data.item: _Column(kinds["item"], "e.item"),
        data.time: _Column(moment, "e.time"),
    }
    known = defaultdict(list)
    for t, task in enumerate(settings.tasks):
        at = f"max(l.known{t}, e.time)" if task.known_at else f"e.time + {seconds(task.delay) * 1_000_000}"
        kind = pa.int8() if task.kind == "binary" else pa.float64()
        columns[str(task.label)] = _Column(kind, f"CASE WHEN {at} <= :as_of THEN l.value{t} END")
        known[task.known_at].append(f"coalesce(l.known{t}, 0)")
    for name in known.keys() - {None}:
        columns[name] = _Column(moment, f"max(e.time, {', '.join(known[name])})")
    if data.weight:
        columns[data.weight] = _Column(pa.float64(), "1.0")
    if data.uniform:
        columns[data.uniform] = _Column(pa.int8(), "0")
    if data.position:
        columns[data.position] = _Column(pa.int32(), "e.position")
    return columns


def _query(tasks: Sequence[TaskSettings], columns: dict[str, _Column]) -> str:
    """Return the query for the columns and the context.

    Labels are joined by an index, for which their exposure must have the type of its id.
    """
    labels = ", ".join(
        f"max({of}) FILTER (WHERE task = :task{t}) AS {name}{t}"
        for t in range(len(tasks))
        for of, name in (("value", "value"), ("time", "known"))
    )
    return f"""
        WITH matched AS MATERIALIZED (
            SELECT CAST({EXPOSURE_OF} AS INTEGER) AS exposure, l.task, l.value, l.time
            FROM labels l WHERE l.taken <= :as_of),
        ranked AS (
            SELECT *, row_number() OVER (PARTITION BY exposure, task ORDER BY value DESC, time) AS place
            FROM matched WHERE exposure > :after AND exposure <= :upto),
        labelled AS (SELECT exposure, {labels} FROM ranked WHERE place = 1 GROUP BY exposure)
        SELECT {", ".join(column.value for column in columns.values())}, e.context
        FROM exposures e LEFT JOIN labelled l ON l.exposure = e.id
        WHERE e.id > :after AND e.id <= :upto AND e.taken <= :as_of ORDER BY e.id
    """


def _array(values: Sequence[Any], column: _Column) -> pa.Array:
    if column.value not in ("e.user", "e.item"):
        return pa.array(values, column.type)
    try:
        return pa.array(values, pa.string()).cast(column.type)
    except pa.ArrowInvalid:  # a former bundle took ids of another type
        return pa.array([canonical_id(value, column.type) for value in values], column.type)


def _context_types(settings: RunSettings) -> dict[str, pa.DataType]:
    return {feature.name: _FEATURES[feature.kind] for feature in settings.data.context}


def read_context(contexts: Sequence[str | None], features: Sequence[FeatureSettings]) -> list[pa.Array]:
    """Return one array per context feature of contexts as JSON."""
    if not features:
        return []
    how = pj.ParseOptions(
        explicit_schema=pa.schema({feature.name: _FEATURES[feature.kind] for feature in features}),
        unexpected_field_behavior="ignore",
    )
    lines = "\n".join(context or "{}" for context in contexts).encode()
    found = pj.read_json(io.BytesIO(lines), parse_options=how).combine_chunks()
    return [found[feature.name].combine_chunks() for feature in features]
