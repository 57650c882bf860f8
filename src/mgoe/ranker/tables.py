"""Rows of any library as a Parquet file, which the whole engine reads; and errors in the words of Python."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe._util.tables import Frame, batches
from mgoe.data import as_table
from mgoe.errors import MgoeError

Rows = Frame | Path | str
"""A frame of pandas, polars or Arrow, an Ibis table, or the path of a file, a folder or a glob."""
_WORDS = {
    "choose another --out, or --overwrite to replace it": "choose another workdir",
    "choose another --out, or --overwrite to compute again what differs": "choose another workdir",
    "build it again with --overwrite, or choose another --out": "choose another workdir",
    "choose another --out": "choose another workdir",
}
"""What a message of the command line says, and what it is in Python."""


def stored(rows: Rows, file: Path) -> Path | str:
    """Return the path of rows: of a path itself, otherwise of a file that they are written to.

    Args:
        rows: They are not changed.
        file: The Parquet file to write; one that is there is replaced.

    Raises:
        DataError: They are neither a path nor a table, or a column cannot be read.
    """
    if isinstance(rows, str | Path):
        return rows
    reader = batches(as_table(rows))
    with atomic_file(file) as unfinished, pq.ParquetWriter(unfinished, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return file


@contextmanager
def named(files: Mapping[str, Path | str]) -> Iterator[None]:
    """Name rows by what a user gave, not by the file that they were written to, in errors of the block.

    Args:
        files: As `stored` returned them, by name of the rows, such as `events`.
    """
    try:
        yield
    except MgoeError as error:
        words = {str(file): name for name, file in files.items()} | _WORDS
        for old, new in words.items():
            error.place, error.message = error.place.replace(old, new), error.message.replace(old, new)
        error.args = (f"{error.place}: {error.message}",)
        raise
