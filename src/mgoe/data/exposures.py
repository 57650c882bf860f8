"""Exposure logs: one row per item shown, one label column per task, used as they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from mgoe._util.tables import batches
from mgoe.config import RunSettings, seconds
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.example_file import ExampleWriter
from mgoe.data.features import FeatureEncoders, longest
from mgoe.data.times import bucket_of, last_moment, within
from mgoe.data.waiting import SQUEEZED, known_from
from mgoe.errors import DataError


def check_labels(rows: Table, settings: RunSettings, place: str) -> None:
    """Refuse a log in which a task never or always happens.

    Raises:
        DataError: A task's labels are all missing, or all the same.
    """
    for task in settings.tasks:
        label = rows[f"label_{task.name}"]
        held = only_row(rows.aggregate(n=label.count(), low=label.min(), high=label.max()))
        where = f"{place}, column {task.label!r}"
        if not held["n"]:
            raise DataError(
                where,
                f"task {task.name} needs labels, found every row null; name another column or leave the task "
                "out",
            )
        if held["low"] == held["high"]:
            often = "always happens" if task.kind == "binary" else "never varies"
            raise DataError(
                where,
                f"a task must happen in some rows and not in others, "
                f"{task.name} {often if held['high'] else 'never happens'}: "
                f"found {held['low']:g} in all {held['n']} rows with a label; leave it out or fix the column",
            )


def label_history(rows: Table, settings: RunSettings) -> Table:
    """Return one row per task done, at the moment it was known: user, item, time, task, bucket."""
    parts = []
    for t, task in enumerate(settings.tasks):
        done = rows.filter(rows[f"label_{task.name}"] > 0)
        number = ibis.literal(t, "int64").cast("int8")
        parts.append(done.select("user", "item", time=known_from(done, task, settings.data), task=number))
    history = within(ibis.union(*parts), settings.data)
    return history.mutate(bucket=bucket_of(history.time, settings.data.bucket))


def with_moments(rows: Table, settings: RunSettings) -> Table:
    """Return exposures with their `moment`, what each reads strictly before, unless they read up to the cut.

    Rows of one request read what was known before the first of them; none reads a label that counts from the
    end of its bucket. In a log without users each request has a number below 0 as its user, and without
    requests each row: of such a user nothing is known.
    """
    data, length = settings.data, seconds(settings.data.bucket) * 1_000_000
    if data.user is None:
        order = [rows[name] for name in (["request"] if data.request is not None else rows.columns)]
        number: Expr = ibis.dense_rank().over(group_by=rows.bucket, order_by=order)
        rows = rows.mutate(user=-1 - rows.bucket.cast("int64").abs() * 2**32 - number)
    if data.history == "cut":
        return rows
    moment: Expr = rows.bucket * length
    if data.history == "moment":
        moment = rows.time
        if data.request is not None:
            first = rows.time.min().over(ibis.window(group_by=["user", "request"]))
            moment = ibis.ifelse(rows.request.isnull(), rows.time, first)
        moment = ibis.least(moment, last_moment(moment, data) - length // SQUEEZED)
    return rows.mutate(moment=(moment - seconds(data.lag) * 1_000_000).cast("int64"))


def any_positive(rows: Table, settings: RunSettings) -> Expr:
    """Return whether a row has a label above 0."""
    return ibis.or_(*(rows[f"label_{task.name}"].fill_null(0) > 0 for task in settings.tasks))


def write_exposure_examples(
    rows: Table, settings: RunSettings, first: int, context: FeatureEncoders, writer: ExampleWriter
) -> None:
    """Write every exposure after the first cut as an example, in an order that does not depend on the log's.

    Args:
        rows: Rows with indices in place of ids.
        settings: Settings of the run.
        first: The last bucket without examples.
        context: Encoders of the context features.
        writer: Where the examples go.
    """
    rows = rows.filter(rows.bucket > first)
    context = with_lengths(rows, context)
    for batch in batches(in_order(rows, settings)):
        writer.write(**example_columns(batch, settings.task_names, context))


def in_order(rows: Table, settings: RunSettings) -> Table:
    """Return exposures in the order of their examples."""
    labels = [f"label_{name}" for name in settings.task_names]
    return rows.order_by(
        [
            rows.bucket,
            rows.user,
            rows.item,
            any_positive(rows, settings).desc(),
            *(rows[label].fill_null(-1).desc() for label in labels),
            *(name for name in sorted(rows.columns) if name not in ("bucket", "user", "item", *labels)),
        ]
    )


def with_lengths(rows: Table, context: FeatureEncoders) -> FeatureEncoders:
    """Return encoders for a file of these rows.

    A file has one width per several-valued feature, that of its longest row.
    """
    several = [feature for feature in context.features if feature.kind == "multi"]
    lengths = {feature.name: longest(rows[f"context_{feature.name}"], feature) for feature in several}
    return replace(context, lengths=lengths)


def example_columns(batch: pa.RecordBatch, tasks: Sequence[str], context: FeatureEncoders) -> dict[str, Any]:
    """Return what `example_table` takes of exposures.

    Args:
        batch: Rows of `in_order`.
        tasks: In label order.
        context: Of `with_lengths`.
    """
    columns = {
        name: batch.column(name).to_numpy(zero_copy_only=False)
        for name in ("user", "item", "bucket", "weight", "position", "uniform", "moment")
        if name in batch.schema.names
    }
    labels = [batch.column(f"label_{task}").to_numpy(zero_copy_only=False) for task in tasks]
    given = {feature.name: batch.column(f"context_{feature.name}") for feature in context.features}
    return {
        **columns,
        "labels": np.stack(labels, axis=1).astype(np.float32),
        "context": context.encode(given, len(batch)),
    }
