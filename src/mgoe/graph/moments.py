"""How the nodes of a snapshot change after it, so that a node can be read as of any moment.

Every node has an entry per change, in the order of time, with its sums until then; edges are summed over the
entries since the last checkpoint. `mgoe.graph.sweep` says what changes, and writes the entries.

Axes: `n` changed nodes of one side, `V` their entries, `m` nodes that are read, `Z` resolutions, `W` macro
nodes of the other side over all resolutions, cold ones included, `T` tasks, `C` checkpoints, `P` placements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe._util.kernels import kernel
from mgoe.graph.counts import node_counts
from mgoe.graph.edges import last_before
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.graph.rate_moments import CellMoments
from mgoe.graph.snapshot import Snapshot

STEP = 256
"""Entries of a node between checkpoints of its edges."""
MOVED = -1
"""`other` of an entry that no event made."""


class Entries(NamedTuple):
    """Changes of the nodes of one side. Shape (V,) each unless stated otherwise.

    Attributes:
        time: Microseconds.
        other: Index of the other node, `MOVED` if a node was placed.
        task_mask: Tasks done on the pair, from now on.
        step: What is added to the edges, fixed-point.
        other_macro: To which macro nodes. Shape (V, Z).
        done: Pairs per task. Shape (V, T).
        degree: Pairs.
        events: Since the snapshot before.
        total, again: All events, and those that were not the first of their pair.
        last: Time of the last event.
        pair_total, pair_first: All events of the pair, and the time of its first; 0 if a node was placed.
        sum, second_sum: Fixed-point score sums over one and two steps.
        second: 2nd-order edge to the own macro node. Shape (V, Z).
        placed: Row of the node's placement, -1 for a node of the snapshot.
    """

    time: NDArray[np.int64]
    other: NDArray[np.int32]
    task_mask: NDArray[np.uint16]
    step: NDArray[np.int32]
    other_macro: NDArray[np.uint16]
    done: NDArray[np.int32]
    degree: NDArray[np.int32]
    events: NDArray[np.int32]
    total: NDArray[np.int32]
    again: NDArray[np.int32]
    last: NDArray[np.int64]
    pair_total: NDArray[np.int32]
    pair_first: NDArray[np.int64]
    sum: NDArray[np.int64]
    second_sum: NDArray[np.int64]
    second: NDArray[np.int64]
    placed: NDArray[np.int32]

    @classmethod
    def empty(cls, entries: int, resolutions: int, tasks: int) -> Entries:
        """Return entries to be filled."""
        kinds = cls.__annotations__
        wide = {"other_macro": (resolutions,), "second": (resolutions,), "done": (tasks,)}
        types = {"time": "i8", "other": "i4", "task_mask": "u2", "step": "i4", "other_macro": "u2"}
        types |= dict.fromkeys(("done", "degree", "events", "placed", "total", "again", "pair_total"), "i4")
        return cls._make(np.zeros((entries, *wide.get(name, ())), types.get(name, "i8")) for name in kinds)

    def take(self, rows: NDArray[np.int64]) -> Entries:
        """Return some entries."""
        return Entries._make(column[rows] for column in self)


@dataclass(frozen=True)
class SideMoments:
    """The entries of one side.

    Attributes:
        nodes: Changed nodes, rising. Shape (n,).
        indptr: Where the entries of each start. Shape (n + 1,).
        entries: Of all, by node, then time.
        macro: Of each entry's node, in a row of `placements`. Shape (P, Z).
        vectors: Likewise. Shape (P, rank).
        check_indptr: Where the checkpoints of each node start. Shape (n + 1,).
        checks: Edges before entry `STEP`, `2 STEP`, ... of a node. Shape (C, W).
        order: Entries of each node by other node, then time; of users alone. Shape (V,).
    """

    nodes: NDArray[np.int64]
    indptr: NDArray[np.int64]
    entries: Entries
    macro: NDArray[np.int32]
    vectors: NDArray[np.float32]
    check_indptr: NDArray[np.int64]
    checks: NDArray[np.int64]
    order: NDArray[np.int64]

    def before(self, nodes: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        """Return, of nodes strictly before times, the place of the node and its last entry; -1 where there is
        none.

        Args:
            nodes, times: Shape (m,) each.
        """
        return last_before(self.nodes, self.indptr, self.entries.time, nodes, times)


@dataclass(frozen=True)
class Moments:
    """A snapshot's nodes at any moment after it.

    Attributes:
        sides: Entries of users and of items.
        share: Share of each task among the snapshot's pairs. Shape (T,).
        rates: Cells of the groups of exposures that move, by the number of the group.
    """

    sides: Mapping[Side, SideMoments]
    share: NDArray[np.floating]
    rates: Mapping[int, CellMoments] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder."""
        arrays: dict[str, NDArray] = {"share": np.asarray(self.share), "rates": np.array([*self.rates], int)}
        for side, one in self.sides.items():
            held = {name: value for name, value in vars(one).items() if name != "entries"}
            held |= one.entries._asdict()
            arrays |= {f"{side}.{name}": value for name, value in held.items()}
        for number, cells in self.rates.items():
            arrays |= {f"rates{number}.{name}": value for name, value in cells._asdict().items()}
        save_arrays(folder, arrays)

    @classmethod
    def open(cls, folder: Path) -> Moments:
        """Map what was saved."""

        def side(name: Side) -> SideMoments:
            entries = Entries(*(mapped(folder / f"{name}.{one}.npy") for one in Entries._fields))
            rest = [one for one in SideMoments.__annotations__ if one != "entries"]
            return SideMoments(entries=entries, **{one: mapped(folder / f"{name}.{one}.npy") for one in rest})

        rates = {
            number: CellMoments(*(mapped(folder / f"rates{number}.{one}.npy") for one in CellMoments._fields))
            for number in mapped(folder / "rates.npy").tolist()
        }
        return cls({name: side(name) for name in SIDES}, mapped(folder / "share.npy"), rates)


