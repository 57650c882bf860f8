"""Opening a log: Parquet or CSV files, folders, globs, or any Ibis table, as one lazy table on DuckDB."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
from ibis.backends.duckdb import Backend
from ibis.common.exceptions import IbisError

from mgoe._util.files import as_pattern
from mgoe._util.tables import Frame, batches, open_duckdb
from mgoe.config import MEMORY, DataSettings, did_you_mean
from mgoe.data.arrow import is_list, to_arrow
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.log_files import LOG, check_complete, files_of, kind_of
from mgoe.errors import DataError, OutputError

_TYPES = ["BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR"]
"""Types that a column of a CSV may get. Not dates, because day and month would be guessed: their text is read
as ISO 8601."""
UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
"""Name that Arrow gives an index of pandas without one."""
LOG_SHARE = 0.6
"""Share of the memory that DuckDB may take while it reads and sorts a log; the rest is for what leaves it."""
NO_ROWS = "the log must hold rows, found none; give a log with rows"


def connect(folder: Path, memory: float = MEMORY, zone: str = "UTC") -> Backend:
    """Return a DuckDB database in a folder, which also takes what does not fit in memory.

    Args:
        folder: An existing folder.
        memory: Limit in GiB.
        zone: The zone of timestamps without one, where other files have timestamps with one in that column.

    Raises:
        OutputError: The folder cannot be written.

    Example:
        >>> con = connect(Path.cwd(), memory=1.0)
        >>> con.raw_sql("select 1 + 1").fetchone()
        (2,)
    """
    with reading(str(folder)):
        con = open_duckdb(
            folder / "work.duckdb",
            temp_directory=str(folder / "spill"),
            memory_limit=f"{memory:.2f}GiB",
        )
    con.con.execute(f"SET TimeZone = '{zone}'")
    return con


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn errors of DuckDB in the block into ours.

    Args:
        place: What is read, for messages.

    Raises:
        DataError: It cannot be read.
        OutputError: The disk is full.
    """
    try:
        yield
    except duckdb.Error as error:
        raise unreadable(place, error) from None


@contextmanager
def work_database(folder: Path, place: str, memory: float = MEMORY, zone: str = "UTC") -> Iterator[Backend]:
    """Yield a DuckDB database in a new folder, which is removed at the end; its errors become ours.

    Args:
        folder: The folder to create.
        place: What is read, for messages.
        memory: Limit of the whole process in GiB, of which the database may take a share.
        zone: As of `connect`.

    Raises:
        DataError: DuckDB cannot read something.
    """
    folder.mkdir()
    con = connect(folder, memory * LOG_SHARE, zone)
    try:
        with reading(place):
            yield con
    finally:
        con.disconnect()
        shutil.rmtree(folder)


def open_log(con: Backend, paths: Sequence[str | Path], key: str = LOG, ids: Sequence[str] = ()) -> ir.Table:
    """Return one lazy table over files, folders and globs; columns are matched by name, and each file is read
    once.

    Args:
        con: The database in which the table is created.
        paths: Files, folders (every Parquet and CSV file below that is not hidden) or globs. All Parquet or
            all CSV.
        key: The setting that names them, for messages.
        ids: Columns of ids. In a CSV these are text if any of them has leading zeros, since `07` and `7` are
            different ids.

    Raises:
        DataError: There are no files, or some cannot be read as Parquet or CSV.

    Example:
        >>> import ibis
        >>> open_log(ibis.duckdb.connect(), [log]).columns
        ('user_id', 'item_id', 'timestamp', 'behavior')
    """
    named = [file for path in paths for file in files_of(str(path), key)]
    files = list({os.path.abspath(file): file for file in named}.values())
    kinds = {kind_of(file, key) for file in files}
    if len(kinds) > 1:
        raise DataError(
            key,
            f"a log is all Parquet or all CSV, found both ({files[0].name} ... {files[-1].name}); "
            "convert one or name one kind",
        )
    for file in files:
        check_complete(file, parquet=kinds == {"parquet"})
    patterns = [as_pattern(file) for file in files]
    with reading(place_of([*map(str, files)])):
        if kinds == {"parquet"}:
            return _with_known_types(con.read_parquet(patterns, union_by_name=len(files) > 1))
        for file in files:
            _check_header(con, file)
        return _read_csv(con, patterns, ids)


