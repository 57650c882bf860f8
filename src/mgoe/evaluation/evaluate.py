"""Every metric of one set of predictions, over all rows and over slices."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mgoe import metrics
from mgoe.evaluation.rows import ALL, Row
from mgoe.metrics import Task


def measure(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    tasks: Sequence[Task],
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    model: str,
    seed: int,
    split: str,
) -> list[Row]:
    """Measure predictions.

    A binary task has `auc`, `gauc` (by user, weighted by impressions, over the `gauc_users` with both
    classes; `gauc_users_skipped` have one), `logloss`, `calibration_error`, `predicted_over_observed`; a
    regression has `rmse`, `mae`, `spearman`; both have `examples` and `positives`, which count rows with a
    label. Task `all` has the mean `auc` and `gauc` over binary tasks and `ranking`, the mean of those two
    (the mean of the six, with three tasks). Means are over the tasks where the metric exists.

    Args:
        scores: Probabilities of binary tasks, values of regressions. Shape (N, T).
        labels: NaN where missing. Shape (N, T).
        users: Shape (N,).
        tasks: T of them.
        slices: Masks of shape (N,) by name, measured beside all rows.
        model, seed, split: Written into the rows.
    """
    parts = {ALL: slice(None), **(slices or {})}
    return [
        Row(model=model, seed=seed, split=split, slice=name, task=task, metric=metric, value=value)
        for name, part in parts.items()
        for task, metric, value in _measure(scores[part], labels[part], users[part], tasks)
    ]


def reliability(
    scores: NDArray[np.floating], labels: NDArray[np.floating], tasks: Sequence[Task], bins: int = 20
) -> dict[str, dict[str, list[float]]]:
    """Return the points of a reliability diagram per binary task: `predicted`, `observed` and `rows` of bins
    of equally many rows."""
    found = {
        task.name: metrics.calibration(labels[:, t], scores[:, t], bins)
        for t, task in enumerate(tasks)
        if task.kind == "binary"
    }
    return {
        name: {"predicted": c.predicted.tolist(), "observed": c.observed.tolist(), "rows": c.rows.tolist()}
        for name, c in found.items()
    }


def _measure(
    scores: NDArray, labels: NDArray, users: NDArray, tasks: Sequence[Task]
) -> list[tuple[str, str, float]]:
    found: list[tuple[str, str, float]] = []
    for t, task in enumerate(tasks):
        predicted, actual = scores[:, t], labels[:, t]
        measures = {
            **(
                _binary(predicted, actual, users) if task.kind == "binary" else _regression(predicted, actual)
            ),
            "examples": float((~np.isnan(actual)).sum()),
            "positives": float((actual > 0).sum()),
        }
        found += [(task.name, metric, value) for metric, value in measures.items()]
    if any(task.kind == "binary" for task in tasks):
        areas = {metric: [v for _, m, v in found if m == metric] for metric in ("auc", "gauc")}
        found += [(ALL, metric, metrics.mean_defined(values)) for metric, values in areas.items()]
        pairs = zip(*areas.values(), strict=True)
        found.append((ALL, "ranking", metrics.mean_defined(map(metrics.mean_defined, pairs))))
    return found


def _binary(probs: NDArray, labels: NDArray, users: NDArray) -> dict[str, float]:
    grouped = metrics.gauc(labels, probs, users)
    calibrated = metrics.calibration(labels, probs)
    return {
        "auc": metrics.auc(labels, probs),
        "gauc": grouped.value,
        "gauc_users": float(grouped.groups_used),
        "gauc_users_skipped": float(grouped.groups_skipped),
        "logloss": metrics.log_loss(labels, probs),
        "calibration_error": calibrated.error,
        "predicted_over_observed": calibrated.ratio,
    }


def _regression(values: NDArray, labels: NDArray) -> dict[str, float]:
    return {
        "rmse": metrics.rmse(labels, values),
        "mae": metrics.mae(labels, values),
        "spearman": metrics.spearman(labels, values),
    }
