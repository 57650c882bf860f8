"""What prepared data hold, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe.config import RunSettings
from mgoe.data.examples import SPLITS
from mgoe.data.expr import Table
from mgoe.data.schema import Log
from mgoe.data.windows import moment_of


def summarise(
    con: Backend, folder: Path, settings: RunSettings, log: Log, ignored: dict[str, int], cuts: NDArray[np.int32]
) -> dict[str, Any]:
    """Counts of the log and of each split; what a recalibration of sampled negatives needs is taken from train.

    `negatives_per_positive`: examples without any task done for each with one.
    `positives_per_user_bucket`: positive examples of a user in a bucket in which there is any.
    """
    history = con.read_parquet(folder / "history.parquet")
    events = history.group_by("task").aggregate(n=ibis._.count()).to_pyarrow().to_pylist()
    splits = {split: _split(con, folder / f"{split}.parquet", settings, cuts) for split in SPLITS}
    train = splits["train"]
    return {
        "form": settings.form,
        "rows": log.rows,
        "dropped_rows": log.dropped,
        "ignored_behaviors": ignored,
        "users": int(con.table("users").count().to_pyarrow().as_py()),
        "items": int(con.table("items").count().to_pyarrow().as_py()),
        "bucket": settings.data.bucket,
        "cuts": [moment_of(int(cut) + 1, settings.data.bucket) for cut in cuts],
        "events": {settings.task_names[row["task"]]: row["n"] for row in sorted(events, key=lambda row: row["task"])},
        "splits": splits,
        "negatives_per_positive": train["negatives"] / max(1, train["positives"]),
        "positives_per_user_bucket": train["positives"] / max(1, train["user_buckets"]),
    }


def _split(con: Backend, path: Path, settings: RunSettings, cuts: NDArray[np.int32]) -> dict[str, Any]:
    table: Table = con.read_parquet(path)
    labels = {task.name: table[f"label.{task.name}"] for task in settings.tasks}
    positive = ibis.or_(*(label.fill_null(0) > 0 for label in labels.values()))
    count = {f"valid_{name}": label.count() for name, label in labels.items()}
    count |= {f"positive_{name}": (label > 0).sum() for name, label in labels.items()}
    marked = table.mutate(positive=positive)
    total = marked.aggregate(examples=marked.count(), positives=marked.positive.sum(), **count).to_pyarrow().to_pylist()[0]
    active = marked.filter(marked.positive).select("user", "bucket").distinct().count().to_pyarrow().as_py()
    ages: pa.Table = table.group_by(["snapshot", "bucket"]).aggregate(n=ibis._.count()).to_pyarrow()
    age = ages["bucket"].to_numpy().astype(np.int64) - cuts[ages["snapshot"].to_numpy()]
    examples, found = int(total["examples"]), int(total["positives"] or 0)
    return {
        "examples": examples,
        "positives": found,
        "negatives": examples - found,
        "user_buckets": int(active),
        "history_age": float(np.average(age, weights=ages["n"].to_numpy())) if examples else None,
        "tasks": {name: {"labels": int(total[f"valid_{name}"]), "positives": int(total[f"positive_{name}"] or 0)} for name in labels},
    }
