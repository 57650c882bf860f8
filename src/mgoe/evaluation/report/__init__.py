"""The report: one self-contained HTML file from plain values.

Axes: `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes.
"""

from mgoe.evaluation.report.data import MacroView, ReportData
from mgoe.evaluation.report.sections import render, render_comparison, render_tables, write_report

__all__ = ["MacroView", "ReportData", "render", "render_comparison", "render_tables", "write_report"]
