"""The exposures that a service has taken, as rows of the log that its bundle was trained on."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from mgoe.bundle.ids import canonical_id
from mgoe.bundle.items import FEATURES
from mgoe.config import FeatureSettings, RunSettings, seconds
from mgoe.data.arrow import pc
from mgoe.data.waiting import longest_delay
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.marked import DIGEST, NUMBER


def taken_rows(
    log: ServiceLog,
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
    `request`, unless the settings name it otherwise, `propensity`, and number and digest of each record.

    Args:
        log: The log of a service.
        settings: Settings of a run on an exposure log.
        kinds: Arrow type of the ids of each `user` and `item`.
        as_of: Microseconds since 1970. Records that were taken later are left out.
        after: Position after which exposures are read.
        upto: Position up to which they are read, by default all. Up to `log.settled(...)` the rows are final.

    Returns:
        The rows in the order in which they were taken, in batches. Those with ids of another type are left
        out.
    """
    schema, last = _schema(settings, kinds), (1 << 62) if upto is None else upto
    tasks, delay = [task.name for task in settings.tasks], longest_delay(settings.tasks)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in log.rows(tasks, after, last, as_of, delay):
            batch = _batch(rows, settings, schema, as_of)
            known = pc.and_(*(pc.is_valid(batch[name]) for name in (settings.data.user, settings.data.item)))
            yield batch.filter(known)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _schema(settings: RunSettings, kinds: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the columns of the log and their types."""
    data, tasks = settings.data, settings.tasks
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    types = {data.request or "request": pa.string(), "propensity": pa.float64()}
    types |= {NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    types |= {data.user: kinds["user"], data.item: kinds["item"], data.time: moment}
    types |= {str(task.label): pa.int8() if task.kind == "binary" else pa.float64() for task in tasks}
    types |= {task.known_at: moment for task in tasks if task.known_at}
    own = {data.weight: pa.float64(), data.uniform: pa.int8(), data.position: pa.int32()}
    types |= {name: kind for name, kind in own.items() if name}
    return pa.schema(types | {feature.name: FEATURES[feature.kind] for feature in data.context})


def _batch(
    rows: Sequence[tuple[Any, ...]], settings: RunSettings, schema: pa.Schema, as_of: int
) -> pa.RecordBatch:
    """Return rows of `ServiceLog.rows` as rows of the log."""
    data = settings.data
    numbers, digests, requests, users, items, times, positions, propensities, contexts, *labels = zip(
        *rows, strict=True
    )
    moment = np.array(times)
    columns: dict[str | None, Any] = {
        data.request or "request": [one[1:] if one[0] == "r" else None for one in requests],
        "propensity": propensities,
        NUMBER: numbers,
        DIGEST: digests,
        data.time: moment,
        data.weight: np.ones(len(rows)),
        data.uniform: np.zeros(len(rows), np.int8),
        data.position: positions,
        data.user: _ids(users, schema.field(data.user).type),
        data.item: _ids(items, schema.field(data.item).type),
    }
    for task, values, known in zip(settings.tasks, labels[::2], labels[1::2], strict=True):
        at = np.maximum(moment, known) if task.known_at else moment + seconds(task.delay) * 1_000_000
        columns[task.label] = pc.if_else(at <= as_of, pa.array(values, pa.float64()), None)
        if task.known_at:
            columns[task.known_at] = np.maximum(at, columns.get(task.known_at, moment))
    columns |= dict(
        zip((one.name for one in data.context), read_context(contexts, data.context), strict=True)
    )
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema)


def _ids(texts: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Return ids as a column of their type, null where it cannot hold one."""
    try:
        return pa.array(texts, pa.string()).cast(kind)
    except pa.ArrowInvalid:  # a former bundle took ids of another type
        return pa.array([canonical_id(one, kind) for one in texts], kind)


def read_context(contexts: Sequence[str | None], features: Sequence[FeatureSettings]) -> list[pa.Array]:
    """Return one array per context feature of contexts as JSON."""
    if not features:
        return []
    how = pj.ParseOptions(
        explicit_schema=pa.schema({feature.name: FEATURES[feature.kind] for feature in features}),
        unexpected_field_behavior="ignore",
    )
    lines = "\n".join(context or "{}" for context in contexts).encode()
    found = pj.read_json(io.BytesIO(lines), parse_options=how).combine_chunks()
    return [found[feature.name].combine_chunks() for feature in features]
