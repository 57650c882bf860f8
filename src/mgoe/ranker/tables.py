"""Rows of any library as a Parquet file, which the whole engine reads; and errors that name them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from mgoe._util.files import sha256
from mgoe._util.tables import Frame, batches, write_batches
from mgoe.data import as_table, to_arrow
from mgoe.errors import DataError, MgoeError

Rows = Frame | Mapping[str, Any] | Path | str
"""A frame of pandas, polars or Arrow, an Ibis table, a mapping of names to columns, or the path of a file, a
folder or a glob. A column of vectors in a mapping may be a two-dimensional array."""


def stored(rows: Rows, folder: Path, name: str) -> Path | str:
    """Return the path of rows: a path as it is, otherwise that of a file that they are written to.

    Args:
        rows: They are not changed.
        folder: Where to write `NAME-CHECKSUM.parquet`, so that other rows do not replace it.
        name: What they are, such as `events`.

    Raises:
        DataError: They are neither a path nor a table, or a column cannot be read or has another length.
    """
    if isinstance(rows, str | Path):
        return rows
    frame = _table_of(rows, name) if isinstance(rows, Mapping) else rows
    reader = batches(as_table(frame, name))
    with TemporaryDirectory(dir=folder) as aside:
        file = Path(aside) / f"{name}.parquet"
        write_batches(reader, file)
        return file.replace(folder / f"{name}-{sha256(file)[:16]}.parquet")


def _table_of(columns: Mapping[str, Any], place: str) -> pa.Table:
    """Return a table of columns, in which the rows of a two-dimensional array are lists."""
    held = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(one).ravel()), one.shape[1])
        if getattr(one, "ndim", 1) == 2
        else to_arrow(one, name)
        for name, one in columns.items()
    }
    lengths = {name: len(one) for name, one in held.items()}
    if len({*lengths.values()}) > 1:
        raise DataError(place, f"columns must be of one length, found {lengths}; cut or fill them")
    return pa.table(held)


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
