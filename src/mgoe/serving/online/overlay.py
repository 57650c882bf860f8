"""The plain way to read live nodes: a small snapshot of the nodes asked for, read as any other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Resolution, Snapshot
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.serving.online import kernels
from mgoe.serving.online.base_values import rows_of
from mgoe.serving.online.nodes import Nodes
from mgoe.serving.online.pairs import LivePairs

PLAIN = {"sum": 0, "second_sum": 0, "counts": 0, "table": None, "vectors": 0}
"""Arrays of both a snapshot's side and its live nodes, and what a newcomer without a slot reads; none for the cold macro node."""


@dataclass(frozen=True)
class Patched(Snapshot):
    """Some nodes of a snapshot under numbers of their own; totals are those of all."""

    whole: Snapshot

    @property
    def total(self) -> float:  # type: ignore[override]
        return self.whole.total

    @property
    def second_total(self) -> tuple[float, float]:  # type: ignore[override]
        return self.whole.second_total


@dataclass(frozen=True)
class _Part:
    """Nodes of one side that a small snapshot holds.

    Attributes:
        nodes: Live ones.
        base: The snapshot.
        codes: Of the nodes, those asked for first. Shape (n,).
        asked: How many are asked for; of the others only vector and macro nodes are read.
    """

    nodes: Nodes
    base: Snapshot
    codes: NDArray[np.int64]
    asked: int

    @property
    def side(self) -> Side:
        return self.nodes.base_values.side

    @property
    def slots(self) -> NDArray[np.int32]:
        return self.nodes.slot[self.codes]

    def local(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of codes; -1 for those that are not here."""
        if not len(self.codes):
            return np.full(codes.shape, -1, np.int64)
        order = np.argsort(self.codes)
        at = order[np.minimum(np.searchsorted(self.codes, codes, sorter=order), len(order) - 1)]
        return np.where(self.codes[at] == codes, at, -1)

    def rows(self, array: NDArray, live: NDArray, fill: float) -> NDArray:
        """Of all nodes: live rows where there are any, else the snapshot's."""
        out = np.full((len(self.codes), *array.shape[1:]), fill, array.dtype)
        held, slots = self.codes < len(array), self.slots
        out[held], out[slots >= 0] = array[self.codes[held]], live[slots[slots >= 0]]
        return out

    def edges(self, r: int) -> tuple[NDArray, NDArray, NDArray]:
        """1st-order edges at a resolution; of nodes not asked for none."""
        indptr, column, score = getattr(self.base.resolutions[r], f"{self.side}_edges")
        width = self.nodes.base_values.other_widths[r]
        dense, slots, codes = (
            np.zeros((len(self.codes), width), np.int64),
            self.slots[: self.asked],
            self.codes[: self.asked],
        )
        plain = np.flatnonzero(slots < 0)
        starts, at = rows_of(indptr, codes[plain])
        dense[np.repeat(plain, np.diff(starts)), column[at]] = score[at]
        live = np.flatnonzero(slots >= 0)
        dense[live] = self.nodes.edges[slots[live], self.nodes.starts[r] : self.nodes.starts[r] + width]
        row, found = np.nonzero(dense)
        return (
            np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(dense)))]),
            found.astype(np.uint16),
            dense[row, found],
        )


def gather_patched(
    base: Snapshot,
    sides: Mapping[Side, Nodes],
    pairs: LivePairs,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    groups: Collection[str],
) -> dict[str, NDArray]:
    """`Snapshot.gather` of the live state. Arguments and result as there; codes of newcomers are read as well."""
    wanted: dict[Side, NDArray[np.int64]] = {
        "user": np.asarray(users, np.int64),
        "item": np.asarray(items, np.int64),
    }
    wanted = {
        side: np.where(codes < sides[side].count, np.maximum(codes, -1), -1) for side, codes in wanted.items()
    }
    asked = {side: np.unique(codes[codes >= 0]) for side, codes in wanted.items()}
    recent = {side: _Part(sides[side], base, asked[side], 0) for side in SIDES}
    neighbours = {side: _recent(recent[OTHER[side]])[0] for side in SIDES}
    parts = {}
    for side in SIDES:
        further = np.setdiff1d(neighbours[side][neighbours[side] >= 0], asked[side])
        parts[side] = _Part(sides[side], base, np.concatenate([asked[side], further]), len(asked[side]))
    arrays: dict[str, Any] = _pairs(base, parts, pairs, wanted)
    for side, part in parts.items():
        arrays |= _arrays(part, parts[OTHER[side]])
    resolutions = tuple(_resolution(base, parts, r, "edges" in groups) for r in range(len(base.resolutions)))
    patched = Patched(dict(base.arrays) | arrays, resolutions, base.dense, base.cut, base.bucket, base)
    out = patched.gather(parts["user"].local(wanted["user"]), parts["item"].local(wanted["item"]), groups)
    for side in SIDES:
        if (name := f"recent_{side}s") in out and len(parts[side].codes):
            out[name] = np.where(out[name] >= 0, parts[side].codes[out[name]], -1)
    return out


