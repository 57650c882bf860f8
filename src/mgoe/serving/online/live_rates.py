"""Counts of exposures since a snapshot: items' rates move with what is shown and done now.

Groups of the item itself move, alone or with a category of the context. Those of users wait for the next
graph: between two exposures of a user they would carry that user's own answers, which tells moments apart and
not items. Where all tasks are regressions, such as ratings, it is moments that are to be told apart: how high
a user rates is known after a few ratings, and groups of users move too. Categories and macro nodes have many
exposures, and change little within a day.

Axes: `E` places of a table, `T` tasks, `R` regressions.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import with_room
from mgoe._util.hash_table import place_of
from mgoe._util.kernels import kernel
from mgoe.features import RateCells
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.graph.rates import Rates, distinct, is_live
from mgoe.serving.events.event import Id

MIN_PLACES = 1 << 10
"""Places of a table without cells; a power of 2."""


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
