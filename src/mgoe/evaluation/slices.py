"""Slices of the examples, as masks.

Axes: `N` examples, `E` events of the history.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FEW, MANY = 5, 20
"""Events of a user's history: below `FEW` are few, from `MANY` on many."""
NEVER = np.iinfo(np.int16).max
Part = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]]
"""Some events of a history: user, item, and the first snapshot that holds each. Shape (E,) each."""


def unseen(
    nodes: NDArray[np.integer], snapshots: NDArray[np.integer], known_at: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return which examples have a node that their snapshot does not know.

    Args:
        nodes: Users or items by index; negative if the log never had them. Shape (N,).
        snapshots: Which snapshot each example reads. Shape (N,).
        known_at: Number of nodes known at each snapshot, which have the indices below it. Shape
            (snapshots,).
    """
    return (nodes < 0) | (nodes >= known_at[snapshots])


def activity(events: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """Slice by the number of events of the user at the example's snapshot (see `known_before`).

    Shape (N,) each.
    """
    return {
        "activity-none": events == 0,
        "activity-few": (events > 0) & (events < FEW),
        "activity-some": (events >= FEW) & (events < MANY),
        "activity-many": events >= MANY,
    }


def history_age(
    buckets: NDArray[np.integer], snapshots: NDArray[np.integer], cuts: NDArray[np.integer]
) -> dict[str, NDArray[np.bool_]]:
    """Slice by the age of the history in buckets: the half up to the median, and the older half.

    Args:
        buckets: Shape (N,).
        snapshots: Shape (N,).
        cuts: Last bucket of each snapshot. Shape (snapshots,).
    """
    age = buckets - cuts[snapshots]
    near = age <= (np.median(age) if len(age) else 0)
    return {"age-near": near, "age-far": ~near}


def known_before(
    history: Iterable[Part],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    snapshots: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what the history of each example knows about it. Memory grows with examples and nodes, not with
    the history.

    Args:
        history: Parts of the history, in any order.
        users: Negative if the log never had them. Shape (N,).
        items: Likewise. Shape (N,).
        snapshots: Shape (N,).

    Returns:
        Events of the example's user, (N,), and whether there is none of its pair, (N,).
    """
    size, width = int(users.max(initial=0)) + 1, int(items.max(initial=0)) + 1
    numbers, number = np.unique(snapshots, return_inverse=True)
    events = np.zeros((len(numbers), size), np.int64)
    pairs, pair = np.unique(users.astype(np.int64) * width + items, return_inverse=True)
    pairs = np.append(pairs, np.iinfo(np.int64).max)  # so that every search ends inside
    known_at = np.full(len(pairs), NEVER)
    for some_users, some_items, since in history:
        ours = some_users < size
        some_users, some_items, since = some_users[ours], some_items[ours], since[ours]
        for n, snapshot in enumerate(numbers):
            np.add.at(events[n], some_users[since <= snapshot], 1)
        ours = some_items < width
        some_pairs, since = some_users[ours].astype(np.int64) * width + some_items[ours], since[ours]
        place = np.searchsorted(pairs, some_pairs)
        ours = pairs[place] == some_pairs
        np.minimum.at(known_at, place[ours], since[ours])
    new = (users < 0) | (items < 0) | (known_at[pair] > snapshots)
    return np.where(users < 0, 0, events[number, users]), new


def make_slices(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    buckets: NDArray[np.integer],
    snapshots: NDArray[np.integer],
    *,
    cuts: NDArray[np.integer],
    users_at: NDArray[np.integer],
    items_at: NDArray[np.integer],
    history: Iterable[Part],
) -> dict[str, NDArray[np.bool_]]:
    """Return all slices of a set of examples by name.

    Args:
        users, items, buckets, snapshots: Of the examples. Shape (N,) each.
        cuts: Last bucket of each snapshot.
        users_at, items_at: Nodes known at each snapshot.
        history: Read once, part by part.
    """
    events, new = known_before(history, users, items, snapshots)
    return {
        "new-pairs": new,
        "unseen-users": unseen(users, snapshots, users_at),
        "unseen-items": unseen(items, snapshots, items_at),
        **activity(events),
        **history_age(buckets, snapshots, cuts),
    }
