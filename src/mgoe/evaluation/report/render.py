"""The pages: report data or standings to one HTML file that needs no network."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from mgoe._util.files import write_text
from mgoe.evaluation.report.charts import IntervalPlot
from mgoe.evaluation.report.data import ReportData
from mgoe.evaluation.report.sections import lead_plot, sections
from mgoe.evaluation.rows import MEAN, main_columns, summarize
from mgoe.evaluation.standings import Standings, verdict
from mgoe.evaluation.tables import differences, quality, shown_uniformly, tables_of, tradeoff

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mgoe.evaluation.report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.tests["finite"] = math.isfinite


def render(data: ReportData) -> str:
    """Return the report of a run as one HTML page: styles and drawings inside, no script, nothing loaded from
    elsewhere.
    """
    return _TEMPLATES.get_template("report.html.j2").render(sections(data))


def write_report(path: Path, data: ReportData) -> None:
    """Write the page atomically."""
    write_text(path, render(data))


def render_comparison(
    name: str,
    standings: Sequence[Standings],
    facts: Mapping[str, object] | None = None,
    settings: str = "",
    command: str = "",
) -> str:
    """Return a comparison as one HTML page without external resources: each question with its tables and one
    forest plot per metric.

    Args:
        name: Title of the page.
        standings: Every table on every log.
        facts: Short facts by name.
        settings: Settings of the comparison as YAML.
        command: The command that reproduces it.
    """
    return _TEMPLATES.get_template("comparison.html.j2").render(
        title=name,
        boards=[
            {
                "standings": one,
                "verdict": verdict(one),
                "quality": quality(one),
                "differences": differences(one),
                "uniform": shown_uniformly(one),
                "plots": forest_plots(one),
                "tradeoff": tradeoff(one),
            }
            for one in standings
        ],
        facts=(facts or {}).items(),
        settings=settings,
        command=command,
    )


def render_tables(title: str, standings: Sequence[Standings]) -> str:
    """Return the tables of standings as HTML without styles, for a notebook, whose own styles apply."""
    boards = [
        {
            "standings": one,
            "verdict": verdict(one),
            "tables": tables_of(one),
        }
        for one in standings
    ]
    return _TEMPLATES.get_template("tables.html.j2").render(title=title, boards=boards)


def forest_plots(standings: Standings) -> list[IntervalPlot]:
    """Return the leads over every baseline, one plot per metric, the mean first; strong if significant."""
    columns = sorted(main_columns(summarize(standings.rows)), key=lambda column: column != MEAN)
    return [plot for column in columns if (plot := lead_plot(standings, column))]
