"""Rows of any library as a Parquet file, which the whole engine reads; and errors that name them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mgoe._util.files import sha256
from mgoe._util.tables import Frame, batches, write_batches
from mgoe.data import as_table
from mgoe.errors import MgoeError

Rows = Frame | Path | str
"""A frame of pandas, polars or Arrow, an Ibis table, or the path of a file, a folder or a glob."""


def stored(rows: Rows, folder: Path, name: str) -> Path | str:
    """Return the path of rows: a path as it is, otherwise that of a file that they are written to.

    Args:
        rows: They are not changed.
        folder: Where to write `NAME-CHECKSUM.parquet`, so that other rows do not replace it.
        name: What they are, such as `events`.

    Raises:
        DataError: They are neither a path nor a table, or a column cannot be read.
    """
    if isinstance(rows, str | Path):
        return rows
    reader = batches(as_table(rows, name))
    with TemporaryDirectory(dir=folder) as aside:
        file = Path(aside) / f"{name}.parquet"
        write_batches(reader, file)
        return file.replace(folder / f"{name}-{sha256(file)[:16]}.parquet")


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Name rows as `stored` did, not by the file that they were written to, in errors of the block.

    Args:
        folder: Where the rows were written.
    """
    try:
        yield
    except MgoeError as error:
        ours = rf"{re.escape(str(folder))}/(\w+)-\w+\.parquet"
        error.place, error.message = (re.sub(ours, r"\1", text) for text in (error.place, error.message))
        error.args = (f"{error.place}: {error.message}",)
        raise
