"""A table written as a folder of Parquet shards, from parts of any size."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

PLAIN = pa.int64(), pa.float32()


class Shards:
    """Write `part-00000.parquet`, `part-00001.parquet` ... of `rows` rows each, the last one shorter.

    Args:
        folder: The folder, created on entry.
        schema: Schema of the table.
        rows: Rows per shard.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows: int):
        self.folder, self.schema, self.rows = folder, schema, rows
        self.written = 0
        self._shard: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        while len(table):
            left = self.rows - self.written % self.rows
            if self._shard is None:
                self._shard = self._open(self.written // self.rows)
            part, table = table[:left], table[left:]
            self._shard.write_table(part)
            self.written += len(part)
            if len(part) == left:
                self._close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.written:
            self._shard = self._open(0)  # a table without rows is one empty shard
        self._close()

    def _open(self, number: int) -> pq.ParquetWriter:
        few_values = [
            f.name for f in self.schema if f.type not in PLAIN and not pa.types.is_timestamp(f.type)
        ]
        rising = {f.name: "DELTA_BINARY_PACKED" for f in self.schema if pa.types.is_timestamp(f.type)}
        encoding: dict[str, Any] = {"use_dictionary": few_values, "column_encoding": rising}
        file = self.folder / f"part-{number:05d}.parquet"
        return pq.ParquetWriter(file, self.schema, compression="zstd", **encoding)

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None
