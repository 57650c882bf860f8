"""Score a file of pairs with a bundle, part by part, in one process or several: into another file, or against
its labels.

Axes: `B` pairs, `T` tasks.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
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
from mgoe.bundle.manifest import iso_time, state_of
from mgoe.config import TaskSettings, did_you_mean
from mgoe.data.columns import Expr, Table, enforce, read_id, read_label
from mgoe.data.examples import mask_given
from mgoe.data.log import open_log, unreadable
from mgoe.data.times import read_time
from mgoe.data.waiting import longest_delay
from mgoe.errors import ConfigError, DataError, OutputError
from mgoe.evaluation import Row, measure
from mgoe.experiments.processes import in_order
from mgoe.graph.pair_rows import Side

_LABEL = "label of "
PAIR: tuple[Side, Side] = ("user", "item")
ROWS = 65_536
"""Rows of a part: whole blocks of a model on any device, since matrix products of other shapes round
differently. So a score does not depend on the number of processes."""
NEW = "new"
"""Name of the split of pairs that a bundle was not made with."""


def score_pairs(
    bundle: Bundle,
    pairs: Path | str,
    jobs: int = 1,
    on_progress: Callable[[int, int], object] = lambda done, rows: None,
) -> Iterator[pa.Table]:
    """Score a file (or folder, or glob) of pairs, part by part.

    Columns have the names of the bundle's log: user, item, and context features if there are any. A missing
    context feature is unknown.

    Args:
        bundle: What scores.
        pairs: The file.
        jobs: Processes side by side, each of which opens the bundle; any number gives the same scores.
        on_progress: Progress callback; receives the number of rows completed, and of all rows.

    Yields:
        The columns of user and item, and one per task with its probability or value; rows in the file's
        order. The first table is empty.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read or lacks a column.
    """
    return _scored(bundle, pairs, jobs, (), on_progress)


def measure_pairs(
    bundle: Bundle,
    pairs: Path | str,
    jobs: int = 1,
    on_progress: Callable[[int, int], object] = lambda done, rows: None,
) -> list[Row]:
    """Measure a bundle on pairs with labels, in columns named like the tasks or like the log's labels.

    Arguments are those of `score_pairs`.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read, lacks a column, or holds an invalid label, or its times say that
            served weights have learned its rows, such as the test rows of their run.
    """
    tasks = bundle.settings.tasks
    if state_of(bundle.manifest) == "served":
        _check_later(bundle, str(pairs))
    parts = [
        (
            np.stack([part[task].to_numpy() for task in bundle.tasks], 1),
            mask_given(np.stack([part[_LABEL + task.name].to_numpy() for task in tasks], 1), tasks),
            part[bundle.settings.data.user].to_pandas(),
        )
        for part in _scored(bundle, pairs, jobs, tasks, on_progress)
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


def check_jobs(bundle: Bundle, jobs: int | str, setting: str = "jobs") -> None:
    """Refuse other processes for a bundle that they cannot open: live events are in this one alone."""
    if jobs != 1 and type(bundle) is not Bundle:
        raise ConfigError(setting, f"is for a bundle without live events, found {jobs}; leave it out")


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
) -> tuple[int, Iterator[pa.Table]]:
    """Return the number of rows, and blocks of ids, the context features that are there, and labels of tasks.

    The first block is empty, so that a file without rows has columns too.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds an invalid id or label.
    """
    path = str(file)
    table = open_log(open_duckdb(), [file], key_of(sides), _ids(bundle, sides))
    columns = wanted_columns(bundle, table, path, sides)
    with _reading(path):
        wanted = table.select(*columns, **_labels(table, path, tasks))
        return int(table.count().to_pyarrow().as_py()), _blocks(wanted, path)


def wanted_columns(bundle: Bundle, table: Table, path: str, sides: Sequence[Side]) -> list[str]:
    """Return the columns of a table that are read: ids, and the context features that are there.

    Raises:
        DataError: A column of ids is missing or of a type that no id has.
    """
    ids = _ids(bundle, sides)
    for column in ids:
        if column not in table.columns:
            raise DataError(
                path,
                f"needs a column {column!r}, as the bundle's log had{did_you_mean(column, table.columns)}",
            )
    for column in ids:
        read_id(table[column], column, path)
    context = [one.name for one in bundle.settings.data.context if one.name in table.columns]
    return [*dict.fromkeys((*ids, *context))]


def key_of(sides: Sequence[Side]) -> str:
    """Return what a file of ids is called in messages."""
    return "pairs" if "item" in sides else "users"


def _ids(bundle: Bundle, sides: Sequence[Side]) -> list[str]:
    data = bundle.settings.data
    return [data.user if side == "user" else data.item for side in sides]


def _check_later(bundle: Bundle, path: str) -> None:
    """Refuse pairs with times, in the column of the log, that are not after all that was learned."""
    data, until = bundle.settings.data, datetime.fromisoformat(bundle.manifest["trained_until"])
    table = open_log(open_duckdb(), [path], key_of(PAIR), _ids(bundle, PAIR))
    if data.time in table.columns:
        with _reading(path):
            moment = read_time(table[data.time], data.time, data.time_unit, path, zone=data.timezone)
            first = moment.min().to_pyarrow().as_py()
        last = int(until.timestamp()) * 1_000_000 - longest_delay(bundle.settings.tasks)
        if first is not None and first <= last:
            raise DataError(
                path,
                f"pairs to measure on must be later than those that the weights have learned, until "
                f"{iso_time(last)}, found the first at {iso_time(first)}; `mgoe evaluate RUN` shows what was "
                "measured on test before the bundle learned it",
            )


def _blocks(wanted: Table, path: str) -> Iterator[pa.Table]:
    with _reading(path):
        schema = wanted.schema().to_pyarrow()
        yield schema.empty_table()
        for block in batches(wanted):
            yield pa.Table.from_batches([block]).cast(schema)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.Error, pa.ArrowException) as error:  # Arrow passes on errors of DuckDB
        raise unreadable(path, error) from None


def _scored(
    bundle: Bundle,
    pairs: Path | str,
    jobs: int,
    tasks: Sequence[TaskSettings],
    on_progress: Callable[[int, int], object],
) -> Iterator[pa.Table]:
    """Yield ids, labels and scores, the first table empty."""
    check_jobs(bundle, jobs)
    rows, blocks = read_blocks(bundle, pairs, PAIR, tasks)
    parts, done, told = cut(blocks, ROWS), 0, set[type]()
    if jobs > 1:
        found = in_order(score_here, (bundle.path,), parts, jobs)
    else:
        found = ((score_part(bundle, part), ()) for part in parts)
    for table, said in found:
        for warning in said:  # every process warns once
            if type(warning) not in told:
                told.add(type(warning))
                warnings.warn(warning, stacklevel=2)
        yield table
        done += len(table)
        on_progress(done, rows)


def cut(blocks: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut blocks of any size into an empty part and parts of some number of rows; the last may have fewer."""
    rest = next(blocks)
    yield rest
    for block in blocks:
        rest = pa.concat_tables([rest, block])
        while len(rest) >= rows:
            yield rest[:rows].combine_chunks()  # the writer of CSV repeats what it wrote for an empty chunk
            rest = rest[rows:]
    if len(rest):
        yield rest.combine_chunks()


def score_part(bundle: Bundle, part: pa.Table) -> pa.Table:
    """Return ids, labels and scores of the rows of a part."""
    data = bundle.settings.data
    context = {
        feature.name: part[feature.name] for feature in data.context if feature.name in part.column_names
    }
    scored = bundle.predict(part[data.user], part[data.item], context)
    labels = [name for name in part.column_names if name.startswith(_LABEL)]
    return pa.table(
        {name: part[name] for name in (data.user, data.item, *labels)}
        | {task: pa.array(scored[task].to_numpy()) for task in bundle.tasks}
    )


def score_here(path: Path, part: pa.Table) -> tuple[pa.Table, list[Warning | str]]:
    """Return scores, and what the process of this part warned of."""
    with warnings.catch_warnings(record=True) as found:
        return score_part(_opened(path), part), [one.message for one in found]


@cache
def _opened(path: Path) -> Bundle:
    """Return the bundle of a process, which it opens once."""
    return Bundle.open(path, verify=False)


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
