"""Cells of a group of exposures, counted from records that come in the order of the first axis."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel


class Marks(NamedTuple):
    """Records of exposures, those that are alike together. Shape (n,) each.

    Attributes:
        first, second: Values of the two axes; the first ascends.
        bits: What the records say, a bit per column of counts.
        times: Number of records.
        values: Sums of regression labels in millionths. Shape (n, regressions).
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    bits: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.int64]

    def spread(self, indptr: NDArray[np.int64], values: NDArray[np.int32]) -> Self:
        """Return the records once per value of their second axis, which are those of a node.

        Args:
            indptr: Where the values of each node start. Shape (nodes + 1,).
            values: Of all nodes.
        """
        record, second = _spread(self.second, indptr, values)
        return type(self)(
            self.first[record], second, self.bits[record], self.times[record], self.values[record]
        )


class Cells(NamedTuple):
    """Counted cells.

    Attributes:
        first: Value of the first axis. Shape (E,).
        other, counts, values: See `mgoe.graph.rates.RateTable`.
    """

    first: NDArray[np.int32]
    other: NDArray[np.int32]
    counts: NDArray[np.uint32]
    values: NDArray[np.int64]

    @classmethod
    def empty(cls, cells: int, columns: int, regressions: int) -> Self:
        """Return cells to be filled."""
        return cls(
            np.empty(cells, np.int32),
            np.empty(cells, np.int32),
            np.empty((cells, columns), np.uint32),
            np.empty((cells, regressions), np.int64),
        )

    def at(self, cells: slice | NDArray[np.intp]) -> Self:
        """Return some of the cells."""
        return type(self)(self.first[cells], self.other[cells], self.counts[cells], self.values[cells])


def joined(parts: Iterable[Cells]) -> Cells:
    """Return the cells of all parts, of which there is at least one."""
    return Cells(*map(np.concatenate, zip(*parts, strict=True)))


class CellCounter:
    """Counts records in any number of parts; the cells of the last value of the first axis stay open.

    Args:
        columns: Of counts.
        regressions: Number of sums.
    """

    def __init__(self, columns: int, regressions: int):
        self._place = np.empty(0, np.int32)  # of a value of the second axis among the open cells, or -1
        self._open = Cells.empty(0, columns, regressions)

    def add(self, marks: Marks) -> Cells:
        """Count more records, and return the cells that are complete, in order."""
        new = int(marks.second.max(initial=-1)) + 1 - len(self._place)
        self._place = np.pad(self._place, (0, max(0, new)), constant_values=-1)
        held, columns, regressions = len(self._open.first), *(one.shape[1] for one in self._open[2:])
        done = Cells.empty(held + len(marks.first), columns, regressions)
        work = Cells.empty(min(len(done.first), len(self._place)), columns, regressions)
        for to, column in zip(work, self._open, strict=True):
            to[:held] = column
        cells, held = _count(marks, self._place, held, work, done)
        self._open = work.at(slice(held))
        return done.at(slice(cells))

    def rest(self) -> Cells:
        """Return the cells that are still open, in order."""
        return self._open.at(np.argsort(self._open.other))


@kernel("place", "work", "done")
def _count(marks, place, held, work, done):  # pragma: no cover - compiled
    """Count records in cells: open ones in `work`, in any order, and complete ones in `done`, in order.

    Returns:
        Number of complete and of open cells.
    """
    cells = 0
    for k in range(len(marks.first)):
        if held and marks.first[k] != work.first[0]:
            cells = _close(place, held, work, done, cells)
            held = 0
        second, bits, times = marks.second[k], marks.bits[k], np.uint32(marks.times[k])
        at = place[second]
        new = at < 0
        if new:
            at = place[second] = held
            work.first[at], work.other[at] = marks.first[k], second
            held += 1
        for column in range(work.counts.shape[1]):
            before = np.uint32(0) if new else work.counts[at, column]
            work.counts[at, column] = before + times * np.uint32(bits >> column & 1)
        for column in range(work.values.shape[1]):
            before = np.int64(0) if new else work.values[at, column]
            work.values[at, column] = before + marks.values[k, column]
    return cells, held


@kernel("place", "work", "done")
def _close(place, held, work, done, cells):  # pragma: no cover - compiled
    """Move open cells behind the complete ones, ascending by the second axis."""
    for second in np.sort(work.other[:held]):
        at = place[second]
        done.first[cells], done.other[cells] = work.first[at], second
        for column in range(work.counts.shape[1]):
            done.counts[cells, column] = work.counts[at, column]
        for column in range(work.values.shape[1]):
            done.values[cells, column] = work.values[at, column]
        place[second] = -1
        cells += 1
    return cells


@kernel()
def _spread(nodes, indptr, values):  # pragma: no cover - compiled
    """Return the record and the value of each pair of these."""
    total = 0
    for node in nodes:
        total += indptr[node + 1] - indptr[node]
    record, value, to = np.empty(total, np.int64), np.empty(total, np.int32), 0
    for k in range(len(nodes)):
        for e in range(indptr[nodes[k]], indptr[nodes[k] + 1]):
            record[to], value[to] = k, values[e]
            to += 1
    return record, value
