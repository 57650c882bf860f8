"""The latest items of users, with what was done and when.

Of each user only the `LATEST` newest items count, so that a user with a hundred thousand events costs no more
than others, and does not tie everything to everything.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.features import View
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import starts

DAY = 24 * 3600 * 1_000_000
"""In microseconds."""
LATEST = 100
"""Items of a user that count: the newest, at the same time those of the higher score, then of the smaller
index."""
HALF_LIFE = 30 * DAY
"""Time in which the weight of a pair halves, in lists and among a user's items."""
LEAST = 1e-3
"""A pair keeps this share of its weight, however old it is."""


class LatestPairs(NamedTuple):
    """The latest pairs of every user, and the users of every item among them.

    Attributes:
        indptr, item, score, age: Rows of users, items ascending: the score of the pair's tasks, and the days
            from its last event to the end of the snapshot. Shapes (U + 1,), (E,), (E,), (E,).
        item_indptr, user: Rows of items, users ascending. Shapes (I + 1,), (E,).
    """

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    score: NDArray[np.float32]
    age: NDArray[np.float32]
    item_indptr: NDArray[np.int64]
    user: NDArray[np.int32]


def latest_pairs(snapshot: Snapshot) -> LatestPairs:
    """Return the latest pairs of all users of a snapshot. They take 16 bytes per pair."""
    arrays = snapshot.arrays
    indptr = starts(np.minimum(np.diff(arrays["pairs.indptr"]), LATEST))
    item = np.empty(indptr[-1], np.int32)
    score, age = np.empty_like(item, np.float32), np.empty_like(item, np.float32)
    pairs = tuple(arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time"))
    _take_latest(pairs, snapshot.scores, end_of(snapshot), indptr, item, score, age)
    item_indptr, user = starts(np.bincount(item, minlength=snapshot.n_items)), np.empty_like(item)
    _transpose(indptr, item, item_indptr[:-1].copy(), user)
    return LatestPairs(indptr, item, score, age, item_indptr, user)


class OwnItems(NamedTuple):
    """The items of one user.

    Attributes:
        all: All of them, ascending. Shape (n,).
        latest: At most `LATEST`, newest first. Shape (m,).
        weight: Of these, as of the newest of them. Shape (m,).
    """

    all: NDArray[np.int64]
    latest: NDArray[np.int64]
    weight: NDArray[np.float32]


def own_items(view: View, user: int) -> OwnItems:
    """Return the items of a user in a view, live ones included; none for an unknown user."""
    item, task_mask, time = _snapshot_pairs(view.snapshot, user)
    live = _live_pairs(view, user)
    if len(live[0]):
        at = np.searchsorted(item, live[0])
        there = at < len(item)
        there[there] = item[at[there]] == live[0][there]
        stays = np.ones(len(item), bool)
        stays[at[there]] = False
        item, task_mask, time = (
            np.concatenate([before[stays], now])
            for before, now in zip((item, task_mask, time), live, strict=True)
        )
    score, known = view.snapshot.scores[task_mask], np.sort(item)
    if len(item) > LATEST:  # sorting a long history would take milliseconds
        newest = time >= np.partition(time, len(time) - LATEST)[len(time) - LATEST]
        item, time, score = item[newest], time[newest], score[newest]
    order = np.lexsort((item, -score, -time))[:LATEST]
    item, time, score = item[order], time[order], score[order]
    age = time.max(initial=0) - time if len(time) else time
    return OwnItems(known, item, (score * decay(age)).astype(np.float32))


def decay(age: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of its weight that a pair keeps at an age in microseconds. Any shape."""
    return np.maximum(np.exp2(-np.maximum(age, 0) / HALF_LIFE), LEAST)


decay_of_one = numba.njit(decay, cache=True, nogil=True)
"""The same in a kernel, of one pair."""


def end_of(snapshot: Snapshot) -> int:
    """Return the moment from which ages count: the end of the last bucket of a snapshot, in microseconds."""
    return (snapshot.cut + 1) * snapshot.bucket


def _snapshot_pairs(snapshot: Snapshot, user: int) -> tuple[NDArray, NDArray, NDArray]:
    arrays, pairs = snapshot.arrays, slice(0, 0)
    if 0 <= user < snapshot.n_users:
        pairs = slice(*arrays["pairs.indptr"][user : user + 2].tolist())
    item, task_mask, time = (arrays[f"pairs.{name}"][pairs] for name in ("item", "task_mask", "time"))
    return item.astype(np.int64), task_mask.astype(np.int64), time


def _live_pairs(view: View, user: int) -> tuple[NDArray, NDArray, NDArray]:
    users, items, pairs = view.overlay.user, view.overlay.item, view.overlay.pairs
    slot = users.slot[user] if 0 <= user < len(users.slot) else -1
    at = _chain(users.head[slot] if slot >= 0 else -1, pairs.next_user)
    return items.index[pairs.item[at]], pairs.task_mask[at].astype(np.int64), pairs.time[at]


@numba.njit(cache=True, nogil=True)
def _chain(first, following):  # pragma: no cover - compiled
    """Return the numbers of the pairs of a chain."""
    n, at = 0, first
    while at >= 0:
        n, at = n + 1, following[at]
    out, at = np.empty(n, np.int64), first
    for k in range(n):
        out[k], at = at, following[at]
    return out


@numba.njit(cache=True, nogil=True)
def _take_latest(pairs, scores, end, indptr, to_item, to_score, to_age):  # pragma: no cover - compiled
    starts, item, task_mask, time = pairs
    for user in range(len(indptr) - 1):
        first, last, at = starts[user], starts[user + 1], indptr[user]
        kept = np.ones(last - first, np.bool_)
        if last - first > LATEST:
            score = np.empty(last - first)
            for e in range(first, last):
                score[e - first] = -scores[task_mask[e]]
            order = np.argsort(score, kind="mergesort")
            order = order[np.argsort(-time[first:last][order], kind="mergesort")]
            kept[order[LATEST:]] = False
        for e in range(first, last):
            if kept[e - first]:
                to_item[at], to_score[at], to_age[at] = item[e], scores[task_mask[e]], (end - time[e]) / DAY
                at += 1


@numba.njit(cache=True, nogil=True)
def _transpose(indptr, item, at, to_user):  # pragma: no cover - compiled
    for user in range(len(indptr) - 1):
        for e in range(indptr[user], indptr[user + 1]):
            to_user[at[item[e]]] = user
            at[item[e]] += 1
