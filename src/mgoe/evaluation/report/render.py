"""Report data to one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

import jinja2

from mgoe._util.files import write_text
from mgoe.evaluation.report.data import ReportData
from mgoe.evaluation.report.sections import sections

templates = jinja2.Environment(
    loader=jinja2.PackageLoader("mgoe.evaluation.report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(data: ReportData) -> str:
    """The report as one HTML page: styles and drawings inside, no script, nothing loaded from elsewhere."""
    return templates.get_template("report.html.j2").render(sections(data))


def write_report(path: Path, data: ReportData) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(data))
