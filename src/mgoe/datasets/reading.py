"""What the parser of a data set works with: views over its files, the log that it writes, and synthetic days.

A `Workbench` finds the files of a folder, checks their layout, defines views over their rows and writes a
log.

Synthetic days express a published split that is not a split by time as one (ours). The library splits by time
only. A split by user, at random or by file becomes one when each row gets a synthetic day: its part of the
data set, counted from 1 January 2000. Cuts between these days then define the split, and a row reads the
history of earlier parts only, so it never reads its own label or one of its own part. A part cannot promise
that its history precedes it in real time. The functions of synthetic days return DuckDB SQL that yields one
number or one timestamp per row.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import duckdb

from mgoe._util.files import as_pattern
from mgoe.config import did_you_mean
from mgoe.errors import DataError, OutputError

ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
"""How names of archives end."""
Encoding: TypeAlias = Literal["utf-8", "latin-1"]
PARTS = 10
"""Number of parts of the training rows if a test set is published beside them."""
TEST = PARTS + 1
_DAY = 86_400  # seconds


class Workbench:
    """Views over the published files of a data set, and Parquet files written below a folder.

    Args:
        name: Name of the data set.
        source: Folder with the published files at any depth.
        out: Folder to write to.
        place: The final folder, for messages.
        con: A DuckDB database with bounded memory.
    """

    def __init__(self, name: str, source: Path, out: Path, place: Path, con: duckdb.DuckDBPyConnection):
        self.name, self.source, self.out, self.place = name, source, out, place
        self._con = con
        self.rows: dict[str, int] = {}
        """Rows of each written file by its path below the folder."""

    def path(self, name: str) -> Path:
        """Return the single file of a name at any depth below the folder.

        Raises:
            DataError: There is none, or more than one.
        """
        found = [path for path in self._files() if path.name == name]
        if len(found) > 1:
            raise DataError(
                self.source,
                f"one file {name} is required, found {found[0].relative_to(self.source)} and "
                f"{found[1].relative_to(self.source)}; name the folder of one of them",
            )
        if not found:
            names = [path.name for path in self._files()]
            near = did_you_mean(name, names[:5]) if names else "; the folder is empty"
            fix = f"{near}; `mgoe data describe {self.name}` lists the required files"
            if packed := next((file for file in names if file.endswith(ENDINGS)), None):
                command = f"mgoe data fetch {self.name} --from {self.source} --out FOLDER"
                fix = f", found {packed}; unpack it with `{command}`"
            raise DataError(self.source / name, f"is required and missing{fix}")
        return found[0]

    def holds(self, name: str) -> bool:
        """Return whether a file of a name exists at any depth below the folder."""
        return any(path.name == name for path in self._files())

    def _files(self) -> list[Path]:
        """Return all files below the folder but hidden ones."""
        return sorted(
            path
            for path in self.source.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self.source).parts)
        )

    def view(
        self,
        view: str,
        name: str,
        columns: Sequence[str],
        *,
        header: bool = True,
        delimiter: str = ",",
        encoding: Encoding = "utf-8",
    ) -> None:
        """Define a view of the rows of a text file; all columns are text, and empty values null.

        Columns that are not read may have any name, or none.

        Args:
            view: Its name.
            name: Of the file.
            columns: With a header, the columns to read, in any order; without one, all columns in order.
            header: Whether the first line names the columns.
            delimiter: Between columns.
            encoding: Of the file.

        Raises:
            DataError: The file is missing, or of another layout.
        """
        path = self.path(name)
        line = first_line(path)
        if not line:
            raise DataError(path, "is empty; fetch it again")
        found = line.split(delimiter)
        if not header and len(found) != len(columns):
            raise self.other_layout(
                path, f"{len(columns)} columns ({_short(columns)})", f"{len(found)} ({_short(found)})"
            )
        read = self._header(path, line, delimiter, columns) if header else columns
        names = ", ".join(f"{as_text(column)}: 'VARCHAR'" for column in read)
        quote = '"' if header else ""
        self.define(
            view,
            f"SELECT * FROM read_csv({as_text(as_pattern(path))}, "
            f"delim = {as_text(delimiter)}, quote = '{quote}', escape = '{quote}', header = {header}, "
            f"auto_detect = false, encoding = '{encoding}', "
            f"columns = {{{names}}})",
        )

    def convert(
        self,
        name: str,
        file: str,
        columns: Sequence[str],
        values: str,
        *,
        header: bool = True,
        delimiter: str = ",",
        encoding: Encoding = "utf-8",
    ) -> None:
        """Write values of the rows of a text file to a Parquet file.

        Args:
            name: Of the Parquet file, below the folder.
            file: Name of the text file.
            columns: As `view` takes them, like all further arguments.
            values: Of each row, in SQL.
            header: Whether the first line names the columns.
            delimiter: Between columns.
            encoding: Of the file.

        Raises:
            DataError: The file is missing, of another layout, or a value does not fit its column.
        """
        self.view("converted", file, columns, header=header, delimiter=delimiter, encoding=encoding)
        self.write(name, f"SELECT {values} FROM converted")

    def define(self, view: str, query: str) -> None:
        """Define a view of a query."""
        self._run(f"CREATE OR REPLACE TEMP VIEW {view} AS {query}")

    def write(self, name: str, query: str) -> int:
        """Stream a query's rows to a Parquet file and return their number.

        Raises:
            DataError: A value does not fit its column, or a line is malformed.
            OutputError: Memory or disk are too small.
        """
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._run(f"COPY ({query}) TO {as_text(str(path))} (FORMAT parquet, COMPRESSION zstd)")
        self.rows[name] = self.count(f"read_parquet({as_text(as_pattern(path))})")
        if not self.rows[name]:
            raise DataError(
                self.source,
                f"{name} must have rows, found none; check that the files are complete and of {self.name}",
            )
        return self.rows[name]

    def count(self, table: str) -> int:
        """Count the rows of a view, a table or a file."""
        found = self._run(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._con.execute(query)
        except duckdb.OutOfMemoryException as error:
            raise OutputError(
                self.place,
                f"memory and disk are too small: {_sentence(error)}; allow more memory, or free space",
            ) from None
        except duckdb.IOException as error:
            raise OutputError(
                self.place, f"a file cannot be read or written: {_sentence(error)}; free space"
            ) from None
        except (
            duckdb.ConversionException,
            duckdb.InvalidInputException,
            duckdb.OutOfRangeException,
        ) as error:
            line = re.search(r"CSV Error on Line: (\d+)", str(error))
            file = re.search(r"^\s*file\s*=\s*(.+)$", str(error), re.MULTILINE)
            where = f"{file.group(1).strip()}, line {line.group(1)}" if line and file else str(self.source)
            raise DataError(
                where,
                f"a row differs from the published layout: {_sentence(error)}; compare it with the layout in "
                f"`mgoe data describe {self.name}`, and fetch the file again",
            ) from None

    def _header(self, path: Path, line: str, delimiter: str, columns: Sequence[str]) -> list[str]:
        """Return the names of all columns; those that are not read get another name."""
        try:
            found = next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter))
        except csv.Error as error:
            raise self.other_layout(path, "a line of names", f"a line that is none ({error})") from None
        for column in columns:
            if column not in found:
                raise self.other_layout(
                    path,
                    f"the columns {_short(columns)}",
                    f"{_short(found)} without {column!r}{did_you_mean(column, list(found))}",
                )
        for column in columns:
            if found.count(column) > 1:
                raise self.other_layout(
                    path, f"one column {column!r}", f"{found.count(column)} of them in {_short(found)}"
                )
        return [column if column in columns else f"unread {place}" for place, column in enumerate(found)]

    def other_layout(self, path: Path, expected: str, found: str) -> DataError:
        """Return the error of a file whose layout is not the published one."""
        return DataError(
            path,
            f"another layout: expected {expected}, found {found}; `mgoe data describe {self.name}` names the "
            "source of the layout; use the files published there",
        )


def first_line(path: Path) -> str:
    """Return the first line of a text file, without its line end.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.readline().decode("utf-8", errors="replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(
            path, f"cannot be read: {error.strerror or error}; make it readable, or fetch it again"
        ) from None


