"""From node arrays to what a model reads of each pair: gathers and a few logarithms, nothing that grows with a node's degree.

Rows of `-1` stand for nodes without history: they read zeros, the cold macro node, and no neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.edges import find
from mgoe.graph.memory_hints import AHEAD, prefetch, prefetch_row
from mgoe.graph.scores import UNIT

if TYPE_CHECKING:
    from mgoe.graph.snapshot import Snapshot

Reader = Callable[["Snapshot", NDArray[np.int64], NDArray[np.int64]], dict[str, NDArray]]
EDGE_KINDS = ("first.user", "first.item", "second.user", "second.item", "macro")
EDGE_FORMS = ("count", "share", "lift")
LONGEST = 128
"""Entries of a sparse row that are asked for ahead of their reading."""


def rows(array: NDArray, index: NDArray[np.int64], fill: float = 0) -> NDArray:
    """Rows of an array, `fill` at index -1."""
    if len(array) == 0:
        return np.full((len(index), *array.shape[1:]), fill, array.dtype)
    out = array[index]
    out[index < 0] = fill
    return out


def own_macro(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """`user_macro` and `item_macro` at the dense resolution. Shape (B,) each."""
    dense = snapshot.resolutions[snapshot.dense]
    return {
        "user_macro": rows(dense.user_macro, u, snapshot.macro_users).astype(np.int64),
        "item_macro": rows(dense.item_macro, i, snapshot.macro_items).astype(np.int64),
    }


def counts(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """Counts of both nodes. Shape (B, 4T + 6)."""
    return {
        "counts": np.concatenate(
            [rows(snapshot.arrays["user_counts"], u), rows(snapshot.arrays["item_counts"], i)], axis=1
        )
    }


def pair(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """History of the pair itself: a bit a task, and 1 / (1 + buckets since). Shape (B, T + 1)."""
    arrays = snapshot.arrays
    tasks = arrays["user_table"].shape[1]
    out = np.zeros((len(u), tasks + 1), np.float32)
    indptr, item, code, time = (arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time"))
    _pair(indptr, item, code, time, snapshot.cut, snapshot.bucket, u, i, out)
    return {"pair": out}


def sketch(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """Low-rank scores: product and cosine at several ranks, and the candidate against the user's recent items. Shape (B, 2 x ranks + 2)."""
    arrays = snapshot.arrays
    out = np.zeros((len(u), 2 * len(sketch_ranks(arrays["user_vectors"].shape[1])) + 2), np.float32)
    _sketch(
        arrays["user_vectors"],
        arrays["item_vectors"],
        arrays["recent_items"],
        np.array(sketch_ranks(arrays["user_vectors"].shape[1])),
        u,
        i,
        out,
    )
    return {"sketch": out}


