"""The newest rows of a log, which the history does not hold yet, as labelled examples: to calibrate with."""

import ibis
import numpy as np

from mgoe.config import RunSettings, TaskSettings
from mgoe.data.arrow import one_array
from mgoe.data.columns import Expr, Table
from mgoe.data.events import positives, task_masks, with_negatives, with_task_mask
from mgoe.data.examples import Examples, mask_given
from mgoe.data.prepared import Encoders
from mgoe.data.requests import merged
from mgoe.data.schema import NODES
from mgoe.data.times import bucket_of
from mgoe.data.waiting import final_at
from mgoe.errors import DataError


def newest_window(rows: Table, settings: RunSettings, known: Encoders, place: str, now: int) -> Examples:
    """Return new rows as examples: every exposure, or every positive with its sampled negatives.

    A label that is not final yet, as `known_at` and `delay` of its task say, is missing.

    Args:
        rows: The new rows alone, as `read_rows` returns them.
        settings: Settings of the run; `data`, `tasks` and `negatives` are read.
        known: What the model knows; ids that are not in its vocabularies get -1.
        place: What the rows are, for messages.
        now: The present in microseconds since 1970.

    Returns:
        The examples, all of snapshot 0.

    Raises:
        DataError: No row does a task.

    Example:
        >>> import pandas as pd
        >>> from mgoe.data import as_table, read_rows
        >>> new = {"user_id": [7, 8], "item_id": [3, 4], "behavior": ["click", "buy"]}
        >>> new = as_table(pd.DataFrame(new).assign(timestamp=pd.Timestamp("2025-06-01 12:00")))
        >>> rows, _ = read_rows(new, settings, "today")
        >>> found = newest_window(rows, settings, bundle.encoders, "today", now=1_750_000_000_000_000)
        >>> found.labels[:2].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = merged(rows, settings)
    rows = rows.mutate(bucket=bucket_of(rows.time, settings.data.bucket)).distinct()
    if settings.form == "exposures":
        examples = _exposures(rows, settings, known, now)
    else:
        examples = _events(rows, settings, known)
    if not len(examples):
        raise DataError(place, "some rows must do a task, found none; name other files, or fix the tasks")
    return examples


def _events(rows: Table, settings: RunSettings, known: Encoders) -> Examples:
    """Return positives and the negatives drawn for them, as preparation draws them for validation."""
    ordered = positives(with_task_mask(rows, task_masks(settings))).order_by(["bucket", "user", "item"])
    found = ordered.to_pyarrow()
    users, items = (one_array(found[node]).dictionary_encode() for node in NODES)
    user, item = (codes.indices.to_numpy().astype(np.int64) for codes in (users, items))
    bucket, task_mask = (found[name].to_numpy().astype(np.int64) for name in ("bucket", "task_mask"))
    tasks = len(settings.tasks)
    user, item, bucket, labels = with_negatives(user, item, bucket, task_mask, tasks, settings.negatives)
    return Examples(
        user=known.users.indices(users.dictionary)[user],
        item=known.items.indices(items.dictionary)[item],
        bucket=bucket.astype(np.int32),
        snapshot=np.zeros(len(user), np.int16),
        labels=mask_given(labels, settings.tasks),
        weight=np.ones(len(user), np.float32),
    )


def _exposures(rows: Table, settings: RunSettings, known: Encoders, now: int) -> Examples:
    """Return every exposure, with the labels that are final."""
    labels = {f"label_{task.name}": _label(rows, task, now) for task in settings.tasks}
    contexts = [f"context_{feature.name}" for feature in settings.data.context]
    beside = [name for name in ("weight", "position") if name in rows.columns]
    wanted = rows.select("user", "item", "bucket", *contexts, *beside, **labels)
    found = wanted.order_by(wanted.columns).to_pyarrow()  # sums of floats depend on the order
    return Examples(
        user=known.users.indices(found["user"]),
        item=known.items.indices(found["item"]),
        bucket=found["bucket"].to_numpy().astype(np.int32),
        snapshot=np.zeros(len(found), np.int16),
        labels=mask_given(
            np.stack([found[name].to_numpy().astype(np.float32) for name in labels], axis=1), settings.tasks
        ),
        weight=found["weight"].to_numpy().astype(np.float32)
        if "weight" in beside
        else np.ones(len(found), np.float32),
        context=known.context_features.encode(
            {name.removeprefix("context_"): found[name] for name in contexts}, len(found)
        ),
        position=found["position"].to_numpy().astype(np.int64) if "position" in beside else None,
    )


def _label(rows: Table, task: TaskSettings, now: int) -> Expr:
    """Return a task's label, null where it is not final yet."""
    known_at = None if task.known_at is None else rows[f"known_{task.name}"]
    return ibis.ifelse(final_at(rows.time, known_at, task) <= now, rows[f"label_{task.name}"], None)
