"""`pair`: the history of the pair itself."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import PAIR, Arrays, InputGroup, Key, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.edges import find
from mgoe.graph.memory_hints import ask_entries


class Pair(InputGroup):
    """Whether each task was done, and 1 / (1 + buckets since the last event). Shape (B, T + 1)."""

    name = "pair"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        return (dense("pair", (PAIR, spec.widths.get("pair", 0))),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        tasks = snapshot.arrays["user_table"].shape[1]
        return {"pair": [*(f"pair.task{t}" for t in range(tasks)), "pair.freshness"]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        arrays, live = view.snapshot.arrays, view.overlay
        known = KnownPairs(*(arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time")))
        out = np.zeros((len(pairs.user), arrays["user_table"].shape[1] + 1), np.float32)
        when = view.as_of, view.snapshot.bucket
        _read_known(known, *when, pairs.user, pairs.item, out)
        if len(live.user.slot):
            changed = ChangedPairs(live.user.slot, live.user.head, live.pairs.next_user, live.pairs.item,
                                   live.item.index, live.pairs.task_mask, live.pairs.time)  # fmt: skip
            _read_changed(changed, *when, pairs.user, pairs.item, out)
        return {"pair": out}


class KnownPairs(NamedTuple):
    """The snapshot's pairs, by user, then item. Shapes (U + 1,), (E,), (E,), (E,)."""

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    task_mask: NDArray[np.unsignedinteger]
    time: NDArray[np.int64]


class ChangedPairs(NamedTuple):
    """The overlay's pairs: `slot` and `head` by user, `index` by the item's slot, the others by pair."""

    slot: NDArray[np.int32]
    head: NDArray[np.int32]
    following: NDArray[np.int32]
    item: NDArray[np.int32]
    index: NDArray[np.int64]  # type: ignore[assignment]
    task_mask: NDArray[np.int64]
    time: NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def _read_known(known, as_of, bucket, users, items, out):  # pragma: no cover - compiled
    indptr, item, task_mask, time = known
    for row in range(len(users)):
        ask_entries(indptr, item, task_mask, users, row)
        user = users[row]
        if user < 0 or user >= len(indptr) - 1 or items[row] < 0:
            continue
        done = find(indptr, item, task_mask, user, items[row])
        if done:
            _write(done, find(indptr, item, time, user, items[row]), as_of, bucket, out[row])


@numba.njit(cache=True, nogil=True)
def _read_changed(changed, as_of, bucket, users, items, out):  # pragma: no cover - compiled
    """Write over the rows whose pairs have changed. A user's changed pairs are sorted once per run of
    rows."""
    row = 0
    while row < len(users):
        user = users[row]
        entries, others = _changed_of(changed, user)
        while row < len(users) and users[row] == user:
            at = np.searchsorted(others, items[row])
            if at < len(others) and others[at] == items[row]:
                entry = entries[at]
                _write(changed.task_mask[entry], changed.time[entry], as_of, bucket, out[row])
            row += 1


@numba.njit(cache=True, nogil=True, inline="always")
def _write(done, time, as_of, bucket, out):  # pragma: no cover - compiled
    tasks = len(out) - 1
    for t in range(tasks):
        out[t] = done >> t & 1
    out[tasks] = 1 / (1 + max(0, as_of - time // bucket))


@numba.njit(cache=True, nogil=True)
def _changed_of(changed, user):  # pragma: no cover - compiled
    """Return the changed pairs of a user and their items, which rise."""
    n, slot = 0, changed.slot[user] if user >= 0 else -1
    first = changed.head[slot] if slot >= 0 else -1
    at = first
    while at >= 0:
        n, at = n + 1, changed.following[at]
    entries, others = np.empty(n, np.int64), np.empty(n, np.int64)
    at = first
    for k in range(n):
        entries[k], others[k] = at, changed.index[changed.item[at]]
        at = changed.following[at]
    order = np.argsort(others)
    return entries[order], others[order]
