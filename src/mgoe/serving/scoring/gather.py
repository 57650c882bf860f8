"""What a model reads of one user with many items, as `Snapshot.gather` gives it: what depends on the user alone is read once.

The user's sparse edges become dense rows, so that an edge to an item's macro node is one look-up; vectors of the recent items lie side by
side; rows of the items are asked for before they are read. Touched by live events, a node is read from its slot.

Axes: `B` items, `R` recent neighbours, `Z` resolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Snapshot
from mgoe.graph.gather import EDGE_FORMS, EDGE_KINDS, sketch_ranks
from mgoe.graph.pair_rows import Side
from mgoe.graph.scores import UNIT
from mgoe.models import Owner, Owners
from mgoe.serving.scoring import pair_kernels as kernels

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes

KIND_OWNERS: dict[str, Owner] = {
    "first.user": "pair",
    "first.item": "pair",
    "second.user": "user",
    "second.item": "item",
    "macro": "pair",
}
PAIR_KINDS = tuple(kind for kind in EDGE_KINDS if KIND_OWNERS[kind] == "pair")


def owners(snapshot: Snapshot) -> Owners:
    """Whose the columns of `counts` and `edges` are."""
    users, items = (snapshot.arrays[f"{side}_counts"].shape[1] for side in ("user", "item"))
    counts: list[Owner] = ["user"] * users + ["item"] * items
    edges: list[Owner] = [KIND_OWNERS[kind] for kind in EDGE_KINDS for _ in EDGE_FORMS] * len(
        snapshot.resolutions
    )
    return {"counts": counts, "edges": edges}


class Slots(NamedTuple):
    """What live events made of one side's nodes; empty arrays where nothing is live."""

    slot: NDArray[np.int32]
    macro: NDArray[np.int32]
    edges: NDArray[np.int64]
    total: NDArray[np.float32]
    recent: NDArray[np.int32]
    vectors: NDArray[np.float32]


class User(NamedTuple):
    """What the pairs of one user read of the user.

    Attributes:
        macro: Own macro node at each resolution. Shape (Z,).
        edges: 1st-order edge to each item macro node at each resolution, 0 to the cold one. Shape (Ki + 1,) each.
        total: Score sum.
        items, code, time: Known pairs, by item. Shape (n,) each.
        vector: Of the sketch. Shape (rank,), or (0,) for a user without history.
        recents: Vectors of the recent items. Shape (R, rank) at most.
    """

    macro: NDArray[np.int64]
    edges: tuple[NDArray[np.float64], ...]
    total: float
    items: NDArray[np.integer]
    code: NDArray[np.integer]
    time: NDArray[np.int64]
    vector: NDArray[np.float32]
    recents: NDArray[np.float32]