def _with_known_types(table: Table) -> Table:
    """Return a table whose nanoseconds with a zone, a type of DuckDB that Ibis does not know, are
    microseconds."""
    kinds = table.schema().items()
    found = {
        name: table[name].cast("timestamp('UTC')") for name, kind in kinds if "TIMESTAMPTZ_NS" in str(kind)
    }
    return table.mutate(**found) if found else table


def on_a_cluster(paths: Sequence[str | Path]) -> bool:
    """Return whether Spark reads a log as DuckDB does: only Parquet, since types of a CSV are guessed
    differently.

    Example:
        >>> on_a_cluster(["hdfs://store/log/2025.parquet"])
        True
    """
    return all(
        "://" in str(path) or all(kind_of(file, LOG) == "parquet" for file in files_of(str(path), LOG))
        for path in paths
    )


def open_on_spark(backend: ibis.BaseBackend, paths: Sequence[str | Path]) -> ir.Table:
    """Return `read_on_spark` as a table of a Spark backend."""
    read_on_spark(backend._session, paths).createOrReplaceTempView("mgoe_log")  # type: ignore[attr-defined]
    return backend.table("mgoe_log")


def read_on_spark(session: Any, paths: Sequence[str | Path], key: str = LOG) -> Any:
    """Return one lazy DataFrame of Spark; columns are matched by name.

    Args:
        session: Of Spark.
        paths: Parquet: files, folders and globs that this machine and the workers share, or URLs that Spark
            reads (`s3a://...`).
        key: The setting that names them, for messages.

    Raises:
        DataError: There are no files, or some are not Parquet.
    """
    names = []
    for path in map(str, paths):
        files = [] if "://" in path else files_of(path, key)
        for file in files:
            check_complete(file, parquet=True)
        names += [f"file://{file.resolve()}" for file in files] or [path]
    return session.read.option("mergeSchema", str(len(names) > 1)).parquet(*names)


def open_source(con: Backend, data: DataSettings, table: Frame | None) -> ir.Table:
    """Return the log that settings name, or `table` if given; arguments and errors as of `open_log` and
    `as_table`."""
    return open_log(con, data.log, ids=data.ids) if table is None else as_table(table)


def as_table(rows: Frame, place: str = "table") -> ir.Table:
    """Return an Ibis table, or a frame of pandas, polars or Arrow as one.

    A named index of pandas is a column; an unnamed one is left out.

    Args:
        rows: The table or frame.
        place: What it is, for messages.

    Raises:
        DataError: It is neither, has no columns or two of one name, or a column has values of several types,
            or of a type that cannot be read.

    Example:
        >>> import pandas as pd
        >>> as_table(pd.DataFrame({"user_id": [1, 1, 2]})).count().to_pyarrow().as_py()
        3
    """
    if isinstance(rows, ir.Table):
        return rows
    if hasattr(rows, "collect_schema") and hasattr(rows, "collect"):  # a lazy frame of polars
        lazy: Any = rows
        rows = lazy.collect()
    rule = "must be a table of Ibis or a frame of pandas, polars or Arrow"
    if not hasattr(rows, "__arrow_c_stream__"):
        raise DataError(place, f"{rule}, found a {type(rows).__name__}; convert it, or write a Parquet file")
    if isinstance(rows, pd.DataFrame):
        _check_names([*map(str, rows.columns)], place)
        _check_zones(rows, place)
    try:
        table = pa.table(rows)
        _check_names(table.column_names, place)
        table = table.drop_columns([*filter(UNNAMED_INDEX.fullmatch, table.column_names)])
        return ibis.memtable(_with_readable_types(table, place))
    except (pa.ArrowException, IbisError, TypeError, ValueError) as error:
        found = "; ".join(map(str, error.args))  # Arrow says the value first, then the column
        raise DataError(
            place,
            f"{rule}, with values of one type in each column, found that {found}; convert them, as with "
            "astype(str)",
        ) from None