def edge_starts(widths: Sequence[int]) -> list[int]:
    """Return the first column of each resolution among edges that lie side by side with the cold macro nodes,
    and the number of columns."""
    return [0, *np.cumsum(np.array(widths) + 1).tolist()]


def edges_at(
    snapshot: Snapshot,
    side: Side,
    held: SideMoments,
    places: NDArray[np.int64],
    last: NDArray[np.int64],
    checks: int | None = None,
) -> NDArray[np.int64]:
    """Return the 1st-order edges of nodes after an entry, in fixed point. Shape (m, W).

    Args:
        snapshot: Which the entries follow.
        side: Of the nodes.
        held: Their entries.
        places: Of the nodes in `held.nodes`. Shape (m,).
        last: The entry of each. Shape (m,).
        checks: Checkpoints that may be used; all by default.
    """
    starts = edge_starts(snapshot.widths(OTHER[side]))
    out = np.zeros((len(places), starts[-1]), np.int64)
    done = np.minimum((last - held.indptr[places]) // STEP, np.diff(held.check_indptr)[places])
    if checks is not None:
        done = np.minimum(done, checks)
    for r, part in enumerate(snapshot.resolutions):
        _edges_at(
            getattr(part, f"{side}_edges"),
            held.nodes[places],
            held.indptr[places] + done * STEP,
            last,
            np.where(done > 0, held.check_indptr[places] + done - 1, -1),
            held.checks,
            held.entries.other_macro,
            held.entries.step,
            r,
            starts[r],
            starts[r + 1],
            out,
        )
    return out


def counts_at(
    held: SideMoments, entry: NDArray[np.int64], share: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return `node_counts` after entries. Shape (m, 2T + 3)."""
    some = held.entries
    nothing = np.zeros(len(entry), np.int64)
    return node_counts(
        some.done[entry], some.degree[entry].astype(np.int64), some.events[entry], nothing, share
    )


@kernel("out")
def _edges_at(
    edges, nodes, first, last, check, checks, macro, step, r, start, end, out
):  # pragma: no cover - compiled
    """Write the edges to the macro nodes of resolution r into columns `start` to `end - 1`."""
    indptr, column, score = edges
    for row in range(len(nodes)):
        if check[row] >= 0:
            for k in range(start, end):
                out[row, k] = checks[check[row], k]
        elif nodes[row] < len(indptr) - 1:
            for q in range(indptr[nodes[row]], indptr[nodes[row] + 1]):
                out[row, start + column[q]] = score[q]
        for e in range(first[row], last[row] + 1):
            out[row, start + macro[e, r]] += step[e]
