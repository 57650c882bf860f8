"""From a log to a prepared folder."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.files import as_pattern, atomic_folder, write_json
from mgoe._util.tables import Frame
from mgoe.config import RunSettings
from mgoe.data.checks import Table, only_row
from mgoe.data.events import (
    behavior_counts,
    check_behaviors,
    positives,
    rows_per_task,
    task_masks,
    with_task_mask,
    write_event_examples,
)
from mgoe.data.example_file import ExampleWriter
from mgoe.data.exposures import any_positive, check_labels, label_history, write_exposure_examples
from mgoe.data.features import FeatureEncoders, fit_encoders
from mgoe.data.log import connect, drop, open_source, place_of, unreadable
from mgoe.data.numbering import ids_by_first_bucket, with_indices
from mgoe.data.prepared import FORMAT, MANIFEST, Prepared
from mgoe.data.schema import NODES, read_rows
from mgoe.data.side import read_side
from mgoe.data.summary import summarise
from mgoe.data.vocabulary import Vocabulary
from mgoe.data.windows import bucket_of, check_first_snapshot, make_cuts, rows_per_bucket, snapshot_of
from mgoe.errors import DataError, OutputError


def prepare(settings: RunSettings, out: Path | str, table: Frame | None = None) -> Prepared:
    """Check a log, number its users and items, split it by time, and write examples and history.

    The folder appears complete or not at all: it is built beside its place and renamed.

    Args:
        settings: Settings of the run; `data`, `tasks`, `split` and `negatives` are read.
        out: The folder to write; must not exist.
        table: The log as a table of any Ibis backend, or a frame of pandas, polars or Arrow, instead of the
            files that `data.log` names.

    Raises:
        DataError: The log cannot be read or breaks a rule.
        OutputError: The folder exists or cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise OutputError(
            out, "prepared data are written to a new folder, found one that exists; remove it or name another"
        )
    place = "the table" if table is not None else place_of(settings.data.log)
    with atomic_folder(out) as folder:
        work = folder / "work"
        work.mkdir()
        con = connect(work)
        try:
            manifest = _build(con, settings, folder, open_source(con, settings.data, table), place)
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            reason = " ".join(str(error).split())
            raise OutputError(
                out, f"cannot be written: {reason}; free space, or choose another disk"
            ) from None
        except duckdb.Error as error:
            raise unreadable(place, error) from None
        finally:
            con.disconnect()
            shutil.rmtree(work)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        manifest["files"] = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
        write_json(folder / MANIFEST, manifest)
    return Prepared.open(out)


def _build(con: Backend, settings: RunSettings, folder: Path, source: Table, place: str) -> dict[str, Any]:
    """Write everything but the manifest, and return the manifest."""
    log, rows_read, dropped = _read_log(con, source, settings, place)
    rows, ignored = _with_tasks(log, settings, place)
    first_buckets = {node: _number(rows, node, settings, folder, place) for node in NODES}
    rows = _indexed(con, rows, folder)
    found = _positives(con, rows, settings)
    buckets, counts = rows_per_bucket(found)
    cuts = make_cuts(settings.split, settings.data.bucket, buckets, counts)
    sides = _write_side_features(con, settings, folder)
    context = _write_context_encoders(rows, settings, cuts, folder)
    events = _write_history(con, rows, settings, cuts, folder)
    with ExampleWriter(folder, cuts, settings.tasks) as writer:
        if settings.form == "events":
            write_event_examples(found, buckets, counts, cuts, settings, writer)
        else:
            write_exposure_examples(rows, settings, int(cuts[0]), context, writer)
    if settings.form == "events" and not writer.tallies["train"].negatives:
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
        "rows": rows_read,
        "dropped_rows": dropped,
        "users": known["user"][-1],
        "items": known["item"][-1],
        "ignored_behaviors": ignored,
        "events": events,
        "side": sides,
    }
    return {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json", include={"data", "tasks", "split", "negatives"}),
        "tasks": list(settings.task_names),
        "cuts": cuts.tolist(),
        "users_at": known["user"],
        "items_at": known["item"],
        "summary": summarise(settings, counted, cuts, writer.tallies),
    }


def _read_log(
    con: Backend, source: Table, settings: RunSettings, place: str
) -> tuple[Table, int, dict[str, int]]:
    """Check the log and copy its distinct rows with their buckets. Return them, all rows, and those left
    out."""
    rows, count = read_rows(source, settings, place, con)
    rows = rows.mutate(bucket=bucket_of(rows.time, settings.data.bucket))
    log: Table = con.create_table("log", rows.distinct())
    inside, kept = int(rows.count().to_pyarrow().as_py()), _check_buckets(log, settings.data.bucket, place)
    if not inside:
        span = f"from {settings.data.start or 'the first'} to {settings.data.end or 'the last'}"
        raise DataError(
            place,
            f"some rows must be between data.start and data.end, found none of {count} {span}; move these "
            "dates",
        )
    if settings.data.duplicates == "refuse" and inside > kept:
        _refuse_duplicates(rows, inside - kept, place)
    drop(con, "raw")
    return log, count, {"outside_time": count - inside, "duplicates": inside - kept}


