"""What a bundle would have shown in place of logged lists, and what that would have earned.

The bundle scores from its snapshot: it reads what happened until the newest row that it holds, and nothing
since. Answers before that row are left out, because the bundle has learned how they ended, as are those after
the newest row of the log, of which nobody knows yet. A log says neither the filters nor the context of a
request, so the bundle's lists are those without any.

Axes: `N` lists, `K` places, `T` tasks, `B` items that the bundle ranks for a user.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mgoe.abtest.offpolicy import Array, Estimate, estimate, weigh
from mgoe.abtest.samples import DataFrame, read_rows, shown_items
from mgoe.bundle import Bundle
from mgoe.bundle.exploration import chances
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.ranking import Query, rank_users, wanted
from mgoe.bundle.request import RankingRequest
from mgoe.bundle.sampling import in_whole_space
from mgoe.config.experiment import ExploreSettings
from mgoe.errors import DataError

LISTS_PER_BLOCK = 1000
"""Lists of one user that are followed at once, which bounds memory."""


@dataclass(frozen=True)
class PolicyEstimate:
    """What the lists of a bundle would have earned."""

    bundle: str
    lists: int
    users: int
    left_out: int
    """Lists that the bundle has learned, or that are newer than the log."""
    effective: float
    """Lists of the bundle's own that the log is worth."""
    support: float
    """Share of the bundle's lists that the log can show: 1 within chance."""
    estimates: list[Estimate]


def estimate_policy(
    bundle: Bundle, answers: DataFrame, log: DataFrame, explore: ExploreSettings | None = None
) -> PolicyEstimate:
    """Estimate what the lists of a bundle would have earned.

    Args:
        bundle: What would have ranked.
        answers: As of `read_answers`; those of `/v1/recommend` with propensities count.
        log: What users did, as for `read_rows`.
        explore: How the bundle would have explored; None takes the best.

    Raises:
        DataError: Nothing explored, propensities are impossible, or the log hardly shows what the bundle
            would show.
    """
    names = [f"{task}.done" for task in bundle.tasks]
    recommended = answers[(answers["route"] == "recommend") & answers["teams"].isna()]
    rows = read_rows(bundle.settings, log)
    shown = shown_items(recommended, rows, "user", "propensities", names)
    if shown.empty:
        raise DataError(
            "propensities",
            f"must be in answers of /v1/recommend, found none in {len(answers):,} answers; give an arm "
            "`explore`, which logs how probable each item was",
        )
    until = int(rows["time"].max())
    since = round(datetime.fromisoformat(bundle.manifest.lineage.log[1]).timestamp() * 1e6)
    usable = shown[(shown["time"] > since) & (shown["time"] <= until)]
    left_out = shown["answer"].nunique() - usable["answer"].nunique()
    if usable.empty:
        raise DataError(
            "--answers",
            f"must be later than what the bundle has learned, until {iso_time(since)}, and not later than "
            f"the log, until {iso_time(until)}, found none in {left_out:,} lists; estimate an older bundle, "
            "or export both again later",
        )
    lists, users = usable["answer"].factorize()[0], usable.drop_duplicates("answer")["user"].factorize()
    at = lists, usable["place"].to_numpy(int)
    shape = lists.max() + 1, at[1].max() + 1
    propensities, items, there = np.full(shape, np.nan), np.full(shape, -1), np.zeros(shape, bool)
    propensities[at], there[at] = usable["propensities"].astype(float), True
    items[at] = bundle.indices("item", usable["item"].tolist())
    rewards = np.zeros((*shape, len(names)))
    rewards[at] = usable[names]
    policy, predicted, expected = _follow(
        bundle, bundle.indices("user", users[1].tolist()), users[0], items, np.bincount(lists), explore
    )
    weights = weigh(propensities, policy, there, users[0])
    estimates = [
        by_method
        for t, task in enumerate(bundle.tasks)
        for by_method in estimate(task, weights, rewards[..., t], predicted[..., t], expected[..., t])
    ]
    return PolicyEstimate(
        bundle=bundle.name,
        lists=len(propensities),
        users=len(users[1]),
        left_out=left_out,
        effective=weights.effective,
        support=weights.support,
        estimates=estimates,
    )


def _follow(
    bundle: Bundle,
    indices: NDArray[np.int64],
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    lengths: NDArray[np.int64],
    explore: ExploreSettings | None,
) -> tuple[Array, Array, Array]:
    """Follow logged lists place by place.

    Args:
        bundle: What would have ranked.
        indices: Index of each user.
        users: Number of each list's user. Shape (N,).
        items: Indices of the items that were shown, -1 if never seen. Shape (N, K).
        lengths: Places of each list. Shape (N,).
        explore: How the bundle would have explored.

    Returns:
        The probability with which the bundle shows what was shown, (N, K); how often it expects each task
        with that item, and with the one that it would draw, both of shape (N, K, T).
    """
    n, k = items.shape
    query = Query.read(bundle, RankingRequest(k=k), bundle.objective, np.empty(0, np.int64))
    query = replace(query, k=wanted(bundle, query, bundle.n_items))
    by_user = np.split(np.argsort(users, kind="stable"), np.cumsum(np.bincount(users))[:-1])
    policy, (predicted, expected) = np.zeros((n, k)), np.zeros((2, n, k, len(bundle.tasks)))
    rankings = rank_users(bundle, bundle, indices.tolist(), query)
    for lists_of_user, ranked in zip(by_user, rankings, strict=True):
        scores, by_item = in_whole_space(ranked.scores, bundle.settings.tasks), np.argsort(ranked.items)
        for lists in np.array_split(lists_of_user, len(lists_of_user) // LISTS_PER_BLOCK + 1):
            free, each = np.ones((len(lists), len(by_item)), bool), np.arange(len(lists))
            places = np.searchsorted(ranked.items, items[lists], sorter=by_item)
            rows = by_item[np.minimum(places, len(by_item) - 1)]
            are_ranked = ranked.items[rows] == items[lists]
            left = np.minimum(lengths[lists], len(by_item))
            for place in range(k):
                odds = chances(ranked.values, free, explore, left - place)
                row, is_ranked = rows[:, place], are_ranked[:, place]
                policy[lists, place] = odds[each, row] * is_ranked
                predicted[lists, place] = scores[row]
                expected[lists, place] = odds @ scores
                free[each[is_ranked], row[is_ranked]] = False
    return policy, predicted, expected
