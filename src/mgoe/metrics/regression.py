"""How close predicted values are: errors and rank correlation. Missing labels (NaN) drop their rows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.metrics.labels import labelled


def rmse(labels: ArrayLike, values: ArrayLike) -> float:
    """Root of the mean squared error. Both of shape (N,)."""
    error = np.subtract(*_valid(labels, values))
    return float(np.sqrt(np.mean(error**2))) if len(error) else np.nan


def mae(labels: ArrayLike, values: ArrayLike) -> float:
    """Mean absolute error. Both of shape (N,)."""
    error = np.subtract(*_valid(labels, values))
    return float(np.abs(error).mean()) if len(error) else np.nan


def spearman(labels: ArrayLike, values: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank; NaN if either side is constant. Both of shape (N,)."""
    labels, values = _valid(labels, values)
    if len(labels) == 0 or np.isnan(values).any():
        return np.nan
    a, b = _centred_ranks(labels), _centred_ranks(values)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    return middle[inverse] - (len(values) + 1) / 2


def _valid(labels: ArrayLike, values: ArrayLike) -> list[NDArray[np.float64]]:
    return labelled(np.asarray(labels, np.float64), np.asarray(values, np.float64))
