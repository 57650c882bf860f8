"""What becomes known of exposures while a service runs, and counts of it since a snapshot: items' rates move
with what is shown, labelled and done now.

What is known follows the rules of `mgoe.data.exposure_history`, so that counts that follow a log are those of
the next graph.

Groups of the item itself move, alone or with a category of the context. Those of users wait for the next
graph: between two exposures of a user they would carry that user's own answers, which tells moments apart and
not items. Where all tasks are regressions, such as ratings, it is moments that are to be told apart: how high
a user rates is known after a few ratings, and groups of users move too. Categories and macro nodes have many
exposures, and change little within a day.

Axes: `n` exposures, `E` places of a table, `T` tasks, `R` regressions.
"""

import heapq
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import with_room
from mgoe._util.hash_table import place_of
from mgoe._util.kernels import kernel
from mgoe.bundle.held import START, Mark
from mgoe.config import TaskSettings, seconds
from mgoe.data.exposure_history import VALUE_UNIT
from mgoe.data.waiting import longest_delay
from mgoe.features import RateCells
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.graph.rates import Rates, distinct, is_live
from mgoe.serving.events.event import Id
from mgoe.serving.events.log import ServiceLog

AT_ONCE = 20_000
"""New exposures read at once, so that events need not wait long for the thread that reads both."""
PAUSE = 10.0
"""Seconds between two looks at the log. After each, what is stored of the items in it is computed again."""
MIN_PLACES = 1 << 10
"""Places of a table without cells; a power of 2."""


class Changes(NamedTuple):
    """Exposures of which more is known than before.

    Attributes:
        user, item: Ids, as texts. Length n each.
        context: Context features as JSON; None if there are none. Length n.
        counts: What is added to the counts of `RateTable`. Shape (n, 1 + 2T).
        values: What is added to the sums of regression labels. Shape (n, R).
    """

    user: Sequence[str]
    item: Sequence[str]
    context: Sequence[str | None]
    counts: NDArray[np.int64]
    values: NDArray[np.int64]