def _with_readable_types(table: pa.Table, place: str) -> pa.Table:
    """Return a table with UUIDs as text, and lists of 16-bit floats as those of 32 bits; refuse types that
    engines do not read, such as periods."""
    for k, field in enumerate(table.schema):
        kind = field.type
        if getattr(kind, "extension_name", "") == "arrow.uuid":
            table = table.set_column(k, field.name, to_arrow(table[k], field.name))
        elif is_list(kind) and pa.types.is_float16(kind.value_type):
            table = table.set_column(k, field.name, table[k].cast(pa.list_(pa.float32())))
        elif (
            isinstance(kind, pa.BaseExtensionType)
            or pa.types.is_duration(kind)
            or pa.types.is_interval(kind)
            or pa.types.is_float16(kind)
        ):
            raise DataError(
                f"{place}, column {field.name!r}",
                f"must hold numbers, texts, times or lists of these, found values of the type {kind}; "
                "convert or drop it",
            )
    return table


def _check_names(names: list[str], place: str) -> None:
    if not names:
        raise DataError(place, "must have columns, found none; give the rows of a log")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise DataError(
            place, f"each column needs a name of its own, found {repeated!r} twice; rename or drop one"
        )


def _check_zones(frame: pd.DataFrame, place: str) -> None:
    """Refuse times of which only some have a zone: the others may be of another one."""
    for name in (name for name, kind in frame.dtypes.items() if kind == "O"):
        column = frame[name].dropna()
        if (
            pd.api.types.infer_dtype(column) == "datetime"
            and len({time.tzinfo is None for time in column}) > 1
        ):
            raise DataError(
                f"{place}, column {name!r}",
                "all times must have a zone, or none, found both; add the zone where it is missing",
            )


def stage(con: Backend, table: ir.Table, columns: Mapping[str, str], name: str, place: str) -> ir.Table:
    """Copy the columns that are needed into the work database, under our own names; rows keep their order.

    Args:
        con: The work database.
        table: A table of any Ibis backend.
        columns: New name to the table's own.
        name: Name of the copy.
        place: What the table is, for messages.

    Raises:
        DataError: The table cannot be read.
    """
    wanted = table.select(**{new: table[old] for new, old in columns.items()})
    with reading(place):
        if table.get_backend() is con:
            return con.create_table(name, wanted)
        con.con.register("foreign_rows", batches(wanted))
        con.con.execute(f'CREATE TABLE "{name}" AS SELECT * FROM foreign_rows')
        con.con.unregister("foreign_rows")
        return con.table(name)


def drop(con: Backend, name: str) -> None:
    """Free a staged table. (Ibis's own `drop_table` omits the name with sqlglot 30.)"""
    con.con.execute(f'DROP TABLE "{name}"')


def require_columns(table: ir.Table, columns: Iterable[tuple[str, str]], place: str) -> None:
    """Refuse a table that lacks a column, and name the nearest one that it has.

    Args:
        table: The table.
        columns: Pairs of a setting (`data.user`) and the column that it names.
        place: What the table is, for messages.

    Raises:
        DataError: A column is missing.
    """
    for key, column in columns:
        if column not in table.columns:
            raise DataError(
                place,
                f"column {column!r} ({key}) is missing{did_you_mean(column, table.columns)}; "
                f"set {key} to a column it has",
            )


