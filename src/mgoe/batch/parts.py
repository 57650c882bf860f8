"""A file of ids, cut into parts that a bundle makes tables of, in one process or several."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe._util.processes import in_order
from mgoe._util.tables import batches, open_duckdb
from mgoe.bundle import Bundle
from mgoe.bundle.unseen_users import warn_of_unseen
from mgoe.config import TaskSettings, did_you_mean
from mgoe.data.columns import Expr, Table, enforce, read_id, read_label
from mgoe.data.log import open_log, unreadable
from mgoe.errors import ConfigError, DataError, OutputError
from mgoe.graph.pair_rows import Side

LABEL = "label of "
"""A column of labels is this and the task, whatever the file calls it."""
Progress = Callable[[int, int], object]
"""Receives the number of rows completed, and of all rows."""
Made = tuple[pa.Table, int, int, list[Warning | str]]
"""What is made of a part, the rows of the part, its users that were never seen, and what was warned of."""


@dataclass(frozen=True)
class Work:
    """What a bundle makes of a file part by part: the same in one process, in several, and on a cluster.

    Attributes:
        sides: Whose ids the file holds.
        size: Rows of a part.
        make: Returns a table for a part, and how many of its users were never seen, if that is told.
        schema: Returns the columns of such tables, given some rows of the file.
        opened: Returns the bundle that makes them, given the number of rows of the file.
        tasks: Whose labels are read too.
    """

    sides: Sequence[Side]
    size: int
    make: Callable[[Bundle, pa.Table], tuple[pa.Table, int]]
    schema: Callable[[Bundle, pa.Table], pa.Schema]
    opened: Callable[[Bundle, int], Bundle]
    tasks: Sequence[TaskSettings] = ()


def run(bundle: Bundle, file: Path | str, work: Work, jobs: int, on_progress: Progress) -> Iterator[pa.Table]:
    """Yield what a bundle makes of a file's parts, in their order, after an empty table.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read, lacks a column, or holds an invalid id or label.
    """
    check_jobs(bundle, jobs)
    rows, blocks = _read_blocks(bundle, file, work)
    parts = cut(blocks, work.size)
    yield work.schema(bundle, next(parts)).empty_table()
    if jobs > 1:
        made = in_order(make_here, (bundle.path, work, rows), parts, jobs)
    else:
        opened = work.opened(bundle, rows)
        made = (_made(opened, work, part) for part in parts)
    done, unseen, told = 0, 0, set[type]()
    for table, of_part, new, said in made:
        for warning in said:  # every process warns once
            if type(warning) not in told:
                told.add(type(warning))
                warnings.warn(warning, stacklevel=2)
        yield table
        done, unseen = done + of_part, unseen + new
        on_progress(done, rows)
    warn_of_unseen(unseen, rows)


def make_here(path: Path, work: Work, rows: int, part: pa.Table) -> Made:
    """Return what is made of a part, in a process that opens the bundle once.

    Args:
        path: The bundle.
        work: What is made.
        rows: Of all parts.
        part: Of the file.
    """
    return _made(_opened(path, work.opened, rows), work, part)


@cache
def _opened(path: Path, opened: Callable[[Bundle, int], Bundle], rows: int) -> Bundle:
    return opened(Bundle.open(path, verify=False), rows)


def _made(bundle: Bundle, work: Work, part: pa.Table) -> Made:
    with warnings.catch_warnings(record=True) as said:
        table, unseen = work.make(bundle, part)
    return table, len(part), unseen, [one.message for one in said]


def check_jobs(bundle: Bundle, jobs: int | str, setting: str = "jobs") -> None:
    """Refuse other processes for a bundle that they cannot open: live events are in this one alone."""
    if jobs != 1 and type(bundle) is not Bundle:
        raise ConfigError(setting, f"is for a bundle without live events, found {jobs}; leave it out")


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


def open_ids(bundle: Bundle, path: str, sides: Sequence[Side]) -> Table:
    """Open a file with columns of ids, named as in the log.

    Raises:
        DataError: It cannot be read.
    """
    return open_log(open_duckdb(), [path], key_of(sides), _ids(bundle, sides))


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


@contextmanager
def reading_file(path: str) -> Iterator[None]:
    """Say that a file cannot be read, whatever found it.

    Raises:
        DataError: It cannot.
    """
    try:
        yield
    except (OSError, duckdb.Error, pa.ArrowException) as error:  # Arrow passes on errors of DuckDB
        raise unreadable(path, error) from None


def _ids(bundle: Bundle, sides: Sequence[Side]) -> list[str]:
    columns = (getattr(bundle.settings.data, side) for side in sides)
    return [column for column in columns if column is not None]


def _read_blocks(bundle: Bundle, file: Path | str, work: Work) -> tuple[int, Iterator[pa.Table]]:
    """Return the number of rows, and blocks of ids, the context features that are there, and labels of tasks.

    The first block is empty, so that a file without rows has columns too.
    """
    path = str(file)
    table = open_ids(bundle, path, work.sides)
    columns = wanted_columns(bundle, table, path, work.sides)
    with reading_file(path):
        wanted = table.select(*columns, **_labels(table, path, work.tasks))
        return int(table.count().to_pyarrow().as_py()), _blocks(wanted, path)


def _blocks(wanted: Table, path: str) -> Iterator[pa.Table]:
    with reading_file(path):
        schema = wanted.schema().to_pyarrow()
        yield schema.empty_table()
        for block in batches(wanted):
            yield pa.Table.from_batches([block]).cast(schema)


def _labels(table: Table, path: str, tasks: Sequence[TaskSettings]) -> dict[str, Expr]:
    """Return label columns, named after a task or as in the log, read by the rules of a log."""
    labels, checks = {}, []
    for task in tasks:
        name = next((name for name in (task.name, task.label) if name in table.columns), None)
        if name is None:
            raise DataError(
                path,
                f"needs a label column {task.name!r} for the bundle's task"
                f"{did_you_mean(task.name, table.columns)}",
            )
        labels[LABEL + task.name], rules = read_label(table[name], name, task.kind == "binary", path)
        checks += rules
    if checks:
        enforce(table, checks, path, numbered=False)
    return labels
