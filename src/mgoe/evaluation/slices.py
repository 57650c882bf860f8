"""Slices of examples: by what the history of each knew about its user, its item and its pair.

Axes: `N` examples, `E` events of the history.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.rows import UNIFORM

FEW, MANY = 5, 20
"""Events of a user's history: below `FEW` are few, from `MANY` on many."""
NEVER = np.iinfo(np.int64).max
Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.integer]]
"""Some events of a history: user, item, and the first snapshot that holds each, or its moment. Shape (E,)
each."""


def unseen(
    nodes: NDArray[np.integer], snapshots: NDArray[np.integer], known_at: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return which examples have a node that their snapshot does not know.

    Args:
        nodes: Users or items by index; negative if the log never had them. Shape (N,).
        snapshots: Which snapshot each example reads. Shape (N,).
        known_at: Number of nodes known at each snapshot, which have the indices below it. Shape (snapshots,).

    Example:
        >>> unseen(np.array([0, 5]), snapshots=np.array([0, 0]), known_at=np.array([3]))
        array([False,  True])
    """
    return (nodes < 0) | (nodes >= known_at[snapshots])


def activity(events: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """Slice by the number of events of the user that the example reads (see `known_before`).

    Shape (N,) each.

    Example:
        >>> found = activity(np.array([0, 3, 1000]))
        >>> [name for name, examples in found.items() if examples[0]]
        ['activity-none']
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

    Example:
        >>> history_age(np.array([11, 14]), np.array([0, 0]), cuts=np.array([10]))["age-far"]
        array([False,  True])
    """
    age = buckets - cuts[snapshots]
    near = age <= (np.median(age) if len(age) else 0)
    return {"age-near": near, "age-far": ~near}


def known_before(
    history: Iterable[Part],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    upto: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what the history of each example knows about it. Memory grows with examples and nodes, not with
    the history.

    Args:
        history: Parts of the history, in any order.
        users: Negative if the log never had them. Shape (N,).
        items: Likewise. Shape (N,).
        upto: The last snapshot, or moment, that each example reads; the third number of an event is of the
            same kind. Shape (N,).

    Returns:
        Events of the example's user, (N,), and whether there is none of its pair, (N,).

    Example:
        >>> valid = prepared.examples("valid")
        >>> nodes = valid.user, valid.item, valid.snapshot
        >>> events, new_pairs = known_before(prepared.history_parts(), *nodes)
        >>> events.shape == new_pairs.shape
        True
    """
    width = int(items.max(initial=0)) + 1
    numbers, number = np.unique(upto, return_inverse=True)
    reads = len(numbers) + 1  # an event that nobody reads has the last number
    keys, key = np.unique(users.astype(np.int64) * reads + number, return_inverse=True)
    pairs, pair = np.unique(users.astype(np.int64) * width + items, return_inverse=True)
    keys, pairs = (np.append(codes, NEVER) for codes in (keys, pairs))  # so that every search ends inside
    events, known_at = np.zeros(len(keys), np.int64), np.full(len(pairs), NEVER)
    for some_users, some_items, since in history:
        place = np.searchsorted(keys, some_users * reads + np.searchsorted(numbers, since))
        events += np.bincount(place[keys[place] // reads == some_users], minlength=len(keys))
        ours = some_items < width
        some_pairs, since = some_users[ours] * width + some_items[ours], since[ours]
        place = np.searchsorted(pairs, some_pairs)
        ours = pairs[place] == some_pairs
        np.minimum.at(known_at, place[ours], since[ours])
    before = np.concatenate([[0], events.cumsum()])  # what comes before a key, of all users
    events = before[1:] - before[np.searchsorted(keys, keys // reads * reads)]
    return (
        np.where(users < 0, 0, events[key]),
        (users < 0) | (items < 0) | (known_at[pair] > upto),
    )


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
    upto: NDArray[np.integer] | None = None,
    uniform: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Return all slices of a set of examples by name.

    Args:
        users, items, buckets, snapshots: Of the examples. Shape (N,) each.
        cuts: Last bucket of each snapshot.
        users_at, items_at: Nodes known at each snapshot.
        history: Read once, part by part.
        upto: What each example reads of it, see `known_before`; by default its snapshot. Shape (N,).
        uniform: 1 where the item was shown uniformly at random, if the log says so. Shape (N,).

    Example:
        >>> valid = prepared.examples("valid")
        >>> nodes = valid.user, valid.item, valid.bucket, valid.snapshot
        >>> at = {"users_at": prepared.users_at, "items_at": prepared.items_at}
        >>> found = make_slices(*nodes, cuts=prepared.cuts, **at, history=prepared.history_parts())
        >>> "new-pairs" in found
        True
    """
    events, new = known_before(history, users, items, snapshots if upto is None else upto)
    windows = np.unique(snapshots)
    return {
        "new-pairs": new,
        "unseen-users": unseen(users, snapshots, users_at),
        "unseen-items": unseen(items, snapshots, items_at),
        **activity(events),
        **history_age(buckets, snapshots, cuts),
        **{f"window-{n}": snapshots == one for n, one in enumerate(windows, 1) if len(windows) > 1},
        **({} if uniform is None else {UNIFORM: uniform > 0}),
    }
