"""Counting the exposures of a log by groups, as of one snapshot.

The engine of the records groups and sums; cells come back in order and are written as they come.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import as_pattern
from mgoe._util.tables import batches, bounded, hand_over
from mgoe.errors import GraphError
from mgoe.graph.adjusted import Labels, adjusted_rates, is_adjusted
from mgoe.graph.build.workplace import Advance
from mgoe.graph.pair_rows import Side, starts
from mgoe.graph.rates import Axis, RateGroup, RateTable, describe
from mgoe.graph.shrinkage import USUAL, evidence, fit_prior

FIRST = ("user", "item", "bucket")
"""Columns by which records are sorted first."""
MOST_CELLS = 1 << 28
"""Cells of one group: at four tasks, 10 GB."""


RECORDS = "exposures.parquet"
"""The records of a graph, in its folder."""


@contextmanager
def database(work: Path, memory: float) -> Iterator[Backend]:
    """Yield a DuckDB database that spills to a folder of a build, with a limit in GiB."""
    con = ibis.duckdb.connect(temp_directory=str(work / "spill"), memory_limit=f"{memory:.2f}GiB")
    try:
        yield con
    finally:
        con.disconnect()


def write_sorted(records: ir.Table, file: Path, memory: float) -> None:
    """Write the records of any engine to a file, in an order that depends on their content alone.

    Args:
        records: Of `mgoe.data.exposure_history.exposure_history`.
        file: The file.
        memory: Limit of DuckDB in GiB.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    others = sorted({*records.columns} - {*FIRST})
    ordered = records.select(*FIRST, *others).order_by([*FIRST, *others])
    with bounded(records.get_backend(), memory):
        if isinstance(records.get_backend(), Backend):
            ordered.to_parquet(file, compression="zstd")
            return
        stream = batches(ordered)
        with pq.ParquetWriter(file, stream.schema, compression="zstd") as writer:
            for batch in stream:
                writer.write_batch(batch)