def place_of(paths: Sequence[str]) -> str:
    """Return a log's name in messages.

    Example:
        >>> place_of(["log/2025-01.parquet"])
        'log/2025-01.parquet'
    """
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def unreadable(place: str, error: Exception) -> DataError | OutputError:
    """Return DuckDB's error about a file that it reads, or cannot write to, as one sentence of ours."""
    text = str(error)
    if full := re.search(r'Could not write file "(.+?)": (.+)', text):
        return OutputError(full[1], f"cannot be written: {full[2]}; free space, or choose another disk")
    found = re.search(r'converting column "(.+?)"\. Could not convert string "(.*?)" to \'(\w+)\'', text)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    if file := re.search(r"^ *file = (.+)$", text, re.M):
        place = file[1]
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if columns and line:
        return DataError(
            place,
            f"every line has the columns of the first, {columns[1]}, found {columns[2]} in line {line[1]}; "
            "fix that line",
        )
    if found:
        where = f" in line {line[1]}" if line else ""
        return DataError(
            f"{place}, column {found[1]!r}",
            f"the values before are {found[3]}, found {found[2]!r}{where}; fix that row, or write the column "
            "as Parquet",
        )
    reason = " ".join(text.split("\n\n")[0].split())
    return DataError(place, f"cannot be read: {reason}; fix it, or write the file again")


def _read_csv(con: Backend, patterns: list[str], ids: Sequence[str]) -> ir.Table:
    """Read CSVs with types guessed from the first rows of each file; those of ids are then checked in all
    rows."""

    def read(types: Mapping[str, str]) -> ir.Table:
        return con.read_csv(
            patterns, union_by_name=len(patterns) > 1, auto_type_candidates=_TYPES, types=types or None
        )

    guessed = read({})
    numbers = [name for name in ids if name in guessed.columns and guessed[name].type().is_numeric()]
    if not numbers:
        return guessed
    types = _types_of_ids(read(dict.fromkeys(numbers, "VARCHAR")), numbers)
    return read(types) if types else guessed


def _types_of_ids(written: Table, ids: Sequence[str]) -> dict[str, str]:
    """Return the type that holds every id of a column of digits as written, where the guessed one does
    not."""
    measures: dict[str, Expr] = {}
    for number, name in enumerate(ids):
        column: Expr = written[name]
        measures[f"padded{number}"] = column.re_search(r"^\s*[+-]?0[0-9]").any()
        measures[f"digits{number}"] = column.re_search(r"^\s*[+-]?[0-9]+\s*$").all()
        for kind in ("int64", "uint64"):
            readable: Expr = column.isnull() | column.try_cast(kind).notnull()
            measures[f"{kind} {number}"] = readable.all()
    held, types = only_row(written.aggregate(**measures)), {}
    for number, name in enumerate(ids):
        if held[f"padded{number}"]:
            types[name] = "VARCHAR"
        elif held[f"digits{number}"] and not held[f"int64 {number}"]:
            types[name] = "UBIGINT" if held[f"uint64 {number}"] else "VARCHAR"
    return types


def _check_header(con: Backend, file: Path) -> None:
    """Refuse a CSV without a header, because its first event would become one, or with uneven lines."""
    pattern = as_pattern(file)
    named, columns = con.con.execute("SELECT HasHeader, Columns FROM sniff_csv(?)", [pattern]).fetchall()[0]
    if not named:
        first = ", ".join(map(repr, con.read_csv([pattern]).columns[:4]))
        raise DataError(
            file,
            f"the first line must name the columns, found {first}; write a line of names, not all numbers, "
            "before it",
        )
    # a single column may mean that no delimiter splits all lines alike: DuckDB's error then names the line
    if len(columns) == 1 and (delimiter := re.search(r"[,;\t|]", names := columns[0]["name"])):
        kinds = {str(number): "VARCHAR" for number in range(len(names.split(delimiter[0])))}
        con.con.execute(
            "SELECT count(*) FROM read_csv(?, delim = ?, columns = ?, header = true, auto_detect = false)",
            [pattern, delimiter[0], kinds],
        ).fetchall()
