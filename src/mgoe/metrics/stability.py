"""How far a distribution has moved: the population stability index."""

import numpy as np
from numpy.typing import ArrayLike


def stability_index(expected: ArrayLike, actual: ArrayLike) -> float:
    """Return the population stability index of two histograms with the same bins.

    sum over bins of (a - e) ln(a / e), of the shares e and a of both. Half a row is added to every bin, so
    that an empty one counts as rare. By chance it is about (bins - 1) (1 / rows + 1 / other rows); 0.1 is
    often called a small change and 0.25 a large one. NaN if a histogram has no rows.

    Args:
        expected, actual: Rows per bin. Shape (bins,).

    Example:
        >>> round(stability_index([50, 50], [50, 50]), 3), round(stability_index([50, 50], [90, 10]), 3)
        (0.0, 0.853)
    """
    counts = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    if not all(one.sum() > 0 for one in counts):
        return np.nan
    e, a = ((one + 0.5) / (one + 0.5).sum() for one in counts)
    return float(((a - e) * np.log(a / e)).sum())