@dataclass(frozen=True)
class RatePlan:
    """What the snapshots of one graph count.

    Attributes:
        groups: In the order of a model's columns.
        records: File of `mgoe.data.exposure_history.exposure_history`.
        categories: Categories of each node by the name of the axis, -1 after the last. Shape (n, L).
        regressions: Whether each task is a regression, by name.
        memory: Of DuckDB, in GiB.
    """

    groups: tuple[RateGroup, ...]
    records: Path
    categories: Mapping[str, NDArray[np.int32]]
    regressions: Mapping[str, bool]
    memory: float

    def count(
        self,
        folder: Path,
        work: Path,
        cut: int,
        macro: Mapping[tuple[Side, int], NDArray[np.int32]],
        sizes: Mapping[Side, int],
        advance: Advance,
    ) -> None:
        """Write the cells and priors of every group.

        Args:
            folder: Of the snapshot.
            work: For what the engine spills.
            cut: Last bucket that counts.
            macro: Macro nodes by side and resolution. Shape (nodes,) each.
            sizes: Nodes of each side at the snapshot.
            advance: Receives the records of each group.

        Raises:
            GraphError: A group has too many cells.
        """
        rows = [_values_of(group.axes[0], macro, sizes) for group in self.groups]
        indptr = [np.empty(0, np.int64)]
        with self._opened(work, cut, macro, sizes) as con:
            with ArrayFolder(folder) as out:
                names = "second", *self._counts, *self._values
                out.append(self._arrays(dict.fromkeys(names, np.empty(0))))
                total, start = con.con.sql("SELECT count(*) FROM records").fetchall()[0][0], 0
                for group, n in zip(self.groups, rows, strict=True):
                    self._check_size(con, group, total)
                    degree = np.zeros(n, np.int64)
                    for column in _batches(con, self._query(group, cut)):
                        degree += np.bincount(column["first"], minlength=n)
                        out.append(self._arrays(column))
                    indptr.append(start + starts(degree))
                    start = int(indptr[-1][-1])
                    advance(total)
            other, counts, values = (
                mapped(folder / f"rates.{name}.npy") for name in ("other", "counts", "values")
            )
            tables = []
            for one in indptr[1:]:
                cells = slice(int(one[0]), int(one[-1]))
                tables.append(
                    RateTable(one, other, counts, values, self._priors(counts[cells], values[cells]))
                )
            adjusted = self._adjusted(con, tables)
        arrays = {
            "rates.starts": np.cumsum([0, *(len(one) for one in indptr[1:])]),
            "rates.indptr": np.concatenate(indptr),
            "rates.prior": np.array([table.prior for table in tables]).reshape(-1, len(self.regressions), 2),
            "rates.adjusted": np.concatenate(adjusted),
        }
        save_arrays(folder, arrays)

    def _adjusted(self, con: Backend, tables: Sequence[RateTable]) -> list[NDArray[np.float32]]:
        """Return the adjusted rates of the groups that have any, after an array without rows."""
        nothing = np.empty((0, len(self.regressions)), np.float32)
        groups = [number for number, group in enumerate(self.groups) if is_adjusted(group)]
        regressions = np.array([*self.regressions.values()], bool)
        binary = sum(1 << t for t in np.flatnonzero(~regressions).tolist())
        if not groups or not binary:
            return [
                nothing,
                *(np.zeros((len(tables[g].indptr) - 1, len(regressions)), np.float32) for g in groups),
            ]
        axes = ", ".join(f"{_column(self.groups[g].axes[0])} AS axis{k}" for k, g in enumerate(groups))
        query = f"SELECT {axes}, labelled & {binary} AS labelled FROM records WHERE labelled & {binary} > 0"

        def read() -> Iterator[Labels]:
            for column in _batches(con, query):
                values = np.stack([column[f"axis{k}"] for k in range(len(groups))], 1)
                yield Labels(values.astype(np.int64), column["labelled"])

        return [nothing, *adjusted_rates([tables[g] for g in groups], regressions, read())]

    def evidence(self, work: Path, cut: int, sizes: Mapping[Side, int]) -> dict[str, float]:
        """Return how much likelier labels are with rates per cell than with one for all, by group.

        Args:
            work: For what the engine spills.
            cut: Last bucket that counts.
            sizes: Nodes of each side.

        Returns:
            The largest `evidence` of a binary task, by the name of each group.
        """
        binary = [t for t, regression in enumerate(self.regressions.values()) if not regression]
        with self._opened(work, cut, {}, sizes) as con:
            cells = {group.name: con.con.sql(self._query(group, cut)).fetchnumpy() for group in self.groups}
        return {
            name: max((evidence(found[f"labelled{t}"], found[f"done{t}"]) for t in binary), default=0.0)
            for name, found in cells.items()
        }

    @contextmanager
    def _opened(
        self,
        work: Path,
        cut: int,
        macro: Mapping[tuple[Side, int], NDArray[np.int32]],
        sizes: Mapping[Side, int],
    ) -> Iterator[Backend]:
        """Yield a database with the view `records` and the values of all nodes on each axis."""
        with database(work, self.memory) as con:
            records = con.con.read_parquet(as_pattern(self.records)).filter(f"bucket <= {cut}")
            records.create_view("records")
            for axis in {axis for group in self.groups for axis in group.axes}:
                if axis.kind != "node" and axis.side != "context":
                    of_macro = axis.kind == "macro"
                    values = (
                        macro[axis.side, axis.resolution][:, None] if of_macro else self.categories[axis.name]
                    )
                    hand_over(con, axis.name, _by_node(values, sizes[axis.side]))
            yield con

    def facts(self) -> dict[str, int]:
        """Return the number of `records` and their `last_bucket`, which an event need not have."""
        with duckdb.connect() as con:
            held = con.read_parquet(as_pattern(self.records))
            records, last = held.aggregate("count(*), max(bucket)").fetchall()[0]
        return {"records": records, "last_bucket": last or 0}

    def described(self) -> dict[str, Any]:
        """Return the groups as plain values, for the manifest."""
        return {
            "groups": describe(self.groups),
            "categories": list(self.categories),
            "regressions": dict(self.regressions),
        }

    def save_categories(self, folder: Path) -> None:
        """Write the categories of all nodes into the folder of a graph."""
        for number, values in enumerate(self.categories.values()):
            np.save(folder / f"categories{number}.npy", values, allow_pickle=False)

    def _check_size(self, con: Backend, group: RateGroup, records: int) -> None:
        """Refuse a group with too many cells, before they are counted."""
        if min(records, np.prod([axis.size or np.inf for axis in group.axes])) <= MOST_CELLS:
            return
        keys = ", ".join(map(_column, group.axes))
        found = con.con.sql(f"SELECT approx_count_distinct(({keys})) FROM {_rows(group)}").fetchall()[0][0]
        if found > MOST_CELLS:
            raise GraphError(
                "graph.rates",
                f"a group has at most {MOST_CELLS:,} cells, found some {found:,} in {group.name!r}; "
                "leave it out, or take a coarser category",
            )

    def _query(self, group: RateGroup, cut: int) -> str:
        """Return the query of one row per cell: `first`, `second`, and its sums."""
        first, second = (*map(_column, group.axes), "0")[:2]
        since = "" if group.last is None else f"WHERE bucket > {cut - group.last}"
        masks = (
            f"sum(({kind} >> {t}) & 1)::UINTEGER AS {kind}{t}"
            for kind in ("labelled", "done")
            for t in range(len(self.regressions))
        )
        values = (
            f'sum("value_{name}")::BIGINT AS "value_{name}"' for name, one in self.regressions.items() if one
        )
        sums = ", ".join(("sum(shown)::UINTEGER AS shown", *masks, *values))
        return (
            f"SELECT {first} AS first, {second} AS second, {sums} FROM {_rows(group)} {since} "
            "GROUP BY first, second ORDER BY first, second"
        )

    @property
    def _counts(self) -> list[str]:
        tasks = range(len(self.regressions))
        return ["shown", *(f"labelled{t}" for t in tasks), *(f"done{t}" for t in tasks)]

    @property
    def _values(self) -> list[str]:
        return [f"value_{name}" for name, regression in self.regressions.items() if regression]

    def _arrays(self, column: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Return cells as the arrays of `RateTable`."""
        nothing = np.empty((len(column["second"]), 0))
        counts = np.column_stack([nothing, *(column[name] for name in self._counts)])
        values = np.column_stack([nothing, *(column[name] for name in self._values)])
        return {
            "rates.other": column["second"].astype(np.int32),
            "rates.counts": counts.astype(np.uint32),
            "rates.values": values.astype(np.int64),
        }

    def _priors(self, counts: NDArray[np.uint32], values: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the rate (or mean) of all cells and its weight for each task. Shape (T, 2)."""
        tasks, column, priors = len(self.regressions), 0, []
        for t, regression in enumerate(self.regressions.values()):
            labelled, done = counts[:, 1 + t], counts[:, 1 + tasks + t]
            if regression:
                total = int(values[:, column].sum(dtype=np.int64))
                priors.append((total * 1e-6 / max(1, int(labelled.sum(dtype=np.int64))), USUAL))
                column += 1
            else:
                priors.append(fit_prior(labelled, done))
        return np.array(priors, np.float64)


def _batches(con: Backend, query: str) -> Iterator[dict[str, NDArray]]:
    """Yield the result of a query in batches of columns."""
    for batch in pa.RecordBatchReader.from_stream(con.con.sql(query)):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}


