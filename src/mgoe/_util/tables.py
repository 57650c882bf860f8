"""Rows between this process and the engine of an Ibis table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

_PRIME = 1_000_003
_LOW_16, _LOW_21, _LOW_32, _LOW_47 = ((1 << bits) - 1 for bits in (16, 21, 32, 47))


class Frame(Protocol):
    """What hands its columns over as Arrow does: a frame of pandas, polars or Arrow, and an Ibis table too."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def batches(table: ir.Table) -> pa.RecordBatchReader:
    """A table's rows as they come, never all in memory (Ibis's own stream asks DuckDB 2 for a method that it lost)."""
    backend = table.get_backend()
    if not isinstance(backend, Backend):
        return table.to_pyarrow_batches()
    if table.op().find(ops.InMemoryTable):
        return table.to_pyarrow().to_reader()
    return pa.RecordBatchReader.from_stream(backend.con.sql(str(backend.compile(table))))


def hand_over(backend: ibis.BaseBackend, name: str, rows: pa.Table) -> ir.Table:
    """Rows of this process as a temporary table of an engine, which it can join to its own. Our prefix leaves a user's tables alone."""
    name = f"mgoe_{name}"
    if isinstance(backend, Backend):
        backend.con.register("mgoe_rows", rows)
        rows_of = "SELECT * FROM mgoe_rows"  # copied, so that its size is known: it is the side to hash
        backend.con.execute(f'CREATE OR REPLACE TEMP TABLE "{name}" AS {rows_of}')
        backend.con.unregister("mgoe_rows")
        return backend.table(name)
    if backend.name == "pyspark":
        backend._session.createDataFrame(rows).createOrReplaceTempView(name)  # type: ignore[attr-defined]
        return backend.table(name)
    return ibis.memtable(rows)


@contextmanager
def bounded(backend: ibis.BaseBackend, memory: float, threads: int | None = None) -> Iterator[None]:
    """Let DuckDB take so much memory meanwhile; other engines have settings of their own.

    What exceeds it is spilled to where the connection says: DuckDB keeps a folder that it has spilled to, so that one of ours would
    stay with a user's connection.

    Args:
        backend: Of a table.
        memory: GiB.
        threads: As many as it likes where not given.
    """
    if not isinstance(backend, Backend):
        yield
        return
    wanted = {"memory_limit": f"{memory:.2f}GiB", "preserve_insertion_order": "false"}
    wanted |= {} if threads is None else {"threads": str(threads)}
    before = {name: backend.con.sql(f"SELECT current_setting('{name}')").fetchall()[0][0] for name in wanted}
    number, unit = before["memory_limit"].split()
    before["memory_limit"] = (
        f"{float(number) + 0.05:.2f}{unit}"  # it is told to one decimal, cut off: as it is told, it would shrink
    )
    try:
        _set(backend, wanted)
        yield
    finally:
        _set(backend, before)


def _set(backend: Backend, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        backend.con.execute(f"SET {name} = '{value}'")


def mixed(*columns: ir.IntegerColumn) -> Any:
    """A number of each row, below 2^32, for a `checksum`: the same in every engine, and another one where two rows exchange a value.

    Args:
        columns: Integers; five at most.
    """
    product: Any = 1
    for column, offset in zip(columns, (101, 211, 307, 401, 503), strict=False):
        product = (product * (_folded(column) + offset)) & _LOW_32
    return product


def checksum(numbers: Any) -> Any:
    """The sum of numbers from zero, modulo 2^63: by halves, so that no engine needs more than 64 bits for it, however long the log is."""
    low, high = (half.sum().cast("int64") for half in (numbers & _LOW_16, numbers >> 16))
    return (((high + (low >> 16)) & _LOW_47) << 16) | (low & _LOW_16)


def _folded(column: ir.IntegerColumn) -> Any:
    """21 bits that all bits of a number change. Shifts and short products mean the same everywhere, at a tenth of the price."""
    number: Any = (column % _PRIME if column.type().is_unsigned_integer() else column).cast("int64")
    return (number ^ (number >> 21) ^ (number >> 42)) & _LOW_21


def digest(text: ir.StringColumn) -> Any:
    """A number of each text, the same in every engine, unlike their own hashes. It takes ten times as long: ask it of distinct texts."""
    hexadecimal = text.hexdigest("md5")
    return sum(hexadecimal.substr(place, 1).ascii_str().cast("int64") * 16**place for place in range(6))
