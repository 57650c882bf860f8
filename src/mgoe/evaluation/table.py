"""Rows of metrics as a table: the mean over seeds and its spread, for the terminal or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text

from mgoe.config import BOUNDS
from mgoe.evaluation.rows import ALL, Row

T = TypeVar("T")
Column = tuple[str, str]
"""Task and metric."""

MEAN: Column = (ALL, "ranking")
"""Mean of AUC and GAUC over tasks."""
LOWER = re.compile(r"logloss|calibration_error|rmse|mae")
MEAN_TITLE = "Mean of AUC and GAUC over tasks"
SHOWN = ("auc", "gauc", "rmse", "spearman")
"""The main metrics of a task."""
TITLES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "ranking": "mean",
    "logloss": "log loss",
    "calibration_error": "calibration error",
    "predicted_over_observed": "predicted / observed",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman",
}


@dataclass(frozen=True)
class Summary:
    """Mean over seeds, their standard deviation (NaN with one) and their number."""

    mean: float
    std: float
    seeds: int


def summarise(rows: Iterable[Row], split: str = "test", slice: str = ALL) -> dict[str, dict[Column, Summary]]:
    """Return mean and spread over seeds by model, and by task and metric, in order of appearance."""
    found = by_seed(rows, split, slice)
    return {
        model: {column: _summary([*seeds.values()]) for column, seeds in columns.items()}
        for model, columns in found.items()
    }


def by_seed(
    rows: Iterable[Row], split: str = "test", slice: str = ALL
) -> dict[str, dict[Column, dict[int, float]]]:
    """Return values by seed for each model, task and metric, in order of appearance."""
    values: dict[str, dict[Column, dict[int, float]]] = {}
    for row in rows:
        if row["split"] == split and row["slice"] == slice:
            values.setdefault(row["model"], {}).setdefault((row["task"], row["metric"]), {})[row["seed"]] = (
                row["value"]
            )
    return values


def main_columns(summaries: Mapping[str, Mapping[Column, Summary]]) -> list[Column]:
    """Return AUC and GAUC (or RMSE and rank correlation) of each task, then their mean over tasks."""
    present = list(dict.fromkeys(column for columns in summaries.values() for column in columns))
    return [c for c in present if c[0] != ALL and c[1] in SHOWN] + [c for c in present if c == MEAN]


def headline(summaries: Mapping[str, Mapping[Column, Summary]]) -> Column:
    """Return the column that ranks models: the mean of AUC and GAUC, else the first one."""
    columns = main_columns(summaries)
    return MEAN if MEAN in columns or not columns else columns[0]


def title(metric: str) -> str:
    """Return a metric's name for people."""
    name, at, depth = metric.partition("@")
    return f"{name.upper()}@{depth}" if at else TITLES.get(metric, metric.replace("_", " "))


def head(column: Column) -> str:
    """Return a column's name for people."""
    return title(column[1]) if column[0] == ALL else f"{column[0]} {title(column[1])}"


def pipes(lines: Iterable[Sequence[str]]) -> str:
    """Join cells to a Markdown table."""
    return (
        "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def distance(metric: str, value: float) -> float:
    """Return the distance of a value from the best possible one, up to a constant; smaller is better."""
    if metric == "predicted_over_observed":
        return abs(np.log(value)) if value > 0 else np.inf
    return value if LOWER.fullmatch(metric) else -value


def best(summaries: Mapping[str, Mapping[Column, Summary]], column: Column) -> set[str]:
    """Return the models with the best mean of a column, to the four digits shown; none if there is one
    model.
    """
    distances = {
        m: round(distance(column[1], columns[column].mean), 4)
        for m, columns in summaries.items()
        if column in columns and m not in BOUNDS
    }
    there = {m: d for m, d in distances.items() if not np.isnan(d)}
    return {m for m, d in there.items() if d == min(there.values())} if len(there) > 1 else set()


def show(summary: Summary | None) -> str:
    """Format a mean with four digits and its spread; `-` if it does not exist."""
    if summary is None or np.isnan(summary.mean):
        return "-"
    return f"{summary.mean:.4f}" + ("" if np.isnan(summary.std) else f" ±{summary.std:.4f}")


def markdown_table(rows: Iterable[Row]) -> str:
    """Return a Markdown table of the test split, one line per model, the best of each column in bold."""
    summaries = summarise(rows, "test", ALL)
    columns = main_columns(summaries)
    lines = [["model", *map(head, columns)], ["---", *["---:"] * len(columns)]]
    lines += [
        [model, *cells] for model, cells in _cells(summaries, columns, lambda text: f"**{text}**").items()
    ]
    return pipes(lines)


def rich_table(rows: Iterable[Row], split: str = "test", slice: str = ALL, name: str | None = None) -> Table:
    """Return the same table for the terminal, for any split and slice."""
    summaries = summarise(rows, split, slice)
    columns = main_columns(summaries)
    table = Table(title=name, box=None, header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(head(column), justify="right")
    for model, cells in _cells(summaries, columns, lambda text: Text(text, "bold green")).items():
        table.add_row(model, *cells)
    return table


def _summary(values: Sequence[float]) -> Summary:
    return Summary(
        float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan, len(values)
    )


def _cells(
    summaries: Mapping[str, Mapping[Column, Summary]], columns: Sequence[Column], mark: Callable[[str], T]
) -> dict[str, list[str | T]]:
    leaders = {column: best(summaries, column) for column in columns}
    return {
        model: [mark(text) if model in leaders[c] else text for c in columns for text in [show(found.get(c))]]
        for model, found in summaries.items()
    }
