"""A warning where pairs are predicted whose outcomes a graph already holds."""

import warnings

import numpy as np
from numpy.typing import NDArray

from mgoe.features import View, read

FEW_PAIRS, SOME_PAIRS = 20, 2_000
"""Fewest pairs of which it is said that most are known, and those that are looked up."""
MOST = 0.9
"""Share of the pairs: in a dense log, half of all pairs may be known."""


class KnownOutcomes(UserWarning):
    """Pairs are predicted whose outcomes the graph already holds.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", KnownOutcomes)  # where past purchases are scored on purpose
    """


def warn_of_known(view: View, users: NDArray[np.int64], items: NDArray[np.int64]) -> bool:
    """Warn if most pairs are in the history: a caller may measure on rows that the graph has seen.

    Args:
        view: What scores are read from.
        users, items: By index. Shape (n,) each.

    Returns:
        Whether it warned.
    """
    if len(users) < FEW_PAIRS:
        return False
    done = read(view, users[:SOME_PAIRS], items[:SOME_PAIRS], ("pair",))["pair"][:, :-1].any(axis=1)
    if done.mean() < MOST:
        return False
    warnings.warn(
        f"predict: {done.mean():.0%} of these pairs are in the history that the graph holds, so the scores "
        "know their outcomes; to measure a model, use evaluate, which reads rows as of their own time",
        KnownOutcomes,
        stacklevel=3,
    )
    return True
