"""Exploration: a ranking in which chance puts some items higher than their values do.

Each place draws among the items that are left and fit, so the probability of an item given those above it is
known: it is the propensity that a later estimate divides by.

Axes: `B` items, the best first, `L` values of an item that are counted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.config.experiment import ExploreSettings


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
    free, rows, propensities = np.ones(len(values), bool), list[int](), list[float]()
    first = 0 if how.last is None else min(k, len(values)) - how.last
    for place in range(min(k, len(values))):
        left = np.flatnonzero(free)
        if not len(left):
            break
        row, propensity = int(left[0]), 1.0
        if place >= first:
            chances = _chances(values[left], how)
            sums = np.cumsum(chances)
            at = np.searchsorted(sums, draws.random() * sums[-1], side="right")
            # rounding may reach the whole sum: no item after the first that has it has a chance
            at = min(at, np.searchsorted(sums, sums[-1]))
            row, propensity = int(left[at]), float(chances[at] / sums[-1])
        free[row] = False
        for value in held[row][held[row] >= 0]:
            most[value] -= 1
            if most[value] == 0:
                free &= ~(held == value).any(axis=1)
        rows.append(row)
        propensities.append(propensity)
    return np.array(rows, np.int64), np.array(propensities)


def _chances(values: NDArray[np.float64], how: ExploreSettings) -> NDArray[np.float64]:
    """Return the chances of items, the best first, up to a factor."""
    if how.temperature is not None:
        with np.errstate(over="ignore"):  # to nothing
            return np.exp((values - values[0]) / how.temperature)
    epsilon = how.epsilon or 0.0
    chances = np.full(len(values), epsilon / len(values))
    chances[0] += 1 - epsilon
    return chances
