"""The latest items of users, with what was done and when.

Of each user only the `LATEST` newest items count, so that a user with a hundred thousand events costs no more
than others, and does not tie everything to everything.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features import View
from mgoe.features.overlay import walk
from mgoe.graph import Snapshot
from mgoe.graph.latest import DAY, LATEST, LatestPairs, Rows, latest_rows

HALF_LIFE = 0.4
"""Time in which the weight of a pair halves, in lists and among a user's items: a share of the median age."""
SAMPLE = 1_000_000
"""Pairs of which the median age is taken, about."""
LEAST = 1e-3
"""A pair keeps this share of its weight, however old it is."""


def latest_pairs(snapshot: Snapshot) -> LatestPairs:
    """Return the latest pairs of all users of a snapshot. They take 24 bytes per pair.

    Example:
        >>> pairs = latest_pairs(bundle.view.snapshot)
        >>> len(pairs.by_user.pairs) == len(pairs.by_item.pairs)
        True
    """
    return LatestPairs.of(latest_of(snapshot), snapshot.n_items)


def latest_of(snapshot: Snapshot) -> Rows:
    """Return the latest pairs of all users of a snapshot, by user alone."""
    indptr, *pairs = (snapshot.arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time"))
    return latest_rows(indptr, *pairs, scores=snapshot.scores)


class OwnItems(NamedTuple):
    """The items of one user.

    Attributes:
        all: All of them, ascending. Shape (n,).
        latest: At most `LATEST`, newest first. Shape (m,).
        weight: Of these, as of the newest of them. Shape (m,).
        age: Of these, in microseconds before the newest of them. Shape (m,).
        events: Of all items, how often each was acted on. Shape (n,).
        recent_events: The same, decayed by the age of the last event. Shape (n,).

    Example:
        >>> OwnItems(*[np.array([3])] * 6).latest
        array([3])
    """

    all: NDArray[np.int64]
    latest: NDArray[np.int64]
    weight: NDArray[np.float32]
    age: NDArray[np.int64]
    events: NDArray[np.int64]
    recent_events: NDArray[np.float64]


class Done(NamedTuple):
    """What a user did, one entry per item.

    Attributes:
        item: By index, each once. Shape (n,).
        task_mask: Tasks done, as bits. Shape (n,).
        time: Of the last event, in microseconds. Shape (n,).
        events: How often. Shape (n,).

    Example:
        >>> Done(np.array([3]), np.array([0b01]), np.array([1_700_000_000_000_000]), np.array([1])).item.size
        1
    """

    item: NDArray[np.int64]
    task_mask: NDArray[np.int64]
    time: NDArray[np.int64]
    events: NDArray[np.int64]


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
        later: What the user did after it, in place of live changes; its events add to those before.
    """
    item, task_mask, time, events = _snapshot_pairs(view.snapshot, user)
    live = _live_pairs(view, user) if later is None else later
    if len(live.item):
        at = np.searchsorted(item, live.item)
        there = at < len(item)
        there[there] = item[at[there]] == live.item[there]
        if later is not None:
            live = later._replace(events=later.events.copy())
            live.events[there] += events[at[there]]
        stays = np.ones(len(item), bool)
        stays[at[there]] = False
        item, task_mask, time, events = (
            np.concatenate([before[stays], now])
            for before, now in zip((item, task_mask, time, events), live, strict=True)
        )
    order, newest = np.argsort(item), time.max(initial=0)
    score, known, events = view.snapshot.scores[task_mask], item[order], events[order]
    recent = events * decay(newest - time[order], half_life)
    if len(item) > LATEST:  # sorting a long history would take milliseconds
        late = time >= np.partition(time, len(time) - LATEST)[len(time) - LATEST]
        item, time, score = item[late], time[late], score[late]
    order = np.lexsort((item, -score, -time))[:LATEST]
    item, time, score = item[order], time[order], score[order]
    age = newest - time
    weight = (score * decay(age, half_life)).astype(np.float32)
    return OwnItems(known, item, weight, age, events, recent)


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


def _snapshot_pairs(snapshot: Snapshot, user: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    arrays, pairs = snapshot.arrays, slice(0, 0)
    if 0 <= user < snapshot.n_users:
        pairs = slice(*arrays["pairs.indptr"][user : user + 2].tolist())
    names = ("item", "task_mask", "time", "total")
    item, task_mask, time, events = (arrays[f"pairs.{name}"][pairs] for name in names)
    return item.astype(np.int64), task_mask.astype(np.int64), time, events.astype(np.int64)


def _live_pairs(view: View, user: int) -> Done:
    users, items, pairs = view.overlay.user, view.overlay.item, view.overlay.pairs
    slot = users.slot[user] if 0 <= user < len(users.slot) else -1
    _, at = walk(np.array([slot], np.int64), users.head, pairs.next_user)
    masks = pairs.task_mask[at].astype(np.int64)
    return Done(items.index[pairs.item[at]], masks, pairs.time[at], pairs.total[at])