def sketch_ranks(rank: int) -> list[int]:
    """Ranks at which the low-rank score is read: an eighth, a quarter, a half and all."""
    return sorted({max(1, rank // 8), max(1, rank // 4), max(1, rank // 2), rank})


def edges(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """Target macro edges at every resolution: log count, log share and log lift. Shape (B, resolutions x 5 x 3).

    1st order: the user to the item's macro node, and the item to the user's. 2nd order: each node to its own macro node. Last,
    the edge between the two macro nodes.
    """
    arrays = snapshot.arrays
    step = len(EDGE_KINDS) * len(EDGE_FORMS)
    out = np.empty((len(u), step * len(snapshot.resolutions)), np.float32)
    for r, part in enumerate(snapshot.resolutions):
        _edges(
            *part.user_edges,
            *part.item_edges,
            part.user_macro,
            part.item_macro,
            part.user_second,
            part.item_second,
            part.user_mass,
            part.item_mass,
            part.user_second_mass,
            part.item_second_mass,
            part.macro_edges,
            arrays["user_sum"],
            arrays["item_sum"],
            arrays["user_second_sum"],
            arrays["item_second_sum"],
            max(snapshot.total, 1e-9),
            max(snapshot.second_total[0], 1e-9),
            max(snapshot.second_total[1], 1e-9),
            u,
            i,
            out[:, r * step : (r + 1) * step],
        )
    return {"edges": np.log(out, out=out)}


def aggregates(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """Dense macro edges as log1p, and the macro task table. Shapes (B, Ki), (B, Ku), (B, Ku), (B, Ki), (B, T), (B, T)."""
    arrays = snapshot.arrays
    out: dict[str, NDArray] = {
        name: rows(arrays[name], node).astype(np.float32)
        for name, node in (("u1", u), ("u2", u), ("i1", i), ("i2", i))
    }
    out["table_user"] = rows(arrays["user_table"], u, snapshot.macro_items).astype(np.int64)
    out["table_item"] = rows(arrays["item_table"], i, snapshot.macro_users).astype(np.int64)
    return out


def recents(snapshot: Snapshot, u: NDArray[np.int64], i: NDArray[np.int64]) -> dict[str, NDArray]:
    """Recent neighbours of both nodes, their task codes and macro nodes. Shape (B, R) each."""
    arrays, dense = snapshot.arrays, snapshot.resolutions[snapshot.dense]
    out: dict[str, NDArray] = {}
    for name, node, macro, cold in (
        ("items", u, dense.item_macro, snapshot.macro_items),
        ("users", i, dense.user_macro, snapshot.macro_users),
    ):
        neighbours = rows(arrays[f"recent_{name}"], node, -1).astype(np.int64)
        out[f"recent_{name}"] = neighbours
        out[f"recent_{name}_task_mask"] = rows(arrays[f"recent_{name}_task_mask"], node).astype(np.int64)
        out[f"recent_{name}_macro"] = (
            rows(macro, neighbours.ravel(), cold).reshape(neighbours.shape).astype(np.int64)
        )
    return out


READERS: dict[str, Reader] = {
    "counts": counts,
    "pair": pair,
    "sketch": sketch,
    "edges": edges,
    "aggregates": aggregates,
    "recents": recents,
}


@numba.njit(cache=True, nogil=True, inline="always")
def _ask_rows(indptr, columns, values, nodes, row):  # pragma: no cover - compiled
    """Ask for what `find` will read of a coming row: first where its node's entries start, nearer to it the entries themselves."""
    far, near = row + 2 * AHEAD, row + AHEAD
    if far < len(nodes):
        prefetch(indptr, np.int64(nodes[far]))
    if near < len(nodes) and nodes[near] >= 0:
        start = indptr[nodes[near]]
        prefetch_row(columns[start:], 0, min(indptr[nodes[near] + 1] - start, LONGEST))
        prefetch(values, start)


@numba.njit(cache=True, nogil=True, inline="always")
def _ask_values(macro, total, second, second_total, nodes, row):  # pragma: no cover - compiled
    """Ask for what is known of a coming row's node."""
    coming = row + AHEAD
    if coming < len(nodes):
        node = np.int64(nodes[coming])
        prefetch(macro, node)
        prefetch(total, node)
        prefetch(second, node)
        prefetch(second_total, node)


@numba.njit(cache=True, nogil=True)
def _pair(indptr, item, code, time, cut, bucket, u, i, out):  # pragma: no cover - compiled
    tasks = out.shape[1] - 1
    for row in range(len(u)):
        _ask_rows(indptr, item, code, u, row)
        if u[row] < 0 or i[row] < 0:
            continue
        done = find(indptr, item, code, u[row], i[row])
        if done:
            for t in range(tasks):
                out[row, t] = done >> t & 1
            out[row, tasks] = 1 / (1 + max(0, cut - find(indptr, item, time, u[row], i[row]) // bucket))


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _cosine(a, b):  # pragma: no cover - compiled
    product, left, right = np.float32(0), np.float32(0), np.float32(0)
    for d in range(len(a)):
        product += a[d] * b[d]
        left += a[d] * a[d]
        right += b[d] * b[d]
    return product / np.sqrt(left * right + np.float32(1e-20))


@numba.njit(cache=True, nogil=True)
def _closest(target, neighbours, coming, vectors, flat):  # pragma: no cover - compiled
    """Largest and mean cosine of a vector with those of its counterpart's recent neighbours, asking for the vectors of the coming row's."""
    largest, total, n = np.float32(-1), np.float32(0), 0
    for r in range(len(neighbours)):
        if coming[r] >= 0:
            prefetch_row(flat, np.int64(coming[r]), vectors.shape[1])
        if neighbours[r] < 0:
            continue
        value = _cosine(target, vectors[neighbours[r]])
        largest = max(largest, value)
        total += value
        n += 1
    return (largest, total / n) if n else (np.float32(0), np.float32(0))


@numba.njit(cache=True, nogil=True, inline="always")
def _ask_vector(flat, width, nodes, row):  # pragma: no cover - compiled
    """Ask for the row of a coming row's node."""
    coming = row + AHEAD
    if coming < len(nodes) and nodes[coming] >= 0:
        prefetch_row(flat, np.int64(nodes[coming]), width)


@numba.njit(cache=True, nogil=True)
def _sketch(user_vectors, item_vectors, recent_items, ranks, u, i, out):  # pragma: no cover - compiled
    n = len(ranks)
    user_flat, item_flat = user_vectors.reshape(-1), item_vectors.reshape(-1)
    recent_flat = recent_items.reshape(-1)
    for row in range(len(u)):
        _ask_vector(user_flat, user_vectors.shape[1], u, row)
        _ask_vector(recent_flat, recent_items.shape[1], u, row)
        _ask_vector(item_flat, item_vectors.shape[1], i, row)
        if u[row] < 0 or i[row] < 0:
            continue
        user, item = user_vectors[u[row]], item_vectors[i[row]]
        after = min(row + 1, len(u) - 1)  # of an unseen node the last row is asked for, in vain
        product, left, right = np.float32(0), np.float32(0), np.float32(0)
        d = 0
        for part in range(n):
            while d < ranks[part]:
                product += user[d] * item[d]
                left += user[d] * user[d]
                right += item[d] * item[d]
                d += 1
            cosine = product / np.sqrt(left * right + np.float32(1e-20))
            out[row, part] = cosine
            # signed fourth root: products of degree-normalised scores span many orders of magnitude
            out[row, n + part] = np.sign(product) * abs(product) ** np.float32(0.25)
        out[row, 2 * n], out[row, 2 * n + 1] = _closest(
            item, recent_items[u[row]], recent_items[u[after]], item_vectors, item_flat
        )


@numba.njit(cache=True, nogil=True)
def forms(out, row, at, edge, row_sum, column_sum, total, width):  # pragma: no cover - compiled
    """Count, share and lift of one edge, before the logarithm. Shares and lifts are smoothed by half and a third of a score."""
    out[row, at] = 1 + edge
    out[row, at + 1] = (edge + 0.5 / width) / (row_sum + 0.5)
    out[row, at + 2] = (edge + 0.3) / (row_sum * column_sum / total + 0.3)


@numba.njit(cache=True, nogil=True)
def _edges(
    u_indptr, u_column, u_score, i_indptr, i_column, i_score, user_macro, item_macro, user_second, item_second,
    user_mass, item_mass, user_second_mass, item_second_mass, macro_edges, user_sum, item_sum,
    user_second_sum, item_second_sum, total, user_total, item_total, u, i, out,
):  # fmt: skip  # pragma: no cover - compiled
    ku, ki = len(user_mass), len(item_mass)
    for row in range(len(u)):
        _ask_rows(u_indptr, u_column, u_score, u, row)
        _ask_rows(i_indptr, i_column, i_score, i, row)
        _ask_values(user_macro, user_sum, user_second, user_second_sum, u, row)
        _ask_values(item_macro, item_sum, item_second, item_second_sum, i, row)
        a, b = u[row], i[row]
        cu = user_macro[a] if a >= 0 else ku
        ci = item_macro[b] if b >= 0 else ki
        sum_u = user_sum[a] if a >= 0 else 0.0
        sum_i = item_sum[b] if b >= 0 else 0.0
        mass_u = user_mass[cu] if cu < ku else 0.0
        mass_i = item_mass[ci] if ci < ki else 0.0
        forms(
            out,
            row,
            0,
            find(u_indptr, u_column, u_score, a, ci) / UNIT if a >= 0 else 0.0,
            sum_u,
            mass_i,
            total,
            ki,
        )
        forms(
            out,
            row,
            3,
            find(i_indptr, i_column, i_score, b, cu) / UNIT if b >= 0 else 0.0,
            sum_i,
            mass_u,
            total,
            ku,
        )
        second_u = user_second_mass[cu] if cu < ku else 0.0
        second_i = item_second_mass[ci] if ci < ki else 0.0
        forms(
            out,
            row,
            6,
            user_second[a] if a >= 0 else 0.0,
            user_second_sum[a] if a >= 0 else 0.0,
            second_u,
            user_total,
            ku,
        )
        forms(
            out,
            row,
            9,
            item_second[b] if b >= 0 else 0.0,
            item_second_sum[b] if b >= 0 else 0.0,
            second_i,
            item_total,
            ki,
        )
        forms(out, row, 12, macro_edges[cu, ci] if cu < ku and ci < ki else 0.0, mass_u, mass_i, total, ki)
