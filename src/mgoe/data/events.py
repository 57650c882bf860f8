"""Event logs: what happened, one behaviour a row. Negatives are sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import ibis
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.tables import batches
from mgoe.config import NegativeSettings, RunSettings, did_you_mean
from mgoe.data.examples import ExampleWriter
from mgoe.data.expr import Table
from mgoe.data.negatives import Pools, blocks, sample_negatives
from mgoe.data.schema import Log
from mgoe.errors import DataError

BLOCK = 4_000_000
"""Positives and draws at once."""
LARGEST = 1_000_000
"""Positives at once, however few draws each has."""


def task_events(log: Log, settings: RunSettings) -> tuple[Table, dict[str, int]]:
    """The rows whose behaviour does a task, with `code`, the bit mask of the tasks that it does; and the count of every other behaviour.

    Raises:
        DataError: A behaviour that a task names never happens.
    """
    table = log.table
    counted = table.group_by("behavior").aggregate(n=ibis._.count()).order_by("behavior").to_pyarrow()
    counts = dict(zip(counted["behavior"].to_pylist(), counted["n"].to_pylist(), strict=True))
    masks = behavior_masks(counts, settings, log.place)
    code = ibis.cases(
        *((table.behavior == behavior, ibis.literal(mask, "int32")) for behavior, mask in masks.items())
    )
    events = table.filter(table.behavior.isin(list(masks))).mutate(code=code).drop("behavior")
    return events, {behavior: count for behavior, count in counts.items() if behavior not in masks}


def behavior_masks(
    counts: Mapping[str, int], settings: RunSettings, place: str, every_task: bool = True
) -> dict[str, int]:
    """Which tasks each behaviour does, as bits.

    Args:
        counts: Rows of each behaviour in the log.
        settings: Of the run.
        place: What the log is, for messages.
        every_task: Whether each has to happen.

    Raises:
        DataError: A behaviour that a task names never happens, and has to.
    """
    for task in settings.tasks if every_task else ():
        for behavior in task.done_by:
            if behavior not in counts:
                found = f"found none of {behavior!r} in column {settings.data.behavior!r}{did_you_mean(behavior, list(counts))}"
                raise DataError(place, f"every task must happen: {found}; mend tasks.{task.name}.behaviors")
    return task_bits(settings)


def task_bits(settings: RunSettings) -> dict[str, int]:
    """The tasks that each behaviour does, as bits. In an exposure log each task is a behaviour of its own name."""
    bits: dict[str, int] = {}
    for t, task in enumerate(settings.tasks):
        for behavior in task.done_by if settings.form == "events" else [task.name]:
            bits[behavior] = bits.get(behavior, 0) | 1 << t
    return bits


def task_history(coded: Table, tasks: int) -> Table:
    """One row an event and task. Columns user, item, time, bucket, task."""
    return ibis.union(
        *(
            coded.filter((coded.code & 1 << t) != 0).select(
                "user", "item", "time", "bucket", task=ibis.literal(t, "int64").cast("int8")
            )
            for t in range(tasks)
        )
    )


def positives(con: Backend, coded: Table) -> Table:
    """Events of a user on an item in a bucket as one row, with the union of their codes."""
    return con.create_table(
        "positives",
        coded.group_by(["bucket", "user", "item"]).aggregate(code=coded.code.bit_or().cast("int32")),
    )


def write_event_examples(
    found: Table,
    buckets: NDArray[np.int64],
    counts: NDArray[np.int64],
    first: int,
    last: int,
    settings: NegativeSettings,
    tasks: int,
    writer: ExampleWriter,
) -> None:
    """Positives and their sampled negatives, block by block of whole buckets, of a long one some users at a time.

    Args:
        found: What `positives` made.
        buckets: Buckets with positives, rising. Shape (b,).
        counts: Positives in each. Shape (b,).
        first: The last bucket that has no examples.
        last: The last bucket of training examples.
        settings: Of the negatives.
        tasks: Their number.
        writer: Where the examples go.
    """
    size = max(1, min(LARGEST, BLOCK // (1 + settings.ratio)))
    training, judged = (buckets > first) & (buckets <= last), buckets > last
    for part, drawn in ((training, settings.of_training), (judged, settings)):
        for low, high in blocks(counts[part], size):
            ends = int(buckets[part][low]), int(buckets[part][high - 1])
            rows = found.filter(found.bucket.between(*ends)).order_by(["bucket", "user", "item"])
            if counts[part][low:high].sum() < 2 * size:
                _write(rows.to_pyarrow(), drawn, tasks, writer)
                continue
            whole, before = rows.select("item", "bucket").to_pyarrow(), 0
            pools = Pools.of(whole["item"].to_numpy(), whole["bucket"].to_numpy(), drawn.distribution)
            for some in _whole_users(batches(rows), size):
                _write(some, drawn, tasks, writer, pools, before)
                before += len(some)


def _whole_users(ordered: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Rows in pieces of about so many, none of which cuts a user of a bucket."""
    held: list[pa.RecordBatch] = []
    for batch in (part[start : start + size] for part in ordered for start in range(0, len(part), size)):
        held.append(batch)
        if sum(map(len, held)) >= size:
            table = pa.Table.from_batches(held)
            user, bucket = table["user"].to_numpy(), table["bucket"].to_numpy()
            others = np.flatnonzero((user != user[-1]) | (bucket != bucket[-1]))
            end = int(others[-1]) + 1 if len(others) else 0  # where the last user of the last bucket starts
            if end:
                yield table[:end]
            held = table[end:].to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _write(
    block: pa.Table,
    settings: NegativeSettings,
    tasks: int,
    writer: ExampleWriter,
    pools: Pools | None = None,
    before: int = 0,
) -> None:
    user, item, bucket, code = (
        block[name].to_numpy().astype(np.int64) for name in ("user", "item", "bucket", "code")
    )
    source, drawn = sample_negatives(user, item, bucket, settings, pools, before)
    users, items, all_buckets = (
        np.concatenate([user, user[source]]),
        np.concatenate([item, drawn]),
        np.concatenate([bucket, bucket[source]]),
    )
    codes = np.concatenate([code, np.zeros(len(source), np.int64)])
    order = np.lexsort((codes == 0, items, users, all_buckets))
    labels = (codes[order, None] >> np.arange(tasks) & 1).astype(np.float32)
    writer.write(users[order], items[order], all_buckets[order], labels)
