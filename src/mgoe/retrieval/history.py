"""The latest items of users, with what was done and when.

Of each user only the `LATEST` newest items count, so that a user with a hundred thousand events costs no more
than others, and does not tie everything to everything.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features import View
from mgoe.features.pair import walk
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import starts

MINUTE = 60 * 1_000_000
DAY = 24 * 60 * MINUTE
"""In microseconds."""
LATEST = 100
"""Items of a user that count: the newest, at the same time those of the higher score, then of the smaller
index."""
HALF_LIFE = 0.4
"""Time in which the weight of a pair halves, in lists and among a user's items: a share of the median age."""
SAMPLE = 1_000_000
"""Pairs of which the median age is taken, about."""
LEAST = 1e-3
"""A pair keeps this share of its weight, however old it is."""


PAIR = np.dtype([("other", np.int32), ("score", np.float32), ("minute", np.int32)], align=True)
"""A pair from one of its nodes: index of the other node, score of what was done, and minutes from 1970 to the
last event. What is read together lies together in memory."""


class Rows(NamedTuple):
    """Pairs as rows of one side.

    Attributes:
        indptr: Where each row starts. Shape (n + 1,).
        pairs: Of type `PAIR`, other nodes ascending within a row. Shape (E,).
    """

    indptr: NDArray[np.int64]
    pairs: NDArray[np.void]


class LatestPairs(NamedTuple):
    """The latest pairs of every user, by user and by item.

    Attributes:
        by_user: U rows.
        by_item: I rows.
    """

    by_user: Rows
    by_item: Rows

    @classmethod
    def of(cls, by_user: Rows, items: int) -> "LatestPairs":
        """Return the pairs of both sides from those of users."""
        indptr = starts(np.bincount(by_user.pairs["other"], minlength=items))
        by_item = Rows(indptr, np.empty(len(by_user.pairs), PAIR))
        _transpose(by_user, by_item.indptr[:-1].copy(), by_item)
        return cls(by_user, by_item)


def latest_pairs(snapshot: Snapshot) -> LatestPairs:
    """Return the latest pairs of all users of a snapshot. They take 24 bytes per pair.

    Example:
        >>> pairs = latest_pairs(bundle.view.snapshot)
        >>> len(pairs.by_user.pairs) == len(pairs.by_item.pairs)
        True
    """
    return LatestPairs.of(latest_rows(snapshot), snapshot.n_items)


def latest_rows(snapshot: Snapshot) -> Rows:
    """Return the latest pairs of all users of a snapshot, by user alone."""
    indptr = np.asarray(snapshot.arrays["pairs.indptr"])
    to = starts(np.minimum(np.diff(indptr), LATEST))
    out = Rows(to, np.empty(to[-1], PAIR))
    pairs = (indptr, *(snapshot.arrays[f"pairs.{name}"] for name in ("item", "task_mask", "time")))
    _take_latest(pairs, snapshot.scores, out)
    return out


class OwnItems(NamedTuple):
    """The items of one user.

    Attributes:
        all: All of them, ascending. Shape (n,).
        latest: At most `LATEST`, newest first. Shape (m,).
        weight: Of these, as of the newest of them. Shape (m,).
        age: Of these, in microseconds before the newest of them. Shape (m,).

    Example:
        >>> OwnItems(*[np.array([3])] * 4).latest
        array([3])
    """

    all: NDArray[np.int64]
    latest: NDArray[np.int64]
    weight: NDArray[np.float32]
    age: NDArray[np.int64]


class Done(NamedTuple):
    """What a user did, one entry per item.

    Attributes:
        item: By index, each once. Shape (n,).
        task_mask: Tasks done, as bits. Shape (n,).
        time: Of the last event, in microseconds. Shape (n,).

    Example:
        >>> Done(np.array([3]), np.array([0b01]), np.array([1_700_000_000_000_000])).item.size
        1
    """

    item: NDArray[np.int64]
    task_mask: NDArray[np.int64]
    time: NDArray[np.int64]


