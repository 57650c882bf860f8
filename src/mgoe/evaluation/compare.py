"""Is one model better than another: differences over seeds and users, with an interval.

Two things vary. Other test users would have come: the variance over users of the seeds' mean influence. Other seeds would have
trained other models: the variance over seeds of the difference, divided by their number. The interval adds both (ours; what seeds do
to single users is in both, which makes the interval a little wider, never narrower), with C users who carry the metric:

    d +- t * sqrt(C/(C-1) * sum over users of mean over seeds of influence^2  +  s^2 / seeds)

with the degrees of freedom of t after Welch and Satterthwaite. With one seed only users vary, and the interval says nothing of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mgoe.evaluation.influence import Influence, carriers

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Attributes:
        model: Whose.
        rival: Whose value was subtracted, seed by seed; None for the model's own value.
        task, metric: Of what.
        value: Mean over seeds.
        low, high: Interval over users and seeds; over users alone with one seed; NaN where it does not exist.
        by_seed: The seeds' own values.
        users: How many test users carry it, or groups of them where they were dealt into groups.
    """

    model: str
    rival: str | None
    task: str
    metric: str
    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    users: int


def estimate(model: str, influences: Sequence[Influence]) -> list[Estimate]:
    """A model's own metrics, each the mean over its seeds' influences."""
    return _estimates(model, None, influences)


def compare(model: str, ours: Sequence[Influence], rival: str, theirs: Sequence[Influence]) -> list[Estimate]:
    """Paired differences `model - rival` of every metric.

    Args:
        model, rival: Names.
        ours, theirs: Influence of each seed on the same test rows; the same seeds in the same order.
    """
    return _estimates(model, rival, [a - b for a, b in zip(ours, theirs, strict=True)])


def _estimates(model: str, rival: str | None, influences: Sequence[Influence]) -> list[Estimate]:
    values = np.stack([one.values for one in influences])  # (seeds, M)
    seeds = len(values)
    parts = np.stack([one.parts for one in influences]).mean(0, dtype=np.float64)  # (C, M)
    users = carriers(parts)
    free = np.maximum(users - 1, 1)
    of_users = (parts**2).sum(0) * users / free if len(parts) > 1 else np.full(values.shape[1], np.nan)
    of_seeds = values.var(0, ddof=1) / seeds if seeds > 1 else np.zeros(values.shape[1])
    half = _half_width(of_users, free, of_seeds, seeds - 1)
    found = []
    for m, (task, metric) in enumerate(influences[0].names):
        mean = float(values[:, m].mean())
        low, high = float(mean - half[m]), float(mean + half[m])
        found.append(
            Estimate(model, rival, task, metric, mean, low, high, tuple(values[:, m].tolist()), int(users[m]))
        )
    return found


def _half_width(of_users: NDArray, users_free: NDArray, of_seeds: NDArray, seeds_free: int) -> NDArray:
    """Half of the interval from two variances and their degrees of freedom (Satterthwaite 1946)."""
    total = of_users + of_seeds
    spread = of_users**2 / users_free + (of_seeds**2 / seeds_free if seeds_free > 0 else 0)
    free = np.divide(total**2, spread, out=np.ones_like(total), where=spread > 0)
    return stdtrit(free, 0.5 + LEVEL / 2) * np.sqrt(total)
