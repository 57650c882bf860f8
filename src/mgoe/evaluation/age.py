"""What the age of weights costs, whatever windows are hard.

Trainings that end one window apart are measured on every later window, which makes a triangle of cells. How
much worse training i is on window j is taken for a sum,

    y_ij = window_j + age_(j - i),    age_0 = 0,

fitted by least squares over the cells. A window that is hard for all trainings counts for no age. The loss
per day is the slope of y_ij = window_j + slope * days_ij instead.

Two things vary. Other users: both losses are weighted sums of cells, so the influence of a user on them is
the same sum of the user's influences on the cells. Other trainings: one that came out well by chance is good
on all windows, which looks like youth or age. How much that moves a loss shows when each training is left out
in turn (jackknife; Efron & Tibshirani 1993, 11), whose pseudo-values take the place of seeds in the interval
of a metric. An age that a single training has reached has no interval.

Axes: `N` cells, `K` coefficients, `C` users, `M` metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.influence import Influence
from mgoe.evaluation.intervals import DRAWS, Estimate, estimate
from mgoe.evaluation.rows import LOWER

Place = tuple[int, int]
"""The first window that a training has not learned, and the window that it is measured on."""
DAY = None
"""Stands for a day of age, where others are numbers of windows."""


Cells = Mapping[Place, Influence]
"""Metrics of each training on each window, with the influence of users."""


def estimate_ages(
    model: str, by_seed: Sequence[Cells], days: Mapping[Place, float], draws: int = DRAWS
) -> dict[int | None, list[Estimate]]:
    """Return what `losses_of_age` does for the mean over seeds, with intervals over users and trainings.

    Args:
        model: Its name.
        by_seed: Cells of each seed, on the same rows.
        days: Age of the weights of each cell.
        draws: Of the bootstrap.

    Returns:
        Estimates by age, whose `by_seed` holds one pseudo-value per training.

    Example:
        >>> def measured(age):
        ...     parts = np.linspace(-0.01, 0.01, 50, dtype=np.float32)[:, None]
        ...     return Influence((("click", "logloss"),), np.array([0.3 + 0.1 * age]), np.arange(50), parts)
        >>> places = [(first, window) for first in range(3) for window in range(first, 3)]
        >>> days = {place: float(place[1] - place[0]) for place in places}
        >>> cells = {place: measured(age) for place, age in days.items()}
        >>> [loss] = estimate_ages("mine", [cells], days)[DAY]
        >>> round(loss.value, 3), loss.low <= 0.1 <= loss.high
        (0.1, True)
    """
    cells = {
        place: replace(
            one,
            values=np.mean([seed[place].values for seed in by_seed], axis=0),
            parts=np.mean([seed[place].parts for seed in by_seed], axis=0),
        )
        for place, one in by_seed[0].items()
    }
    trainings = {first for first, _ in cells}
    without = [losses_of_age({at: one for at, one in cells.items() if at[0] != t}, days) for t in trainings]
    found = {}
    for age, loss in losses_of_age(cells, days).items():
        unknown = replace(loss, values=np.full_like(loss.values, np.nan))
        left = np.stack([others.get(age, unknown).values for others in without])
        pseudo = loss.values + (len(trainings) - 1) * (left.mean(axis=0) - left)
        one = estimate(model, [replace(loss, values=values) for values in pseudo], draws)
        found[age] = [replace(e, value=float(v)) for e, v in zip(one, loss.values, strict=True)]
    return found


def losses_of_age(cells: Cells, days: Mapping[Place, float]) -> dict[int | None, Influence]:
    """Return what each age costs in every metric; positive is worse, whichever way the metric is read.

    A cell in which too few users carry a metric is left out for it.

    Args:
        cells: Metrics of each training on each window, with the influence of users.
        days: Age of the weights of each cell, from the end of the training to the start of the window.

    Returns:
        Losses by age in windows, from 1; under `DAY`, the loss per day. NaN where the cells do not tell.

    Example:
        >>> def measured(value):
        ...     return Influence((("click", "logloss"),), np.array([value]), np.arange(2), np.zeros((2, 1)))
        >>> cells = {(0, 0): measured(0.3), (0, 1): measured(0.6), (1, 1): measured(0.5)}
        >>> found = losses_of_age(cells, {(0, 0): 0.0, (0, 1): 2.0, (1, 1): 0.0})
        >>> [round(float(found[age].values[0]), 3) for age in (1, DAY)]
        [0.1, 0.05]
    """
    places = np.array([*cells])
    ages = places[:, 1] - places[:, 0]
    older = np.unique(ages[ages > 0])
    windows = (places[:, 1:] == np.unique(places[:, 1])).astype(float)
    of_days = np.array([[days[place]] for place in cells])
    found = [
        loss
        for columns in ((ages[:, None] == older).astype(float), of_days)
        for loss in _coefficients([*cells.values()], columns, windows)
    ]
    return dict(zip([*older.tolist(), DAY], found, strict=True))


def _coefficients(
    cells: Sequence[Influence], columns: NDArray[np.float64], windows: NDArray[np.float64]
) -> list[Influence]:
    """Return the coefficients of columns (N, K) beside those of windows."""
    names, design = cells[0].names, np.hstack([columns, windows])
    worse = np.array([1.0 if LOWER.fullmatch(metric) else -1.0 for _, metric in names])
    values = np.stack([cell.values for cell in cells])  # (N, M)
    carried = np.stack([~np.isnan(cell.parts).any(axis=0) for cell in cells]) & ~np.isnan(values)
    weights = np.stack([_weights(design, there, columns.shape[1]) for there in carried.T], axis=-1) * worse
    users = np.unique(np.concatenate([cell.users for cell in cells]))
    parts = np.zeros((len(weights), len(users), len(names)))
    for cell, there, weight in zip(cells, carried, weights.transpose(1, 0, 2), strict=True):
        rows = np.searchsorted(users, cell.users)
        parts[:, rows] += weight[:, None] * np.where(there, cell.parts, 0.0)
    totals = (weights * np.where(carried, values, 0.0)).sum(axis=1)
    return [
        Influence(names, *one)
        for one in zip(totals, [users] * len(parts), parts.astype(np.float32), strict=True)
    ]


def _weights(design: NDArray[np.float64], there: NDArray[np.bool_], wanted: int) -> NDArray[np.float64]:
    """Return the weights of cells in the first `wanted` coefficients, NaN where cells do not tell. Shape
    (K, N)."""
    weights, kept = np.zeros((wanted, len(design))), design[there]
    inverse = np.linalg.pinv(kept, rcond=1e-10)
    weights[:, there] = inverse[:wanted]
    told = np.isclose(inverse @ kept, np.eye(design.shape[1]))[:wanted].all(axis=1)
    weights[~told] = np.nan
    return weights
