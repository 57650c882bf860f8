"""From a log to a prepared folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.files import as_pattern, atomic_folder, write_json
from mgoe._util.tables import Frame
from mgoe.config import RunSettings
from mgoe.data.events import positives, task_events, task_history, write_event_examples
from mgoe.data.examples import ExampleWriter
from mgoe.data.exposures import any_positive, check_labels, label_history, write_exposure_examples
from mgoe.data.expr import Table
from mgoe.data.fit import fit_encoders
from mgoe.data.log import connect, drop, open_source, place_of, unreadable
from mgoe.data.prepared import FORMAT, MANIFEST, Prepared
from mgoe.data.schema import read_log
from mgoe.data.side import read_side
from mgoe.data.summary import summarise
from mgoe.data.vocabulary import Vocabulary
from mgoe.data.windows import check_first_snapshot, make_cuts, snapshot_of
from mgoe.errors import DataError, OutputError


def prepare(settings: RunSettings, out: Path | str, table: Frame | None = None) -> Prepared:
    """Check a log, number its users and items, split it by time, and write examples and history.

    The folder appears whole or not at all: it is built beside and renamed.

    Args:
        settings: Of the run; `data`, `tasks`, `split` and `negatives` are read.
        out: The folder to write; must not exist.
        table: The log as a table of any Ibis backend, or a frame of pandas, polars or Arrow, instead of the files that `data.log` names.

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
            manifest = _build(con, settings, folder, table, place)
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


def _build(
    con: Backend, settings: RunSettings, folder: Path, table: Frame | None, place: str
) -> dict[str, Any]:
    log = read_log(con, open_source(con, settings.data, table), settings, place)
    events = settings.form == "events"
    rows, ignored = task_events(log, settings) if events else (check_labels(log, settings), {})
    first = {
        f"{node}s": _number(con, rows, node, column, folder, place)
        for node, column in _nodes(settings).items()
    }
    coded = _encode(con, rows)
    found = positives(con, coded) if events else coded.filter(any_positive(coded, settings))
    buckets, counts = _counts(found)
    cuts = make_cuts(settings.split, settings.data.bucket, buckets, counts)
    sides = _write_sides(con, settings, folder)
    columns = {feature.name: f"context_{feature.name}" for feature in settings.data.context}
    context = fit_encoders(
        coded.filter(coded.bucket <= int(cuts[-2])), columns, settings.data.context, order="bucket"
    )
    context.save(folder / "context")
    history = task_history(coded, len(settings.tasks)) if events else label_history(coded, settings)
    done = _write_history(con, history, cuts, folder / "history.parquet", settings.task_names)
    check_first_snapshot(
        con.read_parquet(as_pattern(folder / "history.parquet")), settings.split, settings.data.bucket, cuts
    )
    with ExampleWriter(folder, cuts, settings.tasks) as writer:
        if events:
            write_event_examples(
                found,
                buckets,
                counts,
                int(cuts[0]),
                int(cuts[-2]),
                settings.negatives,
                len(settings.tasks),
                writer,
            )
        else:
            write_exposure_examples(coded, settings, int(cuts[0]), context, writer)
    if events and not (taught := writer.tallies["train"]).examples - taught.positives:
        rule = "a negative is an item that another user did in the same bucket, and no training bucket has two users"
        raise DataError(
            f"{place}, data.bucket", f"{rule}, found a bucket of {settings.data.bucket}; take a longer one"
        )
    known = {
        node: [*np.searchsorted(buckets, cuts, side="right").tolist(), len(buckets)]
        for node, buckets in first.items()
    }
    counted = {
        "users": known["users"][-1],
        "items": known["items"][-1],
        "ignored_behaviors": ignored,
        "events": done,
        "side": sides,
    }
    return {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json", include={"data", "tasks", "split", "negatives"}),
        "tasks": list(settings.task_names),
        "cuts": cuts.tolist(),
        "users_at": known["users"],
        "items_at": known["items"],
        "summary": summarise(settings, log, counted, cuts, writer.tallies),
    }


def _nodes(settings: RunSettings) -> dict[str, str]:
    return {"user": settings.data.user, "item": settings.data.item}


def _write_sides(con: Backend, settings: RunSettings, folder: Path) -> dict[str, dict[str, int]]:
    counts = {}
    for node, table in {"user": settings.data.users, "item": settings.data.items}.items():
        side, counts[f"{node}s"] = read_side(
            con, table, Vocabulary.load(folder / f"{node}s.parquet"), f"data.{node}s"
        )
        side.save(folder / f"{node}_side")
    return counts


def _number(con: Backend, rows: Table, node: str, column: str, folder: Path, place: str) -> NDArray[np.int64]:
    """Codes by first bucket, then id; the vocabulary is written. Returns the first bucket of each code, rising."""
    first = rows.group_by(node).aggregate(first=rows.bucket.min())
    code = ibis.row_number().over(order_by=[first["first"], first[node]])
    numbered = con.create_table(f"{node}s", first.mutate(code=code))
    ordered = numbered.order_by("code").select(id=numbered[node], first=numbered["first"]).to_pyarrow()
    if len(ordered) < 2:
        found = f"found only {ordered['id'][0].as_py()!r}"
        raise DataError(
            f"{place}, column {column!r}",
            f"at least two {node}s are needed to rank, {found}; is data.{node} the right column?",
        )
    Vocabulary(ordered["id"]).save(folder / f"{node}s.parquet")
    return ordered["first"].to_numpy().astype(np.int64)


def _encode(con: Backend, rows: Table) -> Table:
    """The rows with codes in place of ids."""
    users, items = con.table("users"), con.table("items")
    joined = rows.join(users, rows.user == users.user).join(items, rows.item == items.item)
    rest = [name for name in rows.columns if name not in ("user", "item")]
    coded = con.create_table("coded", joined.select(*rest, user=users.code, item=items.code))
    drop(con, "log")
    return coded


def _counts(found: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Buckets with positives, rising, and how many each has."""
    counted: pa.Table = found.group_by("bucket").aggregate(n=ibis._.count()).order_by("bucket").to_pyarrow()
    return counted["bucket"].to_numpy().astype(np.int64), counted["n"].to_numpy().astype(np.int64)


def _write_history(
    con: Backend, events: Table, cuts: NDArray[np.int32], path: Path, tasks: Sequence[str]
) -> dict[str, int]:
    """Write the events in one order whatever the log's. Returns how many each task has."""
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
    counts = written.group_by("task").aggregate(n=ibis._.count()).to_pyarrow().to_pylist()
    return {task: next((row["n"] for row in counts if row["task"] == t), 0) for t, task in enumerate(tasks)}
