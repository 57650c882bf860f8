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

A packed influence takes a few kilobytes of text, so that a table can be computed far from where a model was
fitted. It is rounded to 32,767 steps of the largest one of its metric; values are kept exactly. A lead is a
difference of influences that are nearly equal, so with fewer steps the rounding would show in its interval.

Axes: `N` examples, `C` users of the split, `M` metrics.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

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
STEPS = np.iinfo(np.int16).max
"""Steps of the largest influence of a metric that a packed one is rounded to."""


@dataclass(frozen=True)
class Influence:
    """Metrics of one set of predictions, and the influence of each user on them.

    Attributes:
        names: Task and metric of each column.
        values: The metrics. Shape (M,).
        users: Rising. Shape (C,).
        parts: Influence of each user; a column sums to 0, or is NaN where the metric does not exist or fewer
            than `FEWEST` users carry it. Shape (C, M).

    Example:
        >>> from mgoe.config import TaskSettings
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 2, (200, 1)).astype(float)
        >>> scores, tasks = rng.random((200, 1)), [TaskSettings(name="click")]
        >>> found = user_influence(scores, labels, np.arange(200) // 5, tasks)
        >>> found.parts.shape == (len(found.users), len(found.names))
        True
    """

    names: tuple[tuple[str, str], ...]
    values: NDArray[np.float64]
    users: NDArray
    parts: NDArray[np.float32]

    def __sub__(self, other: Self) -> Self:
        """Return the paired difference; both must be of the same examples and tasks."""
        if self.names != other.names or not np.array_equal(self.users, other.users):
            raise ValueError("influences can only be subtracted when they are of the same tasks and users")
        return replace(self, values=self.values - other.values, parts=self.parts - other.parts)

    def __truediv__(self, other: Self) -> Self:
        """Return the paired ratio, with influences to first order; NaN where the other is 0."""
        if self.names != other.names or not np.array_equal(self.users, other.users):
            raise ValueError("influences can only be divided when they are of the same tasks and users")
        whole = np.where(other.values == 0, np.nan, other.values)
        ratio = self.values / whole
        return replace(self, values=ratio, parts=(self.parts - ratio * other.parts) / whole)

    def mean_of(self, tasks: Sequence[str], parts: Sequence[str]) -> Self:
        """Return a single column, `all.mean`: the mean over tasks of the mean of some metrics, each over
        those that exist."""
        columns = dict(zip(self.names, zip(self.values, self.parts.T, strict=True), strict=True))
        size = len(self.users)
        of_tasks = [_average([columns[task, part] for part in parts], size) for task in tasks]
        value, moved = _average(of_tasks, size)
        return replace(self, names=((ALL, "mean"),), values=np.array([value]), parts=moved[:, None])

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
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            OutputError: The file is missing or damaged.
        """
        try:
            with safe_open(path, "numpy") as file:
                return cls(
                    tuple((task, metric) for task, metric in json.loads(file.metadata()["names"])),
                    *(file.get_tensor(name) for name in ("values", "users", "parts")),
                )
        except FileNotFoundError:
            raise OutputError(path, "no such file; `mgoe run` writes it") from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise OutputError(
                path, f"cannot be read ({error}); run `mgoe run` or `mgoe compare` again"
            ) from None


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

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels = np.tile([[0.0], [1.0]], (30, 1))
        >>> one = user_influence(labels, labels, np.arange(60) // 2, [TaskSettings(name="click")])
        >>> one.names[0], float(one.values[0])
        (('click', 'auc'), 1.0)
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
    if pairs := [(found[t.name, "auc"], found[t.name, "gauc"]) for t in tasks if t.kind == "binary"]:
        found[ALL, "auc"], found[ALL, "gauc"] = (
            _average(columns, len(names)) for columns in zip(*pairs, strict=True)
        )
        found[ALL, "ranking"] = _average([_average(pair, len(names)) for pair in pairs], len(names))
    values, parts = zip(*found.values(), strict=True)
    return Influence(tuple(found), np.array(values), names, np.stack(parts, axis=1).astype(np.float32))


def _auc(labels: NDArray, scores: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    placed = metrics.placements(labels, scores)
    positive = labels > 0
    area = float(placed[positive].mean()) if positive.any() else np.nan
    if np.isnan(area) or min(len(np.unique(users[side])) for side in (positive, ~positive)) < FEWEST:
        return area, np.full(size, np.nan)
    return area, np.bincount(
        users, (placed - area) * np.where(positive, 1 / positive.sum(), 1 / (~positive).sum()), size
    )


def _gauc(labels: NDArray, scores: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    groups, areas, rows = metrics.group_auc(labels, scores, users)
    used = ~np.isnan(areas)
    if not used.any() or np.isnan(scores).any():
        return np.nan, np.full(size, np.nan)
    weight = rows[used] / rows[used].sum()
    value = float(areas[used] @ weight)
    if len(weight) < FEWEST:
        return value, np.full(size, np.nan)
    return value, np.bincount(groups[used], weight * (areas[used] - value), size)


def _mean(values: NDArray, users: NDArray, size: int) -> tuple[float, NDArray]:
    mean = float(values.mean()) if len(values) else np.nan
    if len(np.unique(users)) < FEWEST:
        return mean, np.full(size, np.nan)
    return mean, np.bincount(users, (values - mean) / len(values), size)


def _average(columns: Sequence[tuple[float, NDArray]], size: int) -> tuple[float, NDArray]:
    there = [column for column in columns if not np.isnan(column[0])] or [(np.nan, np.full(size, np.nan))]
    return float(np.mean([value for value, _ in there])), np.mean([part for _, part in there], axis=0)


def pack(influence: Influence) -> dict[str, Any]:
    """Return an influence as plain values. Its users must be groups numbered from 0, see `group_users`.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels = np.tile([[0.0], [1.0]], (30, 1))
        >>> one = user_influence(labels, labels, np.arange(60) // 2, [TaskSettings(name="click")])
        >>> unpack(pack(one)).names == one.names
        True
    """
    largest = np.abs(influence.parts).max(0, initial=0)  # (M,), NaN without an interval
    steps = np.divide(STEPS, largest, out=np.zeros_like(largest), where=largest > 0)
    parts = np.rint(np.nan_to_num(influence.parts * steps)).astype("<i2")
    return {
        "metrics": [".".join(name) for name in influence.names],
        "values": _without_nan(influence.values),
        "largest": _without_nan(largest),
        "groups": len(parts),
        "steps": STEPS,
        "parts": base64.b64encode(parts.tobytes()).decode(),
    }


def unpack(packed: Mapping[str, Any]) -> Influence:
    """Return the influence that `pack` wrote, up to rounding.

    Raises:
        ValueError, TypeError, KeyError: The values were not written by `pack`.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels = np.tile([[0.0], [1.0]], (30, 1))
        >>> one = user_influence(labels, labels, np.arange(60) // 2, [TaskSettings(name="click")])
        >>> unpack(pack(one)).parts.shape == one.parts.shape
        True
    """
    names = tuple((task, metric) for task, _, metric in (name.rpartition(".") for name in packed["metrics"]))
    values, largest = (
        np.array(packed[name], np.float64) for name in ("values", "largest")
    )  # None becomes NaN
    held = np.frombuffer(base64.b64decode(packed["parts"]), "<i2").reshape(packed["groups"], len(names))
    parts = (held * (largest / packed["steps"])).astype(np.float32)
    return Influence(names, values, np.arange(len(held)), parts)


def _without_nan(numbers: NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(number) else float(number) for number in numbers]
