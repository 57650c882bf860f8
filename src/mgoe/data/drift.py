"""How the end of a log differs from its beginning."""

from __future__ import annotations

from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings
from mgoe.data.expr import Expr, Table
from mgoe.data.windows import moment_of

ENDS = 0.1
"""Share of the rows that makes an end, rounded up to whole buckets."""


def measure_drift(
    rows: Table, buckets: NDArray[np.int64], counts: NDArray[np.int64], settings: RunSettings
) -> dict[str, Any]:
    """Compare the first with the last tenth of the rows.

    Args:
        rows: user, item, bucket and `task_<name>`, whether it is done.
        buckets: Those with rows, rising. Shape (b,).
        counts: Rows in each. Shape (b,).
        settings: Of the run.

    Returns:
        Where the ends lie; each task's share of the rows in either; popularity_shift, the total variation between the items'
        shares; and of the last end's rows, the share whose user, item or pair no earlier row has. Empty where the ends overlap.
    """
    share = np.cumsum(counts) / counts.sum()
    first, last = (
        buckets[np.searchsorted(share, ENDS)],
        buckets[np.searchsorted(share, 1 - ENDS, side="right")],
    )
    if first >= last:
        return {}
    marked = rows.mutate(early=rows.bucket <= int(first), late=rows.bucket >= int(last))
    return {
        "first": {
            "upto": moment_of(int(first) + 1, settings.data.bucket),
            **_rates(marked.filter(marked.early), settings),
        },
        "last": {
            "from": moment_of(int(last), settings.data.bucket),
            **_rates(marked.filter(marked.late), settings),
        },
        "popularity_shift": _popularity_shift(marked),
        "new_users": _new(marked, ["user"]),
        "new_items": _new(marked, ["item"]),
        "new_pairs": _new(marked, ["user", "item"]),
    }


def _rates(part: Table, settings: RunSettings) -> dict[str, float]:
    rates = {name: part[f"task_{name}"].cast("float64").mean() for name in settings.task_names}
    return part.aggregate(**rates).to_pyarrow().to_pylist()[0]


def _popularity_shift(marked: Table) -> float:
    items = marked.group_by("item").aggregate(early=ibis._.early.sum(), late=ibis._.late.sum())
    held = items.aggregate(early=items.early.sum(), late=items.late.sum()).to_pyarrow().to_pylist()[0]
    gap = (items.early / int(held["early"]) - items.late / int(held["late"])).abs()
    return float(items.aggregate(gap=gap.sum() / 2).to_pyarrow().to_pylist()[0]["gap"])


def _new(marked: Table, columns: list[str]) -> float:
    groups = marked.group_by(columns).aggregate(late=ibis._.late.sum(), old=(~ibis._.late).any())
    fresh: Expr = ibis.ifelse(groups.old, 0, groups.late)
    held = groups.aggregate(new=fresh.sum(), all=groups.late.sum()).to_pyarrow().to_pylist()[0]
    return int(held["new"]) / int(held["all"])
