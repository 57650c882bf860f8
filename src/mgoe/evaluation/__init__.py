"""Evaluation: every metric of a model over slices, intervals over users and seeds, tables, and the report.

Axes: `N` examples, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `B` batch, `C` users of a split,
`M` metrics, `E` events.
"""

from mgoe.evaluation.age import DAY, estimate_ages, losses_of_age
from mgoe.evaluation.evaluate import (
    draw_queries,
    measure,
    measure_calibrated,
    measure_requests,
    rank_catalog,
    ranks_in,
    reliability,
)
from mgoe.evaluation.influence import FEWEST, Influence, pack, unpack, user_influence
from mgoe.evaluation.intervals import Estimate, estimate, find_leads, group_users, holm
from mgoe.evaluation.rows import ALL, UNIFORM, Row, Summary, read_rows, summarize, write_rows
from mgoe.evaluation.slices import activity, history_age, known_before, make_slices, unseen
from mgoe.evaluation.standings import REACHABLE, Cost, Standings, reachable_shares, verdict
from mgoe.evaluation.tables import markdown, markdown_table, rich_table

__all__ = [
    "ALL",
    "DAY",
    "FEWEST",
    "REACHABLE",
    "UNIFORM",
    "Cost",
    "Estimate",
    "Influence",
    "Row",
    "Standings",
    "Summary",
    "activity",
    "draw_queries",
    "estimate",
    "estimate_ages",
    "find_leads",
    "group_users",
    "history_age",
    "holm",
    "known_before",
    "losses_of_age",
    "make_slices",
    "markdown",
    "markdown_table",
    "measure",
    "measure_calibrated",
    "measure_requests",
    "pack",
    "rank_catalog",
    "ranks_in",
    "reachable_shares",
    "read_rows",
    "reliability",
    "rich_table",
    "summarize",
    "unpack",
    "unseen",
    "user_influence",
    "verdict",
    "write_rows",
]
