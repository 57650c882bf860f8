"""The rows of `metrics.json`, one number per model, seed, split, slice, task and metric, and their means over
seeds.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

import numpy as np

from mgoe._util.files import write_text
from mgoe.config import BOUNDS
from mgoe.errors import OutputError

ALL = "all"
"""Name of the slice of all examples, and of the task that stands for the mean over tasks."""

UNIFORM = "uniform"
"""Name of the slice of rows whose item was shown uniformly at random."""

Column = tuple[str, str]
"""Task and metric."""

MEAN: Column = (ALL, "ranking")
"""Mean of AUC and GAUC over tasks."""
LOWER = re.compile(r"(logloss|calibration_error)(_after)?|carried_over_loss|rmse|mae")
FEW_USERS = 200
"""Users below which small differences cannot be told."""
MEAN_TITLE = "Mean of AUC and GAUC over tasks"
SHOWN = ("auc", "gauc", "rmse", "spearman", "user_spearman")
"""The main metrics of a task."""
OF_LISTS = ("ndcg", "hr", "mrr", "recall", "coverage", "novelty")
"""The main metrics of top-N lists, the first of which ranks models."""
TITLES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "gauc_by_request": "GAUC by request",
    "ranking": "mean",
    "logloss": "log loss",
    "calibration_error": "calibration error",
    "predicted_over_observed": "predicted / observed",
    "logloss_after": "log loss, calibrated",
    "calibration_error_after": "calibration error, calibrated",
    "predicted_over_observed_after": "predicted / observed, calibrated",
    "carried_over_loss": "log loss, carried over",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman",
    "user_spearman": "Spearman within users",
}


class Row(TypedDict):
    """One measured number. A missing value is NaN here and null in the file.

    Example:
        >>> row: Row = rows[0]
        >>> row["metric"]
        'auc'
    """

    model: str
    seed: int
    split: str
    slice: str
    task: str
    metric: str
    value: float


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write `metrics.json` atomically, one row per line, so that two runs can be compared by line.

    Example:
        >>> write_rows(Path("metrics.json"), rows)
        >>> len(read_rows(Path("metrics.json"))) == len(rows)
        True
    """
    write_text(
        path,
        "[\n"
        + ",\n".join(
            json.dumps({**row, "value": row["value"] if math.isfinite(row["value"]) else None})
            for row in rows
        )
        + "\n]\n",
    )


def read_rows(path: Path) -> list[Row]:
    """Read `metrics.json`.

    Raises:
        OutputError: The file is missing, or not what `write_rows` writes.

    Example:
        >>> read_rows(folder / "metrics.json")[0]["metric"]
        'auc'
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        rows = [{name: row[name] for name in Row.__annotations__} for row in rows]
        return [
            Row(**{**row, "value": math.nan if row["value"] is None else float(row["value"])}) for row in rows
        ]
    except FileNotFoundError:
        raise OutputError(path, "no such file; `mgoe run` writes it") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            path,
            f"holds no metrics ({type(error).__name__}: {error}); run `mgoe run` or `mgoe compare` again",
        ) from None


@dataclass(frozen=True)
class Summary:
    """Mean over seeds, their standard deviation (NaN with one), their number, and the digits to show.

    Example:
        >>> Summary.of([0.70, 0.72]).seeds
        2
    """

    mean: float
    std: float
    seeds: int
    digits: int = 4

    @classmethod
    def of(cls, values: list[float], digits: int = 4) -> Self:
        """Summarise the values of the single seeds."""
        return cls(
            mean=float(np.mean(values)),
            std=float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
            seeds=len(values),
            digits=digits,
        )


Summaries = Mapping[str, Mapping[Column, Summary]]
"""By model, and by task and metric."""


def digits_for(users: Iterable[float]) -> int:
    """Return how many digits of a metric to show after the point.

    Args:
        users: Counts of those that it was measured on, the largest of which decides; none if unknown.
    """
    return 2 if max(users, default=math.inf) < FEW_USERS else 4


def summarize(rows: Iterable[Row], split: str = "test", slice: str = ALL) -> dict[str, dict[Column, Summary]]:
    """Return mean and spread over seeds by model, and by task and metric, in order of appearance.

    Example:
        >>> summarize(rows)["mgoe"]["click", "auc"].seeds
        1
    """
    return {
        model: {
            column: Summary.of(
                [*seeds.values()],
                digits_for(
                    count
                    for of, held in columns.items()
                    if of[1] == ("queries" if "@" in column[1] else "users")
                    for count in held.values()
                ),
            )
            for column, seeds in columns.items()
        }
        for model, columns in by_seed(rows, split, slice).items()
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


def main_columns(summaries: Summaries) -> list[Column]:
    """Return AUC and GAUC (or RMSE and rank correlation) of each task, then their mean over tasks.

    Where only lists were measured, return the metrics of lists at their first depth.
    """
    present = list(dict.fromkeys(column for columns in summaries.values() for column in columns))
    shown = [c for c in present if c[0] != ALL and c[1] in SHOWN] + [c for c in present if c == MEAN]
    if shown:
        return shown
    of_lists = [c[1].split("@") for c in present if c[0] == ALL and "@" in c[1]]
    depth = next((depth for name, depth in of_lists if name in OF_LISTS), "")
    return [(ALL, f"{name}@{depth}") for name in OF_LISTS if (ALL, f"{name}@{depth}") in present]


def headline(summaries: Summaries) -> Column:
    """Return the column that ranks models: the mean of AUC and GAUC, else the first one."""
    columns = main_columns(summaries)
    return MEAN if MEAN in columns or not columns else columns[0]


def title(metric: str) -> str:
    """Return a metric's name for people."""
    name, at, depth = metric.partition("@")
    shown = name if name in ("recall", "coverage", "novelty") else name.upper()
    return f"{shown}@{depth}" if at else TITLES.get(metric, metric.replace("_", " "))


def head(column: Column) -> str:
    """Return a column's name for people."""
    return title(column[1]) if column[0] == ALL else f"{column[0]} {title(column[1])}"


def full_title(column: Column) -> str:
    """Return the title of a chart of a column."""
    return MEAN_TITLE if column == MEAN else head(column)


def distance(metric: str, value: float) -> float:
    """Return the distance of a value from the best possible one, up to a constant; smaller is better."""
    if metric.startswith("predicted_over_observed"):
        return abs(np.log(value)) if value > 0 else np.inf
    return value if LOWER.fullmatch(metric) else -value


def best(summaries: Summaries, column: Column) -> set[str]:
    """Return the models with the best mean of a column, to the digits shown; none if there is one
    model.
    """
    distances = {
        m: rounded
        for m, columns in summaries.items()
        if m not in BOUNDS and (one := columns.get(column)) is not None
        for rounded in [round(float(distance(column[1], one.mean)), one.digits)]
        if not np.isnan(rounded)
    }
    return {m for m, d in distances.items() if d == min(distances.values())} if len(distances) > 1 else set()
