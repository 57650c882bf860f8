"""Counting the exposures of a log by groups, as of one snapshot.

The engine of the records groups and sums; cells come back in order and are written as they come.
"""

from collections.abc import Iterator, Mapping
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
from mgoe.graph.build.workplace import Advance
from mgoe.graph.pair_rows import Side, starts
from mgoe.graph.rates import Axis, RateGroup, describe
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
        with self._opened(work, cut, macro, sizes) as con:
            total = con.con.sql("SELECT count(*) FROM records").fetchall()[0][0]
            for number, group in enumerate(self.groups):
                self._check_size(con, group, total)
                cells = con.con.sql(self._query(group, cut))
                self._write(folder, number, cells, _values_of(group.axes[0], macro, sizes))
                advance(total)

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

    def _write(self, folder: Path, number: int, cells: duckdb.DuckDBPyRelation, rows: int) -> None:
        """Write the cells of a group, whose first axis has so many values, and its priors."""
        tasks, degree = range(len(self.regressions)), np.zeros(rows, np.int64)
        counts = ["shown", *(f"labelled{t}" for t in tasks), *(f"done{t}" for t in tasks)]
        values = [f"value_{name}" for name, regression in self.regressions.items() if regression]

        def arrays(column: Mapping[str, NDArray]) -> dict[str, NDArray]:
            nothing = np.empty((len(column["second"]), 0))
            held = {
                "other": column["second"].astype(np.int32),
                "counts": np.column_stack([nothing, *(column[name] for name in counts)]).astype(np.uint32),
                "values": np.column_stack([nothing, *(column[name] for name in values)]).astype(np.int64),
            }
            return {f"rates{number}.{name}": array for name, array in held.items()}

        with ArrayFolder(folder) as out:
            out.append(arrays(dict.fromkeys(["second", *counts, *values], np.empty(0))))
            for batch in pa.RecordBatchReader.from_stream(cells):
                column = {
                    name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names
                }
                degree += np.bincount(column["first"], minlength=rows)
                out.append(arrays(column))
        held = (mapped(folder / f"rates{number}.{name}.npy") for name in ("counts", "values"))
        save_arrays(
            folder,
            {f"rates{number}.indptr": starts(degree), f"rates{number}.prior": self._priors(*held)},
        )

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
        return np.array(priors, np.float64).reshape(tasks, 2)


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
