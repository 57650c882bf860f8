"""Files of a log, rewritten without the rows of some users."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mgoe._util.files import as_pattern, atomic_file
from mgoe._util.tables import open_duckdb
from mgoe.data.arrow import pc, texts
from mgoe.data.log_files import files_of, kind_of
from mgoe.errors import DataError

OPTION = "--log"
PACKED = {".gz": "gzip", ".zst": "zstd"}


def rows_of(log: Sequence[str], column: str, users: Collection[str]) -> dict[str, Counter[str]]:
    """Return how many rows of each of some users are in each file of a log that has any.

    Args:
        log: Files, folders or globs.
        column: Of the users.
        users: Ids, as texts.

    Raises:
        DataError: A file lacks the column.
    """
    found = {}
    for file in (file for path in log for file in files_of(path, OPTION)):
        try:
            if kind_of(file, OPTION) == "parquet":
                ids = pq.read_table(file, columns=[column])[column]
            else:
                ids = pa.table(_csv(file).select(duckdb.ColumnExpression(column)).arrow())[column]
        except (KeyError, duckdb.BinderException):
            rule = f"must have the column {column!r}, as the log of the bundle; name other files"
            raise DataError(f"{OPTION} {file}", rule) from None
        if held := Counter(user for user in texts(ids).to_pylist() if user in users):
            found[str(file)] = held
    return found


def rewrite(file: Path, column: str, users: Collection[str]) -> None:
    """Rewrite a file without the rows of some users, see `rows_of`. A Parquet file keeps its metadata.

    Raises:
        OutputError: It cannot be written; it is then as it was.
    """
    gone = pa.array(users, pa.string())
    with atomic_file(file, duckdb.Error) as new:
        if kind_of(file, OPTION) == "csv":
            ids, named = duckdb.ColumnExpression(column), map(duckdb.ConstantExpression, users)
            left = _csv(file).filter(ids.isnull() | ids.isnotin(*named))
            left.write_csv(str(new), compression=PACKED.get(file.suffix, "none"))
            return
        source = pq.ParquetFile(file)
        with pq.ParquetWriter(new, source.schema_arrow, compression="zstd") as out:
            for rows in source.iter_batches():
                out.write_batch(rows.filter(pc.invert(pc.is_in(texts(rows[column]), gone))))


def _csv(file: Path) -> duckdb.DuckDBPyRelation:
    """Return the rows of a file as they are written."""
    return open_duckdb().con.read_csv(as_pattern(file), all_varchar=True)