def as_text(value: str) -> str:
    """Quote a value as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _short(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:24]]
    return ", ".join(shown) + (f" and {len(names) - 24} more" if len(names) > 24 else "")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())


def moment(part: str, place: str = "0") -> str:
    """Return a timestamp on a part's day.

    Args:
        part: From 1.
        place: Order within the user's rows, from 0, stored as seconds of the day.
    """
    second = f"to_seconds(least({place}, {_DAY - 1})::BIGINT)"
    return f"TIMESTAMP '2000-01-01' + to_days(({part} - 1)::INTEGER) + {second}"


def drawn(key: str) -> str:
    """Return a random part that depends on the key alone, not on the machine or the order of rows.

    Args:
        key: Text.
    """
    return f"(1 + ('0x' || md5({key})[1:8])::BIGINT % {PARTS})"


def anywhere(key: str) -> str:
    """Return a random second of the day, so that equal rows stay two rows.

    Args:
        key: Text that differs between rows.
    """
    return f"(('0x' || md5({key})[9:16])::BIGINT % {_DAY})"


def in_order(user: str, order: str) -> str:
    """Return two columns: the `place` of a row among those of its user, from 1, and their number `n`.

    Args:
        user: Column of the user.
        order: Columns that order the rows.
    """
    window = f"PARTITION BY {user}"
    return f"row_number() OVER ({window} ORDER BY {order}) AS place, count(*) OVER ({window}) AS n"


LAST_OUT = (
    f"CASE WHEN place = n THEN {TEST} WHEN place = n - 1 THEN {PARTS} "
    f"ELSE 1 + ({PARTS - 1} * (place - 1)) // (n - 2) END"
)
"""Leave-last-out: the last row of a sequence is test, the one before validation, the others follow along
parts 1 to 9.
"""
