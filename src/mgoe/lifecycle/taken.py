"""What a service has taken, as rows: files of `mgoe log export`, and what an update or a comparison lacks.

Events count once each. Exposures are taken once they wait for no more labels.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ibis
import numpy as np
import pyarrow as pa

from mgoe._util.files import atomic_file
from mgoe._util.tables import hand_over, open_duckdb, write_batches
from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, Sources, latest_mark, mark_of, read_held
from mgoe.bundle.ids import canonical_id
from mgoe.bundle.items import FEATURES
from mgoe.config import RunSettings, seconds
from mgoe.data.arrow import pc
from mgoe.data.waiting import longest_delay
from mgoe.errors import BundleError
from mgoe.graph import MacroGraph
from mgoe.lifecycle.graphs import saved_settings, settings_of
from mgoe.serving import Event, EventReader, ServiceLog, open_log
from mgoe.serving.events.chain import Kind
from mgoe.serving.events.event import Interaction, SeenEvents, with_ids_of
from mgoe.serving.events.exposure import read_context
from mgoe.serving.events.marked import DIGEST, NUMBER, with_marks

logger = logging.getLogger(__name__)

Form = Literal["events", "exposures"]
"""What rows are, as `data.form` says it."""
KINDS: dict[Form, Kind] = {"events": Kind.EVENT, "exposures": Kind.EXPOSURE}


def export(
    bundle: Path | str,
    state: Path | str,
    out: Path | str,
    kind: Form,
    new: bool = False,
    now: int | None = None,
) -> int:
    """Write what a service has taken as a log, in the columns of the bundle's, and return the number of rows.

    Args:
        bundle: A bundle of a log of that kind.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write; one that is there is replaced. It says which rows it holds.
        kind: Events, each once; or exposures that wait for no more labels.
        new: Write only those that the bundle's graph lacks.
        now: As of when exposures are read, in microseconds since 1970, for a service on a clock of its own;
            by default now.

    Raises:
        MgoeError: The bundle is of another log, the store cannot be read, or `out` cannot be written.
    """
    opened = Bundle.open(bundle)
    if opened.settings.form != kind:
        wanted, found = kind.removesuffix("s"), opened.settings.form.removesuffix("s")
        raise BundleError(bundle, f"must be of an {wanted} log, found one of an {found} log (data.form)")
    with closing(open_log(state, make=False)) as log:
        return write_rows(opened, log, kind, Path(out), [read_held(opened.path)], new, now)


def write_rows(
    bundle: Bundle,
    log: ServiceLog,
    kind: Form,
    out: Path,
    held: Sequence[Sources],
    new: bool = True,
    now: int | None = None,
) -> int:
    """Write rows of a service as a log, and return their number.

    Args:
        bundle: A bundle of a log of that kind.
        log: The log of the service.
        kind: See `export`.
        out: The Parquet file to write.
        held: What the bundle holds, or what each of several bundles does.
        new: Leave out the rows that one of them holds.
        now: See `export`.

    Raises:
        StoreError: The log is damaged, or does not continue where it is held.
    """
    source = log.source(KINDS[kind])
    for one in held:
        log.check(mark_of(one, source))
    latest = latest_mark(held, source)
    after = latest if new else log.begin(KINDS[kind])
    rows_after = partial(_exposures, now=now) if kind == "exposures" else _events
    reader, end = rows_after(bundle, log, after, latest)
    schema = with_marks(reader.schema, source, after, end)
    with atomic_file(out) as file:
        rows = write_batches(pa.RecordBatchReader.from_batches(schema, reader), file)
    if kind == "exposures":
        logger.info(f"{rows:,} exposures that have waited for their labels")
    return rows


def _events(bundle: Bundle, log: ServiceLog, after: Mark, end: Mark) -> tuple[pa.RecordBatchReader, Mark]:
    """Return the events after a mark, each once, and where the log ends, at `end` if it is empty."""
    data, reader, rows = bundle.settings.data, EventReader.of(bundle), []
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    columns = {data.user_column: reader.kinds["user"], data.item: reader.kinds["item"], data.time: moment}
    columns |= {data.behavior or "behavior": pa.string(), NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    for end, event, counts in counted(log, reader):
        if event is not None and counts and end.number > after.number:
            taken = end.number, bytes.fromhex(end.digest)
            row = (event.user, event.item, event.time, event.behavior, *taken)
            rows.append(dict(zip(columns, row, strict=True)))
    return pa.Table.from_pylist(rows, pa.schema(columns)).to_reader(), end


def _exposures(
    bundle: Bundle, log: ServiceLog, after: Mark, end: Mark, now: int | None
) -> tuple[pa.RecordBatchReader, Mark]:
    """Return the exposures after a mark that wait for no more labels, and the mark of the last, at least
    `end`."""
    settings, kinds = bundle.settings, EventReader.of(bundle).kinds
    end = max(end, log.mark(log.settled(longest_delay(settings.tasks), now)), key=lambda mark: mark.number)
    now = time.time_ns() // 1000 if now is None else now
    return taken_rows(log, settings, kinds, now, after.number, end.number), end


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
            known = pc.and_(
                *(pc.is_valid(batch[name]) for name in (settings.data.user_column, settings.data.item))
            )
            yield batch.filter(known)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _schema(settings: RunSettings, kinds: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the columns of the log and their types."""
    data, tasks = settings.data, settings.tasks
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    types = {data.request or "request": pa.string(), "propensity": pa.float64()}
    types |= {NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    types |= {data.user_column: kinds["user"], data.item: kinds["item"], data.time: moment}
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
        data.user_column: _ids(users, schema.field(data.user_column).type),
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


def later(log: ServiceLog, held: Mark, reader: EventReader) -> tuple[list[Interaction], Mark]:
    """Return the interactions after a mark, each once, and where the log ends."""
    found, end, strange = list[Interaction](), held, 0
    for end, event, new in counted(log, reader):
        if end.number > held.number:
            strange += event is None  # the bundle cannot hold its ids
            found += sorted(new, key=lambda interaction: interaction[-1])
    if strange:
        logger.info(
            f"{strange:,} events are left out, because their ids have another type than those of the bundle"
        )
    logger.info(f"{len(found):,} new events are in the log of the service")
    return found, end


def counted(log: ServiceLog, reader: EventReader) -> Iterator[tuple[Mark, Event | None, set[Interaction]]]:
    """Yield the mark of each event, the event if its ids are of the reader's type, and what counts of it."""
    seen, after = SeenEvents(), START
    while part := log.read(after):
        marked = [(mark, one) for mark, one in part if isinstance(one, Event)]
        events = with_ids_of([one for _, one in marked], reader.kinds)
        for (mark, _), event in zip(marked, events, strict=True):
            mask = 0 if event is None else reader.behaviors.get(event.behavior, 0)
            yield mark, event, seen.add(event, mask) if event is not None and mask else set()
        after = part[-1][0]


def table_of(interactions: list[Interaction], bundle: Bundle) -> ibis.Table:
    """Return interactions as a table in which each task is a behaviour of its own name."""
    users, items, times, tasks = zip(*interactions, strict=True)
    rows = pa.table(
        {
            "user": pa.array(users, bundle.encoders.users.type),
            "item": pa.array(items, bundle.encoders.items.type),
            "time": pa.array(times, pa.int64()),
            "behavior": pa.array([bundle.tasks[task] for task in tasks], pa.string()),
        }
    )
    return hand_over(open_duckdb(), "events", rows)


def settings_of_events(graph: MacroGraph) -> RunSettings:
    """Return how live events are read, whatever the form of the log was."""
    log = settings_of(graph, [])
    raw = {
        "data": {
            "log": ["-"],
            "form": "events",
            "user": "user",
            "item": "item",
            "time": "time",
            "time_unit": "us",
            "bucket": log.data.bucket,
        },
        "tasks": [task.name for task in log.tasks],
        "memory": log.memory,
        "graph": log.graph.model_dump(),
    }
    return saved_settings(graph, raw)
