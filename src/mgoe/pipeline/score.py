"""Scoring a file of pairs with a bundle: to another file, block by block; or against its labels.

Axes: `B` pairs, `T` tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.config import TaskSettings, did_you_mean
from mgoe.data.columns import read_id
from mgoe.data.examples import mask_given
from mgoe.data.log import open_log, unreadable
from mgoe.errors import DataError, OutputError
from mgoe.evaluation import Row, measure
from mgoe.files import whole_file
from mgoe.tables import batches

NEW = "new"
"""The split of rows measured on pairs that a bundle was not made with."""


def score_pairs(bundle: Bundle, pairs: Path | str) -> Iterator[pa.Table]:
    """Score a file (or folder, or glob) of pairs, block by block.

    Columns are read under the names that the bundle's log had: user, item, and context features where there are any (a missing one is
    unknown).

    Yields:
        The user's and the item's column, and each task's probability or value; rows in the order of the file.

    Raises:
        DataError: The file cannot be read or lacks a column.
    """
    for block in _blocks(bundle, pairs, ()):
        yield _score(bundle, block)


def write_scores(bundle: Bundle, pairs: Path | str, out: Path | str) -> int:
    """Score a file of pairs into another, Parquet or CSV by its ending; it appears when it is whole, and replaces what was there.

    Returns:
        Pairs scored.

    Raises:
        DataError: The pairs cannot be read or lack a column.
        OutputError: The file cannot be written.
    """
    out = Path(out)
    if out.suffix not in (".parquet", ".csv"):
        raise OutputError(out, f"scores are written as .parquet or .csv, found {out.suffix or 'no ending'!r}; choose one of them")
    blocks, rows = score_pairs(bundle, pairs), 0
    first = next(blocks)
    writer_of = pq.ParquetWriter if out.suffix == ".parquet" else csv.CSVWriter
    with whole_file(out) as unfinished, writer_of(str(unfinished), first.schema) as writer:
        for table in itertools.chain([first], blocks):
            writer.write_table(table)
            rows += len(table)
    return rows


def measure_pairs(bundle: Bundle, pairs: Path | str) -> list[Row]:
    """Measure a bundle on pairs with labels, in columns named like the tasks (or like the log's label columns).

    Raises:
        DataError: The file cannot be read, or lacks a column, or a label is none.
    """
    tasks = bundle.settings.tasks
    columns = open_log(ibis.duckdb.connect(), [pairs], "pairs").columns
    names = [_label(pairs, columns, task) for task in tasks]
    scores, labels, users = [], [], []
    for block in _blocks(bundle, pairs, names):
        scores.append(np.stack([column.to_numpy() for column in _score(bundle, block).columns[2:]], 1))
        labels.append(mask_given(np.stack([_labels(block, pairs, *one) for one in zip(names, tasks, strict=True)], 1), tasks))
        users.append(block[bundle.settings.data.user].to_pandas())
    if not sum(map(len, scores)):
        raise DataError(pairs, "pairs to measure on must hold rows, found none; name another file")
    groups = pd.factorize(pd.concat(users, ignore_index=True))[0]
    model = bundle.manifest["model"]["name"]
    return measure(np.concatenate(scores), np.concatenate(labels), groups, tasks, model=model, seed=0, split=NEW)


def _blocks(bundle: Bundle, pairs: Path | str, labels: Sequence[str]) -> Iterator[pa.Table]:
    """The columns that are needed; the first block is empty, so that a file without rows has columns too."""
    data = bundle.settings.data
    table = open_log(ibis.duckdb.connect(), [pairs], "pairs", (data.user, data.item))
    for column in (data.user, data.item, *labels):
        if column not in table.columns:
            raise DataError(pairs, f"needs a column {column!r}, as the bundle's log had{did_you_mean(column, table.columns)}")
    for column in (data.user, data.item):
        read_id(table[column], column, str(pairs))  # refuses what is no id
    context = [feature.name for feature in data.context if feature.name in table.columns]
    wanted = table.select(list(dict.fromkeys((data.user, data.item, *context, *labels))))
    schema = wanted.schema().to_pyarrow()
    yield schema.empty_table()
    try:
        for block in batches(wanted):
            yield pa.Table.from_batches([block]).cast(schema)
    except (OSError, duckdb.Error, pa.ArrowException) as error:  # Arrow passes on what DuckDB finds wrong
        raise unreadable(str(pairs), error) from None


def _score(bundle: Bundle, block: pa.Table) -> pa.Table:
    data = bundle.settings.data
    context = {feature.name: block[feature.name] for feature in data.context if feature.name in block.column_names}
    scored = bundle.predict(block[data.user], block[data.item], context)
    ids = {name: block[name] for name in (data.user, data.item)}
    return pa.table(ids | {task: pa.array(scored[task].to_numpy()) for task in bundle.tasks})


def _label(pairs: Path | str, columns: Sequence[str], task: TaskSettings) -> str:
    found = next((name for name in (task.name, task.label) if name in columns), None)
    if found is None:
        raise DataError(pairs, f"needs a label column {task.name!r} for the bundle's task{did_you_mean(task.name, columns)}")
    return found


def _labels(block: pa.Table, pairs: Path | str, name: str, task: TaskSettings) -> NDArray[np.float32]:
    """Labels of a task, NaN where missing. Shape (B,)."""
    place = f"{pairs}, column {name!r}"
    try:
        labels = pc.cast(block[name], pa.float32()).to_numpy()
    except pa.ArrowException as error:
        raise DataError(place, f"a label must be a number or null ({error}); mend the column") from None
    wrong = labels[~np.isnan(labels) & ~np.isin(labels, (0, 1))]
    if task.kind == "binary" and len(wrong):
        raise DataError(place, f"a binary label must be 0, 1 or null (missing), found {wrong[0]:g}; map the column to 0 and 1")
    return labels
