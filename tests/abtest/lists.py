"""Lists that a bundle showed while it explored, and what users did with them."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from mgoe.bundle import Bundle
from mgoe.bundle.exploration import Exploration, explored
from mgoe.bundle.ranking import Query, rank
from mgoe.bundle.request import RankingRequest
from mgoe.bundle.steps import finished
from mgoe.config.experiment import ExploreSettings
from tests.effort import SOAK

AFTER = 4_000_000_000_000_000
"""Microseconds since 1970, after all that a bundle of the tests has learned."""
USERS, LISTS, K = 60, 900 if SOAK else 180, 3


def ranked(bundle: Bundle, user: str, k: int, explore: Exploration | None = None) -> Any:
    """The items that the bundle shows a user, with propensities."""
    request, nothing = RankingRequest(k=k), np.empty(0, np.int64)
    query = Query.read(bundle, request, bundle.objective, nothing)
    users = bundle.indices("user", [user]).tolist()
    [found] = finished(rank(bundle, bundle, users, replace(query, explore=explore)))
    return found


def drawn(bundle: Bundle, user: str, explore: Exploration) -> Any:
    """What `ranked` returns, drawn from one ranking of the user."""
    every, nothing = _whole(bundle, user), np.empty((bundle.n_items, 0), np.int64)
    chosen, propensities = explored(every.values, nothing[: len(every.values)], nothing[0], K, explore)
    return SimpleNamespace(items=every.items[chosen], propensities=propensities)


@cache
def _whole(bundle: Bundle, user: str) -> Any:
    return ranked(bundle, user, bundle.n_items)


def logged(
    bundle: Bundle, how: ExploreSettings, lists: int = LISTS, from_one_ranking: bool = False
) -> pd.DataFrame:
    """Answers of a service that explores, or many of them quickly."""
    rows = []
    for n in range(lists):
        user, explore = str(n % USERS), Exploration(how, n)
        found = drawn(bundle, user, explore) if from_one_ranking else ranked(bundle, user, K, explore)
        rows.append(
            {
                "time": AFTER + n,
                "request": f"r{n}",
                "route": "recommend",
                "user": str(n % USERS),
                "items": [str(item) for item in bundle.ids("item", found.items)],
                "propensities": found.propensities.tolist(),
            }
        )
    same = {"use": "answer", "unit": None, "experiment": "e", "phase": "p", "arm": "a", "status": "ok"}
    return pd.DataFrame(rows).assign(**same, version="v", latency=1, teams=None)


def outcomes(answers: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Exposures whose clicks depend on the item alone: items of an even number are liked."""
    rng, every = np.random.default_rng(seed), answers.explode("items")
    item = every["items"].astype(int).to_numpy()
    click = rng.random(len(item)) < rate(item)
    return pd.DataFrame(
        {
            "user_id": every["user"].astype(int),
            "item_id": item,
            "timestamp": pd.to_datetime(every["time"] + 5, unit="us", utc=True),
            "request": every["request"],
            "click": click.astype(int),
            "buy": np.where(click, rng.random(len(item)) < 0.5, np.nan),
            "stay": 10.0 * click,
        }
    )


def rate(item: Any) -> Any:
    return np.where(np.asarray(item) % 2 == 0, 0.6, 0.2)
