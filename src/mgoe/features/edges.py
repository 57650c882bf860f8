"""`edges`: how strongly the user and the item are tied to each other's macro nodes, at every resolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features.group import ITEM, PAIR, USER, Arrays, InputGroup, Key, Owner, Part
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.arithmetic import exp_of
from mgoe.graph.edges import find
from mgoe.graph.memory_hints import AHEAD, ask_entries, prefetch
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.graph.placing import predicted
from mgoe.graph.scores import UNIT

KINDS: dict[str, Owner] = {
    "first.user": PAIR,
    "first.item": PAIR,
    "second.user": USER,
    "second.item": ITEM,
    "macro": PAIR,
}
"""1st order: the user to the item's macro node, and the item to the user's. 2nd order: each node to its own
macro node. Last, the edge between the two macro nodes."""
FORMS = ("count", "share", "lift")
LONG_RUN = 8
"""Rows of one user from which the user's edges are laid out as a dense row."""
NO_CONTENT = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32), np.empty(0, np.float32)
"""What `EdgeNodes` hold of nodes without content."""


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

    def read(self, view: View, pairs: Pairs, part: Part | None = None) -> Arrays:
        """Read the kinds of one part, or of all. Shape (B, resolutions x kinds read x 3)."""
        at, (first_column, step) = view.snapshot, _layout(part)
        out, total = np.empty((len(pairs.user), step * len(at.resolutions)), np.float32), max(at.total, 1e-9)
        slots = pairs.changed("user"), pairs.changed("item")
        for r, (user, item, scores, seconds, between) in enumerate(_resolutions(view)):
            # a slice of one row is of another array type, for which the kernel would be compiled again
            columns = np.where(first_column < 0, -1, first_column + r * step)
            _read(user, item, scores, seconds, between, total, pairs.user, pairs.item, *slots, columns, out)
        return {"edges": np.log(out, out=out)}

    def read_part(self, view: View, pairs: Pairs, part: Part, keys: Sequence[Key]) -> Arrays:
        return self.read(view, pairs, part)


def _resolutions(view: View) -> list[Resolution]:
    """Return what is read of a view at each resolution, gathered once per view."""
    if "edges" not in view.kept:
        view.kept["edges"] = [
            Resolution(
                _nodes(view, "user", r),
                _nodes(view, "item", r),
                (part.user_edges.score, part.item_edges.score),
                (_second_order(view, "user", r), _second_order(view, "item", r)),
                part.macro_edges,
            )
            for r, part in enumerate(view.snapshot.resolutions)
        ]
    return view.kept["edges"]


@cache
def _layout(wanted: Part | None) -> tuple[NDArray[np.int64], int]:
    """Return the first column of each kind of a part, or of all, -1 for other kinds, and the columns of a
    resolution."""
    chosen = [wanted is None or owner.part == wanted for owner in KINDS.values()]
    return np.where(chosen, (np.cumsum(chosen) - 1) * len(FORMS), -1), sum(chosen) * len(FORMS)


class EdgeNodes(NamedTuple):
    """Nodes of one side at one resolution, and those of the overlay, whose arrays have the prefix `live`.

    Attributes:
        content, targets, norm: See `mgoe.graph.placing`; empty without content.
        resolution, start: Column of the resolution in `live_macro`, and its first one in `live_edges`.
        target: Row of the resolution's first macro node in `targets`.
    """

    indptr: NDArray[np.int64]
    column: NDArray[np.uint16]
    macro: NDArray[np.int32]
    mass: NDArray[np.float32]
    sum: NDArray[np.float32]
    live_edges: NDArray[np.int64]
    live_macro: NDArray[np.int32]
    live_sum: NDArray[np.float32]
    content: NDArray[np.float32]
    targets: NDArray[np.float32]
    norm: NDArray[np.float32]
    resolution: int
    start: int
    target: int


