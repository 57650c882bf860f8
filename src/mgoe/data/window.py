"""The newest rows of a log, which the history does not hold yet, as labelled examples: to calibrate with."""

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe.config import RunSettings, TaskSettings
from mgoe.data.arrow import one_array
from mgoe.data.columns import Expr, Table
from mgoe.data.events import (
    examples_of,
    positives,
    rows_per_task,
    task_masks,
    with_task_mask,
)
from mgoe.data.examples import Examples, mask_given
from mgoe.data.exposure_history import exposure_history, with_codes, with_lists
from mgoe.data.exposures import label_history, with_moments
from mgoe.data.prepared import Encoders
from mgoe.data.requests import merged
from mgoe.data.times import bucket_of
from mgoe.data.vocabulary import Vocabulary
from mgoe.data.waiting import final_at
from mgoe.errors import DataError


def newest_window(
    rows: Table,
    settings: RunSettings,
    known: Encoders,
    place: str,
    now: int,
    items: int | None = None,
    as_prepared: bool = False,
) -> Examples:
    """Return new rows as examples: every exposure, or every positive with its sampled negatives.

    A label that is not final yet, as `known_at` and `delay` of its task say, is missing.

    Args:
        rows: The new rows alone, as `read_rows` returns them.
        settings: Settings of the run; `data`, `tasks` and `negatives` are read.
        known: What the model knows; ids that are not in its vocabularies get -1.
        place: What the rows are, for messages.
        now: The present in microseconds since 1970.
        items: How many items, those of the smallest indices, were known before the rows; all by default.
        as_prepared: Draw the negatives that preparation draws. By default draws follow from ids alone, so
            that they are the same for bundles that number newcomers otherwise.

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
        items = known.items.size if items is None else items
        found = positives(with_task_mask(rows, task_masks(settings)), settings.data.history).to_pyarrow()
        examples = _events(found, settings, known, items, as_prepared) if len(found) else None
    if examples is None or not len(examples):
        raise DataError(place, "some rows must do a task, found none; name other files, or fix the tasks")
    return examples


def _events(
    found: pa.Table, settings: RunSettings, known: Encoders, items: int, as_prepared: bool
) -> Examples:
    """Return positives and the negatives drawn for them, as preparation draws them for validation."""
    columns, indices = {name: found[name].to_numpy() for name in found.column_names}, dict[str, NDArray]()
    for node, held in (("user", known.users), ("item", known.items)):
        ids = one_array(found[node]).unique().sort()
        index = held.indices(ids)
        order = np.argsort(index, kind="stable") if as_prepared else np.arange(len(ids))
        columns[node], indices[node] = Vocabulary(ids.take(order)).indices(found[node]), index[order]
    if "known" in columns:
        before = (indices["item"] >= 0) & (indices["item"] < items)
        columns["known"] = np.where(before[columns["item"]], np.iinfo(np.int64).min, columns["known"])
    whole = pa.table(columns).sort_by([(name, "ascending") for name in ("bucket", "user", "item")])
    parts = [*examples_of(whole, settings.negatives, len(settings.tasks), settings.data)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Examples(
        user=indices["user"][drawn["user"]],
        item=indices["item"][drawn["item"]],
        bucket=drawn["bucket"].astype(np.int32),
        snapshot=np.zeros(len(drawn["user"]), np.int16),
        labels=mask_given(drawn["labels"], settings.tasks),
        weight=np.ones(len(drawn["user"]), np.float32),
        moment=drawn.get("moment"),
    )


def later_events(rows: Table, settings: RunSettings, known: Encoders) -> list[NDArray[np.integer]]:
    """Return what the tasks of new rows are, as history has it: user, item (indices), time and task.

    Example:
        >>> import pandas as pd
        >>> from mgoe.data import as_table, read_rows
        >>> new = {"user_id": [7, 8], "item_id": [3, 4], "behavior": ["click", "buy"]}
        >>> new = as_table(pd.DataFrame(new).assign(timestamp=pd.Timestamp("2025-06-01 12:00")))
        >>> rows, _ = read_rows(new, settings, "today")
        >>> *_, tasks = later_events(rows, settings, bundle.encoders)
        >>> sorted(tasks.tolist())
        [0, 1]
    """
    rows = merged(rows, settings)
    if settings.form == "exposures":
        rows = label_history(rows, settings)
    else:
        rows = rows_per_task(rows, rows.behavior, task_masks(settings))
    found = rows.select("user", "item", "time", "task").to_pyarrow()
    users, items = known.users.indices(found["user"]), known.items.indices(found["item"])
    return [users, items, found["time"].to_numpy(), found["task"].to_numpy()]


def later_exposures(rows: Table, settings: RunSettings, known: Encoders) -> pa.Table:
    """Return what becomes known of new exposures, as `exposure_history` has it, with items by index."""
    rows = merged(rows, settings)
    rows = rows.mutate(bucket=bucket_of(rows.time, settings.data.bucket)).distinct()
    coded = with_lists(with_codes(rows, known.context_features), known.context_features)
    found = exposure_history(coded, settings).to_pyarrow().drop_columns(["user", "bucket"])
    items = pa.array(known.items.indices(found["item"]))
    return found.set_column(found.column_names.index("item"), "item", items)


def _exposures(rows: Table, settings: RunSettings, known: Encoders, now: int) -> Examples:
    """Return every exposure, with the labels that are final."""
    rows = with_moments(rows, settings)
    labels = {f"label_{task.name}": _label(rows, task, now) for task in settings.tasks}
    contexts = [f"context_{feature.name}" for feature in settings.data.context]
    beside = [name for name in ("weight", "position", "moment") if name in rows.columns]
    wanted = rows.select("user", "item", "bucket", *contexts, *beside, **labels)
    found = wanted.order_by(wanted.columns).to_pyarrow()  # sums of floats depend on the order
    return Examples(
        user=found["user"].to_numpy() if settings.data.user is None else known.users.indices(found["user"]),
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
        moment=found["moment"].to_numpy() if "moment" in beside else None,
    )


def _label(rows: Table, task: TaskSettings, now: int) -> Expr:
    """Return a task's label, null where it is not final yet."""
    known_at = None if task.known_at is None else rows[f"known_{task.name}"]
    return ibis.ifelse(final_at(rows.time, known_at, task) <= now, rows[f"label_{task.name}"], None)
