"""Item-to-item links: for each item the items that the same users act on.

`cosine` compares two items by the scores `x` of their users (Sarwar et al., 2001). What a user did within a
short time counts most, and `SHRINK` keeps links of few users low:

    w(i, j) = f_j sum_u x_ui x_uj near_u(i, j) / (|x_i| |x_j| + SHRINK)
    near_u(i, j) = 1 / (1 + days between the user's events / NEAR)

`swing` asks for pairs of users who agree on both items and on little else (Yang et al., 2020, arXiv
2010.05525), with the scores of all four pairs:

    w(i, j) = f_j sum_(u < v) g_u g_v / (ALPHA + |I_u & I_v|),   g_u = sqrt(x_ui x_uj) / sqrt(|I_u|)

`f_j` is how active an item is of late: its users, each counted half for every `FRESH` days since, to the
power `FRESHNESS`. Both count the `LATEST` items of each user; `swing` counts at most `USERS` users of an
item, those of the newest
events. Building takes 16 bytes per pair that counts, 16
bytes per link and, per thread, 8 bytes per item.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import block_bounds, starts
from mgoe.retrieval.best import offer, sort
from mgoe.retrieval.history import LATEST, LEAST, LatestPairs, latest_pairs

Kind = Literal["cosine", "swing"]
NEAR = 2.0
"""Days between two events of a user at which they count half."""
SHRINK = 2.0
"""Added to the product of the lengths of two items, in squares of a score."""
ALPHA = 1.0
"""Added to the number of items that two users have in common."""
USERS = 100
"""Users of an item that `swing` counts."""
FRESH = 7.0
FRESHNESS = 0.3
PARTS = 256
"""Parts of the items, about; threads take one after the other."""
PART_ITEMS = 1 << 14
"""Most items of a part."""


class ItemLinks(NamedTuple):
    """Links from items to items, rows of the source items, best first.

    Attributes:
        indptr: Where the links of each item start. Shape (I + 1,).
        item, weight: The other item, and how strongly it is tied. Shape (L,) each.

    Example:
        >>> links = item_links(bundle.view.snapshot, "cosine", n=5)
        >>> int(np.diff(links.indptr).max())
        5
    """

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]


def item_links(snapshot: Snapshot, kind: Kind, n: int, threads: int = 2) -> ItemLinks:
    """Return the best n links of every item of a snapshot. Ties go to the item of the smaller index.

    Args:
        snapshot: Nothing else is read, so no link knows of later events.
        kind: How two items are compared.
        n: Most links of an item.
        threads: Each computes other items; the result does not depend on their number.

    Example:
        >>> links = item_links(bundle.view.snapshot, "swing", n=5)
        >>> len(links.indptr) == bundle.size("item") + 1
        True
    """
    pairs = latest_pairs(snapshot)
    square, fresh = _sums(pairs)
    fresh = fresh**FRESHNESS
    if kind == "cosine":
        return _by_parts(pairs, n, threads, partial(_cosine, pairs, np.sqrt(square), fresh))
    share = 1 / np.sqrt(np.maximum(np.diff(pairs.indptr), 1))
    return _by_parts(pairs, n, threads, partial(_swing, pairs, share, fresh))


def _by_parts(pairs: LatestPairs, n: int, threads: int, compute: Callable[..., None]) -> ItemLinks:
    """Compute the links of all items in parts, on threads."""

    def part(bounds: tuple[int, int]) -> tuple[NDArray, NDArray, NDArray]:
        first, last = bounds
        item, weight = np.empty((last - first, n), np.int32), np.empty((last - first, n), np.float32)
        count = np.zeros(last - first, np.int64)
        compute(first, item, weight, count)
        there = np.arange(n) < count[:, None]
        return count, item[there], weight[there]

    bounds = block_bounds(pairs.item_indptr, max(1, len(pairs.item) // PARTS), PART_ITEMS)
    with ThreadPoolExecutor(threads) as pool:
        count, item, weight = (np.concatenate(one) for one in zip(*pool.map(part, bounds), strict=True))
    return ItemLinks(starts(count), item, weight)


@numba.njit(cache=True, nogil=True)
def _sums(pairs):  # pragma: no cover - compiled
    """Return the squared length of each item, and its users by the age of their events. Shapes (I,)."""
    items = len(pairs.item_indptr) - 1
    square, fresh = np.zeros(items), np.zeros(items)
    for e in range(len(pairs.item)):
        square[pairs.item[e]] += pairs.score[e] ** 2
        fresh[pairs.item[e]] += max(2.0 ** (-pairs.age[e] / FRESH), LEAST)
    return square, fresh


@numba.njit(cache=True, nogil=True)
def _place(pairs, user, item):  # pragma: no cover - compiled
    """Return where the pair of a user and one of the user's items is in the rows of users."""
    low, high = pairs.indptr[user], pairs.indptr[user + 1] - 1
    while low < high:
        middle = (low + high) // 2
        if pairs.item[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def _cosine(pairs, length, fresh, first, to_item, to_weight, count):  # pragma: no cover - compiled
    total, touched = np.zeros(len(length), np.float32), np.empty(len(length), np.int32)
    for row in range(len(count)):
        i, n = first + row, 0
        for k in range(pairs.item_indptr[i], pairs.item_indptr[i + 1]):
            user = pairs.user[k]
            e = _place(pairs, user, i)
            for f in range(pairs.indptr[user], pairs.indptr[user + 1]):
                j = pairs.item[f]
                if total[j] == 0:
                    touched[n] = j
                    n += 1
                near = np.float32(NEAR) / (np.float32(NEAR) + abs(pairs.age[e] - pairs.age[f]))
                total[j] += pairs.score[e] * pairs.score[f] * near
        size = 0
        for k in range(n):
            j = touched[k]
            if j != i:
                tied = np.float32(fresh[j] * total[j] / (length[i] * length[j] + SHRINK))
                size = offer(to_item[row], to_weight[row], size, j, tied)
            total[j] = 0
        sort(to_item[row], to_weight[row], size)
        count[row] = size


@numba.njit(cache=True, nogil=True)
def _swing(pairs, share, fresh, first, to_item, to_weight, count):  # pragma: no cover - compiled
    items = len(pairs.item_indptr) - 1
    head, touched = np.full(items, -1, np.int32), np.empty(items, np.int32)
    # the users of an item and all their items: `number` of the user, and the user's next entry of that item
    number, following = np.empty(USERS * LATEST, np.int32), np.empty(USERS * LATEST, np.int32)
    tie = np.empty(USERS * LATEST, np.float32)
    common = np.empty((USERS, USERS), np.int32)
    users, newest = np.empty(USERS, np.int32), np.empty(USERS, np.float32)
    for row in range(len(count)):
        i, n, entries, size = first + row, 0, 0, 0
        for k in range(pairs.item_indptr[i], pairs.item_indptr[i + 1]):
            user = pairs.user[k]
            size = offer(users, newest, size, user, -pairs.age[_place(pairs, user, i)])
        sort(users, newest, size)
        common[:size, :size] = 1  # the item itself
        for k in range(size):
            score = pairs.score[_place(pairs, users[k], i)]
            for f in range(pairs.indptr[users[k]], pairs.indptr[users[k] + 1]):
                j = pairs.item[f]
                if j == i:
                    continue
                if head[j] < 0:
                    touched[n] = j
                    n += 1
                number[entries], following[entries] = k, head[j]
                tie[entries] = share[users[k]] * np.sqrt(score * pairs.score[f])
                head[j] = entries
                entries += 1
        for t in range(n):
            a = head[touched[t]]
            while a >= 0:
                b = following[a]
                while b >= 0:
                    common[number[a], number[b]] += 1
                    b = following[b]
                a = following[a]
        size = 0
        for t in range(n):
            total, a = 0.0, head[touched[t]]
            while a >= 0:
                b = following[a]
                while b >= 0:
                    total += tie[a] * tie[b] / (ALPHA + common[number[a], number[b]])
                    b = following[b]
                a = following[a]
            head[touched[t]] = -1
            if total > 0:
                size = offer(
                    to_item[row], to_weight[row], size, touched[t], np.float32(fresh[touched[t]] * total)
                )
        sort(to_item[row], to_weight[row], size)
        count[row] = size
