"""Parts of the examples that are worth a look of their own, as masks.

Axes: `N` examples, `E` events of the history.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEW, MANY = 5, 20
"""Events of a user's history: below `FEW` are few, from `MANY` on many."""


def unseen(codes: NDArray[np.integer], snapshots: NDArray[np.integer], known_at: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Nodes that the snapshot an example reads does not know.

    Args:
        codes: Users or items; negative where the log never had them. Shape (N,).
        snapshots: Which snapshot each example reads. Shape (N,).
        known_at: Nodes known at each snapshot; they are the codes below. Shape (snapshots,).
    """
    return (codes < 0) | (codes >= known_at[snapshots])


def activity(events: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """By the number of events of the user at the example's snapshot (see `events_before`): none, few, some, many. Shape (N,)."""
    return {
        "activity-none": events == 0,
        "activity-few": (events > 0) & (events < FEW),
        "activity-some": (events >= FEW) & (events < MANY),
        "activity-many": events >= MANY,
    }


def history_age(buckets: NDArray[np.integer], snapshots: NDArray[np.integer], cuts: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """By the buckets between the last event an example may know and itself: the nearer half, its median included, and the farther.

    Args:
        buckets: Shape (N,).
        snapshots: Shape (N,).
        cuts: Last bucket of each snapshot. Shape (snapshots,).
    """
    age = buckets - cuts[snapshots]
    near = age <= (np.median(age) if len(age) else 0)
    return {"age-near": near, "age-far": ~near}


def events_before(
    history_users: NDArray[np.integer],
    history_snapshots: NDArray[np.integer],
    users: NDArray[np.integer],
    snapshots: NDArray[np.integer],
) -> NDArray[np.int64]:
    """Events of each example's user in the history it reads.

    Args:
        history_users: Shape (E,).
        history_snapshots: The first snapshot that holds each event. Shape (E,).
        users: Shape (N,).
        snapshots: Shape (N,).
    """
    counts = np.zeros(len(users), np.int64)
    size = max(users.max(initial=0), history_users.max(initial=0)) + 1
    for snapshot in np.unique(snapshots):
        rows = (snapshots == snapshot) & (users >= 0)
        counts[rows] = np.bincount(history_users[history_snapshots <= snapshot], minlength=size)[users[rows]]
    return counts


def new_pairs(
    history_users: NDArray[np.integer],
    history_items: NDArray[np.integer],
    history_snapshots: NDArray[np.integer],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    snapshots: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Pairs of which the history that the example reads has no event. Arguments as for `events_before`."""
    width = int(max(items.max(initial=0), history_items.max(initial=0))) + 1
    history = history_users.astype(np.int64) * width + history_items
    pairs = users.astype(np.int64) * width + items
    known = np.zeros(len(users), bool)
    for snapshot in np.unique(snapshots):
        rows = (snapshots == snapshot) & (users >= 0) & (items >= 0)
        known[rows] = np.isin(pairs[rows], history[history_snapshots <= snapshot])
    return ~known


def make_slices(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    buckets: NDArray[np.integer],
    snapshots: NDArray[np.integer],
    *,
    cuts: NDArray[np.integer],
    users_at: NDArray[np.integer],
    items_at: NDArray[np.integer],
    history: tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]],
) -> dict[str, NDArray[np.bool_]]:
    """All slices of a set of examples by name.

    Args:
        users, items, buckets, snapshots: Of the examples. Shape (N,) each.
        cuts: Last bucket of each snapshot.
        users_at, items_at: Nodes known at each snapshot.
        history: User, item and first snapshot of each event. Shape (E,) each.
    """
    history_users, history_items, history_snapshots = history
    return {
        "new-pairs": new_pairs(history_users, history_items, history_snapshots, users, items, snapshots),
        "unseen-users": unseen(users, snapshots, users_at),
        "unseen-items": unseen(items, snapshots, items_at),
        **activity(events_before(history_users, history_snapshots, users, snapshots)),
        **history_age(buckets, snapshots, cuts),
    }
