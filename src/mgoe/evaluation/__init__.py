"""Evaluation: every metric of a model, over slices; comparison with intervals over users and seeds; tables and the report.

Axes: `N` examples, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `B` batch, `C` users of a split, `M` metrics, `E` events.
"""

from mgoe.evaluation.bootstrap import Lead, deal, find_leads, holm
from mgoe.evaluation.catalogue import draw_queries, rank_catalogue, ranks_in
from mgoe.evaluation.compare import Estimate, compare, estimate
from mgoe.evaluation.evaluate import measure, reliability
from mgoe.evaluation.influence import Influence, user_influence
from mgoe.evaluation.packed import pack, unpack
from mgoe.evaluation.rows import ALL, Row, read_rows, write_rows
from mgoe.evaluation.slices import activity, history_age, known_before, make_slices, unseen
from mgoe.evaluation.standings import Cost, Standings, latex, markdown, reachable_shares, verdict
from mgoe.evaluation.table import Summary, markdown_table, rich_table, summarise

__all__ = [
    "ALL",
    "Cost",
    "Estimate",
    "Influence",
    "Lead",
    "Row",
    "Standings",
    "Summary",
    "activity",
    "compare",
    "deal",
    "draw_queries",
    "estimate",
    "find_leads",
    "history_age",
    "holm",
    "known_before",
    "latex",
    "make_slices",
    "markdown",
    "markdown_table",
    "measure",
    "pack",
    "rank_catalogue",
    "ranks_in",
    "reachable_shares",
    "read_rows",
    "reliability",
    "rich_table",
    "summarise",
    "unpack",
    "unseen",
    "user_influence",
    "verdict",
    "write_rows",
]
