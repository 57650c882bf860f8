"""The report of a comparison: each question with its tables and one forest plot per metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import write_text
from mgoe.evaluation.report.charts import Mark, difference_plot
from mgoe.evaluation.report.render import templates
from mgoe.evaluation.report.svg import Svg
from mgoe.evaluation.sheets import differences, quality, verdict
from mgoe.evaluation.standings import Standings, is_significant
from mgoe.evaluation.table import MEAN, MEAN_TITLE, head, main_columns, summarise

TEMPLATE = "comparison.html.j2"


def render_comparison(
    name: str,
    standings: Sequence[Standings],
    facts: Mapping[str, object] | None = None,
    settings: str = "",
    command: str = "",
) -> str:
    """Return a comparison as one HTML page without external resources.

    Args:
        name: Title of the page.
        standings: Every table on every log.
        facts: Short facts by name.
        settings: Settings of the comparison as YAML.
        command: The command that reproduces it.
    """
    boards = [_board(one) for one in standings]
    return templates.get_template(TEMPLATE).render(
        title=name, boards=boards, facts=facts or {}, settings=settings, command=command
    )


def write_comparison(path: Path, *args: Any, **kwargs: Any) -> None:
    """Write the page atomically; arguments as for `render_comparison`."""
    write_text(path, render_comparison(*args, **kwargs))


def _board(standings: Standings) -> dict[str, Any]:
    return {
        "standings": standings,
        "verdict": verdict(standings),
        "quality": quality(standings),
        "differences": differences(standings),
        "plots": forest_plots(standings),
    }


def forest_plots(standings: Standings) -> list[tuple[str, Svg]]:
    """Draw the leads over every baseline, one plot per metric, the mean first; strong if significant."""
    columns = main_columns(summarise(standings.rows))
    plots = []
    for column in sorted(columns, key=lambda column: column != MEAN):
        chosen = [
            lead
            for lead in standings.leads
            if (lead.task, lead.metric) == column and math.isfinite(lead.value)
        ]
        marks = [
            Mark(
                lead.baseline or "",
                lead.value,
                lead.low,
                lead.high,
                lead.by_seed,
                strong=is_significant(lead),
            )
            for lead in chosen
        ]
        name = MEAN_TITLE if column == MEAN else head(column)
        if marks:
            plots.append((name, difference_plot(marks, f"{standings.reference} minus each baseline: {name}")))
    return plots
