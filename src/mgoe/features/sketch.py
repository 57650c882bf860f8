"""`sketch`: low-rank scores of the pair, and the item against the user's recent items."""

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
"""Rows of one user whose sums run side by side. Each sum has a fixed order, and alone would wait for every
addition."""


class Sketch(InputGroup):
    """Cosine and product at several ranks, then the largest and the mean cosine of the item with the user's
    recent items.

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
    vectors_u, slot_u, live_u = users
    vectors_i, slot_i, live_i = items
    rank, length = vectors_u.shape[1], recent.shape[1]
    flat_u, flat_i, flat_recent = vectors_u.reshape(-1), vectors_i.reshape(-1), recent.reshape(-1)
    vector, target = np.zeros((LANES, rank), np.float32), np.zeros((LANES, rank), np.float32)
    inverse, neighbors, current, n = np.empty(length, np.float32), np.empty(length, np.int64), -2, 0
    for first in range(0, len(u), LANES):
        rows, one_user = min(LANES, len(u) - first), True
        for lane in range(rows):
            row = first + lane
            _ask(flat_u, rank, u, row)
            _ask(flat_recent, length, u, row)
            _ask(flat_i, rank, i, row)
            _copy(vectors_i, slot_i, live_i, i[row], target, lane)
            one_user &= u[row] == u[first]
            if lane == 0 or not one_user:
                _copy(vectors_u, slot_u, live_u, u[row], vector, lane)
        if one_user:
            _products_of_one(vector, target, ranks, out, first, rows)
        else:
            for lane in range(rows):
                own = lane if u[first + lane] != u[first] else 0
                _products(vector, own, target, lane, ranks, out, first + lane)
        for lane in range(rows):
            row = first + lane
            if u[row] < 0 or i[row] < 0:
                continue
            if u[row] != current:
                current, n = u[row], 0
                slot = _slot(slot_u, current)
                while n < length:
                    item = np.int64(live_recent[slot, n]) if slot >= 0 else np.int64(recent[current, n])
                    if item < 0:
                        break
                    neighbors[n], own = item, _slot(slot_i, item)
                    inverse[n] = _inverse(
                        _dot(live_i, own, live_i, own) if own >= 0 else _dot(vectors_i, item, vectors_i, item)
                    )
                    n += 1
            coming = u[row + 1] if row + 1 < len(u) else -1
            if coming != current and 0 <= coming < len(recent):
                for r in range(length):
                    prefetch_row(flat_i, np.int64(recent[coming, r]), rank)
            if n == 0:
                continue
            own_inverse = _inverse(_dot(target, lane, target, lane))
            largest, total = np.float32(-1), np.float32(0)
            for k in range(n):
                own = _slot(slot_i, neighbors[k])
                near = (
                    _dot(target, lane, live_i, own)
                    if own >= 0
                    else _dot(target, lane, vectors_i, neighbors[k])
                )
                value = near * own_inverse * inverse[k]
                largest = max(largest, value)
                total += value
            out[row, 2 * len(ranks)], out[row, 2 * len(ranks) + 1] = largest, total / n


@numba.njit(cache=True, nogil=True)
def _products(users, lane_u, items, lane_i, ranks, out, row):  # pragma: no cover - compiled
    """Write the cosine and the product of two vectors at each rank; 0 where one of them is 0."""
    product, left, right, d = np.float32(0), np.float32(0), np.float32(0), 0
    for part in range(len(ranks)):
        while d < ranks[part]:
            product += users[lane_u, d] * items[lane_i, d]
            left += users[lane_u, d] * users[lane_u, d]
            right += items[lane_i, d] * items[lane_i, d]
            d += 1
        out[row, part], out[row, len(ranks) + part] = _scores(product, left, right)


@numba.njit(cache=True, nogil=True)
def _products_of_one(users, items, ranks, out, first, rows):  # pragma: no cover - compiled
    """As `_products`, for the user of the first lane and the items of all, with every sum in the same
    order."""
    rank = users.shape[1]
    lanes = np.empty((rank, LANES), np.float32)
    for lane in range(LANES):
        for d in range(rank):
            lanes[d, lane] = items[lane, d]
    product, right = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    left, d = np.float32(0), 0
    for part in range(len(ranks)):
        while d < ranks[part]:
            for lane in range(LANES):
                product[lane] += users[0, d] * lanes[d, lane]
                right[lane] += lanes[d, lane] * lanes[d, lane]
            left += users[0, d] * users[0, d]
            d += 1
        for lane in range(rows):
            cosine, root = _scores(product[lane], left, right[lane])
            out[first + lane, part], out[first + lane, len(ranks) + part] = cosine, root


@numba.njit(cache=True, nogil=True, inline="always")
def _scores(product, left, right):  # pragma: no cover - compiled
    """Return cosine and signed fourth root: products of degree-normalised scores span many orders of
    magnitude."""
    cosine = product / np.sqrt(left * right + np.float32(1e-20))
    return cosine, np.sign(product) * abs(product) ** np.float32(0.25)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a, row_a, b, row_b):  # pragma: no cover - compiled
    product = np.float32(0)
    for d in range(a.shape[1]):
        product += a[row_a, d] * b[row_b, d]
    return product


@numba.njit(cache=True, nogil=True)
def _inverse(square):  # pragma: no cover - compiled
    """Return what makes a vector of this squared length a unit vector."""
    return np.float32(1) / np.sqrt(max(square, np.float32(1e-20)))


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(slot, node):  # pragma: no cover - compiled
    """Return a node's row in the overlay, -1 where there is none."""
    return np.int64(slot[node]) if 0 <= node < len(slot) else np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _copy(vectors, slot, live, node, out, lane):  # pragma: no cover - compiled
    """Write a node's vector, zeros for one without history."""
    own = _slot(slot, node)
    if own >= 0:
        for d in range(out.shape[1]):
            out[lane, d] = live[own, d]
    elif node >= 0:
        for d in range(out.shape[1]):
            out[lane, d] = vectors[node, d]
    else:
        for d in range(out.shape[1]):
            out[lane, d] = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _ask(flat, width, nodes, row):  # pragma: no cover - compiled
    """Ask for the row of a coming row's node."""
    if row + AHEAD < len(nodes) and nodes[row + AHEAD] != nodes[row]:
        prefetch_row(flat, nodes[row + AHEAD], width)
