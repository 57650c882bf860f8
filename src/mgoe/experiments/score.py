"""Score a file of pairs with a bundle: block by block into another file, or against its labels.

Axes: `B` pairs, `T` tasks.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe._util.tables import batches, open_duckdb
from mgoe.bundle import Bundle
from mgoe.config import TaskSettings, did_you_mean
from mgoe.data.columns import Expr, Table, enforce, read_id, read_label
from mgoe.data.examples import mask_given
from mgoe.data.log import open_log, unreadable
from mgoe.errors import DataError, OutputError
from mgoe.evaluation import Row, measure
from mgoe.graph.pair_rows import Side

_LABEL = "label of "
PAIR: tuple[Side, Side] = ("user", "item")
NEW = "new"
"""Name of the split of pairs that a bundle was not made with."""


def score_pairs(bundle: Bundle, pairs: Path | str) -> Iterator[pa.Table]:
    """Score a file (or folder, or glob) of pairs, block by block.

    Columns have the names of the bundle's log: user, item, and context features if there are any. A missing
    context feature is unknown.

    Yields:
        The columns of user and item, and one per task with its probability or value; rows in the file's
        order.

    Raises:
        DataError: The file cannot be read or lacks a column.
    """
    for block in read_blocks(bundle, pairs, PAIR):
        yield _score(bundle, block)


def measure_pairs(bundle: Bundle, pairs: Path | str) -> list[Row]:
    """Measure a bundle on pairs with labels, in columns named like the tasks or like the log's labels.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds an invalid label.
    """
    tasks = bundle.settings.tasks
    parts = [
        (
            np.stack([column.to_numpy() for column in _score(bundle, block).columns[2:]], 1),
            mask_given(np.stack([block[_LABEL + task.name].to_numpy() for task in tasks], 1), tasks),
            block[bundle.settings.data.user].to_pandas(),
        )
        for block in read_blocks(bundle, pairs, PAIR, tasks)
    ]
    scores, labels, users = zip(*parts, strict=True)
    if not sum(map(len, scores)):
        raise DataError(pairs, "pairs to measure on must hold rows, found none; name another file")
    return measure(
        np.concatenate(scores),
        np.concatenate(labels),
        pd.factorize(pd.concat(users, ignore_index=True))[0],
        tasks,
        model=bundle.manifest["model"]["name"],
        seed=0,
        split=NEW,
    )


def write_blocks(blocks: Iterator[pa.Table], out: Path | str) -> int:
    """Write tables of one schema into a file, Parquet or CSV by its suffix.

    The file appears when it is complete, and replaces what was there.

    Returns:
        Number of rows.

    Raises:
        OutputError: The file cannot be written.
    """
    out, rows = Path(out), 0
    if out.suffix not in (".parquet", ".csv"):
        raise OutputError(
            out,
            f"the result is written as .parquet or .csv, found {out.suffix or 'no suffix'!r}; "
            "choose one of them",
        )
    first = next(blocks)
    writer_of = pq.ParquetWriter if out.suffix == ".parquet" else csv.CSVWriter
    with atomic_file(out) as unfinished, writer_of(str(unfinished), first.schema) as writer:
        for table in itertools.chain([first], blocks):
            writer.write_table(table)
            rows += len(table)
    return rows


def read_blocks(
    bundle: Bundle, file: Path | str, sides: Sequence[Side], tasks: Sequence[TaskSettings] = ()
) -> Iterator[pa.Table]:
    """Yield the columns of ids, the context features that are there, and the labels of tasks.

    The first block is empty, so that a file without rows has columns too.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds an invalid id or label.
    """
    data, path = bundle.settings.data, str(file)
    ids = [data.user if side == "user" else data.item for side in sides]
    table = open_log(open_duckdb(), [file], "pairs" if "item" in sides else "users", ids)
    for column in ids:
        if column not in table.columns:
            raise DataError(
                path,
                f"needs a column {column!r}, as the bundle's log had{did_you_mean(column, table.columns)}",
            )
    for column in ids:
        read_id(table[column], column, path)  # refuses invalid ids
    context = [feature.name for feature in data.context if feature.name in table.columns]
    try:
        wanted = table.select(*dict.fromkeys((*ids, *context)), **_labels(table, path, tasks))
        schema = wanted.schema().to_pyarrow()
        yield schema.empty_table()
        for block in batches(wanted):
            yield pa.Table.from_batches([block]).cast(schema)
    except (OSError, duckdb.Error, pa.ArrowException) as error:  # Arrow passes on errors of DuckDB
        raise unreadable(path, error) from None


def _score(bundle: Bundle, block: pa.Table) -> pa.Table:
    data = bundle.settings.data
    context = {
        feature.name: block[feature.name] for feature in data.context if feature.name in block.column_names
    }
    scored = bundle.predict(block[data.user], block[data.item], context)
    return pa.table(
        {name: block[name] for name in (data.user, data.item)}
        | {task: pa.array(scored[task].to_numpy()) for task in bundle.tasks}
    )


def _labels(table: Table, pairs: Path | str, tasks: Sequence[TaskSettings]) -> dict[str, Expr]:
    """Return label columns, named after a task or as in the log, read by the rules of a log."""
    found, checks = {}, []
    for task in tasks:
        name = next((name for name in (task.name, task.label) if name in table.columns), None)
        if name is None:
            raise DataError(
                pairs,
                f"needs a label column {task.name!r} for the bundle's task"
                f"{did_you_mean(task.name, table.columns)}",
            )
        found[_LABEL + task.name], rules = read_label(table[name], name, task.kind == "binary", str(pairs))
        checks += rules
    if checks:
        enforce(table, checks, str(pairs), numbered=False)
    return found