class SecondOrder(NamedTuple):
    """The 2nd-order edges of the same nodes.

    Attributes:
        total: Sum of all 2nd-order scores of this side.
    """

    edge: NDArray[np.float32]
    sum: NDArray[np.float32]
    mass: NDArray[np.float32]
    live_edge: NDArray[np.float32]
    live_sum: NDArray[np.float32]
    total: float


class Resolution(NamedTuple):
    """What is read at one resolution.

    Attributes:
        user, item: The nodes of each side.
        scores: Of their 1st-order edges, whose type decides what is compiled: kernels that do not read them
            are compiled once.
        seconds: Their 2nd-order edges.
        macro_edges: Between macro nodes.
    """

    user: EdgeNodes
    item: EdgeNodes
    scores: tuple[NDArray[np.integer], NDArray[np.integer]]
    seconds: tuple[SecondOrder, SecondOrder]
    macro_edges: NDArray[np.float32]


def _nodes(view: View, side: Side, r: int) -> EdgeNodes:
    *coarser, part = view.snapshot.resolutions[: r + 1]
    live, start = view.nodes(side), sum(len(getattr(one, f"{OTHER[side]}_mass")) + 1 for one in coarser)
    edges, mass, own = getattr(part, f"{side}_edges"), getattr(part, f"{side}_mass"), view.base[side]
    base = edges.indptr, edges.macro, own[f"macro{r}"], mass, own["sum"]
    changed = live.edges, live.macro, live.sum
    names = ("content", "targets", f"norm{r}") if side in view.snapshot.placed else ()
    content, targets, norm = [own[name] for name in names] if names else NO_CONTENT
    target = own["vectors"].shape[1] + start - r  # no cold macro node is predicted
    return EdgeNodes(*base, *changed, content, targets, norm, r, start, target)


def _second_order(view: View, side: Side, r: int) -> SecondOrder:
    part, live, base = view.snapshot.resolutions[r], view.nodes(side), view.base[side]
    edge, mass = getattr(part, f"{side}_second"), getattr(part, f"{side}_second_mass")
    total = max(view.snapshot.second_total[side == "item"], 1e-9)
    return SecondOrder(edge, base["second_sum"], mass, live.second, live.second_sum, total)


@kernel("out")
def _read(
    users, items, scores, seconds, macro_edges, total, u, i, slot_u, slot_i, at, out
):  # pragma: no cover - compiled
    """Write the columns of each kind from `at` on; a kind that is not wanted is at -1."""
    n, ku, ki = len(u), len(users.mass), len(items.mass)
    macro_u, sum_u, mass_u = _nodes_of(users, u, slot_u)
    macro_i, sum_i, mass_i = _nodes_of(items, i, slot_i)
    edge = np.empty(n)
    if at[0] >= 0:
        _first(users, scores[0], u, slot_u, macro_i, ki, edge)
        for row in range(n):
            forms(out, row, at[0], edge[row], sum_u[row], mass_i[row], total, ki)
    if at[1] >= 0:
        _first(items, scores[1], i, slot_i, macro_u, ku, edge)
        for row in range(n):
            forms(out, row, at[1], edge[row], sum_i[row], mass_u[row], total, ku)
    if at[2] >= 0:
        _second(seconds[0], users.resolution, u, slot_u, macro_u, at[2], out)
    if at[3] >= 0:
        _second(seconds[1], items.resolution, i, slot_i, macro_i, at[3], out)
    if at[4] >= 0:
        for row in range(n):
            cu, ci = macro_u[row], macro_i[row]
            between = macro_edges[cu, ci] if cu < ku and ci < ki else 0.0
            forms(out, row, at[4], between, mass_u[row], mass_i[row], total, ki)


@kernel("out", inner=True)
def forms(out, row, at, edge, row_sum, column_sum, total, width):  # pragma: no cover - compiled
    """Write count, share and lift of an edge, before the logarithm. Shares and lifts are smoothed by half and
    a third of a score."""
    out[row, at] = 1 + edge
    out[row, at + 1] = (edge + 0.5 / width) / (row_sum + 0.5)
    out[row, at + 2] = (edge + 0.3) / (row_sum * column_sum / total + 0.3)


