"""Popularity, the same list for everybody, and a user's own most frequent items. Older events count less."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import HALF_LIFE, Baseline, Budget
from mgoe.topn.lists import FORGOTTEN, Events, Scores

RECENCY = RangeSettings(low=0.02, high=200.0, log=True)
"""Days, from half an hour on, after which an event counts half of what everybody does."""


def fit_popularity(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Score every item by its events, each of which counts 2^(-age / half_life)."""
    sums = decayed_counts(events, settings["half_life"])
    return lambda users: np.broadcast_to(sums, (len(users), len(sums)))


def fit_frequent(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Score a user's own items by their events, as popularity does; then come popular items, all of which
    score less than an own one."""
    profiles = events.profiles.matrix(settings["half_life"])
    popular = decayed_counts(events, settings["popular_half_life"])
    fill = (FORGOTTEN / 2 * popular / max(FORGOTTEN, popular.max(initial=0))).astype(np.float32)
    return lambda users: profiles[users].toarray() + fill


def decayed_counts(events: Events, half_life: float) -> NDArray[np.float64]:
    """Return the sum of 2^(-age / half_life) over the events of each item. Shape (I,)."""
    weight = np.exp2(-events.age / half_life)
    return np.bincount(events.item, weight, minlength=events.shape[1]).astype(np.float64)


POPULARITY = Baseline(fit_popularity, {"half_life": 7.0}, {"half_life": RECENCY}, by_profile=True)
FREQUENT = Baseline(
    fit_frequent,
    {"half_life": 30.0, "popular_half_life": 7.0},
    {"half_life": HALF_LIFE, "popular_half_life": RECENCY},
    by_profile=True,
)
