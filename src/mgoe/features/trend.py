"""`trend`: how old users and items are, when they were last active, and how much of late.

What happened after the snapshot counts at its own time; before it, a pair counts at its last event, and
`AGES` says how many are how old.
"""

from collections.abc import Sequence

import numpy as np

from mgoe._util.arrays import take
from mgoe._util.kernels import kernel
from mgoe.features.group import CONTEXT, ITEM, USER, Arrays, InputGroup, Key, Part, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.counts import HOUR
from mgoe.graph.pair_rows import SIDES, Side

MINUTE = HOUR // 60
YEAR = 365 * 24 * HOUR
WINDOWS = {"hour": HOUR, "day": 24 * HOUR, "week": 7 * 24 * HOUR, "month": 30 * 24 * HOUR}
"""Times before the moment of a pair in which events are counted, in microseconds."""


class Trend(InputGroup):
    """Of the user, then of the item, as of the moment of the pair: `freshness` of the first and of the last
    event, and log(1 + events) of the last hour, day, week and month. Shape (B, 6) each.
    """

    name = "trend"
    fresh = True

    def keys(self, spec: FeatureSpec) -> tuple[Key, ...]:
        owners = {"user": USER * CONTEXT, "item": ITEM * CONTEXT}
        return tuple(
            dense(f"{side}_trend", (owners[side], spec.widths.get(f"{side}_trend", 0))) for side in SIDES
        )

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        names = ("first", "last", *WINDOWS)
        return {f"{side}_trend": [f"{side}.trend.{name}" for name in names] for side in SIDES}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return self.read_side(view, pairs, "user") | self.read_side(view, pairs, "item")

    def read_part(self, view: View, pairs: Pairs, part: Part, keys: Sequence[Key]) -> Arrays:
        return self.read_side(view, pairs, "user" if part == "user" else "item")

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        nodes, slots = pairs.nodes(side), pairs.slots(side)
        spans = tuple(view.rows(side, name, nodes, slots=slots) for name in ("total", "first", "last"))
        later = np.zeros((len(nodes), len(WINDOWS)), np.int64)
        if slots is not None:
            since = pairs.now[:, None] - np.array([*WINDOWS.values()])
            later = view.nodes(side).times.since(slots, since)
        ages = take(view.base[side]["ages"], nodes, 0)
        out = np.zeros((len(nodes), 2 + len(WINDOWS)), np.float32)
        _read(pairs.now, view.snapshot.end, spans, later, ages, tuple(WINDOWS.values()), out)
        return {f"{side}_trend": out}


@kernel(inline="always")
def freshness(age):  # pragma: no cover - compiled
    """Return log(1 + a year / (a minute + age)): large for what was just now, near 0 for what is long ago."""
    return np.log1p(YEAR / (MINUTE + max(age, 0)))


@kernel("out")
def _read(now, end, spans, later, ages, windows, out):  # pragma: no cover - compiled
    total, first, last = spans
    for row in range(len(now)):
        if total[row]:
            out[row, 0], out[row, 1] = freshness(now[row] - first[row]), freshness(now[row] - last[row])
        for w in range(len(windows)):
            before = _younger(ages[row], windows[w] - (now[row] - end))
            out[row, 2 + w] = np.log1p(later[row, w] + before)


@kernel(inline="always")
def _younger(ages, age):  # pragma: no cover - compiled
    """Return how many pairs were younger than an age at the cut: between two of `AGES`, in proportion."""
    if age <= 0:
        return 0.0
    k, low, least = 0, 0, 0.0
    while k < len(ages):
        if age < HOUR << k:
            return least + (ages[k] - least) * (age - low) / ((HOUR << k) - low)
        low, least = HOUR << k, float(ages[k])
        k += 1
    return least
