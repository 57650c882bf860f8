"""Rows between this process and the engine of an Ibis table."""

from __future__ import annotations

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend


def batches(table: ir.Table) -> pa.RecordBatchReader:
    """A table's rows as they come, never all in memory (Ibis's own stream asks DuckDB 2 for a method that it lost)."""
    backend = table.get_backend()
    if not isinstance(backend, Backend):
        return table.to_pyarrow_batches()
    if table.op().find(ops.InMemoryTable):
        return table.to_pyarrow().to_reader()
    return pa.RecordBatchReader.from_stream(backend.con.sql(str(backend.compile(table))))


def hand_over(backend: ibis.BaseBackend, name: str, rows: pa.Table) -> ir.Table:
    """Rows of this process as a table of an engine, which it can join to its own."""
    if isinstance(backend, Backend):
        backend.con.register("handed_over", rows)
        backend.con.execute(f'CREATE OR REPLACE TABLE "{name}" AS SELECT * FROM handed_over')  # its size is known: it is the side to hash
        backend.con.unregister("handed_over")
        return backend.table(name)
    if backend.name == "pyspark":
        backend._session.createDataFrame(rows).createOrReplaceTempView(name)  # type: ignore[attr-defined]
        return backend.table(name)
    return ibis.memtable(rows)
