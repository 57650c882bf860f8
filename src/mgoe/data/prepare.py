"""From a log to a prepared folder."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.files import atomic_folder, write_json
from mgoe._util.tables import Frame
from mgoe.config import DataSettings, RunSettings, seconds
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.engines.local import Engine
from mgoe.data.erasures import ERASED, Erasures
from mgoe.data.events import (
    behavior_counts,
    check_behaviors,
    positives,
    rows_per_task,
    task_masks,
    with_task_mask,
)
from mgoe.data.examples import SPLITS, Split
from mgoe.data.exposure_history import exposure_history, fit_context, with_codes, with_lists
from mgoe.data.exposures import any_positive, check_labels, label_history, with_moments
from mgoe.data.history import ids_by_first_bucket, with_indices
from mgoe.data.log import place_of, work_database
from mgoe.data.prepared import EXPOSURES, FORMAT, MANIFEST, Prepared
from mgoe.data.requests import IDENTITY, merged, with_moment
from mgoe.data.rules import odd_buckets
from mgoe.data.schema import NODES
from mgoe.data.side import read_side
from mgoe.data.times import (
    bucket_of,
    check_first_snapshot,
    finer_than_buckets,
    make_cuts,
    moment_of,
    newest_buckets,
    rows_per_bucket,
    share_of_midnights,
    share_with_zone,
    snapshot_of,
)
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError, OutputError

WORK = "work"
"""Folder of what only a preparation reads, in the prepared folder."""


def prepare(settings: RunSettings, out: Path | str, table: Frame | None = None) -> Prepared:
    """Check a log, number its users and items, split it by time, and write examples and history.

    The folder appears complete or not at all: it is built beside its place and renamed.

    Args:
        settings: Settings of the run; `data`, `tasks`, `split`, `negatives`, `memory` and `training.rows` are
            read.
        out: The folder to write; must not exist.
        table: The log as a table of any Ibis backend, or a frame of pandas, polars or Arrow, instead of the
            files that `data.log` names.

    Raises:
        DataError: The log cannot be read or breaks a rule.
        OutputError: The folder exists or cannot be written.

    Example:
        >>> found = prepare(settings, Path("prepared"))
        >>> found.summary["rows"] == prepared.summary["rows"]
        True
    """
    out = Path(out)
    if out.exists():
        raise OutputError(
            out, "prepared data are written to a new folder, found one that exists; remove it or name another"
        )
    place = "the table" if table is not None else place_of(settings.data.log)
    with atomic_folder(out) as folder:
        with work_database(folder / WORK, place, settings.memory, settings.data.timezone) as con:
            try:
                with _engine(con, settings, folder) as engine:
                    manifest = _build(engine, engine.source(table), place)
            except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
                raise OutputError(
                    out,
                    f"cannot be written: {' '.join(str(error).split())}; free space, or choose another disk",
                ) from None
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        manifest["files"] = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
        write_json(folder / MANIFEST, manifest)
    return Prepared.open(out)


def _engine(con: Backend, settings: RunSettings, folder: Path) -> AbstractContextManager[Engine]:
    """Return the engine that the settings ask for; rows that it keeps are in the folder of the database."""
    if settings.data.engine == "spark":
        from mgoe.data.engines.spark import on_spark

        return on_spark(con, settings, folder, folder / WORK)
    return nullcontext(Engine(con, settings, folder))


def _build(engine: Engine, source: Table, place: str) -> dict[str, Any]:
    """Write everything but the manifest, and return the manifest."""
    settings, folder = engine.settings, engine.folder
    log, rows_read, dropped = _read_log(engine, source, place)
    midnights = share_of_midnights(log, settings.data.timezone)
    span = only_row(log.aggregate(since=log.time.min(), until=log.time.max()))
    _check_history(log, settings.data, span["until"] - span["since"], place)
    rows, ignored = _with_tasks(log, settings, place)
    ordered = ids_by_first_bucket(rows, rows.bucket, 1, settings.memory)
    first_buckets = {node: _number(ordered[node], node, settings, folder, place) for node in NODES}
    rows: Table = engine.keep("indexed", with_indices(rows, folder))
    engine.drop("log")
    if settings.form == "exposures":
        found = rows.filter(any_positive(rows, settings))
    else:
        found = engine.keep("positives", positives(rows, settings.data.history))
    buckets, counts = rows_per_bucket(found)
    cuts = make_cuts(settings.split, settings.data.bucket, buckets, counts, settings.data.timezone)
    sides = _write_side_features(engine.con, settings, folder)
    training = rows.filter(rows.bucket <= int(cuts[settings.split.valid_window]))
    context = fit_context(training, settings)
    context.save(folder / "context")
    events = _write_history(engine, rows, cuts)
    if settings.form == "exposures":
        records = exposure_history(with_lists(with_codes(rows, context), context), settings)
        engine.write(EXPOSURES, records.order_by(records.columns))
    first = int(cuts[0])
    if (limit := settings.training.rows) is not None:
        at_most = (
            (buckets, counts * (1 + settings.negatives.ratio))
            if settings.form == "events"
            else rows_per_bucket(rows)
        )
        first = newest_buckets(limit, *at_most, first, int(cuts[settings.split.valid_window]))
    if settings.form == "events":
        engine.write_events(found, buckets, counts, first, cuts)
    else:
        engine.write_exposures(with_moments(rows, settings), context, first, cuts)
    splits: dict[Split, dict[str, Any]] = {
        split: _count_split(engine.opened(f"{split}.parquet"), settings, cuts) for split in SPLITS
    }
    if settings.form == "events" and not splits["train"]["negatives"]:
        raise DataError(
            f"{place}, data.bucket",
            "a negative is an item that another user did in the same bucket, and no training bucket has two "
            "users, "
            f"found a bucket of {settings.data.bucket}; take a longer one",
        )
    known = {
        node: [*np.searchsorted(first, cuts, side="right").tolist(), len(first)]
        for node, first in first_buckets.items()
    }
    counted = {
        "form": settings.form,
        "rows": rows_read,
        "dropped_rows": dropped,
        "users": known["user"][-1],
        "items": known["item"][-1],
        "ignored_behaviors": ignored,
        "events": events,
        "side": sides,
        ERASED: 0 if settings.data.erased is None else len(Erasures.read(Path(settings.data.erased)).entries),
        "bucket": settings.data.bucket,
        "odd_buckets": buckets[odd_buckets(settings.data.bucket, buckets, counts)].tolist(),
        **_left_out(found, first, sum(held["positives"] for held in splits.values()), settings),
        "cuts": [moment_of(int(cut) + 1, settings.data.bucket, settings.data.timezone) for cut in cuts],
        "with_zone": share_with_zone(source, settings.data.time),
        "midnights": midnights,
    }
    return {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json", include={"data", "tasks", "split", "negatives"}),
        "tasks": list(settings.task_names),
        "cuts": cuts.tolist(),
        "until": int(span["until"]),
        "users_at": known["user"],
        "items_at": known["item"],
        "summary": counted | _summary_of(splits, settings),
    }


def _read_log(engine: Engine, source: Table, place: str) -> tuple[Table, int, dict[str, int]]:
    """Check the log and copy its distinct rows with their buckets. Return them, all rows, and those left
    out."""
    settings = engine.settings
    rows, count = engine.read(source, place)
    rows = rows.mutate(bucket=bucket_of(rows.time, settings.data.bucket))
    log: Table = engine.keep("log", merged(rows, settings).distinct())
    held = only_row(log.aggregate(rows=log.count(), low=log.bucket.min(), high=log.bucket.max()))
    far = max(held["low"] or 0, held["high"] or 0, key=abs)
    if abs(far) >= 2**31:
        raise DataError(
            place,
            f"bucket numbers must fit 32 bits, found {far} with data.bucket {settings.data.bucket}; "
            "take longer buckets or fix the times",
        )
    inside = int(rows.count().to_pyarrow().as_py())
    if not inside:
        span = f"from {settings.data.start or 'the first'} to {settings.data.end or 'the last'}"
        raise DataError(
            place,
            f"some rows must be between data.start and data.end, found none of {count} {span}; move these "
            "dates",
        )
    repeats = inside - int(held["rows"])
    if settings.data.duplicates == "refuse" and repeats:
        by_request = settings.data.request is not None
        same = with_moment(rows).group_by(IDENTITY) if by_request else rows.group_by(rows.columns)
        repeated = same.aggregate(times=ibis._.count(), since=ibis._.bucket.min())
        first = only_row(repeated.filter(repeated.times > 1).order_by(["since", "user", "item"]).limit(1))
        rule = "no exposure may have two rows" if by_request else "no row may repeat every column"
        raise DataError(
            place,
            f"{rule}, found {repeats} repeats, the first of user {first['user']}, "
            f"item {first['item']}; remove them or set data.duplicates: drop",
        )
    engine.drop("raw")
    missing = int(source.count().to_pyarrow().as_py()) - count  # of which the settings say `drop`
    return log, count, {"outside_time": count - inside, "duplicates": repeats, "missing_ids": missing}


def _check_history(log: Table, data: DataSettings, span: int, place: str) -> None:
    """Refuse moments and a lag that the times of a log do not have; the span is in microseconds."""
    if seconds(data.lag) * 1_000_000 > span:
        raise DataError(
            f"{place}, data.lag",
            f"a lag must be shorter than the log, found {data.lag} and a log of {span / 3.6e9:.1f} hours; "
            "take a shorter one",
        )
    if data.history == "moment" and not finer_than_buckets(log):
        raise DataError(
            f"{place}, column {data.time!r}",
            "data.history: moment needs times that are finer than buckets, found that most rows are in "
            f"buckets of {data.bucket} with a single time; set data.history: bucket, or take longer buckets",
        )


def _with_tasks(log: Table, settings: RunSettings, place: str) -> tuple[Table, dict[str, int]]:
    """Check that every task happens. Return the rows that count, and the number of rows of other
    behaviours."""
    if settings.form == "exposures":
        check_labels(log, settings, place)
        return log, {}
    counts = behavior_counts(log)
    check_behaviors(counts, settings, place)
    masks = task_masks(settings)
    return with_task_mask(log, masks), {name: n for name, n in counts.items() if name not in masks}


def _number(
    ordered: pa.Table, node: str, settings: RunSettings, folder: Path, place: str
) -> NDArray[np.int64]:
    """Write the ids of users or items in the order of their indices. Return the first bucket of each. Shape
    (n,)."""
    if len(ordered) < 2 and getattr(settings.data, node) is not None:
        raise DataError(
            f"{place}, column {getattr(settings.data, node)!r}",
            f"at least two {node}s are needed to rank, found only {ordered['id'][0].as_py()!r}; "
            f"is data.{node} the right column?",
        )
    Vocabulary(ordered["id"]).save(folder / f"{node}s.parquet")
    return ordered["first"].to_numpy().astype(np.int64)


def _write_side_features(con: Backend, settings: RunSettings, folder: Path) -> dict[str, dict[str, int]]:
    counts = {}
    for node in NODES:
        nodes, table = Vocabulary.load(folder / f"{node}s.parquet"), getattr(settings.data, f"{node}s")
        side, counts[f"{node}s"] = read_side(con, table, nodes, f"data.{node}s")
        side.save(folder / f"{node}_side")
    return counts


def _write_history(engine: Engine, rows: Table, cuts: NDArray[np.int32]) -> dict[str, int]:
    """Write one row per event and task, in an order that does not depend on the log's. Return the rows per
    task."""
    settings = engine.settings
    events = (
        label_history(rows, settings)
        if settings.form == "exposures"
        else rows_per_task(rows, rows.task_mask, {mask: mask for mask in task_masks(settings).values()})
    )
    history = events.select(
        "user",
        "item",
        "time",
        bucket=events.bucket.cast("int32"),
        snapshot=snapshot_of(events.bucket, cuts),
        task=events.task,
    ).order_by(["bucket", "user", "item", "time", "task"])
    written = engine.write("history.parquet", history)
    check_first_snapshot(written, settings.split, settings.data.bucket, cuts, settings.data.timezone)
    per_task = written.group_by("task").aggregate(n=ibis._.count()).to_pyarrow()
    counts = dict(zip(per_task["task"].to_pylist(), per_task["n"].to_pylist(), strict=True))
    return {name: counts.get(t, 0) for t, name in enumerate(settings.task_names)}


def _count_split(rows: Table, settings: RunSettings, cuts: NDArray[np.int32]) -> dict[str, Any]:
    """Count the examples of a split.

    `history_age` is the mean number of buckets between a row and the end of the history that it reads.
    """
    labels = {name: rows[f"label.{name}"] for name in settings.task_names}
    done = {name: (label > 0).fill_null(False) for name, label in labels.items()}
    positive: Expr = ibis.or_(*done.values())
    ends: Expr = ibis.literal(cuts.tolist(), "array<int64>")
    held = only_row(
        rows.aggregate(
            examples=rows.count(),
            positives=positive.sum(),
            age=(rows.bucket - ends[rows.snapshot]).sum(),
            **{f"labels {name}": label.count() for name, label in labels.items()},
            **{f"done {name}": label.sum() for name, label in done.items()},
        )
    )
    counts = {name: int(count or 0) for name, count in held.items()}
    user_buckets = rows.filter(positive).select("user", "bucket").distinct().count().to_pyarrow().as_py()
    return {
        "examples": counts["examples"],
        "positives": counts["positives"],
        "negatives": counts["examples"] - counts["positives"],
        "user_buckets": user_buckets,
        "history_age": counts["age"] / max(1, counts["examples"]),
        "tasks": {
            name: {"labels": counts[f"labels {name}"], "positives": counts[f"done {name}"]} for name in labels
        },
    }


def _left_out(found: Table, first: int, kept: int, settings: RunSettings) -> dict[str, dict[str, float]]:
    """Return `left_out`, shares of the positives that are no examples where negatives are drawn at moments.

    `unknown`: items without an event before the moment. `thinned`: their draws were dropped.
    """
    if settings.form == "exposures" or settings.data.history != "moment":
        return {}
    rows = found.filter(found.bucket > first)
    known: Expr = rows.known < rows.moment - seconds(settings.data.lag) * 1_000_000
    held = only_row(rows.aggregate(all=rows.count(), known=known.sum()))
    unknown, thinned = held["all"] - held["known"], held["known"] - kept
    return {"left_out": {"unknown": unknown / held["all"], "thinned": thinned / held["all"]}}


def _summary_of(splits: Mapping[Split, Mapping[str, Any]], settings: RunSettings) -> dict[str, Any]:
    """Return the counts of all splits, what a recalibration of sampled negatives needs, and warnings.

    The recalibration needs two figures of train: `negatives_per_positive`, examples without any task done for
    each with one, and `positives_per_user_bucket`, positive examples of a user in a bucket that has any.
    Warnings name tasks whose labels are all the same in a split, and training data with few negatives.
    """
    wanted, train = settings.negatives.ratio, splits["train"]
    drawn = train["negatives"] / max(1, train["positives"])
    warnings = [
        f"task {task.name} has {found['positives']} positives among {found['labels']} labels in {split}"
        for split, counts in splits.items()
        for task, found in zip(settings.tasks, counts["tasks"].values(), strict=True)
        if task.kind == "binary" and found["positives"] in (0, found["labels"])
    ]
    if settings.form == "events" and drawn < wanted / 2:
        warnings.append(
            f"only {drawn:.2g} negatives per positive were drawn in train, of {wanted} wanted; "
            "a longer data.bucket has more users to draw from"
        )
    return {
        "splits": dict(splits),
        "negatives_per_positive": drawn,
        "positives_per_user_bucket": train["positives"] / max(1, train["user_buckets"]),
        "warnings": warnings,
    }
