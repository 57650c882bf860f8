"""`edges`: how strongly the user and the item are tied to each other's macro nodes, at every resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import ITEM, PAIR, USER, Arrays, InputGroup, Key, Owner, Part
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.edges import find
from mgoe.graph.memory_hints import AHEAD, ask_entries, prefetch
from mgoe.graph.pair_rows import Side
from mgoe.graph.scores import UNIT

KINDS: dict[str, Owner] = {
    "first.user": PAIR,
    "first.item": PAIR,
    "second.user": USER,
    "second.item": ITEM,
    "macro": PAIR,
}
"""1st order: the user to the item's macro node, and the item to the user's. 2nd order: each node to its own macro node.
Last, the edge between the two macro nodes."""
FORMS = ("count", "share", "lift")
LONG_RUN = 8
"""Rows of one user from which the user's edges are laid out as a dense row."""


class Edges(InputGroup):
    """Log count, log share and log lift of five edges per resolution. Shape (B, resolutions x 5 x 3)."""

    name = "edges"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        cycle = [owner for owner in KINDS.values() for _ in FORMS]
        owners = tuple(cycle[column % len(cycle)] for column in range(spec.widths.get("edges", 0)))
        return (Key("edges", "dense", owners, hinges=False),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        sizes = [(len(part.user_mass), len(part.item_mass)) for part in snapshot.resolutions]
        return {
            "edges": [f"edge.{ku}x{ki}.{kind}.{form}" for ku, ki in sizes for kind in KINDS for form in FORMS]
        }

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return {"edges": _columns(view, pairs, [True] * len(KINDS))}

    def read_part(self, view: View, pairs: Pairs, part: Part, keys: Sequence[Key]) -> Arrays:
        return {"edges": _columns(view, pairs, [owner.part == part for owner in KINDS.values()])}


def _columns(view: View, pairs: Pairs, wanted: list[bool]) -> NDArray[np.float32]:
    """Read some of the kinds. Shape (B, resolutions x kinds wanted x 3)."""
    at = view.snapshot
    first_column = np.where(wanted, (np.cumsum(wanted) - 1) * len(FORMS), -1)
    step, starts = sum(wanted) * len(FORMS), {"user": 0, "item": 0}
    out = np.empty((len(pairs.user), step * len(at.resolutions)), np.float32)
    for r, part in enumerate(at.resolutions):
        user, item = _nodes(view, "user", r, starts["user"]), _nodes(view, "item", r, starts["item"])
        starts["user"] += len(part.item_mass) + 1
        starts["item"] += len(part.user_mass) + 1
        columns = out[:, r * step : (r + 1) * step]
        _read(
            user, item, part.macro_edges, max(at.total, 1e-9), pairs.user, pairs.item, first_column, columns
        )
    return np.log(out, out=out)


class EdgeNodes(NamedTuple):
    """Nodes of one side at one resolution, and those of the overlay, whose arrays have the prefix `live`.

    Attributes:
        total2: Sum of all 2nd-order scores of this side.
        resolution, start: Column of the resolution in `live_macro` and `live_second`, and its first one in `live_edges`.
    """

    indptr: NDArray[np.int64]
    column: NDArray[np.uint16]
    score: NDArray[np.integer]
    macro: NDArray[np.int32]
    second: NDArray[np.float32]
    sum: NDArray[np.float32]
    second_sum: NDArray[np.float32]
    mass: NDArray[np.float32]
    second_mass: NDArray[np.float32]
    total2: float
    slot: NDArray[np.int32]
    live_edges: NDArray[np.int64]
    live_macro: NDArray[np.int32]
    live_second: NDArray[np.float32]
    live_sum: NDArray[np.float32]
    live_second_sum: NDArray[np.float32]
    resolution: int
    start: int


def _nodes(view: View, side: Side, r: int, start: int) -> EdgeNodes:
    part, arrays, live = view.snapshot.resolutions[r], view.snapshot.arrays, view.nodes(side)
    return EdgeNodes(
        *getattr(part, f"{side}_edges"),
        getattr(part, f"{side}_macro"),
        getattr(part, f"{side}_second"),
        arrays[f"{side}_sum"],
        arrays[f"{side}_second_sum"],
        getattr(part, f"{side}_mass"),
        getattr(part, f"{side}_second_mass"),
        max(view.snapshot.second_total[side == "item"], 1e-9),
        live.slot,
        live.edges,
        live.macro,
        live.second,
        live.sum,
        live.second_sum,
        r,
        start,
    )


@numba.njit(cache=True, nogil=True)
def _read(users, items, macro_edges, total, u, i, at, out):  # pragma: no cover - compiled
    """Write the columns of each kind from `at` on; a kind that is not wanted is at -1."""
    ku, ki = len(users.mass), len(items.mass)
    dense, row = np.zeros(ki + 1), 0
    while row < len(u):
        user, stop = u[row], row + 1
        while stop < len(u) and u[stop] == user:
            stop += 1
        slot_u, cu, sum_u = _node(users, user)
        mass_u = users.mass[cu] if cu < ku else 0.0
        laid_out = stop - row >= LONG_RUN
        if laid_out:
            _lay_out(users, user, slot_u, dense)
        while row < stop:
            _ask(users, u, row, at[2] >= 0)
            _ask(items, i, row, at[3] >= 0)
            item = i[row]
            slot_i, ci, sum_i = _node(items, item)
            mass_i = items.mass[ci] if ci < ki else 0.0
            if at[0] >= 0:
                edge = dense[ci] if laid_out else _edge(users, user, slot_u, ci, ki)
                forms(out, row, at[0], edge, sum_u, mass_i, total, ki)
            if at[1] >= 0:
                forms(out, row, at[1], _edge(items, item, slot_i, cu, ku), sum_i, mass_u, total, ku)
            if at[2] >= 0:
                _second(users, user, slot_u, cu, out, row, at[2])
            if at[3] >= 0:
                _second(items, item, slot_i, ci, out, row, at[3])
            if at[4] >= 0:
                edge = macro_edges[cu, ci] if cu < ku and ci < ki else 0.0
                forms(out, row, at[4], edge, mass_u, mass_i, total, ki)
            row += 1


@numba.njit(cache=True, nogil=True)
def forms(out, row, at, edge, row_sum, column_sum, total, width):  # pragma: no cover - compiled
    """Write count, share and lift of an edge, before the logarithm. Shares and lifts are smoothed by half and a third of a
    score."""
    out[row, at] = 1 + edge
    out[row, at + 1] = (edge + 0.5 / width) / (row_sum + 0.5)
    out[row, at + 2] = (edge + 0.3) / (row_sum * column_sum / total + 0.3)


@numba.njit(cache=True, nogil=True, inline="always")
def _node(side, node):  # pragma: no cover - compiled
    """Return the row in the overlay (-1 where there is none), macro node and score sum of a node."""
    slot, macro, total = np.int64(-1), np.int64(len(side.mass)), 0.0
    if node >= 0:
        slot = np.int64(side.slot[node]) if node < len(side.slot) else np.int64(-1)
        if slot >= 0:
            macro, total = np.int64(side.live_macro[slot, side.resolution]), np.float64(side.live_sum[slot])
        else:
            macro, total = np.int64(side.macro[node]), np.float64(side.sum[node])
    return slot, macro, total


@numba.njit(cache=True, nogil=True, inline="always")
def _edge(side, node, slot, macro, cold):  # pragma: no cover - compiled
    """Return the 1st-order edge of a node to a macro node of the other side."""
    if node < 0 or macro == cold:
        return 0.0
    if slot >= 0:
        return side.live_edges[slot, side.start + macro] / UNIT
    return find(side.indptr, side.column, side.score, node, macro) / UNIT


@numba.njit(cache=True, nogil=True, inline="always")
def _second(side, node, slot, macro, out, row, at):  # pragma: no cover - compiled
    """Write the forms of a node's 2nd-order edge to its own macro node."""
    edge, total, width = 0.0, 0.0, len(side.mass)
    if slot >= 0:
        edge, total = side.live_second[slot, side.resolution], side.live_second_sum[slot]
    elif node >= 0:
        edge, total = side.second[node], side.second_sum[node]
    mass = side.second_mass[macro] if macro < width else 0.0
    forms(out, row, at, edge, total, mass, side.total2, width)


@numba.njit(cache=True, nogil=True)
def _lay_out(side, node, slot, out):  # pragma: no cover - compiled
    """Write a node's 1st-order edges to all macro nodes; that to the cold one is 0."""
    out[:] = 0
    if slot >= 0:
        for k in range(len(out) - 1):
            out[k] = side.live_edges[slot, side.start + k] / UNIT
    elif node >= 0:
        for entry in range(side.indptr[node], side.indptr[node + 1]):
            out[side.column[entry]] = side.score[entry] / UNIT


@numba.njit(cache=True, nogil=True, inline="always")
def _ask(side, nodes, row, second):  # pragma: no cover - compiled
    """Ask for what a coming row reads of its node."""
    ask_entries(side.indptr, side.column, side.score, nodes, row)
    if row + AHEAD < len(nodes):
        node = nodes[row + AHEAD]
        prefetch(side.macro, node)
        prefetch(side.sum, node)
        if second:
            prefetch(side.second, node)
            prefetch(side.second_sum, node)
