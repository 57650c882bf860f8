"""Ranking of the whole catalogue: HR@k and NDCG@k for a seeded sample of users.

A query is one user of the split; relevant are the items that this user did the task on in the split. The
catalogue is every item known at the snapshot, those the user knows already included, since people do come
back. An item that came later cannot be ranked by anyone and is no relevant item either. Equal scores share
their mean rank, so that a model gains nothing by scoring all items alike. A list with a NaN has no order:
its query is NaN, and so is the mean over queries.

Axes: `N` examples, `T` tasks, `I` items of the catalogue, `B` pairs of a block, `Q` queries.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.rows import ALL, Row
from mgoe.metrics import Task, hit_rate_at, mean_defined, ndcg_at

Score = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating]]
"""Users (B,) and items (B,) to scores (B, T)."""
BLOCK = 65_536
"""Pairs scored at a time."""


def rank_catalogue(
    score: Score,
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    tasks: Sequence[Task],
    *,
    catalogue: int,
    queries: int,
    k: Sequence[int],
    model: str,
    seed: int,
    split: str,
    query_seed: int,
) -> list[Row]:
    """Return rows `hr@k`, `ndcg@k` and `queries` per binary task, and the means of the first two over tasks.

    Args:
        score: The model.
        labels, users, items: Of the split's examples. Shape (N, T), (N,), (N,), `N` examples and `T` tasks.
        tasks: T of them.
        catalogue: Number of items known at the snapshot that the split reads, which have the indices below
            it.
        queries: Users drawn among those with something relevant; all of them if they are fewer.
        k: Depths.
        model, seed, split: Written into the rows.
        query_seed: Seed of the draw; the same for all models.

    Returns:
        NaN where no query has anything relevant.
    """
    binary = [t for t, task in enumerate(tasks) if task.kind == "binary"]
    relevant = (
        (labels > 0)[:, binary] & (items >= 0)[:, None] & (items < catalogue)[:, None] & (users >= 0)[:, None]
    )
    chosen = draw_queries(users[relevant.any(1)], queries, query_seed)
    kept = relevant.any(1) & np.isin(users, chosen)
    ranks = _ranks(score, chosen, users[kept], items[kept], relevant[kept], binary, catalogue)
    measures = {f"hr@{depth}": partial(hit_rate_at, k=depth) for depth in k}
    measures |= {f"ndcg@{depth}": partial(ndcg_at, k=depth) for depth in k}
    measured: dict[tuple[str, str], float] = {}
    for t, rank in zip(binary, ranks.T, strict=True):
        rank, query = rank[rank != 0], users[kept][rank != 0]
        measured |= {(tasks[t].name, metric): measure(rank, query) for metric, measure in measures.items()}
        measured[tasks[t].name, "queries"] = float(len(np.unique(query)))
    if binary:
        means = {m: mean_defined(measured[tasks[t].name, m] for t in binary) for m in measures}
        measured |= {(ALL, metric): mean for metric, mean in means.items()}
    return [
        Row(model=model, seed=seed, split=split, slice=ALL, task=task, metric=metric, value=value)
        for (task, metric), value in measured.items()
    ]


def draw_queries(users: NDArray[np.integer], queries: int, seed: int) -> NDArray[np.int64]:
    """Draw distinct users, in rising order; all of them if there are at most `queries`."""
    distinct = np.unique(users).astype(np.int64)
    if len(distinct) <= queries:
        return distinct
    return np.sort(np.random.default_rng(seed).choice(distinct, queries, replace=False))


def _ranks(
    score: Score,
    chosen: NDArray[np.int64],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    relevant: NDArray[np.bool_],
    binary: Sequence[int],
    catalogue: int,
) -> NDArray[np.float64]:
    """Rank of each relevant pair in its user's list, from 1, or NaN; 0 where it is not relevant or repeats.
    Shape (pairs, binary).
    """
    ranks = np.zeros(relevant.shape)
    at_once = max(1, BLOCK // max(1, catalogue))
    for start in range(0, len(chosen), at_once):
        group = chosen[start : start + at_once]
        scores = _score_all(score, group, catalogue)[:, :, binary]  # (group, I, binary)
        for user, lists in zip(group, scores, strict=True):
            mine = np.flatnonzero(users == user)
            for column in range(len(binary)):
                rows = mine[relevant[mine, column]]
                wanted, first = np.unique(items[rows], return_index=True)
                ranks[rows[first], column] = ranks_in(lists[:, column], wanted)
    return ranks


def ranks_in(scores: NDArray[np.floating], wanted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return ranks of items in a list, from 1; equal scores share their mean, and a list with a NaN has
    none.

    Args:
        scores: Of every item. Shape (I,).
        wanted: Items, shape (n,).

    Returns:
        Shape (n,).
    """
    ordered, own = np.sort(scores), scores[wanted]  # NaN is sorted last
    above = len(scores) - np.searchsorted(ordered, own, side="right")
    tied = len(scores) - above - np.searchsorted(ordered, own, side="left")
    return np.full(len(wanted), np.nan) if np.isnan(ordered[-1]) else above + (tied + 1) / 2


def _score_all(score: Score, users: NDArray[np.int64], catalogue: int) -> NDArray[np.floating]:
    """Score every item for each user. Shape (users, I, T)."""
    pairs = np.arange(len(users) * catalogue)
    blocks = [pairs[start : start + BLOCK] for start in range(0, len(pairs), BLOCK)]
    parts = [score(users[block // catalogue], block % catalogue) for block in blocks]
    return np.concatenate(parts).reshape(len(users), catalogue, -1)
