"""Parquet files of a log, rewritten without the rows of some users."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe.data.arrow import pc, texts
from mgoe.data.log_files import files_of, kind_of
from mgoe.errors import DataError

OPTION = "--log"


def rows_of(log: Sequence[str], column: str, users: Collection[str]) -> dict[str, Counter[str]]:
    """Return how many rows of each of some users are in each file of a log that has any.

    Args:
        log: Files, folders or globs.
        column: Of the users.
        users: Ids, as texts.

    Raises:
        DataError: A file is no Parquet, or lacks the column.
    """
    found = {}
    for file in (file for path in log for file in files_of(path, OPTION)):
        if kind_of(file, OPTION) != "parquet":
            raise DataError(
                f"{OPTION} {file}", "must be Parquet, found CSV; rewrite it without them yourself"
            )
        if column not in pq.read_schema(file).names:
            rule = f"must have the column {column!r}, as the log of the bundle; name other files"
            raise DataError(f"{OPTION} {file}", rule)
        ids = texts(pq.read_table(file, columns=[column])[column]).to_pylist()
        if held := Counter(user for user in ids if user in users):
            found[str(file)] = held
    return found


def rewrite(file: Path, column: str, users: Collection[str]) -> None:
    """Rewrite a file without the rows of some users, see `rows_of`. It keeps its metadata.

    Raises:
        OutputError: It cannot be written; it is then as it was.
    """
    gone, source = pa.array(users, pa.string()), pq.ParquetFile(file)
    with atomic_file(file) as new, pq.ParquetWriter(new, source.schema_arrow, compression="zstd") as out:
        for rows in source.iter_batches():
            out.write_batch(rows.filter(pc.invert(pc.is_in(texts(rows[column]), gone))))
