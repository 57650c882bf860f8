"""Loops over the items of one request, compiled: the columns of `graph.gather` that depend on both nodes of a pair.

`slot` is of the live state: where `slot[code]` is not negative, a node is read from that row of the `live_` arrays.
"""

from __future__ import annotations

import numba
import numpy as np

from mgoe.graph.edges import find
from mgoe.graph.gather import forms
from mgoe.graph.memory_hints import prefetch, prefetch_row
from mgoe.graph.scores import UNIT

AHEAD = 8
"""Items between asking for what a row begins with and reading it."""
LANES = 8
"""Items whose products run side by side: each is a chain of sums in a fixed order, which alone would wait for every sum."""


@numba.njit(cache=True, nogil=True)
def chain(first, following):  # pragma: no cover - compiled
    """Numbers of a linked list that ends with -1."""
    n, at = 0, first
    while at >= 0:
        n, at = n + 1, following[at]
    out = np.empty(n, np.int64)
    at = first
    for k in range(n):
        out[k], at = at, following[at]
    return out


@numba.njit(cache=True, nogil=True)
def pair(known, code, time, cut, bucket, items, out):  # pragma: no cover - compiled
    """History of each pair: a bit a task, and 1 / (1 + buckets since)."""
    tasks = out.shape[1] - 1
    for row in range(len(items)):
        at = np.searchsorted(known, items[row])
        if items[row] >= 0 and at < len(known) and known[at] == items[row] and code[at]:
            for t in range(tasks):
                out[row, t] = code[at] >> t & 1
            out[row, tasks] = 1 / (1 + max(0, cut - time[at] // bucket))


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(slot, code):  # pragma: no cover - compiled
    return slot[code] if 0 <= code < len(slot) else -1


@numba.njit(cache=True, nogil=True)
def edges(
    indptr, column, score, macro, total, user_mass, item_mass, macro_edges,
    slot, live_macro, live_edges, live_total, r, start, user_macro, user_edges, user_total, whole, items, out,
):  # fmt: skip  # pragma: no cover - compiled
    """Count, share and lift of three edges at resolution r: user to the item's macro node, item to the user's, macro to macro."""
    ku, ki = len(user_mass), len(item_mass)
    n = len(items)
    mass_u = user_mass[user_macro] if user_macro < ku else 0.0
    for row in range(n):
        for ahead, first in ((2 * AHEAD, True), (AHEAD, False)):
            near = items[row + ahead] if row + ahead < n else -1
            if 0 <= near < len(macro):
                if first:
                    prefetch(indptr, near)
                    prefetch(macro, near)
                    prefetch(total, near)
                else:
                    prefetch(column, (indptr[near] + indptr[near + 1]) >> 1)
                    prefetch(score, (indptr[near] + indptr[near + 1]) >> 1)
        i = items[row]
        s = _slot(slot, i)
        ci, sum_i, back = ki, 0.0, 0.0
        if s >= 0:
            ci, sum_i = live_macro[s, r], live_total[s]
            back = live_edges[s, start + user_macro] / UNIT if user_macro < ku else 0.0
        elif i >= 0:
            ci, sum_i = macro[i], total[i]
            back = find(indptr, column, score, i, user_macro) / UNIT
        mass_i = item_mass[ci] if ci < ki else 0.0
        forms(out, row, 0, user_edges[ci], user_total, mass_i, whole, ki)
        forms(out, row, 3, back, sum_i, mass_u, whole, ku)
        forms(
            out,
            row,
            6,
            macro_edges[user_macro, ci] if user_macro < ku and ci < ki else 0.0,
            mass_u,
            mass_i,
            whole,
            ki,
        )


@numba.njit(cache=True, nogil=True)
def vectors_of(vectors, slot, live, items):  # pragma: no cover - compiled
    """Vectors of items, zeros for those without history. Shape (B, rank)."""
    n, rank = len(items), vectors.shape[1]
    out, flat = np.zeros((n, rank), np.float32), vectors.reshape(-1)
    for row in range(n):
        ahead = items[row + AHEAD] if row + AHEAD < n else -1
        if 0 <= ahead < len(vectors):
            prefetch_row(flat, ahead, rank)
        s = _slot(slot, items[row])
        if s >= 0:
            out[row] = live[s]
        elif items[row] >= 0:
            out[row] = vectors[items[row]]
    return out


@numba.njit(cache=True, nogil=True)
def products(user, vectors, ranks, seen, out):  # pragma: no cover - compiled
    """Cosine and product at several ranks. The sums keep the order of `graph.gather`: fourth roots would magnify another rounding."""
    rank, parts = len(user), len(ranks)
    product, right = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    lanes = np.empty((rank, LANES), np.float32)
    for first in range(0, len(vectors), LANES):
        n = min(LANES, len(vectors) - first)
        for lane in range(n):
            for d in range(rank):
                lanes[d, lane] = vectors[first + lane, d]
        product[:], right[:] = 0, 0
        left, d = np.float32(0), 0
        for part in range(parts):
            while d < ranks[part]:
                for lane in range(LANES):
                    product[lane] += user[d] * lanes[d, lane]
                    right[lane] += lanes[d, lane] * lanes[d, lane]
                left += user[d] * user[d]
                d += 1
            for lane in range(n):
                if seen[first + lane] >= 0:
                    out[first + lane, part] = product[lane] / np.sqrt(left * right[lane] + np.float32(1e-20))
                    out[first + lane, parts + part] = np.sign(product[lane]) * np.sqrt(
                        np.sqrt(abs(product[lane]))
                    )


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a, b):  # pragma: no cover - compiled
    """Product of two vectors, and of the second with itself."""
    product, right = np.float32(0), np.float32(0)
    for d in range(len(a)):
        product += a[d] * b[d]
        right += b[d] * b[d]
    return product, right


@numba.njit(cache=True, nogil=True)
def recent_items(recents, vectors, items, out):  # pragma: no cover - compiled
    """Largest and mean cosine of each item with the user's recent ones."""
    if not len(recents):
        return
    own = np.array([_dot(recent, recent)[1] for recent in recents])
    for row in range(len(items)):
        if items[row] >= 0:
            largest, total = np.float32(-1), np.float32(0)
            for k in range(len(recents)):
                product, right = _dot(recents[k], vectors[row])
                value = product / np.sqrt(own[k] * right + np.float32(1e-20))
                largest = max(largest, value)
                total += value
            out[row, 0], out[row, 1] = largest, total / len(recents)
