"""Popularity: the same list for everybody, by events of which older ones count less."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import Baseline, Budget
from mgoe.topn.lists import Events, Scores


def fit_popularity(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Score every item by its events, each of which counts 2^(-age / half_life)."""
    weight = np.exp2(-events.age / settings["half_life"])
    sums = np.bincount(events.item, weight, minlength=events.shape[1]).astype(np.float64)
    return lambda users: np.broadcast_to(sums, (len(users), len(sums)))


POPULARITY = Baseline(
    fit_popularity, {"half_life": 7.0}, {"half_life": RangeSettings(low=0.1, high=200.0, log=True)}
)
