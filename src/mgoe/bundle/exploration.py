"""Exploration: a ranking in which chance puts some items higher than their values do.

Each place draws among the items that are left and fit, so the probability of an item given those above it is
known: it is the propensity that a later estimate divides by.

Axes: `B` items, the best first, `L` values of an item that are counted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.config.experiment import ExploreSettings

MIN_ODDS = 1e-100
"""Odds of the best item below which all are computed again, before they are too small to be exact."""
MAX_DISTANCE = 200
"""Distance of the worst item from the best, in temperatures, from which odds are computed place by place."""


class Exploration(NamedTuple):
    """How a ranking explores.

    Attributes:
        how: The settings.
        seed: The same one draws the same list.
    """

    how: ExploreSettings
    seed: int


def explored(
    values: NDArray[np.float64],
    held: NDArray[np.int64],
    most: NDArray[np.int64],
    k: int,
    exploration: Exploration,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw the items of a list.

    Args:
        values: What orders them, falling. Shape (B,).
        held: What each holds of what is counted, padded with -1. Shape (B, L).
        most: How often each of these may come.
        k: Places of the list.
        exploration: How.

    Returns:
        Their rows, and the probability of each given those above it, both of shape (n,).
    """
    how, draws, most = exploration.how, np.random.default_rng(exploration.seed), most.copy()
    n = min(k, len(values))
    if n and how.temperature is not None and not most.size:
        below = (values - values[0]) / how.temperature
        if below[-1] > -MAX_DISTANCE:
            return _raced(np.exp(below), n, draws)
    free, rows, propensities = np.ones(len(values), bool), list[int](), list[float]()
    first = 0 if how.last is None else n - how.last
    odds = np.zeros(len(values))
    for place in range(n):
        row, propensity = int(free.argmax()), 1.0
        if not free[row]:
            break
        if place >= first:
            if how.epsilon is not None:
                odds = free * (how.epsilon / np.count_nonzero(free))
                odds[row] += 1 - how.epsilon
            elif odds[row] < MIN_ODDS:
                odds = _odds(values - values[row], free, how.temperature)
            sums = np.cumsum(odds)
            at = sums.searchsorted(draws.random() * sums[-1], side="right")
            # rounding may reach the whole sum: no item after the first that has it has a chance
            row = int(min(at, sums.searchsorted(sums[-1])))
            propensity = float(odds[row] / sums[-1])
        free[row], odds[row] = False, 0
        for value in held[row][held[row] >= 0] if most.size else ():
            most[value] -= 1
            if most[value] == 0:
                free &= ~(held == value).any(axis=1)
                odds *= free
        rows.append(row)
        propensities.append(propensity)
    return np.array(rows, np.int64), np.array(propensities)


def chances(
    values: NDArray[np.float64],
    free: NDArray[np.bool_],
    how: ExploreSettings | None,
    left: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return how probable each item is at a place of lists.

    Args:
        values: What orders the items, falling. Shape (B,).
        free: Which are not above the place already. Shape (N, B).
        how: None always takes the best.
        left: Places of each list from this one on. Shape (N,).

    Returns:
        Shape (N, B); zeros where no item is left.
    """
    best = (free & (free.cumsum(1) == 1)).astype(np.float64)
    if how is None:
        return best
    if how.epsilon is not None:
        drawn = how.epsilon * free / np.maximum(free.sum(1, keepdims=True), 1) + (1 - how.epsilon) * best
        return np.where(left[:, None] <= (how.last or 0), drawn, best)
    odds = _odds(values - (best @ values)[:, None], free, how.temperature)
    return odds / np.maximum(odds.sum(1, keepdims=True), 1)


def _raced(
    odds: NDArray[np.float64], n: int, draws: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw all places at once: items come as fast as their odds, and the first to come is as probable."""
    order = np.argsort(draws.exponential(size=len(odds)) / odds)
    rows, rest = order[:n], odds[order[n:]].sum()
    return rows, odds[rows] / (rest + np.cumsum(odds[rows][::-1])[::-1])


def _odds(
    values: NDArray[np.float64], free: NDArray[np.bool_], temperature: float | None
) -> NDArray[np.float64]:
    """Return the odds of items by their distance to the best that is left, none for those that are not."""
    with np.errstate(over="ignore"):  # to nothing
        return np.exp(np.minimum(values, 0) / (temperature or 1.0)) * free