@kernel(inner=True)
def _nodes_of(side, nodes, slot):  # pragma: no cover - compiled
    """Return each node's macro node, score sum, and the mass of the macro node."""
    # an array that is read out of a tuple in a loop would be counted as used at every row
    base_macro, base_sum, base_mass = side.macro, side.sum, side.mass
    live_macro, live_sum, r = side.live_macro, side.live_sum, side.resolution
    n, cold = len(nodes), len(base_mass)
    macro, total, mass = np.empty(n, np.int64), np.empty(n), np.empty(n)
    for row in range(n):
        if row + AHEAD < n:
            prefetch(base_macro, nodes[row + AHEAD], 1)
            prefetch(base_sum, nodes[row + AHEAD], 1)
        node = nodes[row]
        macro[row], total[row], mass[row] = cold, 0.0, 0.0
        if node < 0:
            continue
        if slot[row] >= 0:
            macro[row], total[row] = live_macro[slot[row], r], live_sum[slot[row]]
        else:
            macro[row], total[row] = base_macro[node], base_sum[node]
        if macro[row] < cold:
            mass[row] = base_mass[macro[row]]
    return macro, total, mass


@kernel("out", inner=True)
def _first(side, score, nodes, slot, macro, cold, out):  # pragma: no cover - compiled
    """Write the 1st-order edge of each node to a macro node of the other side; that to the cold one is 0."""
    indptr, column, live, start = side.indptr, side.column, side.live_edges, side.start
    dense, row = np.empty(cold + 1), 0
    while row < len(nodes):
        node, own, stop = nodes[row], slot[row], row + 1
        while stop < len(nodes) and nodes[stop] == node and slot[stop] == own:
            stop += 1
        if own < 0 and node >= len(indptr) - 1:  # known by its content alone
            node = -1
        if own < 0 <= node and stop - row >= LONG_RUN:
            dense[:] = 0
            for entry in range(indptr[node], indptr[node + 1]):
                dense[column[entry]] = score[entry] / UNIT
            while row < stop:
                out[row] = dense[macro[row]]
                row += 1
        while row < stop:
            ask_entries(indptr, column, score, nodes, row)
            if node < 0 or macro[row] == cold:
                out[row] = 0
            elif own >= 0:
                out[row] = live[own, start + macro[row]] / UNIT
            else:
                out[row] = find(indptr, column, score, node, macro[row]) / UNIT
            row += 1
    if len(side.norm):
        _add_pseudo_scores(side, nodes, slot, macro, cold, out)


@kernel("out", inner=True)
def _add_pseudo_scores(side, nodes, slot, macro, cold, out):  # pragma: no cover - compiled
    """Add what content adds to the 1st-order edge of each node to a macro node; live edges have it."""
    content, targets, norm = side.content, side.targets, side.norm
    for row in range(len(nodes)):
        node = nodes[row]
        if slot[row] < 0 <= node < len(content) and macro[row] < cold and norm[node] < np.inf:
            log = predicted(content, targets, node, side.target + macro[row])
            out[row] += np.rint(exp_of(log - norm[node])) / UNIT


@kernel("out", inner=True)
def _second(side, r, nodes, slot, macro, at, out):  # pragma: no cover - compiled
    """Write the forms of each node's 2nd-order edge to its own macro node."""
    base, base_sum, live, live_sum, mass = side.edge, side.sum, side.live_edge, side.live_sum, side.mass
    total, width = side.total, len(side.mass)
    for row in range(len(nodes)):
        if row + AHEAD < len(nodes):
            prefetch(base, nodes[row + AHEAD], 1)
            prefetch(base_sum, nodes[row + AHEAD], 1)
        edge, row_sum = 0.0, 0.0
        if slot[row] >= 0:
            edge, row_sum = live[slot[row], r], live_sum[slot[row]]
        elif 0 <= nodes[row] < len(base):
            edge, row_sum = base[nodes[row]], base_sum[nodes[row]]
        forms(out, row, at, edge, row_sum, mass[macro[row]] if macro[row] < width else 0.0, total, width)
