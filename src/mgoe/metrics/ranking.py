"""How well scores order: AUC, GAUC, and positions in a ranked catalogue.

Ties are exact everywhere: a tied pair counts one half.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.metrics.labels import labelled, mean_ranks


@dataclass(frozen=True)
class Gauc:
    """AUC within groups, and the number of groups behind it.

    Attributes:
        value: Mean of the groups' AUC, weighted by their rows; NaN where no group has both classes.
        groups_used: Groups with both classes.
        groups_skipped: Groups with rows of one class only.

    Example:
        >>> gauc([0, 1, 1], [0.1, 0.3, 0.2], ["ann", "ann", "bob"]).groups_skipped
        1
    """

    value: float
    groups_used: int
    groups_skipped: int


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a positive is scored above a negative, ties one half (Mann-Whitney).

    Args:
        labels: Positive where above 0, missing where NaN. Shape (N,).
        scores: Any monotone scale. Shape (N,).

    Returns:
        The AUC; NaN with one class only or a NaN score.

    Example:
        >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.6])
        0.75
    """
    labels, scores = labelled(labels, scores)
    if len(scores) == 0 or np.isnan(scores).any():
        return np.nan
    [area] = group_auc(labels, scores, np.zeros(len(labels), np.uint8))[1]
    return float(area)


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Gauc:
    """AUC within each group, weighted by the group's rows (impressions), over groups with both classes (Zhu
    et al., KDD 2017).

    Args:
        labels: Positive where above 0, missing where NaN. Shape (N,).
        scores: Any monotone scale. Shape (N,).
        groups: Group of each row, usually the user. Shape (N,).

    Example:
        >>> gauc([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.5], ["ann", "ann", "bob", "bob"])
        Gauc(value=0.5, groups_used=2, groups_skipped=0)
    """
    _, areas, rows = group_auc(labels, scores, groups)
    used = ~np.isnan(areas)
    spoilt = np.isnan(labelled(labels, scores)[1]).any()
    value = np.nan if spoilt or not used.any() else float(areas[used] @ rows[used] / rows[used].sum())
    return Gauc(value, int(used.sum()), int(len(areas) - used.sum()))


def group_auc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> tuple[NDArray, NDArray[np.float64], NDArray[np.int64]]:
    """AUC of every group that has rows, by one sort.

    Returns:
        Groups, rising; their AUC, NaN with one class only; their rows with a label. Each of shape (G,).

    Example:
        >>> group_auc([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.5], ["ann", "ann", "bob", "bob"])[1]
        array([1., 0.])
    """
    labels, scores, groups = labelled(labels, scores, groups)
    if len(groups) == 0:
        return groups, np.zeros(0), np.zeros(0, np.int64)
    order = np.lexsort((scores, groups))
    positive, scores, groups = (labels > 0)[order], scores[order], groups[order]
    group_starts = _starts(groups)
    starts = _starts(scores, groups)
    up = np.add.reduceat(positive, starts, dtype=np.int64)
    down = np.diff(starts, append=len(groups)) - up
    first = np.searchsorted(starts, group_starts)  # the first run of equal scores of each group
    downs = np.add.reduceat(down, first)
    before = (
        np.cumsum(down) - down - np.repeat(np.cumsum(downs) - downs, np.diff(first, append=len(starts)))
    )  # negatives below, same group
    twice = np.add.reduceat(up * (2 * before + down), first)  # whole numbers, so that ties are exact
    pairs = np.add.reduceat(up, first) * downs
    areas = np.divide(twice, 2 * pairs, out=np.full(len(group_starts), np.nan), where=pairs > 0)
    return groups[group_starts], areas, np.diff(group_starts, append=len(groups))


def spearman_within(labels: ArrayLike, values: ArrayLike, groups: ArrayLike) -> float:
    """Correlation of ranks within each group, weighted by the group's rows, over groups in which neither
    labels nor values are all equal; NaN if there is none (ours).

    Args:
        labels: Missing where NaN. Shape (N,).
        values: Shape (N,).
        groups: Group of each row, usually the user. Shape (N,).

    Example:
        >>> spearman_within([1, 2, 3, 5, 4], [10, 20, 30, 1, 2], ["ann", "ann", "ann", "bob", "bob"])
        0.2
    """
    labels, values, groups = labelled(labels, values, groups)
    if len(labels) == 0 or np.isnan(values).any():
        return np.nan
    _, group = np.unique(groups, return_inverse=True)
    a, b = (_ranks_within(np.asarray(one, np.float64), group) for one in (labels, values))
    product, *squares = (np.bincount(group, one) for one in (a * b, a * a, b * b))
    scale, rows = np.sqrt(squares[0] * squares[1]), np.bincount(group)
    used = scale > 0
    return float(rows[used] @ (product[used] / scale[used]) / rows[used].sum()) if used.any() else np.nan