def known_items(view: View, user: int) -> NDArray[np.integer]:
    """Return the items of a user in a view by index, live ones included, rising; none for an unknown user.

    Example:
        >>> known_items(bundle.view, -1).size
        0
    """
    return np.union1d(view.snapshot.known_items(user), _live_pairs(view, user).item)


def own_items(view: View, user: int, half_life: float, later: Done | None = None) -> OwnItems:
    """Return the items of a user in a view, live ones included; none for an unknown user.

    Args:
        view: The view.
        user: By index.
        half_life: Of their weights, in microseconds.
        later: What the user did after it, in place of live changes.
    """
    item, task_mask, time = _snapshot_pairs(view.snapshot, user)
    live = _live_pairs(view, user) if later is None else later
    if len(live.item):
        at = np.searchsorted(item, live.item)
        there = at < len(item)
        there[there] = item[at[there]] == live.item[there]
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
    return OwnItems(known, item, (score * decay(age, half_life)).astype(np.float32), age)


def decay(age: NDArray[np.int64], half_life: float) -> NDArray[np.float64]:
    """Return the share of its weight that a pair keeps at an age, both in microseconds. Any shape."""
    return np.maximum(np.exp2(-np.maximum(age, 0) / half_life), LEAST)


decay_of_one = kernel(inner=True)(decay)
"""The same in a kernel, of one pair."""


def end_of(snapshot: Snapshot) -> int:
    """Return the moment from which ages count: the end of the last bucket of a snapshot, in microseconds."""
    return (snapshot.cut + 1) * snapshot.bucket


def median_age(snapshot: Snapshot) -> float:
    """Return the median age of the pairs of a snapshot, in microseconds; a day without pairs.

    Half-lives are shares of it (ours), so that a list is made of the same share of the events in a log of two
    weeks as in one of two years, and a few wrong times change nothing.
    """
    time = snapshot.arrays["pairs.time"]
    some = np.asarray(time[:: max(1, len(time) // SAMPLE)])
    return float(np.median(end_of(snapshot) - some)) if len(some) else float(DAY)


def _snapshot_pairs(snapshot: Snapshot, user: int) -> tuple[NDArray, NDArray, NDArray]:
    arrays, pairs = snapshot.arrays, slice(0, 0)
    if 0 <= user < snapshot.n_users:
        pairs = slice(*arrays["pairs.indptr"][user : user + 2].tolist())
    item, task_mask, time = (arrays[f"pairs.{name}"][pairs] for name in ("item", "task_mask", "time"))
    return item.astype(np.int64), task_mask.astype(np.int64), time


def _live_pairs(view: View, user: int) -> Done:
    users, items, pairs = view.overlay.user, view.overlay.item, view.overlay.pairs
    slot = users.slot[user] if 0 <= user < len(users.slot) else -1
    _, at = walk(np.array([slot], np.int64), users.head, pairs.next_user)
    return Done(items.index[pairs.item[at]], pairs.task_mask[at].astype(np.int64), pairs.time[at])


@kernel("out")
def _take_latest(pairs, scores, out):  # pragma: no cover - compiled
    indptr, item, task_mask, time = pairs
    for user in range(len(out.indptr) - 1):
        first, last, at = indptr[user], indptr[user + 1], out.indptr[user]
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
                pair = out.pairs[at]
                pair.other, pair.score, pair.minute = item[e], scores[task_mask[e]], time[e] // MINUTE
                at += 1


@kernel("at", "out")
def _transpose(rows, at, out):  # pragma: no cover - compiled
    for row in range(len(rows.indptr) - 1):
        for e in range(rows.indptr[row], rows.indptr[row + 1]):
            pair = rows.pairs[e]
            to = out.pairs[at[pair.other]]
            to.other, to.score, to.minute = row, pair.score, pair.minute
            at[pair.other] += 1
