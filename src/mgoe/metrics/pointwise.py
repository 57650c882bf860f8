"""How close each prediction is to its label: log loss and calibration of probabilities, errors and rank
correlation of values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.metrics.labels import labelled, mean_ranks


@dataclass(frozen=True)
class Calibration:
    """Predicted and observed shares.

    Attributes:
        error: Expected calibration error: mean over bins, weighted by rows, of `|predicted - observed|`.
        ratio: Sum of predictions over number of positives; NaN without positives.
        rows: Rows of each bin, none empty. Shape (bins,), or fewer where predictions are tied.
        predicted: Mean prediction of each bin, rising.
        observed: Share of positives of each bin.

    Example:
        >>> calibration([0, 1, 0, 1], [0.2, 0.8, 0.4, 0.6], bins=2).observed
        array([0., 1.])
    """

    error: float
    ratio: float
    rows: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]


def log_loss(labels: ArrayLike, probs: ArrayLike) -> float:
    """Mean negative log likelihood of binary labels (see `log_losses`).

    Example:
        >>> round(log_loss([0, 1], [0.1, 0.8]), 3)
        0.164
    """
    losses = log_losses(labels, probs)
    return float(losses.mean()) if len(losses) else np.nan


def log_losses(labels: ArrayLike, probs: ArrayLike) -> NDArray[np.float64]:
    """Negative log likelihood of each row that has a label.

    Probabilities are kept one epsilon of their own precision away from 0 and 1, as in scikit-learn.

    Args:
        labels: Positive where above 0, missing where NaN. Shape (N,).
        probs: Shape (N,).

    Example:
        >>> log_losses([0, 1, np.nan], [0.1, 0.8, 0.5]).round(3)
        array([0.105, 0.223])
    """
    labels, probs = labelled(labels, probs)
    eps = np.finfo(probs.dtype if probs.dtype.kind == "f" else np.float64).eps
    probs = probs.astype(np.float64)
    return -np.log(np.clip(np.where(labels > 0, probs, 1 - probs), eps, 1 - eps))


def calibration(labels: ArrayLike, probs: ArrayLike, bins: int = 20) -> Calibration:
    """Expected calibration error over bins of equally many rows (Nguyen and O'Connor, 2015).

    Equal widths would put nearly all rows of a rare task into one bin. Equal predictions share a bin, so that
    the order of rows changes nothing.

    Args:
        labels: Positive where above 0, missing where NaN. Shape (N,).
        probs: Shape (N,).
        bins: At most so many.

    Example:
        >>> calibration([0, 1, 0, 1], [0.2, 0.8, 0.4, 0.6], bins=2).ratio
        1.0
    """
    labels, probs = labelled(labels, np.asarray(probs, np.float64))
    if len(probs) == 0 or np.isnan(probs).any():
        return Calibration(np.nan, np.nan, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    order = np.argsort(probs)
    probs, positive = probs[order], labels[order] > 0
    edges = probs[np.arange(1, bins) * len(probs) // bins]
    starts = np.unique(np.concatenate([[0], np.searchsorted(probs, edges)]))
    rows = np.diff(starts, append=len(probs))
    predicted = np.add.reduceat(probs, starts) / rows
    observed = np.add.reduceat(positive, starts, dtype=np.int64) / rows
    total = int(positive.sum())
    return Calibration(
        error=float(rows @ np.abs(predicted - observed) / len(probs)),
        ratio=float(probs.sum() / total) if total else np.nan,
        rows=rows,
        predicted=predicted,
        observed=observed,
    )


def rmse(labels: ArrayLike, values: ArrayLike) -> float:
    """Root of the mean squared error. Both of shape (N,).

    Example:
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 3)
        1.414
    """
    error = np.subtract(*_valid(labels, values))
    return float(np.sqrt(np.mean(error**2))) if len(error) else np.nan


def mae(labels: ArrayLike, values: ArrayLike) -> float:
    """Mean absolute error. Both of shape (N,).

    Example:
        >>> mae([1.0, 2.0], [1.5, 2.0])
        0.25
    """
    error = np.subtract(*_valid(labels, values))
    return float(np.abs(error).mean()) if len(error) else np.nan


def spearman(labels: ArrayLike, values: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank; NaN if either side is constant. Both of shape (N,).

    Example:
        >>> spearman([1, 2, 3], [10, 30, 20])
        0.5
    """
    labels, values = _valid(labels, values)
    if len(labels) == 0 or np.isnan(values).any():
        return np.nan
    a, b = (mean_ranks(one) - (len(one) + 1) / 2 for one in (labels, values))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def _valid(labels: ArrayLike, values: ArrayLike) -> list[NDArray[np.float64]]:
    return labelled(np.asarray(labels, np.float64), np.asarray(values, np.float64))
