"""`sketch`: low-rank scores of the pair, and the item against the user's recent items."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import PAIR, Arrays, InputGroup, Key, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.memory_hints import AHEAD, prefetch_row
from mgoe.graph.pair_rows import Side

LANES = 8
"""Rows whose sums run side by side. Each sum has a fixed order, and alone would wait for every addition."""


class Sketch(InputGroup):
    """Cosine and product at several ranks, then the largest and the mean cosine of the item with the user's recent items.

    Shape (B, 2 x ranks + 2).
    """

    name = "sketch"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        return (dense("sketch", (PAIR, spec.widths.get("sketch", 0))),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        ranks = _ranks(snapshot.arrays["user_vectors"].shape[1])
        scores = [f"sketch.{form}.{rank}" for form in ("cosine", "product") for rank in ranks]
        return {"sketch": [*scores, *(f"sketch.recent_items.{form}" for form in ("max", "mean"))]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        users, items = _vectors(view, "user"), _vectors(view, "item")
        ranks = _ranks(users.vectors.shape[1])
        recent = view.base["user"]["recent"], view.overlay.user.recent
        out = np.zeros((len(pairs.user), 2 * len(ranks) + 2), np.float32)
        _read(users, items, *recent, np.array(ranks), pairs.user, pairs.item, out)
        return {"sketch": out}


class Vectors(NamedTuple):
    """Vectors of one side by node, and by `slot` those of the overlay. Shapes (n, rank)."""

    vectors: NDArray[np.float32]
    slot: NDArray[np.int32]
    live: NDArray[np.float32]


def _vectors(view: View, side: Side) -> Vectors:
    live = view.nodes(side)
    return Vectors(view.base[side]["vectors"], live.slot, live.vectors)


def _ranks(rank: int) -> list[int]:
    """Return the ranks at which the low-rank score is read: an eighth, a quarter, a half and all."""
    return sorted({max(1, rank // 8), max(1, rank // 4), max(1, rank // 2), rank})


@numba.njit(cache=True, nogil=True)
def _read(users, items, recent, live_recent, ranks, u, i, out):  # pragma: no cover - compiled
    rank, length = users.vectors.shape[1], recent.shape[1]
    flat_users, flat_items, flat_recent = (
        users.vectors.reshape(-1),
        items.vectors.reshape(-1),
        recent.reshape(-1),
    )
    left, right = np.zeros((rank, LANES), np.float32), np.zeros((rank, LANES), np.float32)
    target, in_lane = (
        np.zeros((LANES, rank), np.float32),
        np.full(LANES, -2),
    )  # in_lane: the user in each lane
    norms, neighbours, current, n = np.empty(length, np.float32), np.empty(length, np.int64), -2, 0
    for first in range(0, len(u), LANES):
        rows = min(LANES, len(u) - first)
        for lane in range(rows):
            row = first + lane
            _ask(users.vectors, flat_users, u, row)
            _ask(recent, flat_recent, u, row)
            _ask(items.vectors, flat_items, i, row)
            if u[row] != in_lane[lane]:
                in_lane[lane] = u[row]
                _copy(users, u[row], target[lane])
                left[:, lane] = target[lane]
            _copy(items, i[row], target[lane])
            right[:, lane] = target[lane]
        _products(left, right, ranks, u, i, first, rows, out)
        for lane in range(rows):
            row = first + lane
            if u[row] < 0 or i[row] < 0:
                continue
            if u[row] != current:
                current = u[row]
                n = _recent_of(users, recent, live_recent, items, current, neighbours, norms)
            if row + 1 < len(u) and u[row + 1] != current and 0 <= u[row + 1] < len(recent):
                for r in range(length):
                    prefetch_row(flat_items, np.int64(recent[u[row + 1], r]), rank)
            _closest(items, target[lane], neighbours[:n], norms, out[row, 2 * len(ranks) :])


@numba.njit(cache=True, nogil=True)
def _products(left, right, ranks, u, i, first, rows, out):  # pragma: no cover - compiled
    """Write cosines and products of up to `LANES` rows, from their vectors (rank, LANES)."""
    product, square_u, square_i = (
        np.zeros(LANES, np.float32),
        np.zeros(LANES, np.float32),
        np.zeros(LANES, np.float32),
    )
    d = 0
    for part in range(len(ranks)):
        while d < ranks[part]:
            for lane in range(LANES):
                product[lane] += left[d, lane] * right[d, lane]
                square_u[lane] += left[d, lane] * left[d, lane]
                square_i[lane] += right[d, lane] * right[d, lane]
            d += 1
        for lane in range(rows):
            row = first + lane
            if u[row] < 0 or i[row] < 0:
                continue
            out[row, part] = product[lane] / np.sqrt(square_u[lane] * square_i[lane] + np.float32(1e-20))
            # signed fourth root: products of degree-normalised scores span many orders of magnitude
            out[row, len(ranks) + part] = np.sign(product[lane]) * abs(product[lane]) ** np.float32(0.25)


@numba.njit(cache=True, nogil=True)
def _recent_of(users, recent, live_recent, items, user, neighbours, norms):  # pragma: no cover - compiled
    """Write a user's recent items and the square norms of their vectors; return how many there are."""
    slot = _slot(users, user)
    n = 0
    for r in range(len(neighbours)):
        item = np.int64(live_recent[slot, r]) if slot >= 0 else np.int64(recent[user, r])
        if item < 0:
            break
        neighbours[n] = item
        own = _slot(items, item)
        norms[n] = (
            _dot(items.live[own], items.live[own])
            if own >= 0
            else _dot(items.vectors[item], items.vectors[item])
        )
        n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _closest(items, target, neighbours, norms, out):  # pragma: no cover - compiled
    """Write the largest and the mean cosine of a vector with those of items."""
    if not len(neighbours):
        return
    own, largest, total = _dot(target, target), np.float32(-1), np.float32(0)
    for r in range(len(neighbours)):
        slot = _slot(items, neighbours[r])
        product = _dot(target, items.live[slot]) if slot >= 0 else _dot(target, items.vectors[neighbours[r]])
        value = product / np.sqrt(own * norms[r] + np.float32(1e-20))
        largest = max(largest, value)
        total += value
    out[0], out[1] = largest, total / len(neighbours)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a, b):  # pragma: no cover - compiled
    product = np.float32(0)
    for d in range(len(a)):
        product += a[d] * b[d]
    return product


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(nodes, node):  # pragma: no cover - compiled
    """Return a node's row in the overlay, -1 where there is none."""
    return np.int64(nodes.slot[node]) if 0 <= node < len(nodes.slot) else np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _copy(nodes, node, out):  # pragma: no cover - compiled
    """Write a node's vector, zeros for one without history."""
    slot = _slot(nodes, node)
    if slot >= 0:
        out[:] = nodes.live[slot]
    elif node >= 0:
        out[:] = nodes.vectors[node]
    else:
        out[:] = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _ask(rows, flat, nodes, row):  # pragma: no cover - compiled
    """Ask for the row of a coming row's node."""
    if row + AHEAD < len(nodes) and nodes[row + AHEAD] != nodes[row]:
        prefetch_row(flat, nodes[row + AHEAD], rows.shape[1])
