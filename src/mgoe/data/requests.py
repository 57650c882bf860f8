"""Exposures by the id of their request: several rows of one exposure become one.

An exposure is identified by its request, user and item; where there is no id of a request, by user, item and
moment. So rows of different requests are different exposures, also where they agree in all else.
"""

import ibis

from mgoe.config import RunSettings
from mgoe.data.columns import Expr, Table

IDENTITY = ("user", "item", "request", "moment")


def merged(rows: Table, settings: RunSettings) -> Table:
    """Return one row per exposure if `data.request` names the ids of requests, else the rows as they are.

    Of several rows of an exposure the earliest counts, with the largest label of each task (done wins) and
    the time at which that label first became known.

    Args:
        rows: Rows of an exposure log, with ids or indices.
        settings: Settings of the run; `data` and `tasks` are read.
    """
    if settings.data.request is None:
        return rows
    columns, names = rows.columns, settings.task_names
    exposure = ibis.window(group_by=IDENTITY)
    others = sorted(set(columns) - {"time", *IDENTITY})
    place = ibis.row_number().over(ibis.window(group_by=IDENTITY, order_by=["time", *others]))
    rows = with_moment(rows)
    rows = rows.mutate(
        place=place, **{f"best_{name}": rows[f"label_{name}"].max().over(exposure) for name in names}
    )
    values = {f"label_{name}": rows[f"best_{name}"] for name in names}
    for name in [name for name in names if f"known_{name}" in columns]:
        has_best = rows[f"label_{name}"] == rows[f"best_{name}"]
        known: Expr = ibis.ifelse(has_best, rows[f"known_{name}"], None)
        values[f"known_{name}"] = known.min().over(exposure)
    rows = rows.mutate(**values)
    return rows.filter(rows.place == 0).select(*columns)


def with_moment(rows: Table) -> Table:
    """Return the rows with `moment`, the last column of `IDENTITY`: null where there is a request's id."""
    return rows.mutate(moment=ibis.ifelse(rows.request.isnull(), rows.time, None))