class PairGather:
    """The pair's columns of a snapshot, and of what live events made of it since.

    Args:
        snapshot: Memory-mapped.
        live: Its live state, whose `lock` the caller holds while it gathers.
    """

    def __init__(self, snapshot: Snapshot, live: LiveNodes | None = None):
        self._at, self._live = snapshot, live
        arrays = snapshot.arrays
        self._tasks = arrays["user_table"].shape[1]
        self._rank = arrays["user_vectors"].shape[1]
        self._ranks = np.array(sketch_ranks(self._rank))
        self._none = self._no_slots()
        self.widths = {
            "pair": self._tasks + 1,
            "sketch": 2 * len(self._ranks) + 2,
            "edges": len(PAIR_KINDS) * len(EDGE_FORMS) * len(snapshot.resolutions),
        }

    def __call__(
        self, user: int, items: NDArray[np.int64], keys: frozenset[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Columns of the pair alone, by batch key; `edges` without those that either side has alone. Shape (B, width) each.

        Args:
            user: A code; one that is unknown is a user without history.
            items: Codes, likewise. Shape (B,).
            keys: Which of `pair`, `sketch`, `edges`.
        """
        users_live, items_live = self._slots("user"), self._slots("item")
        items = self._known("item", items, items_live)
        seen = self._user(int(self._known("user", np.array([user]), users_live)[0]), users_live, items_live)
        out: dict[str, NDArray[np.float32]] = {}
        for key in keys & self.widths.keys():
            out[key] = np.zeros((len(items), self.widths[key]), np.float32)
        if "pair" in out:
            kernels.pair(seen.items, seen.code, seen.time, self._at.cut, self._at.bucket, items, out["pair"])
        if "sketch" in out and len(seen.vector):
            self._sketch(seen, items, items_live, out["sketch"])
        if "edges" in out:
            self._edges(seen, items, items_live, out["edges"])
        return out

    def _sketch(self, seen: User, items: NDArray[np.int64], live: Slots, out: NDArray[np.float32]) -> None:
        n = 2 * len(self._ranks)
        vectors = kernels.vectors_of(self._at.arrays["item_vectors"], live.slot, live.vectors, items)
        kernels.products(seen.vector, vectors, self._ranks, items, out)
        kernels.recent_items(seen.recents, vectors, items, out[:, n:])

    def _edges(self, seen: User, items: NDArray[np.int64], live: Slots, out: NDArray[np.float32]) -> None:
        at = self._at
        step, start = len(PAIR_KINDS) * len(EDGE_FORMS), 0
        for r, part in enumerate(at.resolutions):
            kernels.edges(
                *part.item_edges, part.item_macro, at.arrays["item_sum"], part.user_mass, part.item_mass, part.macro_edges,
                live.slot, live.macro, live.edges, live.total, r, start, seen.macro[r], seen.edges[r], seen.total,
                max(at.total, 1e-9), items, out[:, r * step : (r + 1) * step],
            )  # fmt: skip
            start += len(part.user_mass) + 1
        np.log(out, out=out)

    def _user(self, user: int, live: Slots, items: Slots) -> User:
        at, arrays = self._at, self._at.arrays
        slot = int(live.slot[user]) if 0 <= user < len(live.slot) else -1
        macro = np.array([len(part.user_mass) for part in at.resolutions])
        edges = tuple(np.zeros(len(part.item_mass) + 1) for part in at.resolutions)
        if user < 0:
            empty = np.empty(0, np.int64)
            return User(
                macro,
                edges,
                0.0,
                empty,
                empty,
                empty,
                np.empty(0, np.float32),
                np.empty((0, self._rank), np.float32),
            )
        if slot < 0:
            for r, part in enumerate(at.resolutions):
                macro[r] = part.user_macro[user]
                indptr, column, score = part.user_edges
                own = slice(int(indptr[user]), int(indptr[user + 1]))
                edges[r][column[own]] = score[own] / UNIT
            total, vector, recent = (
                arrays["user_sum"][user],
                arrays["user_vectors"][user],
                arrays["recent_items"][user],
            )
        else:
            macro[:] = live.macro[slot]
            start = 0
            for row in edges:
                row[:-1] = live.edges[slot, start : start + len(row) - 1] / UNIT
                start += len(row)
            total, vector, recent = live.total[slot], live.vectors[slot], live.recent[slot]
        recent = recent[: np.count_nonzero(recent >= 0)].astype(np.int64)
        known = self._pairs(user, slot)
        return User(macro, edges, float(total), *known, vector, self._vectors(recent, items))

    def _vectors(self, items: NDArray[np.int64], live: Slots) -> NDArray[np.float32]:
        """Of items, those born live included."""
        vectors = self._at.arrays["item_vectors"]
        if not len(live.slot):
            return vectors[items]
        slots = live.slot[items]
        out = np.where(
            (slots < 0)[:, None], vectors[np.minimum(items, len(vectors) - 1)], live.vectors[slots]
        )
        return np.ascontiguousarray(out)

    def _pairs(
        self, user: int, slot: int
    ) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.int64]]:
        """Items, codes and times of the user's pairs, by item."""
        arrays = self._at.arrays
        own = slice(0, 0)
        if user < self._at.n_users:
            own = slice(int(arrays["pairs.indptr"][user]), int(arrays["pairs.indptr"][user + 1]))
        item, code, time = (
            arrays["pairs.item"][own],
            arrays["pairs.task_mask"][own],
            arrays["pairs.time"][own],
        )
        if slot < 0 or self._live is None:
            return item, code, time
        pairs, nodes = self._live.pairs, self._live.sides
        entries = kernels.chain(nodes["user"].head[slot], pairs.next_user)
        fresh = nodes["item"].index[pairs.item[entries]]
        kept = ~np.isin(item, fresh)
        item, code, time = (
            np.concatenate([old[kept], new])
            for old, new in ((item, fresh), (code, pairs.task_mask[entries]), (time, pairs.time[entries]))
        )
        order = np.argsort(item)
        return item[order], code[order], time[order]

    def _known(self, side: Side, codes: NDArray[np.int64], live: Slots) -> NDArray[np.int64]:
        """Codes, -1 for nodes without history."""
        n = self._at.n_users if side == "user" else self._at.n_items
        known = (codes >= 0) & (codes < n)
        if len(live.slot) > n:
            born = (codes >= n) & (codes < len(live.slot))
            known[born] = live.slot[codes[born]] >= 0
        return np.where(known, codes, -1)

    def _slots(self, side: Side) -> Slots:
        if self._live is None:
            return self._none
        nodes = self._live.sides[side]
        return Slots(nodes.slot, nodes.macro, nodes.edges, nodes.sum, nodes.recent, nodes.vectors)

    def _no_slots(self) -> Slots:
        zero, one = np.empty(0, np.int32), np.empty((0, 0), np.int32)
        return Slots(
            zero,
            one,
            np.empty((0, 0), np.int64),
            np.empty(0, np.float32),
            one,
            np.empty((0, self._rank), np.float32),
        )
