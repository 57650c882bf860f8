"""Move rows between this process and the engine of an Ibis table."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.util import gen_name

_PRIME = 1_000_003
_LOW_16, _LOW_21, _LOW_32, _LOW_47 = ((1 << bits) - 1 for bits in (16, 21, 32, 47))


class Frame(Protocol):
    """A table that exports Arrow columns: a pandas, polars or Arrow frame, or an Ibis table."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def open_duckdb(file: Path | str = ":memory:", **settings: Any) -> Backend:
    """Return a new connection to a DuckDB database, without DuckDB's own progress bar.

    That bar goes to standard output in notebooks and in processes without a script, such as jobs.

    Args:
        file: File of the database.
        settings: Settings of DuckDB.
    """
    backend = ibis.duckdb.connect(file, **settings)
    # in a notebook without ipywidgets it is off, and DuckDB refuses to set it to anything
    if backend.con.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        backend.con.execute("SET enable_progress_bar = false")
    return backend


def batches(table: ir.Table) -> pa.RecordBatchReader:
    """Stream a table's rows in batches.

    Ibis's own stream calls a method that DuckDB 2 has removed, and of Spark it brings all rows at once.
    """
    backend = table.get_backend()
    if backend.name == "pyspark":
        schema, packed = table.schema().to_pyarrow(), spark_frame(table).mapInArrow(_packed, "data binary")
        rows = (row.data for row in packed.toLocalIterator(prefetchPartitions=True))
        unpacked = chain.from_iterable(map(pa.ipc.open_stream, rows))
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in unpacked))
    if not isinstance(backend, Backend):
        return table.to_pyarrow_batches()
    if table.op().find(ops.InMemoryTable):
        return table.to_pyarrow().to_reader()
    return pa.RecordBatchReader.from_stream(backend.con.sql(str(backend.compile(table))))


def _packed(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """On a worker: turn each batch into one row of bytes."""
    for batch in rows:
        packed = pa.BufferOutputStream()
        with pa.ipc.new_stream(packed, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.record_batch({"data": pa.array([packed.getvalue().to_pybytes()], pa.binary())})


def spark_frame(table: ir.Table) -> Any:
    """Return a table of Spark as its own data frame."""
    backend: Any = table.get_backend()
    return backend._session.sql(str(backend.compile(table)))


def write_batches(rows: pa.RecordBatchReader, file: Path, compression: str = "snappy") -> int:
    """Write rows as a Parquet file, batch by batch, and return their number."""
    number = 0
    with pq.ParquetWriter(file, rows.schema, compression=compression) as writer:
        for batch in rows:
            writer.write_batch(batch)
            number += len(batch)
    return number


def write_table(table: ir.Table, file: Path, compression: str = "snappy") -> int:
    """Write a table of any engine as one Parquet file of this machine, and return the number of its rows."""
    if not isinstance(table.get_backend(), Backend):
        return write_batches(batches(table), file, compression)
    table.to_parquet(file, compression=compression)
    return pq.read_metadata(file).num_rows


def hand_over(backend: ibis.BaseBackend, name: str, rows: pa.Table) -> ir.Table:
    """Copy rows of this process into a temporary table of an engine, which can join them to its own.

    The prefix of the name keeps a user's tables safe.
    """
    name = f"mgoe_{name}"
    if isinstance(backend, Backend):
        backend.con.register("mgoe_rows", rows)
        quoted = name.replace('"', '""')
        # copied, so that its size is known: it is the side to hash
        backend.con.execute(f'CREATE OR REPLACE TEMP TABLE "{quoted}" AS SELECT * FROM mgoe_rows')
        backend.con.unregister("mgoe_rows")
        return backend.table(name)
    if backend.name == "pyspark":
        backend._session.createDataFrame(rows).createOrReplaceTempView(name)  # type: ignore[attr-defined]
        return backend.table(name)
    return ibis.memtable(rows)


def computed(table: ir.Table) -> ir.Table:
    """Compute a table that is read several times once, and keep it in its engine as a temporary one.

    Engines other than DuckDB and Spark compute it whenever it is read.
    """
    backend, name = table.get_backend(), gen_name("mgoe")
    if isinstance(backend, Backend):
        return backend.create_table(name, table, temp=True)
    if backend.name == "pyspark":
        spark_frame(table).cache().createOrReplaceTempView(name)
        return backend.table(name)
    return table


@contextmanager
def bounded(backend: ibis.BaseBackend, memory: float, threads: int | None = None) -> Iterator[None]:
    """Limit DuckDB's memory inside the block; other engines have settings of their own.

    DuckDB spills the rest to the folder that the connection names: it keeps a folder it has spilled to, so
    one of ours would stay with a user's connection.

    Args:
        backend: Of a table.
        memory: GiB.
        threads: Upper limit; without one DuckDB decides.
    """
    if not isinstance(backend, Backend):
        yield
        return
    wanted = {
        "memory_limit": f"{memory:.2f}GiB",
        "preserve_insertion_order": "false",
        **({} if threads is None else {"threads": str(threads)}),
    }
    before = {name: backend.con.sql(f"SELECT current_setting('{name}')").fetchall()[0][0] for name in wanted}
    number, unit = before["memory_limit"].split()
    # DuckDB prints it to one decimal, rounded down: without the addition it would shrink at every use
    before["memory_limit"] = f"{float(number) + 0.05:.2f}{unit}"
    try:
        _set(backend, wanted)
        yield
    finally:
        _set(backend, before)


def _set(backend: Backend, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        backend.con.execute(f"SET {name} = '{value}'")


def mixed(*columns: ir.IntegerColumn) -> Any:
    """Return a number below 2^32 per row, for a `checksum`: equal in every engine, different if rows exchange
    values.

    Shifts and short products mean the same in every engine, at a tenth of the cost of a hash.

    Args:
        columns: Integers; five at most.
    """
    product: Any = 1
    for column, offset in zip(columns, (101, 211, 307, 401, 503), strict=False):
        number: Any = (column % _PRIME if column.type().is_unsigned_integer() else column).cast("int64")
        folded = (number ^ (number >> 21) ^ (number >> 42)) & _LOW_21  # all bits, in 21
        product = (product * (folded + offset)) & _LOW_32
    return product


def checksum(numbers: Any) -> Any:
    """Sum non-negative numbers modulo 2^63, by halves, so that no engine needs more than 64 bits for a log of
    any length.
    """
    low, high = (half.sum().cast("int64") for half in (numbers & _LOW_16, numbers >> 16))
    return (((high + (low >> 16)) & _LOW_47) << 16) | (low & _LOW_16)


def digest(text: ir.StringColumn) -> Any:
    """Return a number per text that is the same in every engine, unlike their own hashes.

    It takes ten times as long as `mixed`, so apply it to distinct texts.
    """
    hexadecimal = text.hexdigest("md5")
    return sum(hexadecimal.substr(place, 1).ascii_str().cast("int64") * 16**place for place in range(6))
