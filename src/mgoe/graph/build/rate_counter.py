"""Counting the exposures of a log by groups, as of one snapshot.

Records are stored by user, so groups by users are counted as they are read; DuckDB groups and sorts for all
others. Cells come in order and are written as they come.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, fence, mapped, save_arrays
from mgoe._util.files import as_pattern
from mgoe._util.tables import bounded, hand_over, open_duckdb, write_table
from mgoe.errors import GraphError
from mgoe.graph.adjusted import Labels, adjusted_rates, is_adjusted
from mgoe.graph.build.cells import CellCounter, Cells, Marks, joined
from mgoe.graph.build.workplace import Advance
from mgoe.graph.manifest import CountedRates
from mgoe.graph.pair_rows import Side, starts
from mgoe.graph.rates import Axis, RateGroup, RateTable, describe, distinct
from mgoe.graph.shrinkage import evidence, fit_mean_prior, fit_prior

FIRST, TIMES = ("user", "item", "bucket"), ("time", "known")
"""Columns by which records are sorted first, and those that a graph does without."""
MOST_CELLS = 1 << 28
"""Cells of one group: at four tasks, 10 GB."""
POSITION = RateGroup((Axis("position", "context", "position"),))
"""Counted for the adjusted rates alone: where an item will be shown is not known when it is ranked."""
FENCE_ROWS = 1 << 18
"""Records by which outliers of a regression are told, about as many."""
MOST_STEPS = 1 << 40
"""Steps in which the largest value of a regression is squared."""
CELLS = ("rates.other", "rates.counts", "rates.values")
"""Arrays of the cells of a snapshot, as `RateTable` has them."""
RECORDS = "exposures.parquet"
"""The records of a graph, in its folder."""


@contextmanager
def database(work: Path, memory: float) -> Iterator[Backend]:
    """Yield a DuckDB database that spills to a folder of a build, with a limit in GiB."""
    con = open_duckdb(temp_directory=str(work / "spill"), memory_limit=f"{memory:.2f}GiB")
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
    others = sorted({*records.columns} - {*FIRST, *TIMES})
    ordered = records.select(*FIRST, *others).order_by([*FIRST, *others])
    with bounded(records.get_backend(), memory):
        write_table(ordered, file, "zstd")


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
                out.append(dict(zip(CELLS, self._counter().rest()[1:], strict=True)))
                total, start = con.con.sql("SELECT count(*) FROM records").fetchall()[0][0], 0
                for group, n in zip(self.groups, rows, strict=True):
                    self._check_size(con, group, total)
                    degree = np.zeros(n, np.int64)
                    for cells in self._cells(con, group, sizes):
                        low = int(cells.first.min(initial=n))
                        found = np.bincount(cells.first - low)
                        degree[low : low + len(found)] += found
                        out.append(dict(zip(CELLS, cells[1:], strict=True)))
                    indptr.append(start + starts(degree))
                    start = int(indptr[-1][-1])
                    advance(total)
            other, counts, values = (mapped(folder / f"{name}.npy") for name in CELLS)
            cells = [slice(int(one[0]), int(one[-1])) for one in indptr[1:]]
            priors = [
                self._priors(counts[own], values[own], self._squares(con, group))
                for own, group in zip(cells, self.groups, strict=True)
            ]
            tables = [
                RateTable(one, other, counts, values, prior)
                for one, prior in zip(indptr[1:], priors, strict=True)
            ]
            adjusted = self._adjusted(con, tables)
        arrays = {
            "rates.starts": np.cumsum([0, *(len(one) for one in indptr[1:])]),
            "rates.indptr": np.concatenate(indptr),
            "rates.prior": np.array(priors).reshape(-1, len(self.regressions), 2),
            "rates.adjusted": np.concatenate(adjusted),
        }
        save_arrays(folder, arrays)

    def _adjusted(self, con: Backend, tables: Sequence[RateTable]) -> list[NDArray[np.float32]]:
        """Return the adjusted rates of the groups that have any, after an array without rows."""
        nothing = np.empty((0, len(self.regressions)), np.float32)
        chosen = [number for number, group in enumerate(self.groups) if is_adjusted(group)]
        groups, tables = [self.groups[g] for g in chosen], [tables[g] for g in chosen]
        regressions = np.array([*self.regressions.values()], bool)
        adjusted = np.flatnonzero(~regressions | regressions.all())
        bits = sum(1 << t for t in adjusted.tolist())
        if not groups or not bits:
            return [
                nothing,
                *(np.zeros((len(table.indptr) - 1, len(regressions)), np.float32) for table in tables),
            ]
        stored = len(groups)
        if (positions := self._positions(con)) is not None:
            groups, tables = [*groups, POSITION], [*tables, positions]
        axes = ", ".join(f"{_column(group.axes[0])} AS axis{k}" for k, group in enumerate(groups))
        query = f"SELECT {axes}, labelled & {bits} AS labelled FROM records WHERE labelled & {bits} > 0"

        def read() -> Iterator[Labels]:
            for column in _batches(con, query):
                values = np.stack([column[f"axis{k}"] for k in range(len(groups))], 1)
                yield Labels(values.astype(np.int64, copy=False), column["labelled"])

        return [nothing, *adjusted_rates(tables, regressions, read)[:stored]]

    def _positions(self, con: Backend) -> RateTable | None:
        """Return what was shown at each position, 0 if it is unknown; None where all are the same."""
        if "position" not in con.table("records").columns:
            return None
        cells = joined(self._cells(con, POSITION, {}))
        if len(cells.first) < 2:
            return None
        indptr = starts(np.bincount(cells.first))
        prior = self._priors(cells.counts, cells.values, self._squares(con, POSITION))
        return RateTable(indptr, *cells[1:], prior)

    def evidence(self, work: Path, cut: int, sizes: Mapping[Side, int]) -> dict[str, float]:
        """Return the share of the labels' entropy that rates per cell explain, by group.

        Args:
            work: For what the engine spills.
            cut: Last bucket that counts.
            sizes: Nodes of each side.

        Returns:
            The largest `evidence` of a binary task, by the name of each group.
        """
        tasks = len(self.regressions)
        binary = [t for t, regression in enumerate(self.regressions.values()) if not regression]
        out: dict[str, float] = {}
        with self._opened(work, cut, {}, sizes) as con:
            for group in self.groups:
                counts = joined(self._cells(con, group, sizes)).counts
                each = (evidence(counts[:, 1 + t], counts[:, 1 + tasks + t]) for t in binary)
                out[group.name] = max(each, default=0.0)
        return out

    @contextmanager
    def _opened(
        self,
        work: Path,
        cut: int,
        macro: Mapping[tuple[Side, int], NDArray[np.int32]],
        sizes: Mapping[Side, int],
    ) -> Iterator[Backend]:
        """Yield a database with the view `records` and the values of all nodes on each axis.

        Outliers of a regression count as the `fence` of its values so far, so that none moves a mean far.
        """
        with database(work, self.memory) as con:
            records = con.con.read_parquet(as_pattern(self.records)).filter(f"bucket <= {cut}")
            for name in map(_quoted, self._values):
                chosen = f"(user::BIGINT + item + bucket) % {1 + len(records) // FENCE_ROWS} = 0"
                most = min(fence(*records.filter(chosen).project(name).fetchnumpy().values()), 2.0**62)
                records = records.project(f"* REPLACE (least({name}, {most:.0f}::BIGINT) AS {name})")
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
        """Return the number of `records`, and the `last_bucket` in which something was shown or done.

        A label 0 does not make the latest snapshot later: some logs say that it is known in a far future.
        """
        with open_duckdb().con as con:
            held = con.read_parquet(as_pattern(self.records))
            records, last = held.aggregate("count(*), max(bucket) FILTER (shown > 0 OR done > 0)").fetchall()[
                0
            ]
        return {"records": records, "last_bucket": last or 0}

    def described(self) -> CountedRates:
        """Return the groups as plain values, for the manifest."""
        return CountedRates(describe(self.groups), list(self.categories), dict(self.regressions))

    def save_categories(self, folder: Path) -> None:
        """Write the categories of all nodes into the folder of a graph."""
        save_arrays(folder, {f"categories{k}": values for k, values in enumerate(self.categories.values())})

    def _check_size(self, con: Backend, group: RateGroup, records: int) -> None:
        """Refuse a group with too many cells, before they are counted."""
        several = [self.categories[axis.name].shape[1] for axis in group.axes if axis.name in self.categories]
        most = np.inf if any(axis.several for axis in group.axes) else records * np.prod(several)
        if min(most, np.prod([axis.size or np.inf for axis in group.axes])) <= MOST_CELLS:
            return
        keys = ", ".join(map(_column, group.axes))
        found = con.con.sql(f"SELECT approx_count_distinct(({keys})) FROM {_rows(group)}").fetchall()[0][0]
        if found > MOST_CELLS:
            raise GraphError(
                "graph.rates",
                f"a group has at most {MOST_CELLS:,} cells, found some {found:,} in {group.name!r}; "
                "leave it out, or take a coarser category",
            )

    def _cells(self, con: Backend, group: RateGroup, sizes: Mapping[Side, int]) -> Iterator[Cells]:
        """Yield the cells of a group in order, a part at a time."""
        counter, first = self._counter(), group.axes[0]
        by_user = first.kind == "node" and first.side == "user" and not group.axes[-1].several
        for marks in self._by_user(con, group, sizes) if by_user else self._marks(con, self._grouped(group)):
            yield counter.add(marks)
        yield counter.rest()

    def _counter(self) -> CellCounter:
        return CellCounter(1 + 2 * len(self.regressions), len(self._values))

    def _by_user(self, con: Backend, group: RateGroup, sizes: Mapping[Side, int]) -> Iterator[Marks]:
        """Yield the records of a group by users: as they are stored, and so in order."""
        user, axis = group.axes[0], group.axes[-1]
        if axis.kind == "node" or axis.side == "context":
            yield from self._marks(con, self._query(group))
            return
        values = con.con.sql(f"FROM {_table(axis)} ORDER BY node").fetchnumpy()
        indptr = starts(np.bincount(values["node"], minlength=sizes[axis.side]))
        by_node = replace(group, axes=(user, Axis(axis.side, axis.side, "node")))
        for marks in self._marks(con, self._query(by_node)):
            yield marks.spread(indptr, values["value"])

    def _marks(self, con: Backend, query: str) -> Iterator[Marks]:
        """Yield the rows of a query, which are in order of the first axis."""
        for column in _batches(con, query):
            first, second, bits, times, *values = column.values()
            sums = np.column_stack([np.empty((len(first), 0), np.int64), *values])
            yield Marks(first, second, bits, times, sums)

    def _grouped(self, group: RateGroup) -> str:
        """Return the query of one row per cell and kind of record in it, in order of the first axis.

        A state of one number per kind, rather than a sum per column, makes it twice as fast.
        """
        sums = (f", sum({name})::BIGINT AS {name}" for name in map(_quoted, self._values))
        return (
            f"SELECT first, second, bits, count(*) AS times{''.join(sums)} FROM ({self._query(group)}) "
            "GROUP BY first, second, bits ORDER BY first"
        )

    def _query(self, group: RateGroup) -> str:
        """Return the query of the records of a group, with the columns of `Marks`."""
        first, second = (*map(_column, group.axes), "0")[:2]
        shown = "(SELECT max(bucket) FROM records WHERE shown > 0)"  # labels may be known long after
        since = "" if group.last is None else f"WHERE bucket > {shown} - {group.last}"
        bits = f"shown::BIGINT | (labelled::BIGINT << 1) | (done::BIGINT << {1 + len(self.regressions)})"
        values = "".join(f", {_quoted(name)}" for name in self._values)
        return (
            f"SELECT {first}::INTEGER AS first, {second}::INTEGER AS second, {bits} AS bits, "
            f"1::BIGINT AS times{values} "
            f"FROM {_rows(group)} {since}"
        )

    @property
    def _values(self) -> list[str]:
        return [f"value_{name}" for name, regression in self.regressions.items() if regression]

    def _squares(self, con: Backend, group: RateGroup) -> list[float]:
        """Return the sum of the squares of each regression's values over the records of a group.

        Whole steps are added, so that the sum neither overflows nor depends on the order.
        """
        out = []
        for name in map(_quoted, self._values):
            largest = con.con.sql(f"SELECT max(abs({name})) FROM records").fetchall()[0][0] or 0
            step = largest // MOST_STEPS + 1
            value = f"({name} // {step})::HUGEINT"
            query = f"SELECT sum({value} * {value}) FROM ({self._query(group)})"
            out.append(float(con.con.sql(query).fetchall()[0][0] or 0) * (step * 1e-6) ** 2)
        return out

    def _priors(
        self, counts: NDArray[np.uint32], values: NDArray[np.int64], squares: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the rate (or mean) of all cells and its weight for each task. Shape (T, 2)."""
        tasks, sums, of_squares, priors = len(self.regressions), iter(values.T), iter(squares), []
        for t, regression in enumerate(self.regressions.values()):
            labelled, done = counts[:, 1 + t], counts[:, 1 + tasks + t]
            if regression:
                priors.append(fit_mean_prior(labelled, next(sums) * 1e-6, next(of_squares)))
            else:
                priors.append(fit_prior(labelled, done))
        return np.array(priors, np.float64)