def placements(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Share of the other class that each row is ranked correctly against, ties one half (DeLong et al.,
    1988).

    The mean over positives and the mean over negatives both equal the AUC.

    Args:
        labels: Positive where above 0; none missing. Shape (N,).
        scores: Any monotone scale. Shape (N,).

    Returns:
        For a positive, the share of negatives below it; for a negative, the share of positives above it. All
        NaN with one class only or a NaN score. Shape (N,).

    Example:
        >>> placements([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.6])
        array([1. , 0.5, 0.5, 1. ])
    """
    positive, scores = np.asarray(labels) > 0, np.asarray(scores)
    n_up, n_down = int(positive.sum()), int((~positive).sum())
    if n_up == 0 or n_down == 0 or np.isnan(scores).any():
        return np.full(len(positive), np.nan)
    below = mean_ranks(scores)  # of all rows; less those of its own class, it counts the other class
    for side in (positive, ~positive):
        below[side] -= mean_ranks(scores[side])
    return np.where(positive, below / n_down, (n_up - below) / n_up)


def hit_rate_at(ranks: ArrayLike, queries: ArrayLike, k: int) -> float:
    """Share of queries with a relevant item among the first k (HR@k).

    Args:
        ranks: Rank of each relevant item in its query's list, from 1; a half where it is tied, NaN where it
            is not known. Shape (N,).
        queries: Query of each. Every query has a relevant item. Shape (N,).
        k: Depth.

    Example:
        >>> hit_rate_at([1, 12], ["first query", "second query"], k=10)
        0.5
    """
    return _mean(hits_at(ranks, queries, k))


def ndcg_at(ranks: ArrayLike, queries: ArrayLike, k: int) -> float:
    """Mean over queries of the discounted gain of relevant items among the first k, over the best reachable
    (Järvelin, 2002).

    Gains are 0 or 1 and the discount is 1 / log2(1 + rank). Arguments as for `hit_rate_at`.

    Example:
        >>> ndcg_at([1, 3], ["first query", "second query"], k=10)
        0.75
    """
    return _mean(gains_at(ranks, queries, k))


def hits_at(ranks: ArrayLike, queries: ArrayLike, k: int) -> NDArray[np.float64]:
    """Whether each query, in rising order, has a relevant item among the first k, see `hit_rate_at`.

    Example:
        >>> hits_at([1, 12], ["first query", "second query"], k=10)
        array([1., 0.])
    """
    ranks, query = _numbered(ranks, queries)
    hits = np.bincount(query, weights=np.where(np.isnan(ranks), np.nan, ranks <= k))
    return np.minimum(hits, 1)


def gains_at(ranks: ArrayLike, queries: ArrayLike, k: int) -> NDArray[np.float64]:
    """The gain of each query, in rising order, see `ndcg_at`.

    Example:
        >>> gains_at([1, 3], ["first query", "second query"], k=10)
        array([1. , 0.5])
    """
    ranks, query = _numbered(ranks, queries)
    found = np.bincount(query, weights=(ranks <= k) / np.log2(1 + ranks))
    best = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return found / best[np.minimum(np.bincount(query), k) - 1]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _numbered(ranks: ArrayLike, queries: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ranks, and the number of each query."""
    return np.asarray(ranks, np.float64), np.unique(np.asarray(queries), return_inverse=True)[1]


def _ranks_within(values: NDArray[np.float64], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the rank of each value within its group, ties at their mean rank, less the group's mean."""
    order, run = np.lexsort((values, group)), np.zeros(len(values), np.int64)
    run[order[_starts(values[order], group[order])]] = 1
    run[order] = np.cumsum(run[order])
    ranks = mean_ranks(run)
    return ranks - (np.bincount(group, ranks) / np.bincount(group))[group]


def _starts(*columns: NDArray) -> NDArray[np.int64]:
    """Where a run of equal rows begins, in sorted columns."""
    change = np.zeros(len(columns[0]), bool)
    change[:1] = True
    for column in columns:
        change[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(change)
