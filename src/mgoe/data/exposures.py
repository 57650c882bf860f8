"""Exposure logs: one row a shown item, a label column a task. Used as they are; a label becomes history when it is known."""

from __future__ import annotations

from dataclasses import replace

import ibis
import numpy as np
import pyarrow as pa

from mgoe._util.tables import batches
from mgoe.config import RunSettings, seconds
from mgoe.data.examples import ExampleWriter
from mgoe.data.expr import Expr, Table
from mgoe.data.features import FeatureEncoders
from mgoe.data.fit import longest
from mgoe.data.schema import Log
from mgoe.data.windows import bucket_of, within
from mgoe.errors import DataError


def check_labels(log: Log, settings: RunSettings) -> Table:
    """The log's rows, unless a task never or always happens.

    Raises:
        DataError: Its labels are all missing, or all the same.
    """
    for task in settings.tasks:
        label = log.table[f"label_{task.name}"]
        held = (
            log.table.aggregate(n=label.count(), low=label.min(), high=label.max())
            .to_pyarrow()
            .to_pylist()[0]
        )
        place = f"{log.place}, column {task.label!r}"
        if not held["n"]:
            raise DataError(
                place,
                f"task {task.name} needs labels, found every row null; name another column or leave the task out",
            )
        if held["low"] == held["high"]:
            often = (
                "never happens"
                if held["high"] == 0
                else "always happens"
                if task.kind == "binary"
                else "never varies"
            )
            found = f"found {held['low']:g} in all {held['n']} rows with a label"
            raise DataError(
                place,
                f"a task must happen in some rows and not in others, {task.name} {often}: {found}; leave it out or mend the column",
            )
    return log.table


def label_history(coded: Table, settings: RunSettings) -> Table:
    """One row a task done, at the moment it was known. Columns user, item, time, bucket, task."""
    parts = []
    for t, task in enumerate(settings.tasks):
        done = coded.filter(coded[f"label_{task.name}"] > 0)
        known = (
            done[f"known_{task.name}"]
            if task.known_at is not None
            else done.time + seconds(task.delay) * 1_000_000
        )
        parts.append(done.select("user", "item", time=known, task=ibis.literal(t, "int64").cast("int8")))
    history: Table = ibis.union(*parts) if len(parts) > 1 else parts[0]
    history = within(history, None, settings.data.end)
    return history.mutate(bucket=bucket_of(history.time, settings.data.bucket))


def any_positive(table: Table, settings: RunSettings) -> Expr:
    """Whether a row has a label above 0."""
    return ibis.or_(*(table[f"label_{task.name}"].fill_null(0) > 0 for task in settings.tasks))


def write_exposure_examples(
    coded: Table, settings: RunSettings, first: int, context: FeatureEncoders, writer: ExampleWriter
) -> None:
    """Every exposure after the first cut as an example, sorted so that the log's order changes nothing.

    Args:
        coded: Rows with codes in place of ids.
        settings: Of the run.
        first: The last bucket that has no examples.
        context: Encoders of the context features.
        writer: Where the examples go.
    """
    rows = coded.filter(coded.bucket > first)
    labels = [f"label_{task.name}" for task in settings.tasks]
    keys = [
        rows.bucket,
        rows.user,
        rows.item,
        any_positive(rows, settings).desc(),
        *(rows[label].fill_null(-1).desc() for label in labels),
    ]
    ordered = rows.order_by(
        [*keys, *(name for name in sorted(rows.columns) if name not in ("bucket", "user", "item", *labels))]
    )
    several = [
        feature for feature in context.features if feature.kind == "multi"
    ]  # a file has one width, which suits its longest row
    context = replace(
        context,
        lengths={feature.name: longest(rows[f"context_{feature.name}"], feature) for feature in several},
    )
    for batch in batches(ordered):
        columns = {name: batch.column(name) for name in batch.schema.names}
        encoded = context.encode(
            {feature.name: columns[f"context_{feature.name}"] for feature in context.features}, len(batch)
        )
        writer.write(
            *(_numpy(columns[name]) for name in ("user", "item", "bucket")),
            labels=np.stack([_numpy(columns[label]) for label in labels], axis=1).astype(np.float32),
            weight=_numpy(columns["weight"]) if "weight" in columns else None,
            position=_numpy(columns["position"]) if "position" in columns else None,
            context=encoded,
        )


def _numpy(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