def _batches(con: Backend, query: str) -> Iterator[dict[str, NDArray]]:
    """Yield the result of a query in batches of columns."""
    for batch in pa.RecordBatchReader.from_stream(con.con.sql(query)):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}


def _by_node(values: NDArray[np.int32], nodes: int) -> pa.Table:
    """Return a row per node and category, each once; nodes beyond the values have the unknown category."""
    unknown = np.full((max(0, nodes - len(values)), values.shape[1]), -1, np.int32)
    unknown[:, 0] = 0
    node, value = distinct(np.concatenate([values, unknown])[:nodes])
    return pa.table({"node": node, "value": value.astype(np.int32)})


def _table(axis: Axis) -> str:
    """Return the table with the values of an axis."""
    return _quoted(f"mgoe_{axis.name}")


def _column(axis: Axis) -> str:
    """Return the column of an axis in `_rows`."""
    if axis.kind == "position":
        return _quoted(axis.name)
    if axis.side == "context" and not axis.several:
        return _quoted(f"context_{axis.name}")
    return f"records.{axis.side}" if axis.kind == "node" else f"{_table(axis)}.value"


def _rows(group: RateGroup) -> str:
    """Return the records, joined with the values of a group's axes."""
    tables = ["records"]
    for axis in group.axes:
        name = _table(axis)
        if axis.several:
            tables.append(f"CROSS JOIN unnest({_quoted(f'context_{axis.name}')}) AS {name}(value)")
        elif axis.kind != "node" and axis.side != "context":
            tables.append(f"JOIN {name} ON records.{axis.side} = {name}.node")
    return " ".join(tables)


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
