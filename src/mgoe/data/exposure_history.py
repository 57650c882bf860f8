"""The exposures of a log as history: what was shown, and what was labelled and done, each from when it is
known.

An exposure is one record when it is shown. Its labels are part of that record if they are known in the same
bucket; otherwise each is a record of its own, in the bucket in which it becomes known. Ones and zeros enter
together, so that a recent rate is not too low because its ones are still to come.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import ibis
import numpy as np
import pyarrow as pa

from mgoe._util.tables import hand_over
from mgoe.config import RunSettings, TaskSettings, seconds
from mgoe.data.arrow import one_array, pc
from mgoe.data.columns import Expr, Table
from mgoe.data.features import FeatureEncoders, fit_encoders, listed
from mgoe.data.times import bucket_of, microseconds
from mgoe.data.waiting import known_from

LAST_BUCKET = 2**31 - 1
"""Bucket of a label that is known so late that its bucket number does not fit 32 bits."""
VALUE_UNIT = 1e-6
"""Regression labels are summed as integers in this unit, so that their order does not matter; at most
9e12, which 64 bits hold."""


def exposure_history(rows: Table, settings: RunSettings) -> Table:
    """Return the records of an exposure log, in any order.

    Args:
        rows: Rows of the log with indices in place of ids and with codes of categories, see `with_codes` and
            `with_lists`.
        settings: Settings of the run; `data` and `tasks` are read.

    Returns:
        `user`, `item`; `bucket`; `shown` (1, or 0 for labels that became known later); `labelled` and `done`,
        with bit t set for task t; `value_<task>` of a labelled regression in `VALUE_UNIT`, else 0;
        `context_<name>`, the index of each category, of several-valued features a list of those that differ;
        and `position` if the log has one, from 1, 0 where it is unknown. Where rows read up to moments, also
        `time`, from when an exposure was shown, and `known`, from when the labels of the record are.
    """
    length, end = settings.data.bucket, settings.data.end
    spaces = {task.name: _spaces(task, settings.tasks) for task in settings.tasks}
    timed = settings.data.history != "cut"
    later = {
        name: _known(rows, space, settings)
        for name, space in spaces.items()
        if timed or any(task.known_at is not None or seconds(task.delay) for task in space)
    }
    inside = {
        name: ibis.literal(True) if end is None else moment < microseconds(end, settings.data.timezone)
        for name, moment in later.items()
    }
    waits = {name: {(task.known_at, task.delay) for task in space} for name, space in spaces.items()}
    first, *_ = spaces
    at_once = {  # a record that has times has one for all of its labels
        name: (bucket_of(moment, length) == rows.bucket) & (not timed or waits[name] == waits[first])
        for name, moment in later.items()
    }
    counts = dict.fromkeys(spaces, ibis.literal(True)) | {
        name: at_once[name] & inside[name] for name in later
    }
    shown = _records(rows, settings, counts, rows.bucket, rows.time, later.get(first), shown=1)
    late = [
        _records(
            rows,
            settings,
            {name: ~at_once[name] & inside[name]},
            ibis.least(bucket_of(moment, length), LAST_BUCKET),
            moment,
            moment,
            shown=0,
        ).filter(ibis._.labelled > 0)
        for name, moment in later.items()
    ]
    return ibis.union(shown, *late) if late else shown


def with_codes(rows: Table, context: FeatureEncoders) -> Table:
    """Return the rows with the index of each category of the context in place of its value.

    Each distinct value is encoded as in an example: an engine writes numbers and moments as text in its own
    way. Values that the encoder does not know get numbers below 0, each its own, so that rows that differ
    still differ.

    Args:
        rows: Rows of the log.
        context: Encoders of the context features.
    """
    for name in context.names("categorical"):
        column, vocabulary = f"context_{name}", context.vocabularies[name]
        values = one_array(rows.select(value=rows[column]).distinct().to_pyarrow()["value"])
        known = vocabulary.indices(values) + 1
        table = pa.table({"value": values, "code": np.where(known > 0, known, -np.arange(len(values)) - 1)})
        held = hand_over(rows.get_backend(), f"{column}_codes", table.filter(pc.is_valid(table["value"])))
        joined = rows.left_join(held, rows[column] == held.value)
        rows = joined.mutate(**{column: joined.code.fill_null(0).cast("int32")}).drop("value", "code")
    return rows


def with_lists(rows: Table, context: FeatureEncoders) -> Table:
    """Return the rows with the indices of their distinct categories in place of several-valued features.

    The engine takes the lists apart and puts them together again: there may be as many as rows.

    Args:
        rows: Rows of the log, each once: lists that differ may have the same categories.
        context: Encoders of the context features.
    """
    for feature in context.features:
        if feature.kind != "multi":
            continue
        column = f"context_{feature.name}"
        lists = rows.select(several=rows[column]).distinct()
        each = lists.mutate(value=listed(lists.several, feature).unnest())
        values = one_array(each.select("value").distinct().to_pyarrow()["value"])
        alone = pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)
        codes = context.encode({feature.name: alone}, len(values))[feature.name][:, 0]
        table = pa.table({"value": values, "code": pa.array(codes, pa.int32())})
        held = hand_over(
            rows.get_backend(), f"{column}_codes", table.filter(pc.greater_equal(table["code"], 0))
        )
        known = each.join(held, each.value == held.value).select("several", "code").distinct()
        again = known.group_by("several").aggregate(codes=known.code.collect().sort())
        joined = rows.left_join(again, rows[column] == again.several)
        nothing = ibis.literal([], "array<int32>")
        rows = joined.mutate(**{column: joined.codes.fill_null(nothing)}).drop("several", "codes")
    return rows


def fit_context(rows: Table, settings: RunSettings) -> FeatureEncoders:
    """Return encoders of the context features, fitted on rows with their `bucket`."""
    columns = {feature.name: f"context_{feature.name}" for feature in settings.data.context}
    return fit_encoders(rows, columns, settings.data.context, order="bucket")


def _records(
    rows: Table,
    settings: RunSettings,
    counts: Mapping[str, Expr],
    bucket: Expr,
    time: Expr,
    known: Expr | None,
    shown: int,
) -> Table:
    """Return a record per row.

    Args:
        rows: Rows of the log.
        settings: Settings of the run.
        counts: Whether a label is part of the row's record, by task; labels of other tasks are not.
        bucket: The bucket of the record.
        time: When its exposure was shown.
        known: When its labels are known; None where all of a bucket are.
        shown: 1 if the record is that of the exposure itself, else 0.
    """
    labelled: Expr = ibis.literal(0)
    done: Expr = ibis.literal(0)
    values: dict[str, Expr] = {}
    for t, task in enumerate(settings.tasks):
        label = _label(rows, task, settings.tasks)
        held = counts[task.name] & label.notnull() if task.name in counts else ibis.literal(False)
        labelled += ibis.ifelse(held, 1 << t, 0)
        done += ibis.ifelse(held & (label > 0).fill_null(False), 1 << t, 0)
        if task.kind == "regression":
            values[f"value_{task.name}"] = ibis.ifelse(
                held, (label.clip(upper=9e12) / VALUE_UNIT).round(), 0
            ).cast("int64")
    where: dict[str, Expr] = {}
    for feature in settings.data.context:
        if feature.kind != "numeric":
            codes = rows[f"context_{feature.name}"]
            where[f"context_{feature.name}"] = codes if feature.kind == "multi" else ibis.greatest(codes, 0)
    if "position" in rows.columns:
        where["position"] = (rows.position + 1).cast("int32")
    if settings.data.history != "cut":
        where |= {"time": time, "known": known}
    return rows.select(
        "user",
        "item",
        bucket=bucket.cast("int32"),
        shown=ibis.literal(shown, "int8"),
        labelled=labelled.cast("int32"),
        done=done.cast("int32"),
        **values,
        **where,
    )


def _label(rows: Table, task: TaskSettings, tasks: Sequence[TaskSettings]) -> Expr:
    """Return the label of a task, null outside its sample space."""
    label = rows[f"label_{task.name}"]
    if task.given is None:
        return label
    given = next(one for one in tasks if one.name == task.given)
    return ibis.ifelse(_label(rows, given, tasks) == 1, label, None)


def _spaces(task: TaskSettings, tasks: Sequence[TaskSettings]) -> list[TaskSettings]:
    """Return a task, the task that it is given, the one that this is given, and so on."""
    found = [task]
    while (given := found[-1].given) is not None:
        found.append(next(one for one in tasks if one.name == given))
    return found


def _known(rows: Table, spaces: Sequence[TaskSettings], settings: RunSettings) -> Expr:
    """Return the moment from which a label and its sample space are known.

    A label that is known before that of the task that it is given would tell that one.

    Args:
        rows: Rows of the log.
        spaces: Of `_spaces`.
        settings: Settings of the run; `data` is read.
    """
    return reduce(ibis.greatest, (known_from(rows, task, settings.data) for task in spaces))
