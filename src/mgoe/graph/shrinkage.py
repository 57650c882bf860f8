"""Shrinking rates towards that of all cells, as far as the cells themselves say."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaln

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
    step = -(-len(labelled) // MOST_CELLS)
    n, k = labelled[::step].astype(np.int64), done[::step].astype(np.int64)
    keys, times = np.unique((n << 32 | k)[n > 0], return_counts=True)
    n, k = keys >> 32, keys & 0xFFFFFFFF

    def loss(log_weight: float) -> float:
        a, b = np.exp(log_weight) * rate, np.exp(log_weight) * (1 - rate)
        return -float((times * (betaln(k + a, n - k + b) - betaln(a, b))).sum())

    found = minimize_scalar(loss, bounds=np.log(WEIGHTS), method="bounded", options={"xatol": 0.01})
    return rate, float(np.exp(found.x))