class ExposureFollower:
    """Reads what has become known of the exposures of a log since the last time.

    Args:
        log: The log of a service.
        tasks: Tasks of the bundle, in their order.
        after: Up to where the bundle's graph holds the exposures.

    Attributes:
        mark: Up to where they have been read.
        has_more: Whether there was more to read the last time.

    Raises:
        StoreError: The log is away.
    """

    def __init__(self, log: ServiceLog, tasks: Sequence[TaskSettings], after: Mark = START):
        self._log, self._tasks = log, tasks
        self._number = {task.name: t for t, task in enumerate(tasks)}
        self._regressions = np.array([task.kind == "regression" for task in tasks])
        self._delay = longest_delay(tasks)
        self._held, self._after = after, int(after.position or 0)
        self.restart()

    def restart(self) -> None:
        """Go back to the first exposure, as if nothing had been read.

        Raises:
            StoreError: The log is away.
        """
        self.mark, self._last, self._next, self.has_more = self._held, self._after, 0.0, True
        self._labels = self._log.newest[1]  # those that are there are read with their exposures
        self._due: list[tuple[int, int]] = []  # a heap of moments, and the exposures with labels known then
        # of each exposure whether it is counted as shown, as labelled and as done, by task
        self._flags = np.zeros((AT_ONCE, 1 + 2 * len(self._tasks)), bool)
        self._values = np.zeros((AT_ONCE, int(self._regressions.sum())), np.int64)
        self._ids, self._size = (
            np.zeros(AT_ONCE, np.int64),
            0,
        )  # rising positions of those read

    @property
    def is_due(self) -> bool:
        """Whether to `read` now: there was more to read the last time, or that was some seconds ago."""
        return self.has_more or time.monotonic() >= self._next

    @property
    def bytes(self) -> int:
        """Memory for what is counted of each exposure."""
        return self._flags.nbytes + self._values.nbytes + self._ids.nbytes

    def read(self, now: int | None = None) -> Changes | None:
        """Return what has become known of some exposures; None if nothing has.

        Args:
            now: Microseconds since 1970; by default the present. Labels that become known later wait.

        Raises:
            StoreError: The log is away, or another. The next call returns what this one should have.
        """
        now = time.time_ns() // 1000 if now is None else now
        exposure, label = self._log.newest
        last = max(self._last, min(exposure, self._last + AT_ONCE))
        touched = self._log.touched(self._labels, self._last, last, self._delay)
        touched |= {number for moment, number in self._due if moment <= now}
        ids = [number for number in touched if self._after < number <= self._last]
        ids += range(self._last + 1, last + 1)
        rows = self._log.rows_of(ids, [*self._number], self._delay) if ids else []
        mark = self._log.mark(last)
        self._log.check(self.mark)  # last: all of this was read from the log that was read before
        changes = self._counted(rows, now) if rows else None
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)
        self.mark, self._last, self._labels, self.has_more = mark, last, label, last < exposure
        self._next = time.monotonic() + PAUSE
        return changes

    def _counted(self, rows: list[tuple[Any, ...]], now: int) -> Changes:
        """Count exposures and their labels, less what is already counted of them."""
        ids, _, _, users, items, times, _, _, contexts, *labels = zip(*rows, strict=True)
        number = np.array(ids)
        label, moment = self._known(
            np.array(times), np.array(labels[::2], np.float64).T, np.array(labels[1::2], np.int64).T
        )
        labelled = ~np.isnan(label) & (moment <= now)
        for row in np.flatnonzero((~np.isnan(label) & ~labelled).any(axis=1)).tolist():
            later = moment[row][~np.isnan(label[row]) & ~labelled[row]]
            heapq.heappush(self._due, (int(later.min()), int(number[row])))
        new = number[number > self._last]
        size = self._size + len(new)
        self._ids = with_room(self._ids, size)
        self._ids[self._size : size] = new
        places = np.searchsorted(self._ids[:size], number)
        self._flags, self._values = with_room(self._flags, size), with_room(self._values, size)
        flags = np.concatenate([np.ones((len(number), 1), bool), labelled, labelled & (label > 0)], axis=1)
        counts = flags.astype(np.int64) - self._flags[places]
        values = np.rint(
            np.where(labelled, np.minimum(label, 9e12), 0)[:, self._regressions] / VALUE_UNIT
        ).astype(np.int64)
        changes = Changes(users, items, contexts, counts, values - self._values[places])
        self._size, self._flags[places], self._values[places] = size, flags, values
        return changes

    def _known(
        self, time: NDArray[np.int64], sent: NDArray[np.float64], at: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the label of each task within its sample space, NaN where there is none, and the moment from
        which it is known. Shape (n, T) each.

        Args:
            time: Of the exposures. Shape (n,).
            sent, at: Value of each label, NaN where there is none, and its time. Shape (n, T) each.
        """
        label, moment = sent.copy(), np.empty_like(at)
        for t, task in enumerate(self._tasks):
            own = [c for c, other in enumerate(self._tasks) if other.known_at == task.known_at]
            late = at[:, own].max(axis=1) if task.known_at else time + seconds(task.delay) * 1_000_000
            moment[:, t] = np.maximum(time, late)
            if task.given is not None:
                given = self._number[task.given]
                label[label[:, given] != 1, t] = np.nan
                moment[:, t] = np.maximum(moment[:, t], moment[:, given])
        return label, moment


class ExposureBatch(NamedTuple):
    """What has become known of exposures, looked up and ready to be added. Shape (n,) each unless stated
    otherwise.

    Attributes:
        ids: Of users and items. Length n each.
        nodes: Their indices, -1 for newcomers. Shape (n,) each.
        context: Categories by feature. Shape (n,), or (n, L) padded with -1.
        counts, values: See `Changes`. Shapes (n, 1 + 2T) and (n, R).
    """

    ids: Mapping[Side, list[Id]]
    nodes: Mapping[Side, NDArray[np.int64]]
    context: Mapping[str, NDArray]
    counts: NDArray[np.int64]
    values: NDArray[np.int64]


class LiveRates:
    """Cells of the groups that move, each counted from the snapshot on.

    Args:
        rates: Of the snapshot; None if it has none.

    Attributes:
        cells: One table per group of `rates`; None for groups that wait.
        sides: Of the nodes that they are counted by.
        contexts: Features of the context that they are counted by.
        exposures: How many were counted.
    """

    def __init__(self, rates: Rates | None):
        self._groups = () if rates is None else rates.groups
        regressions = np.zeros(0, bool) if rates is None else rates.regressions
        self.cells: list[RateCells | None] = [
            _empty(MIN_PLACES, 1 + 2 * len(regressions), int(regressions.sum()))
            if is_live(group, regressions)
            else None
            for group in self._groups
        ]
        moving = [group for group in self._groups if is_live(group, regressions)]
        self.sides: list[Side] = [
            side for side in SIDES if any(group.axes[0].side == side for group in moving)
        ]
        self.contexts = {axis.name for group in moving for axis in group.axes if axis.side == "context"}
        self._used = [0] * len(self.cells)
        self._version: dict[Side, NDArray[np.int64]] = {side: np.zeros(0, np.int64) for side in SIDES}
        self.exposures = 0

    @property
    def is_counted(self) -> bool:
        """Whether any group moves."""
        return any(cells is not None for cells in self.cells)

    @property
    def bytes(self) -> int:
        """Memory of the tables."""
        tables = (array.nbytes for cells in self.cells if cells is not None for array in cells)
        return sum(tables) + sum(version.nbytes for version in self._version.values())

    def add(self, batch: ExposureBatch, version: int) -> None:
        """Add what has become known of exposures.

        Args:
            batch: Of nodes that all have an index.
            version: Of the live state with them.
        """
        context = batch.context
        for number, (group, cells) in enumerate(zip(self._groups, self.cells, strict=True)):
            if cells is None:
                continue
            first, *second = group.axes
            node = batch.nodes["user" if first.side == "user" else "item"]
            other = np.asarray(context[second[0].name]) if second else np.zeros_like(node)
            row, category = distinct(other if other.ndim == 2 else other[:, None])
            key = node[row].astype(np.int64) << 32 | category.astype(np.int64)
            if 2 * (self._used[number] + len(key)) > len(cells.key):
                cells = self.cells[number] = _larger(cells, self._used[number] + len(key))
            self._used[number] += _add(cells, key, batch.counts[row], batch.values[row])
        for side in self.sides:
            node = batch.nodes[side]
            self._version[side] = with_room(self._version[side], int(node.max(initial=-1)) + 1)
            self._version[side][node] = version
        self.exposures += int(batch.counts[:, 0].sum())

    def changed(self, side: Side, since: int) -> NDArray[np.int64]:
        """Return nodes that have changed after a version."""
        return np.flatnonzero(self._version[side] > since)


def _empty(places: int, counts: int, values: int) -> RateCells:
    return RateCells(
        np.full(places, -1, np.int64),
        np.zeros((places, counts), np.int32),
        np.zeros((places, values), np.int64),
    )


def _larger(cells: RateCells, entries: int) -> RateCells:
    """Return a table with the same cells and room for some number of them."""
    out = _empty(1 << int(4 * entries).bit_length(), cells.counts.shape[1], cells.values.shape[1])
    used = cells.key >= 0
    _add(out, cells.key[used], cells.counts[used].astype(np.int64), cells.values[used])
    return out


@kernel("cells")
def _add(cells, key, counts, values):  # pragma: no cover - compiled
    """Add to cells, and return how many are new."""
    new = 0
    for row in range(len(key)):
        place = place_of(cells.key, key[row])
        if cells.key[place] < 0:
            cells.key[place] = key[row]
            new += 1
        for column in range(counts.shape[1]):
            cells.counts[place, column] += counts[row, column]
        for column in range(values.shape[1]):
            cells.values[place, column] += values[row, column]
    return new
