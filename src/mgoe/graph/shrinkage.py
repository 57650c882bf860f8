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
"""Weight where nothing can be fitted: for a mean, and where a task never or always happens."""


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
