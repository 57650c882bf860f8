"""`pair`: the history of the pair itself."""

import numpy as np

from mgoe._util.kernels import kernel
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
        known = tuple(arrays[f"pairs.{name}"] for name in ("indptr", "item", "task_mask", "time"))
        out = np.zeros((len(pairs.user), arrays["user_table"].shape[1] + 1), np.float32)
        when = view.as_of, view.snapshot.bucket
        _read_known(known, *when, pairs.user, pairs.item, out)
        if pairs.user_slots is not None:
            changed = live.user.head, live.item.index, live.pairs
            _read_changed(changed, *when, pairs.user_slots, pairs.item, out)
        return {"pair": out}


@kernel("out")
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


@kernel("out")
def _read_changed(changed, as_of, bucket, slots, items, out):  # pragma: no cover - compiled
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
                _write(pairs.task_mask[entry], pairs.time[entry], as_of, bucket, out[row])
            row += 1


@kernel("out", inline="always")
def _write(done, time, as_of, bucket, out):  # pragma: no cover - compiled
    tasks = len(out) - 1
    for t in range(tasks):
        out[t] = done >> t & 1
    out[tasks] = 1 / (1 + max(0, as_of - time // bucket))


@kernel()
def walk(slots, head, following):  # pragma: no cover - compiled
    """Return where the live pairs of each slot start (n + 1,), and the numbers of these pairs, by their
    chains: `head` has the first pair of each slot, `following` the next after each pair. Slot -1 has none."""
    indptr = np.zeros(len(slots) + 1, np.int64)
    for row in range(len(slots)):
        indptr[row + 1] = indptr[row]
        p = head[slots[row]] if slots[row] >= 0 else -1
        while p >= 0:
            indptr[row + 1] += 1
            p = following[p]
    numbers = np.empty(indptr[-1], np.int64)
    for row in range(len(slots)):
        p = head[slots[row]] if slots[row] >= 0 else -1
        for at in range(indptr[row], indptr[row + 1]):
            numbers[at] = p
            p = following[p]
    return indptr, numbers