def _check_buckets(log: Table, length: str, place: str) -> int:
    """Require bucket numbers of 32 bits. Return the number of rows."""
    held = only_row(log.aggregate(rows=log.count(), low=log.bucket.min(), high=log.bucket.max()))
    far = max(held["low"] or 0, held["high"] or 0, key=abs)
    if abs(far) >= 2**31:
        raise DataError(
            place,
            f"bucket numbers must fit 32 bits, found {far} with data.bucket {length}; "
            "take longer buckets or fix the times",
        )
    return int(held["rows"])


def _refuse_duplicates(rows: Table, count: int, place: str) -> None:
    repeated = rows.group_by(rows.columns).aggregate(times=ibis._.count())
    first = only_row(repeated.filter(repeated.times > 1).order_by(["bucket", "user", "item"]).limit(1))
    raise DataError(
        place,
        f"no row may repeat every column, found {count} repeats, the first of user {first['user']}, "
        f"item {first['item']}; remove them or set data.duplicates: drop",
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


def _number(rows: Table, node: str, settings: RunSettings, folder: Path, place: str) -> NDArray[np.int64]:
    """Number users or items by first bucket, then id, and write them. Return the first bucket of each. Shape
    (n,)."""
    ordered = ids_by_first_bucket(rows, node, rows.bucket.min())
    if len(ordered) < 2:
        raise DataError(
            f"{place}, column {getattr(settings.data, node)!r}",
            f"at least two {node}s are needed to rank, found only {ordered['id'][0].as_py()!r}; "
            f"is data.{node} the right column?",
        )
    Vocabulary(ordered["id"]).save(folder / f"{node}s.parquet")
    return ordered["first"].to_numpy().astype(np.int64)


def _indexed(con: Backend, rows: Table, folder: Path) -> Table:
    ids = {node: pq.read_table(folder / f"{node}s.parquet")["id"] for node in NODES}
    indexed = con.create_table("indexed", with_indices(rows, ids))
    drop(con, "log")
    return indexed


def _positives(con: Backend, rows: Table, settings: RunSettings) -> Table:
    """Return one row per positive example."""
    if settings.form == "exposures":
        return rows.filter(any_positive(rows, settings))
    return con.create_table("positives", positives(rows))


def _write_side_features(con: Backend, settings: RunSettings, folder: Path) -> dict[str, dict[str, int]]:
    counts = {}
    for node in NODES:
        nodes, key = Vocabulary.load(folder / f"{node}s.parquet"), f"data.{node}s"
        side, counts[f"{node}s"] = read_side(con, getattr(settings.data, f"{node}s"), nodes, key)
        side.save(folder / f"{node}_side")
    return counts


def _write_context_encoders(
    rows: Table, settings: RunSettings, cuts: NDArray[np.int32], folder: Path
) -> FeatureEncoders:
    """Fit the encoders of context features on the rows up to the end of training."""
    columns = {feature.name: f"context_{feature.name}" for feature in settings.data.context}
    known = rows.filter(rows.bucket <= int(cuts[-2]))
    context = fit_encoders(known, columns, settings.data.context, order="bucket")
    context.save(folder / "context")
    return context


def _write_history(
    con: Backend, rows: Table, settings: RunSettings, cuts: NDArray[np.int32], folder: Path
) -> dict[str, int]:
    """Write one row per event and task, in an order that does not depend on the log's. Return the rows per
    task."""
    path = folder / "history.parquet"
    if settings.form == "exposures":
        events = label_history(rows, settings)
    else:
        events = rows_per_task(rows, rows.task_mask, {mask: mask for mask in task_masks(settings).values()})
    history = events.select(
        "user",
        "item",
        "time",
        bucket=events.bucket.cast("int32"),
        snapshot=snapshot_of(events.bucket, cuts),
        task=events.task,
    )
    history.order_by(["bucket", "user", "item", "time", "task"]).to_parquet(path, compression="zstd")
    written = con.read_parquet(as_pattern(path))
    check_first_snapshot(written, settings.split, settings.data.bucket, cuts)
    per_task = written.group_by("task").aggregate(n=ibis._.count()).to_pyarrow().to_pylist()
    counts = {row["task"]: row["n"] for row in per_task}
    return {name: counts.get(t, 0) for t, name in enumerate(settings.task_names)}
