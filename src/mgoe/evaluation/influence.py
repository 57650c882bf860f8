"""The influence of each user on a metric: the closed form of what a bootstrap over users estimates.

Rows of one user depend on one another, so users are the units that vary. A metric's influence of user c is
the change of the metric, to first order, when c is drawn once more; the sum of its squares is the metric's
variance. Against a bootstrap it needs one pass instead of hundreds, and differences and means of metrics are
differences and means of influences.

- AUC: `sum over c's positives of (V - A) / P + sum over c's negatives of (V - A) / Q` with the placement V
  of each row, P positives and Q negatives (DeLong et al. 1988, for rows in clusters by Obuchowski 1997,
  Nonparametric analysis of clustered ROC curve data).
- GAUC: `n_c (A_c - G) / sum n`, a ratio of sums over users with both classes.
- Log loss and other means over rows: `sum over c's rows of (loss - mean) / rows`; RMSE by the delta method.

Axes: `N` examples, `C` users of the split, `M` metrics.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mgoe import metrics
from mgoe._util.files import output_errors
from mgoe.errors import OutputError
from mgoe.evaluation.rows import ALL
from mgoe.metrics import Task

FEWEST = 20
"""Fewest users with labels (for AUC with positives and with negatives, for GAUC with both) for an interval.
The influence of a single user is zero, so noise would look certain."""


@dataclass(frozen=True)
class Influence:
    """Metrics of one set of predictions, and the influence of each user on them.

    Attributes:
        names: Task and metric of each column.
        values: The metrics. Shape (M,).
        users: Rising. Shape (C,).
        parts: Influence of each user; a column sums to 0, or is NaN where the metric does not exist or fewer
            than `FEWEST` users carry it. Shape (C, M).
    """

    names: tuple[tuple[str, str], ...]
    values: NDArray[np.float64]
    users: NDArray
    parts: NDArray[np.float32]

    def __sub__(self, other: Influence) -> Influence:
        """Return the paired difference; both must be of the same examples and tasks."""
        if self.names != other.names or not np.array_equal(self.users, other.users):
            raise ValueError("influences can only be subtracted when they are of the same tasks and users")
        return Influence(self.names, self.values - other.values, self.users, self.parts - other.parts)

    def save(self, path: Path) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written, for lack of space or rights.
        """
        with output_errors(path, SafetensorError):
            save_file(
                {"values": self.values, "users": self.users, "parts": self.parts},
                path,
                {"names": json.dumps(self.names)},
            )

    @classmethod
    def load(cls, path: Path) -> Influence:
        """Read what `save` wrote.

        Raises:
            OutputError: The file is missing or damaged.
        """
        try:
            with safe_open(path, "numpy") as file:
                names = tuple((task, metric) for task, metric in json.loads(file.metadata()["names"]))
                return cls(names, *(file.get_tensor(name) for name in ("values", "users", "parts")))
        except FileNotFoundError:
            raise OutputError(path, "no such file; `mgoe run` writes it") from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise OutputError(
                path, f"cannot be read ({error}); run `mgoe run` or `mgoe compare` again"
            ) from None


def carriers(parts: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count the users who contribute to each metric; the others, such as those without a label, do not move
    it.

    (C, M) -> (M,).
    """
    return (parts != 0).sum(0)


def user_influence(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    tasks: Sequence[Task],
) -> Influence:
    """Return the metrics of predictions with each user's influence on them.

    Columns are `auc`, `gauc` and `logloss` of each binary task, `rmse` and `mae` of each regression, and the
    means over binary tasks `all.auc`, `all.gauc` and `all.ranking`, taken where they exist, as `measure`
    takes them.

    Args:
        scores, labels: As for `measure`. Shape (N, T).
        users: Shape (N,).
        tasks: T of them.
    """
    names, index = np.unique(users, return_inverse=True)
    found: dict[tuple[str, str], tuple[float, NDArray]] = {}
    for t, task in enumerate(tasks):
        there = ~np.isnan(labels[:, t])
        y, s, c = labels[there, t], scores[there, t], index[there]
        if task.kind == "binary":
            found[task.name, "auc"] = _auc(y, s, c, len(names))
            found[task.name, "gauc"] = _gauc(y, s, c, len(names))
            found[task.name, "logloss"] = _mean(metrics.log_losses(y, s), c, len(names))
        else:
            error = s.astype(np.float64) - y
            square, parts = _mean(error**2, c, len(names))
            found[task.name, "rmse"] = np.sqrt(square), parts / (2 * np.sqrt(square)) if square > 0 else parts
            found[task.name, "mae"] = _mean(np.abs(error), c, len(names))
    binary = [task.name for task in tasks if task.kind == "binary"]
    if binary:
        pairs = [(found[name, "auc"], found[name, "gauc"]) for name in binary]
        found[ALL, "auc"], found[ALL, "gauc"] = (
            _average(columns, len(names)) for columns in zip(*pairs, strict=True)
        )
        found[ALL, "ranking"] = _average([_average(pair, len(names)) for pair in pairs], len(names))
    values = np.array([value for value, _ in found.values()])
    return Influence(
        tuple(found), values, names, np.stack([part for _, part in found.values()], axis=1).astype(np.float32)
    )


def _auc(labels: NDArray, scores: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    placed = metrics.placements(labels, scores)
    positive = labels > 0
    area = float(placed[positive].mean()) if positive.any() else np.nan
    if np.isnan(area) or min(len(np.unique(users[side])) for side in (positive, ~positive)) < FEWEST:
        return area, np.full(size, np.nan)
    weight = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum())
    return area, np.bincount(users, (placed - area) * weight, size)


def _gauc(labels: NDArray, scores: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    groups, areas, rows = metrics.group_auc(labels, scores, users)
    used = ~np.isnan(areas)
    if not used.any() or np.isnan(scores).any():
        return np.nan, np.full(size, np.nan)
    weight = rows[used] / rows[used].sum()
    value = float(areas[used] @ weight)
    if len(weight) < FEWEST:
        return value, np.full(size, np.nan)
    parts = np.zeros(size)
    parts[groups[used]] = weight * (areas[used] - value)
    return value, parts


def _mean(values: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    mean = float(values.mean()) if len(values) else np.nan
    if len(np.unique(users)) < FEWEST:
        return mean, np.full(size, np.nan)
    return mean, np.bincount(users, (values - mean) / len(values), size)


def _average(columns: Sequence[tuple[float, NDArray]], size: int) -> tuple[float, NDArray]:
    there = [column for column in columns if not np.isnan(column[0])]
    if not there:
        return np.nan, np.full(size, np.nan)
    return float(np.mean([value for value, _ in there])), np.mean([part for _, part in there], axis=0)
