"""Event logs: what happened, one behaviour per row. Negatives are sampled."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.tables import batches
from mgoe.config import NegativeSettings, RunSettings, did_you_mean
from mgoe.data.checks import Expr, Table
from mgoe.data.example_file import ExampleWriter
from mgoe.data.negatives import Pools, blocks, sample_negatives
from mgoe.errors import DataError

BLOCK = 4_000_000
"""Positives and draws in memory at once."""
LARGEST = 1_000_000
"""Positives in memory at once, however few draws each has."""


def task_masks(settings: RunSettings) -> dict[str, int]:
    """Return the mask of the tasks that each behaviour does: bit t is set for task t.

    In an exposure log each task is a behaviour of its own name.
    """
    masks: dict[str, int] = {}
    for t, task in enumerate(settings.tasks):
        for behavior in task.done_by if settings.form == "events" else [task.name]:
            masks[behavior] = masks.get(behavior, 0) | 1 << t
    return masks


def check_behaviors(counts: Mapping[str, int], settings: RunSettings, place: str) -> None:
    """Refuse a log in which a behaviour that a task names never happens.

    Args:
        counts: Rows of each behaviour in the log.
        settings: Settings of the run.
        place: What the log is, for messages.

    Raises:
        DataError: A behaviour never happens.
    """
    for task in settings.tasks:
        for behavior in task.done_by:
            if behavior not in counts:
                hint = did_you_mean(behavior, list(counts))
                raise DataError(
                    place,
                    f"every task must happen: found none of {behavior!r} in column "
                    f"{settings.data.behavior!r}{hint}; "
                    f"fix tasks.{task.name}.behaviors",
                )


def behavior_counts(rows: Table) -> dict[str, int]:
    """Return the number of rows of each behaviour."""
    counted = rows.group_by("behavior").aggregate(n=rows.count()).order_by("behavior").to_pyarrow()
    return dict(zip(counted["behavior"].to_pylist(), counted["n"].to_pylist(), strict=True))


def with_task_mask(rows: Table, masks: Mapping[str, int]) -> Table:
    """Return the rows whose behaviour does a task, with `task_mask` in place of `behavior`."""
    mask = ibis.cases(
        *((rows.behavior == behavior, ibis.literal(m, "int32")) for behavior, m in masks.items())
    )
    return rows.filter(rows.behavior.isin(list(masks))).mutate(task_mask=mask).drop("behavior")


def rows_per_task(rows: Table, key: Expr, masks: Mapping[Any, int]) -> Table:
    """Return one row per event and task, with `task` as int8: an event that does several tasks is repeated.

    Args:
        rows: The events.
        key: A column of the events.
        masks: The mask of the tasks that an event does, by its value of `key`.
    """
    parts, rest = [], dict(masks)
    while rest:  # once where every behaviour does one task
        weakest = {value: (mask & -mask).bit_length() - 1 for value, mask in rest.items()}
        task = ibis.cases(
            *((key == value, ibis.literal(t, "int64")) for value, t in weakest.items()), else_=0
        )
        task = task.cast("int8")
        parts.append(rows.filter(key.isin(list(rest))).mutate(task=task))
        rest = {value: mask & (mask - 1) for value, mask in rest.items() if mask & (mask - 1)}
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def positives(rows: Table) -> Table:
    """Return the events of a user on an item in a bucket as one row, with the union of their task masks."""
    masks = rows.task_mask.bit_or().cast("int32")
    return rows.group_by(["bucket", "user", "item"]).aggregate(task_mask=masks)


def write_event_examples(
    found: Table,
    buckets: NDArray[np.int64],
    counts: NDArray[np.int64],
    cuts: NDArray[np.int32],
    settings: RunSettings,
    writer: ExampleWriter,
) -> None:
    """Write positives and their sampled negatives, in blocks of whole buckets; a long bucket in parts of
    whole users.

    Args:
        found: What `positives` returned.
        buckets: Buckets with positives, rising. Shape (b,).
        counts: Positives in each. Shape (b,).
        cuts: Bucket number of each cut: the first has no examples before it, the last but one ends training.
        settings: Settings of the run.
        writer: Where the examples go.
    """
    negatives, tasks = settings.negatives, len(settings.tasks)
    size = max(1, min(LARGEST, BLOCK // (1 + negatives.ratio)))
    training, evaluated = (buckets > cuts[0]) & (buckets <= cuts[-2]), buckets > cuts[-2]
    for part, sampling in ((training, negatives.of_training), (evaluated, negatives)):
        for low, high in blocks(counts[part], size):
            ends = int(buckets[part][low]), int(buckets[part][high - 1])
            rows = found.filter(found.bucket.between(*ends)).order_by(["bucket", "user", "item"])
            if counts[part][low:high].sum() < 2 * size:
                _write(rows.to_pyarrow(), sampling, tasks, writer)
                continue
            whole, before = rows.select("item", "bucket").to_pyarrow(), 0
            pools = Pools.of(whole["item"].to_numpy(), whole["bucket"].to_numpy(), sampling.distribution)
            for some in _whole_users(batches(rows), size):
                _write(some, sampling, tasks, writer, pools, before)
                before += len(some)


def _whole_users(ordered: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yield rows in parts of about `size` that keep the rows of a user in a bucket together."""
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
    names = "user", "item", "bucket", "task_mask"
    user, item, bucket, done = (block[name].to_numpy().astype(np.int64) for name in names)
    source, drawn = sample_negatives(user, item, bucket, settings, pools, before)
    user, item, bucket = np.r_[user, user[source]], np.r_[item, drawn], np.r_[bucket, bucket[source]]
    task_mask = np.r_[done, np.zeros(len(source), np.int64)]
    order = np.lexsort((task_mask == 0, item, user, bucket))
    labels = (task_mask[order, None] >> np.arange(tasks) & 1).astype(np.float32)
    writer.write(user[order], item[order], bucket[order], labels)
