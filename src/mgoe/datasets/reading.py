"""A data set's folder, opened: its files found, their layout checked, their rows as views, a log written from them."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import duckdb

from mgoe._util.files import as_pattern
from mgoe.config import did_you_mean
from mgoe.datasets.unpack import ENDINGS
from mgoe.errors import DataError, OutputError

Encoding: TypeAlias = Literal["utf-8", "latin-1"]


class Workbench:
    """What a data set's `write` works with: views over the published files, and Parquet files below a folder.

    Args:
        name: Of the data set.
        source: Folder that holds the published files, anywhere below.
        out: Folder to write to.
        place: The folder that it becomes, for messages.
        con: A DuckDB database, whose memory is bounded.
    """

    def __init__(self, name: str, source: Path, out: Path, place: Path, con: duckdb.DuckDBPyConnection):
        self.name, self.source, self.out, self.place = name, source, out, place
        self._con = con
        self._packed: set[Path] = set()
        self.rows: dict[str, int] = {}
        """Of each file written, by its path below the folder."""

    def path(self, name: str) -> Path:
        """The one file of a name, wherever below the folder.

        Raises:
            DataError: There is none, or more than one.
        """
        found = [path for path in self._files() if path.name == name]
        if len(found) > 1:
            others = f"{found[0].relative_to(self.source)} and {found[1].relative_to(self.source)}"
            raise DataError(
                self.source, f"one file {name} is needed, found {others}; name the folder of one of them"
            )
        if not found:
            raise DataError(self.source / name, self._absent(name))
        if name.endswith(".gz"):
            self._packed.add(found[0])
        return found[0]

    def holds(self, name: str) -> bool:
        """Whether a file of a name lies anywhere below the folder."""
        return any(path.name == name for path in self._files())

    def _files(self) -> list[Path]:
        """Below the folder; what is hidden is not the user's."""
        below = (path for path in self.source.rglob("*") if path.is_file())
        return sorted(
            path
            for path in below
            if not any(part.startswith(".") for part in path.relative_to(self.source).parts)
        )

    def _absent(self, name: str) -> str:
        names = [path.name for path in self._files()]
        packed = next((file for file in names if file.endswith(ENDINGS)), None)
        if packed is not None:
            command = f"mgoe data fetch {self.name} --from {self.source} --out FOLDER"
            return f"is needed and not there, found {packed}; unpack it with `{command}`"
        found = did_you_mean(name, names[:5]) if names else "; the folder holds no file"
        return f"is needed and not there{found}; `mgoe data describe {self.name}` says which files are needed"

    def view(
        self,
        view: str,
        name: str,
        columns: Sequence[str],
        *,
        header: bool = True,
        delimiter: str = ",",
        null: str = "",
        encoding: Encoding = "utf-8",
    ) -> None:
        """A view of the rows of a text file, all columns text, null where empty. Columns that are not read may have any name, or none.

        Args:
            view: Its name.
            name: Of the file.
            columns: With a header, those that are read, anywhere in it; without one, all of them in order.
            header: Whether the first line names the columns.
            delimiter: Between columns.
            null: Text that stands for a missing value.
            encoding: Of the file.

        Raises:
            DataError: The file is missing, or of another layout.
        """
        path = self.path(name)
        quote = '"' if header else ""
        first = self._first_line(path, delimiter, quote)
        if header:
            self._check_header(path, first, columns)
        elif len(first) != len(columns):
            raise DataError(
                path,
                self._other_layout(
                    f"{len(columns)} columns ({_short(columns)})", f"{len(first)} ({_short(first)})"
                ),
            )
        read = (
            [column if column in columns else f"unread {place}" for place, column in enumerate(first)]
            if header
            else columns
        )
        names = ", ".join(f"{as_text(column)}: 'VARCHAR'" for column in read)
        self._run(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_csv({as_text(as_pattern(path))}, delim = {as_text(delimiter)}, "
            f"quote = '{quote}', escape = '{quote}', header = {header}, auto_detect = false, nullstr = {as_text(null)}, "
            f"encoding = '{encoding}', columns = {{{names}}})"
        )

    def lines(self, view: str, name: str) -> None:
        """A view of the lines of a text file, in the column `line`.

        Raises:
            DataError: The file is missing.
        """
        file = as_text(as_pattern(self.path(name)))
        self._run(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_csv({file}, delim = '\x01', quote = '', "
            "escape = '', header = false, auto_detect = false, max_line_size = 16777216, columns = {'line': 'VARCHAR'})"
        )

    def define(self, view: str, query: str) -> None:
        """A view of a query."""
        self._run(f"CREATE OR REPLACE TEMP VIEW {view} AS {query}")

    def write(self, name: str, query: str) -> int:
        """Write a query's rows to a Parquet file, never all in memory; returns how many they are.

        Raises:
            DataError: A value is not what its column holds, or a line is broken.
            OutputError: There is no room for it.
        """
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._run(f"COPY ({query}) TO {as_text(str(path))} (FORMAT parquet, COMPRESSION zstd)")
        self.rows[name] = self.count(f"read_parquet({as_text(as_pattern(path))})")
        if not self.rows[name]:
            raise DataError(
                self.source,
                f"{name} must have rows, found none; are the files those of {self.name}, and whole?",
            )
        return self.rows[name]

    def count(self, table: str) -> int:
        """Rows of a view, a table or a file."""
        found = self._run(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._con.execute(query)
        except duckdb.OutOfMemoryException as error:
            raise OutputError(
                self.place, f"memory and disk are too small: {_sentence(error)}; raise --memory or free space"
            ) from None
        except duckdb.IOException as error:
            self._check_packed()
            raise OutputError(
                self.place, f"a file cannot be read or written: {_sentence(error)}; free space"
            ) from None
        except (
            duckdb.ConversionException,
            duckdb.InvalidInputException,
            duckdb.OutOfRangeException,
        ) as error:
            self._check_packed()
            line = re.search(r"CSV Error on Line: (\d+)", str(error))
            file = re.search(r"^\s*file\s*=\s*(.+)$", str(error), re.MULTILINE)
            where = f"{file.group(1).strip()}, line {line.group(1)}" if line and file else str(self.source)
            mend = f"compare it with the layout that `mgoe data describe {self.name}` names, and fetch the file again"
            raise DataError(
                where, f"a row is not as the data set publishes it: {_sentence(error)}; {mend}"
            ) from None

    def _check_packed(self) -> None:
        """See that every packed file can be read to its end; DuckDB does not always say which cannot."""
        for path in sorted(self._packed):
            with _reading(path), gzip.open(path) as file:
                while file.read(1 << 20):
                    pass

    def _check_header(self, path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
        missing = [column for column in columns if column not in found]
        if missing:
            near = did_you_mean(missing[0], list(found))
            raise DataError(
                path,
                self._other_layout(
                    f"the columns {_short(columns)}", f"{_short(found)} without {missing[0]!r}{near}"
                ),
            )
        repeated = next((column for column in columns if found.count(column) > 1), None)
        if repeated is not None:
            raise DataError(
                path,
                self._other_layout(
                    f"one column {repeated!r}", f"{found.count(repeated)} of them in {_short(found)}"
                ),
            )

    def _other_layout(self, expected: str, found: str) -> str:
        mend = (
            f"`mgoe data describe {self.name}` says where the layout was read; take the files published there"
        )
        return f"another layout: expected {expected}, found {found}; {mend}"

    def _first_line(self, path: Path, delimiter: str, quote: str) -> list[str]:
        line = first_line(path)
        if not line:
            raise DataError(path, "the file is empty; fetch it again")
        if quote:
            try:
                return next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter))
            except csv.Error as error:
                raise DataError(
                    path, self._other_layout("a line of names", f"a line that is none ({error})")
                ) from None
        return line.split(delimiter)


def first_line(path: Path) -> str:
    """First line of a text file, packed by gzip or not, without its end.

    Raises:
        DataError: It cannot be read.
    """
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.readline().decode("utf-8", errors="replace").rstrip("\r\n")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"the file is damaged: {error}; remove it and fetch it again") from None
    except OSError as error:
        raise DataError(
            path, f"cannot be read: {error.strerror or error}; see that you may read it, or fetch it again"
        ) from None


def as_text(value: str) -> str:
    """A value as a text of SQL."""
    return "'" + value.replace("'", "''") + "'"


def _short(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:24]]
    return ", ".join(shown) + (f" and {len(names) - 24} more" if len(names) > 24 else "")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
