"""Lists that many users share: popular and recent items, and the top items of each user macro node."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features import View
from mgoe.graph import Snapshot
from mgoe.graph.best import keep_best, offer, sort
from mgoe.retrieval.history import HALF_LIFE, decay_of_one, end_of, median_age
from mgoe.retrieval.mix import mixed

LISTED = 1000
"""Length of a list."""
REPEATED, PRIOR = 0.25, 4.0
"""Share of events in which users come back to an item, and how many events say so before any is known."""


class SharedLists(NamedTuple):
    """Items by index, best first.

    Attributes:
        popular: By the sum of their scores. Shape (at most `LISTED`,).
        recent: By their events since the previous snapshot. Shape (at most `LISTED`,).
        macro: Of each user macro node at the finest resolution, the best for each task in turn, strongest
            task first; -1 at the end. Shape (Ku, `LISTED`).
    """

    popular: NDArray[np.int32]
    recent: NDArray[np.int32]
    macro: NDArray[np.int32]


def shared_lists(snapshot: Snapshot) -> SharedLists:
    """Compute the lists of a snapshot. Ties go to the item of the smaller index."""
    items, arrays = np.arange(snapshot.n_items, dtype=np.int32), snapshot.arrays
    popular = _best(items, np.asarray(arrays["item_sum"]), LISTED)
    recent = _best(items, _events(np.asarray(arrays["item_counts"])), LISTED)
    return SharedLists(popular, recent, macro_lists(snapshot))


def repeat_rates(snapshot: Snapshot) -> NDArray[np.float32]:
    """Return the share of each item's events that were not a user's first on it. Shape (I,)."""
    again, total = (np.asarray(snapshot.arrays[f"item_{name}"]) for name in ("again", "total"))
    return ((again + REPEATED * PRIOR) / (total + PRIOR)).astype(np.float32)


def macro_lists(snapshot: Snapshot) -> NDArray[np.int32]:
    """Return the top items of each user macro node: per task by the pairs of its members, weighted by age.

    Building takes 4 bytes per item and task.
    """
    part, arrays = snapshot.resolutions[-1], snapshot.arrays
    groups, tasks = len(part.user_mass), arrays["item_table"].shape[1]
    members = np.argsort(part.user_macro, kind="stable")
    bounds = np.searchsorted(np.asarray(part.user_macro)[members], np.arange(groups + 1))
    pairs = tuple(arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time"))
    best = np.full((groups, tasks, LISTED), -1, np.int32)
    half_life = HALF_LIFE * median_age(snapshot)
    _best_of_groups(pairs, members, bounds, end_of(snapshot), half_life, snapshot.n_items, best)
    out = np.full((groups, LISTED), -1, np.int32)
    for group in range(groups):
        listed = in_turn(*(items[items >= 0] for items in best[group, ::-1]))[:LISTED]
        out[group, : len(listed)] = listed
    return out


def recent_items(view: View, lists: SharedLists, n: int) -> NDArray[np.int64]:
    """Return the n best recent items of a view, exactly up to `LISTED` of them.

    Two kinds come in turn: the items whose first event is live, the newest first, and the items with most
    events since the previous snapshot, live ones included. So a new item is found from its first event on,
    and many new ones do not hide those that are in demand.
    """
    live = view.overlay.item
    changed = live.index[: len(live.counts)]  # the items of a session follow, without counts of their own
    new = changed[(changed >= view.snapshot.n_items) & live.counts[: len(changed)].any(axis=1)]
    newest = np.sort(np.partition(new, -n)[-n:] if len(new) > n else new)[::-1]
    items = lists.recent.astype(np.int64)
    if len(changed):
        items = np.union1d(items, _best(changed, np.where(changed >= 0, _events(live.counts), 0), n))
    return in_turn(newest, _best(items, _events(view.rows("item", "counts", items)), n))[:n]


def in_turn(*lists: NDArray) -> NDArray[np.int64]:
    """Return the items of some lists: the first of each, the second of each, and so on; each item once."""
    named = {str(number): one for number, one in enumerate(lists)}
    return mixed(named, dict.fromkeys(named, 1), sum(map(len, lists))).astype(np.int64)


def _events(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the column of an item's counts that holds its events since the previous snapshot."""
    tasks = (counts.shape[1] - 3) // 2
    return counts[:, tasks + 1]


def _best(items: NDArray[np.integer], values: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Return the n items of the largest values above 0, ties by index."""
    above = values > 0
    best = np.empty(min(n, np.count_nonzero(above)), np.int32)
    keep_best(items[above].astype(np.int32), values[above], best, np.empty(len(best), np.float32))
    return best


@kernel("best")
def _best_of_groups(pairs, members, bounds, end, half_life, items, best):  # pragma: no cover - compiled
    indptr, item, task_mask, time = pairs
    groups, tasks, length = best.shape
    total, weights = np.zeros((tasks, items), np.float32), np.empty(length, np.float32)
    touched, seen = np.empty(items, np.int32), np.zeros(items, np.bool_)
    for group in range(groups):
        n = 0
        for k in range(bounds[group], bounds[group + 1]):
            for e in range(indptr[members[k]], indptr[members[k] + 1]):
                i, share = item[e], decay_of_one(end - time[e], half_life)
                if not seen[i]:
                    seen[i], touched[n] = True, i
                    n += 1
                for t in range(tasks):
                    if task_mask[e] >> t & 1:
                        total[t, i] += share
        for t in range(tasks):
            size = 0
            for k in range(n):
                if total[t, touched[k]] > 0:
                    size = offer(best[group, t], weights, size, touched[k], total[t, touched[k]])
            sort(best[group, t], weights, size)
        for k in range(n):
            seen[touched[k]] = False
            for t in range(tasks):
                total[t, touched[k]] = 0
