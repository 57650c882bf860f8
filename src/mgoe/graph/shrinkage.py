"""Shrinking rates towards that of all cells, as far as the cells themselves say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.arithmetic import exp, log, log_gamma

MOST_CELLS = 1 << 16
"""Cells that a prior is fitted to; of more, an evenly spaced sample."""
WEIGHTS = 1.0, 1e4
"""Least and largest weight of a prior, in labels."""
USUAL = 20.0
"""Weight where nothing can be fitted: a task never or always happens, or no cell has two values of a
regression."""


def fit_prior(labelled: NDArray[np.integer], done: NDArray[np.integer]) -> tuple[float, float]:
    """Return the rate of all cells and its weight in a cell's own rate.

    Done labels of a cell are taken as beta-binomial: the cell's rate is drawn from a beta distribution with
    the mean of all cells, and the weight (the sum of its two parameters) makes the labels most likely (ours).

    Args:
        labelled: Labels per cell. Shape (E,).
        done: Labels above 0. Shape (E,).

    Example:
        >>> rate, weight = fit_prior(np.array([100, 100, 100]), np.array([10, 10, 10]))
        >>> round(rate, 2), weight > 1000
        (0.1, True)
    """
    all_labels, all_done = int(labelled.sum(dtype=np.int64)), int(done.sum(dtype=np.int64))
    rate = (all_done + 0.5) / (all_labels + 1)
    if all_done in (0, all_labels):
        return rate, USUAL
    from scipy.optimize import fminbound  # slow to import, and a service does not need it

    cells = _distinct(labelled, done)

    def loss(log_weight: float) -> float:
        return -_likelihood(cells, rate, float(exp(log_weight)))

    best: Any = fminbound(loss, *log(np.array(WEIGHTS)), xtol=0.01)
    return rate, float(exp(best))


def fit_mean_prior(labelled: NDArray[np.integer], sums: NDArray, squares: float) -> tuple[float, float]:
    """Return the mean of all cells and its weight in a cell's own mean.

    Means of cells vary around that of all (variance `b`), and values around the mean of their cell (`w`).
    Both are estimated from the sums of squares between and within cells, as in an analysis of variance with
    one random factor (Searle, Casella and McCulloch, 1992); the best linear prediction weighs the mean of all
    as `w / b` values.

    Args:
        labelled: Values per cell. Shape (E,).
        sums: Their sums. Shape (E,).
        squares: Sum of the squares of all values.

    Example:
        >>> values = np.array([[1.0, 3.0], [5.0, 7.0], [3.0, 5.0]])
        >>> fit_mean_prior(np.full(3, 2), values.sum(1), (values**2).sum())
        (4.0, 0.6666666666666666)
    """
    there = labelled > 0
    n, sums = labelled[there].astype(np.float64), sums[there]
    total, cells = float(n.sum()), len(n)
    mean = float(sums.sum()) / max(1.0, total)
    if cells < 2 or total <= cells:
        return mean, USUAL
    centred = float((n * (sums / n - mean) ** 2).sum())
    within = max(0.0, squares - total * mean**2 - centred) / (total - cells)
    between = (centred - (cells - 1) * within) / (total - float((n**2).sum()) / total)
    low, high = WEIGHTS
    return mean, min(max(within / between, low), high) if between > 0 else high


def evidence(labelled: NDArray[np.integer], done: NDArray[np.integer]) -> float:
    """Return the share of the labels' entropy that is explained if cells have rates of their own.

    This is McFadden's pseudo R squared of the fitted beta-binomial against one rate for all, so that labels
    that are rare count as much as frequent ones. It is 0 if all labels are alike, and can be slightly
    negative.

    Args:
        labelled, done: As for `fit_prior`.
    """
    rate, weight = fit_prior(labelled, done)
    n, k, times = cells = _distinct(labelled, done)
    all_labels, all_done = int((times * n).sum()), int((times * k).sum())
    if all_done in (0, all_labels):
        return 0.0
    alike = all_done * log(rate) + (all_labels - all_done) * log(1 - rate)
    return float(1 - _likelihood(cells, rate, weight) / alike)


def _distinct(labelled: NDArray[np.integer], done: NDArray[np.integer]) -> tuple[NDArray[np.int64], ...]:
    """Return the labels, done labels and number of cells that are alike."""
    step = max(1, -(-len(labelled) // MOST_CELLS))
    n, k = labelled[::step].astype(np.int64), done[::step].astype(np.int64)
    keys, times = np.unique((n << 32 | k)[n > 0], return_counts=True)
    return keys >> 32, keys & 0xFFFFFFFF, times


def _likelihood(cells: tuple[NDArray[np.int64], ...], rate: float, weight: float) -> float:
    """Return the logarithm of the beta-binomial likelihood of cells."""
    n, k, times = cells
    a, b = weight * rate, weight * (1 - rate)
    each = log_gamma(k + a) + log_gamma(n - k + b) - log_gamma(n + a + b)
    return float((times * (each - log_gamma(a) - log_gamma(b) + log_gamma(a + b))).sum())