def _by_node(values: NDArray[np.int32], nodes: int) -> pa.Table:
    """Return a row per node and category, each once; nodes beyond the values have the unknown category."""
    if len(values) < nodes:
        unknown = np.full((nodes - len(values), values.shape[1]), -1, np.int32)
        unknown[:, 0] = 0
        values = np.concatenate([values, unknown])
    node = np.repeat(np.arange(nodes), values.shape[1])
    flat = np.asarray(values[:nodes]).ravel()
    held = np.unique(np.stack([node, flat])[:, flat >= 0], axis=1) if values.shape[1] > 1 else (node, flat)
    return pa.table({"node": held[0].astype(np.int64), "value": held[1].astype(np.int32)})


def _column(axis: Axis) -> str:
    """Return the column of an axis in `_rows`."""
    if axis.side == "context":
        return _quoted(f"context_{axis.name}")
    return f"records.{axis.side}" if axis.kind == "node" else f"{_quoted(f'mgoe_{axis.name}')}.value"


def _rows(group: RateGroup) -> str:
    """Return the records, joined with the values of a group's axes."""
    joined = [axis for axis in group.axes if axis.kind != "node" and axis.side != "context"]
    names = [(_quoted(f"mgoe_{axis.name}"), axis.side) for axis in joined]
    return " ".join(("records", *(f"JOIN {name} ON records.{side} = {name}.node" for name, side in names)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _values_of(
    axis: Axis, macro: Mapping[tuple[Side, int], NDArray[np.int32]], sizes: Mapping[Side, int]
) -> int:
    """Return the number of values of an axis at a snapshot."""
    if axis.kind == "category":
        return axis.size
    assert axis.side != "context"
    if axis.kind == "node":
        return sizes[axis.side]
    return int(macro[axis.side, axis.resolution].max(initial=0)) + 1
