"""`sketch`: low-rank scores of the pair, and the item against the user's recent items."""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features.group import Arrays, InputGroup
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.memory_hints import AHEAD, prefetch
from mgoe.graph.pair_rows import Side

SUMS = {"reassoc", "contract", "nsz"}
"""What the compiler may assume of a sum: its terms may be added in any order, the same for every row."""


class Sketch(InputGroup):
    """Cosine and product at several ranks, then the largest and the mean cosine of the item with the user's
    recent items.

    Shape (B, 2 x ranks + 2).
    """

    name = "sketch"

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        ranks = _ranks(snapshot.arrays["user_vectors"].shape[1])
        scores = [f"sketch.{form}.{rank}" for form in ("cosine", "product") for rank in ranks]
        return {"sketch": [*scores, *(f"sketch.recent_items.{form}" for form in ("max", "mean"))]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        users, items = _vectors(view, "user"), _vectors(view, "item")
        ranks = np.array(_ranks(users[0].shape[1]), np.uint64)
        recent = view.base["user"]["recent"], view.overlay.user.recent
        slots = pairs.changed("user"), pairs.changed("item")
        out = np.zeros((len(pairs.user), 2 * len(ranks) + 2), np.float32)
        _read(users, items, *recent, ranks, pairs.user, pairs.item, *slots, out)
        return {"sketch": out}


def _vectors(view: View, side: Side) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors of one side by node, and by slot those that have changed. Shapes (n, rank), (slots,
    rank)."""
    return view.base[side]["vectors"], view.nodes(side).vectors


def _ranks(rank: int) -> list[int]:
    """Return the ranks at which the low-rank score is read: an eighth, a quarter, a half and all."""
    return sorted({max(1, rank // 8), max(1, rank // 4), max(1, rank // 2), rank})


@kernel("out")
def _read(users, items, recent, live_recent, ranks, u, i, slot_u, slot_i, out):  # pragma: no cover - compiled
    """Write the columns of each pair; zeros where the user or the item has no history. Recent items are as
    the snapshot has them."""
    vectors_u, live_u = users
    vectors_i, live_i = items
    rank, length, last = vectors_u.shape[1], recent.shape[1], 2 * len(ranks)
    flat_u, flat_i, flat_recent = vectors_u.reshape(-1), vectors_i.reshape(-1), recent.reshape(-1)
    vector, target = np.empty((1, rank), np.float32), np.empty((1, rank), np.float32)
    squares = np.empty(len(ranks), np.float32)
    inverse, neighbors, n = np.empty(length, np.float32), np.empty(length, np.int64), 0
    current, current_slot = -2, -2
    for row in range(len(u)):
        _ask(flat_u, rank, u, row)
        _ask(flat_recent, length, u, row)
        _ask(flat_i, rank, i, row)
        coming = u[row + 1] if row + 1 < len(u) else -1
        if coming != u[row] and 0 <= coming < len(recent):
            for r in range(length):
                prefetch(flat_i, np.int64(recent[coming, r]) * rank, rank)
        if u[row] < 0 or i[row] < 0:
            continue
        if u[row] != current or slot_u[row] != current_slot:
            current, current_slot, n = u[row], slot_u[row], 0
            slot = current_slot
            _copy(vectors_u, slot, live_u, current, vector)
            _squares(vector, ranks, squares)
            while n < length and (slot >= 0 or current < len(recent)):
                item = np.int64(live_recent[slot, n]) if slot >= 0 else np.int64(recent[current, n])
                if item < 0:
                    break
                neighbors[n], inverse[n] = item, np.float32(0)
                if item < len(vectors_i):
                    inverse[n] = _inverse(_dot(vectors_i, item, vectors_i, item))
                n += 1
        _copy(vectors_i, slot_i[row], live_i, i[row], target)
        own_inverse = _inverse(_products(vector, squares, target, ranks, out, row))
        if n == 0:
            continue
        largest, total = np.float32(-1), np.float32(0)
        for k in range(n):
            near = _dot(target, 0, vectors_i, neighbors[k]) if inverse[k] else np.float32(0)
            value = near * own_inverse * inverse[k]
            largest = max(largest, value)
            total += value
        out[row, last], out[row, last + 1] = largest, total / n


@kernel("out", fastmath=SUMS, inner=True)
def _products(user, squares, item, ranks, out, row):  # pragma: no cover - compiled
    """Write the cosine and the product at each rank, 0 where a vector is 0, and return the item's squared
    length."""
    product, square, start = np.float32(0), np.float32(0), np.uint64(0)
    for part in range(len(ranks)):
        for d in range(start, ranks[part]):
            product += user[0, d] * item[0, d]
            square += item[0, d] * item[0, d]
        start = ranks[part]
        # products of degree-normalised scores span many orders of magnitude
        out[row, part] = product / np.sqrt(squares[part] * square + np.float32(1e-20))
        out[row, len(ranks) + part] = np.sign(product) * np.sqrt(np.sqrt(abs(product)))
    return square


@kernel("out", fastmath=SUMS, inner=True)
def _squares(vector, ranks, out):  # pragma: no cover - compiled
    """Write the squared length of a vector at each rank."""
    square, start = np.float32(0), np.uint64(0)
    for part in range(len(ranks)):
        for d in range(start, ranks[part]):
            square += vector[0, d] * vector[0, d]
        start = ranks[part]
        out[part] = square


@kernel(fastmath=SUMS, inner=True)
def _dot(a, row_a, b, row_b):  # pragma: no cover - compiled
    product = np.float32(0)
    for d in range(a.shape[1]):
        product += a[row_a, d] * b[row_b, d]
    return product


@kernel(inner=True)
def _inverse(square):  # pragma: no cover - compiled
    """Return what makes a vector of this squared length a unit vector."""
    return np.float32(1) / np.sqrt(max(square, np.float32(1e-20)))


@kernel("out", inner=True)
def _copy(vectors, own, live, node, out):  # pragma: no cover - compiled
    for d in range(out.shape[1]):
        out[0, d] = live[own, d] if own >= 0 else vectors[node, d]


@kernel(inline="always")
def _ask(flat, width, nodes, row):  # pragma: no cover - compiled
    """Ask for the row of a coming row's node, without a branch, as `ask_entries` does."""
    prefetch(flat, nodes[min(row + AHEAD, len(nodes) - 1)] * width, width)
