"""Measuring lists: how many users find what they then did, where in the list, and how varied lists are.

Every measure but coverage is a mean over users, or over events of users where these are asked for. So each
user's influence on it is known exactly, and intervals and paired differences follow as for all other metrics
(`evaluation.influence`).

Axes: `Q` users, `N` places of a list, `P` relevant pairs, `M` measures.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation import ALL, FEWEST, Influence
from mgoe.metrics.ranking import gains_at, hits_at
from mgoe.topn.lists import Queries


def measure_lists(lists: NDArray[np.int64], queries: Queries, depths: Sequence[int]) -> Influence:
    """Measure lists at several depths.

    `ndcg@k` and `hr@k` are those of `mgoe.metrics`; `mrr@k` is the mean of 1 / rank of the first relevant
    item, 0 below k; `recall@k` the share of a user's relevant items in the list; `novelty@k` the mean
    information -log2(share of users who did the item) of listed items; `coverage@k` the share of all known
    items that are in somebody's list, which has no interval.

    Args:
        lists: Items by index, best first, -1 at the end. Shape (Q, N).
        queries: The same users.
        depths: Each at most N.

    Returns:
        Measures under the task `all`, with the influence of each user on them.
    """
    columns: dict[tuple[str, str], NDArray[np.float64]] = {}
    for depth in depths:
        columns |= {(ALL, f"{name}@{depth}"): found for name, found in _found(lists, queries, depth).items()}
        columns[ALL, f"novelty@{depth}"] = _novelty(lists[:, :depth], queries)
    means = mean_over_users(columns, queries.whose)
    covered = {(ALL, f"coverage@{depth}"): _coverage(lists[:, :depth], queries) for depth in depths}
    return Influence(
        names=(*means.names, *covered),
        values=np.concatenate([means.values, [*covered.values()]]),
        users=means.users,
        parts=np.hstack([means.parts, np.full((len(means.parts), len(covered)), np.nan, np.float32)]),
    )


def mean_over_users(
    columns: Mapping[tuple[str, str], NDArray[np.float64]], users: NDArray[np.int64]
) -> Influence:
    """Return measures that are means over users or their events, with the influence of each user on them.

    Args:
        columns: Values of the users, or events, by task and measure. Shape (Q,) each.
        users: The user of each. Shape (Q,).

    Example:
        >>> found = mean_over_users({("all", "hr@1"): np.array([1.0, 0.0])}, np.array([3, 7]))
        >>> found.values
        array([0.5])
    """
    values = np.stack([*columns.values()], axis=1)  # (Q, M)
    means = values.mean(axis=0)
    distinct, of = np.unique(users, return_inverse=True)
    parts = np.zeros((len(distinct), len(columns)))
    np.add.at(parts, of, (values - means) / len(values))
    parts[:, :] = parts if len(distinct) >= FEWEST else np.nan
    return Influence(tuple(columns), means, distinct, parts.astype(np.float32))


def ranks_of(lists: NDArray[np.int64], queries: Queries) -> NDArray[np.float64]:
    """Return the rank of each relevant item in its user's list, from 1; infinite if it is not there.

    Shape (P,).
    """
    there = lists[np.searchsorted(queries.users, queries.user)] == queries.item[:, None]  # (P, N)
    return np.where(there.any(axis=1), there.argmax(axis=1) + 1.0, np.inf)


def _found(lists: NDArray[np.int64], queries: Queries, depth: int) -> dict[str, NDArray[np.float64]]:
    """Return what each user finds among the first items. Shape (Q,) each."""
    ranks = ranks_of(lists[:, :depth], queries)
    starts = np.searchsorted(queries.user, queries.users)
    relevant = np.diff(starts, append=len(ranks))
    return {
        "ndcg": gains_at(ranks, queries.user, depth),
        "hr": hits_at(ranks, queries.user, depth),
        "mrr": 1 / np.minimum.reduceat(ranks, starts),
        "recall": np.add.reduceat(np.isfinite(ranks).astype(np.float64), starts) / relevant,
    }


def _novelty(lists: NDArray[np.int64], queries: Queries) -> NDArray[np.float64]:
    """Return the mean information of each list's items, 0 for an empty list. Shape (Q,)."""
    users, items = queries.events.shape
    done_by = np.bincount(queries.events.matrix().indices, minlength=items)
    information = np.append(-np.log2((done_by + 1) / (users + 1)), 0.0)  # the last one for -1
    return information[lists].sum(axis=1) / np.maximum((lists >= 0).sum(axis=1), 1)


def _coverage(lists: NDArray[np.int64], queries: Queries) -> float:
    return len(np.unique(lists[lists >= 0])) / queries.events.shape[1]
