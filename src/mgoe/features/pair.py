"""`pair`: the history of the pair itself."""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features.group import Arrays, InputGroup
from mgoe.features.overlay import walk
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.edges import find_place
from mgoe.graph.memory_hints import ask_entries

TASKS, FIRST, LAST, COUNT = range(4)
"""Columns of `histories`."""


class Pair(InputGroup):
    """Whether each task was done, and 1 / (1 + buckets since the last event). Shape (B, T + 1)."""

    name = "pair"

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        tasks = snapshot.arrays["user_table"].shape[1]
        return {"pair": [*(f"pair.task{t}" for t in range(tasks)), "pair.freshness"]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        found = histories(view, pairs)
        tasks = view.snapshot.arrays["user_table"].shape[1]
        out = np.zeros((len(pairs.user), tasks + 1), np.float32)
        out[:, :tasks] = found[:, TASKS, None] >> np.arange(tasks) & 1
        ago = np.maximum(view.as_of - found[:, LAST] // view.snapshot.bucket, 0)
        out[:, tasks] = np.where(found[:, COUNT] > 0, 1 / (1 + ago), 0)
        return {"pair": out}


def histories(view: View, pairs: Pairs) -> NDArray[np.int64]:
    """Return of each pair the tasks done, as bits, the times of its first and last event, and the number of
    events; zeros where there was none. They are read once for all groups. Shape (B, 4)."""
    if "histories" in pairs.kept:
        return pairs.kept["histories"]
    arrays, live = view.snapshot.arrays, view.overlay
    known = tuple(
        arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "first", "time", "total")
    )
    out = pairs.kept["histories"] = np.zeros((len(pairs.user), 4), np.int64)
    _read_known(known, pairs.user, pairs.item, out)
    if pairs.user_slots is not None:
        _read_changed((live.user.head, live.item.index, live.pairs), pairs.user_slots, pairs.item, out)
    return out


@kernel("out")
def _read_known(known, users, items, out):  # pragma: no cover - compiled
    indptr, item, task_mask, first, last, total = known
    for row in range(len(users)):
        ask_entries(indptr, item, task_mask, users, row)
        user = users[row]
        if user < 0 or user >= len(indptr) - 1 or items[row] < 0:
            continue
        place = find_place(indptr, item, user, items[row])
        if place >= 0:
            out[row, TASKS], out[row, FIRST] = task_mask[place], first[place]
            out[row, LAST], out[row, COUNT] = last[place], total[place]


@kernel("out")
def _read_changed(changed, slots, items, out):  # pragma: no cover - compiled
    """Write over the rows whose pairs have changed. A user's changed pairs are sorted once per run of
    rows."""
    head, index, pairs = changed
    row = 0
    while row < len(slots):
        user = slots[row]
        entries = walk(np.full(1, user), head, pairs.next_user)[1]
        others = index[pairs.item[entries]]
        order = np.argsort(others)
        entries, others = entries[order], others[order]
        while row < len(slots) and slots[row] == user:
            at = np.searchsorted(others, items[row])
            if at < len(others) and others[at] == items[row]:
                entry = entries[at]
                out[row, TASKS], out[row, FIRST] = pairs.task_mask[entry], pairs.first[entry]
                out[row, LAST], out[row, COUNT] = pairs.time[entry], pairs.total[entry]
            row += 1
