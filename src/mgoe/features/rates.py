"""`rates`: how often what was shown was done, by the groups of exposures that a graph counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe._util.hash_table import place_of
from mgoe._util.kernels import kernel
from mgoe.features.group import CONTEXT, ITEM, USER, Arrays, InputGroup, Key, Owner, Part, dense
from mgoe.features.overlay import CellsBefore, RateCells
from mgoe.features.spec import FeatureSpec, RateSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.adjusted import is_adjusted
from mgoe.graph.edges import find_place
from mgoe.graph.rates import Axis, RateGroup, Rates

OWNERS = {"user": USER, "item": ITEM, "context": CONTEXT}


class RatesOfExposures(InputGroup):
    """Per group of exposures: log(1 + exposures), then a rate per task, then an adjusted rate per task in
    groups that have them. Shape (B, columns).

    The rate of a binary task is the log-odds of its label in the cell, shrunk towards those of all cells,
    less these. That of a regression is the mean of its label, shrunk and centred likewise. A pair without a
    cell reads zeros.
    """

    name = "rates"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        tasks = len(spec.tasks)
        columns = ((owner_of(one.axes), one.width(tasks)) for one in spec.rates)
        return (dense("rates", *columns),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        if snapshot.rates is None:
            return {}
        tasks = len(snapshot.rates.regressions)
        plain = ["shown", *(f"task{t}" for t in range(tasks))]
        more = [f"adjusted.task{t}" for t in range(tasks)]
        return {
            "rates": [
                f"rate.{group.name}.{name}"
                for group in snapshot.rates.groups
                for name in (*plain, *(more if is_adjusted(group) else ()))
            ]
        }

    def read_part(self, view: View, pairs: Pairs, part: Part, keys: Sequence[Key]) -> Arrays:
        return self.read(view, pairs, part)

    def read(self, view: View, pairs: Pairs, part: Part | None = None) -> Arrays:
        """Read the groups of one part, or of all."""
        rates = view.snapshot.rates
        if rates is None:
            return {}
        specs, tasks = [spec_of(group) for group in rates.groups], len(rates.regressions)
        wanted = [g for g, one in enumerate(specs) if part is None or owner_of(one.axes).part == part]
        widths = [specs[number].width(tasks) for number in wanted]
        out = np.zeros((len(pairs.user), sum(widths)), np.float32)
        values: dict[Axis, NDArray[np.int64]] = {}
        for number, width, end in zip(wanted, widths, np.cumsum(widths).tolist(), strict=True):
            for axis in rates.groups[number].axes:
                if axis not in values:
                    values[axis] = _values(view, pairs, rates, axis)
            first, *second = (values[axis] for axis in rates.groups[number].axes)
            other = second[0] if second else NO_AXIS
            live = view.overlay.rates[number] if view.overlay.rates else None
            live = live.of(first, other) if isinstance(live, CellsBefore) else live
            _read(rates.tables[number], live or NO_CELLS, first, other, rates.regressions, out, end - width)
            adjusted = rates.adjusted[number]
            if adjusted is not None:
                known = (first[:, 0] >= 0) & (first[:, 0] < len(adjusted))
                out[known, end - width + 1 + tasks : end] = adjusted[first[known, 0]]
        return {"rates": out}


NO_AXIS = np.zeros((1, 1), np.int64)
"""Values of the second axis in a group of one axis."""
NO_CELLS = RateCells(np.full(1, -1), np.zeros((1, 0), np.int32), np.zeros((1, 0), np.int64))
"""Cells of a group of which nothing has changed since the snapshot."""


def owner_of(axes: Sequence[tuple[str, str]]) -> Owner:
    """Return the owner of a group's columns from the name and the side of each axis."""
    owners = [OWNERS[name] if name in OWNERS else Owner(name, OWNERS[side].of) for name, side in axes]
    return owners[0] if len(owners) == 1 else owners[0] * owners[1]


def spec_of(group: RateGroup) -> RateSpec:
    """Return what a model must know of a group."""
    axes = tuple((axis.name, axis.side) for axis in group.axes)
    return RateSpec(group.name, axes, is_adjusted(group))


def _values(view: View, pairs: Pairs, rates: Rates, axis: Axis) -> NDArray[np.int64]:
    """Return the values of pairs on an axis, -1 where there is none. Shape (B, L)."""
    if axis.side == "context":
        unknown = np.full(len(pairs.user), -1 if axis.several else 0)  # as the encoders say it
        held = np.asarray(pairs.context.get(axis.name, unknown), np.int64)
        return held if held.ndim == 2 else held[:, None]
    if axis.kind == "category":
        held = rates.categories[axis.name]
        nodes = pairs.users if axis.side == "user" else pairs.items
        return take(held, nodes, np.array([0, *[-1] * (held.shape[1] - 1)])).astype(np.int64)
    if axis.kind == "node":
        return (pairs.users if axis.side == "user" else pairs.items)[:, None]
    nodes, slots = pairs.nodes(axis.side), pairs.slots(axis.side)
    return view.macro(axis.side, axis.resolution, nodes, slots=slots)[:, None]


@kernel("out")
def _read(table, live, first, second, regressions, out, start):  # pragma: no cover - compiled
    """Write the columns of one group, from `start` on. Cells of several categories are added up, and what is
    live to them."""
    indptr, other, counts, values, prior = table
    tasks = len(regressions)
    sums, total = np.zeros(1 + 2 * tasks), np.zeros(values.shape[1])
    for row in range(len(first)):
        found = False
        for a in range(first.shape[1]):
            one = first[row, a]
            if one < 0 or _repeats(first, row, a):
                continue
            at = min(row, len(second) - 1)
            for b in range(second.shape[1]):
                two = second[at, b]
                if two < 0 or _repeats(second, at, b):
                    continue
                cell = find_place(indptr, other, one, two) if one < len(indptr) - 1 else -1
                place = live.place[row, b] if len(live.place) else place_of(live.key, one << 32 | two)
                if cell < 0 and live.key[place] < 0:
                    continue
                if not found:
                    sums[:], total[:], found = 0, 0, True
                if cell >= 0:
                    sums += counts[cell]
                    total += values[cell]
                if live.key[place] >= 0:
                    sums += live.counts[place]
                    total += live.values[place]
        if not found:
            continue
        out[row, start], column = np.log1p(sums[0]), 0
        for t in range(tasks):
            labelled, done = sums[1 + t], sums[1 + tasks + t]
            rate, weight = prior[t, 0], prior[t, 1]
            if regressions[t]:
                out[row, start + 1 + t] = (total[column] * 1e-6 + weight * rate) / (labelled + weight) - rate
                column += 1
            else:
                odds = (done + weight * rate) / (labelled - done + weight * (1 - rate))
                out[row, start + 1 + t] = np.log(odds * (1 - rate) / rate)


@kernel(inline="always")
def _repeats(values, row, place):  # pragma: no cover - compiled
    """Return whether a category is in its row before."""
    for before in range(place):  # noqa: SIM110 (compiled)
        if values[row, before] == values[row, place]:
            return True
    return False
