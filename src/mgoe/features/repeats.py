"""`repeats`: how often the user came back to the item, in what rhythm, and whether it is time again."""

import numpy as np

from mgoe._util.kernels import kernel
from mgoe.features.group import ITEM, PAIR, USER, Arrays, InputGroup, Key, dense
from mgoe.features.pair import COUNT, FIRST, LAST, histories
from mgoe.features.spec import FeatureSpec
from mgoe.features.trend import MINUTE, freshness
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import SIDES

MOST_DUE = 5.0
"""Largest logarithm of how far a pair is beyond its mean interval, or before it."""
PRIOR = 2.0
"""Added to the events of a node, of which those that repeat a pair are a share."""


class Repeats(InputGroup):
    """Of the pair: log(1 + events), their share of the user's events, `freshness` of the last one, that of
    the mean time between them, and the logarithm of the time since the last one over this mean; then of the
    user and of the item, which share of their events repeats a pair. Shape (B, 7).
    """

    name = "repeats"
    fresh = True

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        width = spec.widths.get("repeats", 0)
        return (dense("repeats", (PAIR, max(width - 2, 0)), (USER, min(width, 1)), (ITEM, min(width, 1))),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        pair = [f"repeats.{name}" for name in ("events", "share", "freshness", "interval", "due")]
        return {"repeats": [*pair, *(f"repeats.{side}" for side in SIDES)]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        names = ("total", "again")
        totals = tuple(
            view.rows(side, name, pairs.nodes(side), slots=pairs.slots(side))
            for side in SIDES
            for name in names
        )
        out = np.zeros((len(pairs.user), 7), np.float32)
        _read(pairs.now, histories(view, pairs), totals, out)
        return {"repeats": out}


@kernel("out")
def _read(now, found, totals, out):  # pragma: no cover - compiled
    of_user, again_user, of_item, again_item = totals
    for row in range(len(now)):
        count, last = found[row, COUNT], found[row, LAST]
        if count:
            since = max(now[row] - last, 0)
            out[row, 0], out[row, 1] = np.log1p(count), count / (of_user[row] + 1)
            out[row, 2] = freshness(since)
            if count > 1:
                interval = (last - found[row, FIRST]) / (count - 1)
                due = np.log((since + MINUTE) / (interval + MINUTE))
                out[row, 3], out[row, 4] = freshness(interval), min(max(due, -MOST_DUE), MOST_DUE)
        out[row, 5] = again_user[row] / (of_user[row] + PRIOR)
        out[row, 6] = again_item[row] / (of_item[row] + PRIOR)