def touched(
    base: Snapshot,
    sides: Mapping[Side, Nodes],
    asked: Mapping[Side, NDArray[np.int64]],
    groups: Collection[str],
) -> NDArray[np.bool_]:
    """Which pairs have a node that live events have touched, or a recent neighbour of one, where these are read. Shape (B,)."""
    out = np.zeros(len(asked["user"]), bool)
    if not any(nodes.size for nodes in sides.values()):
        return out
    for side, codes in asked.items():
        row = np.flatnonzero((codes >= 0) & (codes < sides[side].count))
        out[row] |= sides[side].slot[codes[row]] >= 0
        if "recents" in groups or "sketch" in groups:
            recent = base.arrays[f"recent_{OTHER[side]}s"]
            row = row[codes[row] < len(recent)]
            near = recent[codes[row]]
            out[row] |= ((near >= 0) & (sides[OTHER[side]].slot[np.maximum(near, 0)] >= 0)).any(1)
    return out


def _recent(part: _Part) -> tuple[NDArray[np.int64], NDArray]:
    """Codes of recent neighbours and tasks done with them. Shape (n, R) each."""
    name = f"recent_{OTHER[part.side]}s"
    codes = part.rows(part.base.arrays[name], part.nodes.recent, -1).astype(np.int64)
    return codes, part.rows(part.base.arrays[f"{name}_task_mask"], part.nodes.recent_task_mask, 0)


def _arrays(part: _Part, other: _Part) -> dict[str, NDArray]:
    """A side's arrays of the small snapshot."""
    side, base, cold = (
        part.side,
        part.base,
        len(getattr(part.base.resolutions[part.base.dense], f"{OTHER[part.side]}_mass")),
    )
    out = {f"{side}_{name}": part.rows(base.arrays[f"{side}_{name}"], getattr(part.nodes, name), cold if fill is None else fill)
           for name, fill in PLAIN.items()}  # fmt: skip
    for order, live in (("1", "log_first"), ("2", "log_second")):
        out[side[0] + order] = part.rows(base.arrays[side[0] + order], getattr(part.nodes, live), 0)
    recent, codes = _recent(part)
    recent[part.asked :] = -1
    name = f"recent_{OTHER[side]}s"
    return out | {name: other.local(recent).astype(np.int32), f"{name}_task_mask": codes}


def _resolution(base: Snapshot, parts: Mapping[Side, _Part], r: int, edges: bool) -> Resolution:
    """Macro nodes of the small snapshot, and where they are read its edges."""
    whole, changed = base.resolutions[r], {}
    for side, part in parts.items():
        cold = part.nodes.base_values.widths[r]
        changed[f"{side}_macro"] = part.rows(getattr(whole, f"{side}_macro"), part.nodes.macro[:, r], cold)
        if edges:
            changed[f"{side}_second"] = part.rows(
                getattr(whole, f"{side}_second"), part.nodes.second[:, r], 0
            )
            changed[f"{side}_edges"] = part.edges(r)
    return replace(whole, **changed)


def _pairs(
    base: Snapshot, parts: Mapping[Side, _Part], pairs: LivePairs, wanted: Mapping[Side, NDArray[np.int64]]
) -> dict[str, NDArray]:
    """The pairs asked for, where there are any."""
    both = (wanted["user"] >= 0) & (wanted["item"] >= 0)
    user, item = np.unique(np.stack([wanted[side][both] for side in SIDES]), axis=1)
    at = np.empty(len(user), np.int64)
    kernels.find_pairs(base.arrays["pairs.indptr"], base.arrays["pairs.item"], user, item, at)
    code, time = (
        np.where(at >= 0, _at(base.arrays[f"pairs.{name}"], at), 0) for name in ("task_mask", "time")
    )
    number = np.fromiter(
        (pairs.number(*pair) for pair in zip(user.tolist(), item.tolist(), strict=True)), np.int64, len(user)
    )
    live = number >= 0
    code[live], time[live] = pairs.task_mask[number[live]], pairs.time[number[live]]
    there = code > 0
    row, column = parts["user"].local(user[there]), parts["item"].local(item[there])
    order = np.lexsort((column, row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(parts["user"].codes)))])
    return {"pairs.indptr": indptr, "pairs.item": column[order].astype(np.int32), "pairs.task_mask": code[there][order],
            "pairs.time": time[there][order]}  # fmt: skip


def _at(array: NDArray, at: NDArray[np.int64]) -> NDArray:
    return array[np.maximum(at, 0)] if len(array) else np.zeros(len(at), array.dtype)
