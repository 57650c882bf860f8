"""Measuring a model: every metric of one set of predictions over slices, and its ranking of the catalogue.

The ranking of the catalogue is measured by HR@k and NDCG@k for a seeded sample of users. A query is one user
of the split, or of one of its windows if it has several; relevant are the items that this user did the task
on there. The catalogue is every item known at the snapshot, those the user knows already included, since
people do come back. An item that came later cannot be ranked by anyone and is no relevant item either. Equal
scores share their mean rank, so that a model gains nothing by scoring all items alike. A list with a NaN has
no order: its query is NaN, and so is the mean over queries.

Axes: `N` examples, `T` tasks, `I` items of the catalogue, `B` pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mgoe import metrics
from mgoe._util.progress import ProgressBar
from mgoe.evaluation.rows import ALL, Row
from mgoe.metrics import Task

Score = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating]]
"""Users (B,) and items (B,) to scores (B, T)."""
BLOCK = 65_536
"""Pairs scored at a time, by whole users."""


def measure(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    tasks: Sequence[Task],
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    model: str,
    seed: int,
    split: str,
) -> list[Row]:
    """Measure predictions.

    A binary task has `auc`, `gauc` (by user, weighted by impressions, over the `gauc_users` with both
    classes; `gauc_users_skipped` have one), `logloss`, `calibration_error`, `predicted_over_observed`; a
    regression has `rmse`, `mae`, `spearman`, `user_spearman`; both have `users` and `examples`, which count
    what has a label, and `positives`. Task `all` has the mean `auc` and `gauc` over binary tasks and
    `ranking`, the mean of those two (the mean of the six, with three tasks). Means are over the tasks where
    the metric exists.

    Args:
        scores: Probabilities of binary tasks, values of regressions. Shape (N, T).
        labels: NaN where missing. Shape (N, T).
        users: Shape (N,).
        tasks: T of them.
        slices: Masks of shape (N,) by name, measured beside all rows.
        model, seed, split: Written into the rows.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels, users = np.array([[0.0], [1.0], [1.0]]), np.array([1, 1, 2])
        >>> whose = {"model": "mine", "seed": 0, "split": "test"}
        >>> scores, tasks = np.array([[0.2], [0.6], [0.5]]), [TaskSettings(name="click")]
        >>> found = measure(scores, labels, users, tasks, **whose)
        >>> found[0]["metric"], found[0]["value"]
        ('auc', 1.0)
    """
    return [
        Row(model=model, seed=seed, split=split, slice=name, task=task, metric=metric, value=value)
        for name, part in {ALL: slice(None), **(slices or {})}.items()
        for task, metric, value in _measure(scores[part], labels[part], users[part], tasks)
    ]


def measure_calibrated(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    tasks: Sequence[Task],
    *,
    model: str,
    seed: int,
    split: str,
) -> list[Row]:
    """Measure the probabilities of binary tasks after calibration: their order, and so AUC, are as before.

    Args:
        scores: Calibrated on labels of another split. Shape (N, T).
        labels: NaN where missing. Shape (N, T).
        tasks: T of them.
        model, seed, split: Written into the rows.

    Returns:
        Rows `logloss_after`, `calibration_error_after` and `predicted_over_observed_after`.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels = np.array([[0.0], [1.0], [1.0]])
        >>> whose = {"model": "mine", "seed": 0, "split": "test"}
        >>> scores, tasks = np.array([[0.2], [0.6], [0.5]]), [TaskSettings(name="click")]
        >>> found = measure_calibrated(scores, labels, tasks, **whose)
        >>> found[0]["metric"]
        'logloss_after'
    """
    return [
        Row(
            model=model,
            seed=seed,
            split=split,
            slice=ALL,
            task=task.name,
            metric=f"{metric}_after",
            value=value,
        )
        for t, task in enumerate(tasks)
        if task.kind == "binary"
        for metric, value in _believed(scores[:, t], labels[:, t]).items()
    ]


def measure_requests(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    moments: NDArray[np.integer],
    tasks: Sequence[Task],
    *,
    model: str,
    seed: int,
    split: str,
) -> list[Row]:
    """Measure GAUC by request, which compares no moments of a user with one another: rows of one user that
    read up to one moment are of one request, or a positive with the negatives drawn for it.

    Args:
        scores, labels: Shape (N, T).
        users, moments: Shape (N,).
        tasks: T of them.
        model, seed, split: Written into the rows.

    Returns:
        Rows `gauc_by_request` of binary tasks.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels, scores = np.array([[0.0], [1.0], [1.0]]), np.array([[0.2], [0.6], [0.1]])
        >>> users, moments = np.array([1, 1, 1]), np.array([7, 7, 8])
        >>> whose = {"model": "mine", "seed": 0, "split": "test"}
        >>> found = measure_requests(scores, labels, users, moments, [TaskSettings(name="click")], **whose)
        >>> found[0]["metric"], found[0]["value"]
        ('gauc_by_request', 1.0)
    """
    requests = np.unique(np.stack([users, moments]), axis=1, return_inverse=True)[1].ravel()
    about = {"model": model, "seed": seed, "split": split, "slice": ALL, "metric": "gauc_by_request"}
    return [
        Row(**about, task=task.name, value=metrics.gauc(labels[:, t], scores[:, t], requests).value)
        for t, task in enumerate(tasks)
        if task.kind == "binary"
    ]


def reliability(
    scores: NDArray[np.floating], labels: NDArray[np.floating], tasks: Sequence[Task], bins: int = 20
) -> dict[str, dict[str, list[float]]]:
    """Return the points of a reliability diagram per binary task: `predicted`, `observed` and `rows` of bins
    of equally many rows.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels, scores = np.array([[0.0], [1.0]]), np.array([[0.2], [0.8]])
        >>> reliability(scores, labels, [TaskSettings(name="click")], bins=2)["click"]["predicted"]
        [0.2, 0.8]
    """
    found = {
        task.name: metrics.calibration(labels[:, t], scores[:, t], bins)
        for t, task in enumerate(tasks)
        if task.kind == "binary"
    }
    return {
        name: {"predicted": c.predicted.tolist(), "observed": c.observed.tolist(), "rows": c.rows.tolist()}
        for name, c in found.items()
    }


def _measure(
    scores: NDArray, labels: NDArray, users: NDArray, tasks: Sequence[Task]
) -> list[tuple[str, str, float]]:
    found: list[tuple[str, str, float]] = []
    for t, task in enumerate(tasks):
        predicted, actual = scores[:, t], labels[:, t]
        measures = (
            _binary(predicted, actual, users)
            if task.kind == "binary"
            else {
                "rmse": metrics.rmse(actual, predicted),
                "mae": metrics.mae(actual, predicted),
                "spearman": metrics.spearman(actual, predicted),
                "user_spearman": metrics.spearman_within(actual, predicted, users),
            }
        )
        measures |= {
            "users": float(len(np.unique(users[~np.isnan(actual)]))),
            "examples": float((~np.isnan(actual)).sum()),
            "positives": float((actual > 0).sum()),
        }
        found += [(task.name, metric, value) for metric, value in measures.items()]
    if any(task.kind == "binary" for task in tasks):
        areas = {metric: [v for _, m, v in found if m == metric] for metric in ("auc", "gauc")}
        found += [
            *((ALL, metric, metrics.mean_defined(values)) for metric, values in areas.items()),
            (
                ALL,
                "ranking",
                metrics.mean_defined(map(metrics.mean_defined, zip(*areas.values(), strict=True))),
            ),
        ]
    return found


def _binary(probs: NDArray, labels: NDArray, users: NDArray) -> dict[str, float]:
    grouped = metrics.gauc(labels, probs, users)
    return {
        "auc": metrics.auc(labels, probs),
        "gauc": grouped.value,
        "gauc_users": float(grouped.groups_used),
        "gauc_users_skipped": float(grouped.groups_skipped),
        **_believed(probs, labels),
    }


def _believed(probs: NDArray, labels: NDArray) -> dict[str, float]:
    """Return how far probabilities can be believed."""
    calibrated = metrics.calibration(labels, probs)
    return {
        "logloss": metrics.log_loss(labels, probs),
        "calibration_error": calibrated.error,
        "predicted_over_observed": calibrated.ratio,
    }


def rank_catalog(
    score: Score,
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    tasks: Sequence[Task],
    *,
    catalog: int,
    queries: int,
    k: Sequence[int],
    model: str,
    seed: int,
    split: str,
    query_seed: int,
) -> list[Row]:
    """Return rows `hr@k`, `ndcg@k` and `queries` per binary task, and the means of the first two over tasks.

    A terminal or a notebook sees how far it is.

    Args:
        score: The model.
        labels, users, items: Of the split's examples. Shape (N, T), (N,), (N,), `N` examples and `T` tasks.
            Where a split has several windows, a user has a number for each.
        tasks: T of them.
        catalog: Number of items known at every snapshot that the split reads, which have the indices below
            it.
        queries: Users drawn among those with something relevant; all of them if they are fewer.
        k: Depths.
        model, seed, split: Written into the rows.
        query_seed: Seed of the draw; the same for all models.

    Returns:
        NaN where no query has anything relevant.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels, users, items = np.array([[1.0], [1.0]]), np.array([0, 1]), np.array([2, 0])
        >>> whose = {"model": "mine", "seed": 0, "split": "test"}
        >>> how = {"catalog": 3, "queries": 2, "k": [1], "query_seed": 0}
        >>> tasks, score = [TaskSettings(name="click")], lambda users, items: items[:, None] / 3.0
        >>> found = rank_catalog(score, labels, users, items, tasks, **how, **whose)
        >>> found[0]["metric"], found[0]["value"]
        ('hr@1', 0.5)
    """
    binary = [t for t, task in enumerate(tasks) if task.kind == "binary"]
    relevant = (
        (labels > 0)[:, binary] & (items >= 0)[:, None] & (items < catalog)[:, None] & (users >= 0)[:, None]
    )
    chosen = draw_queries(users[relevant.any(1)], queries, query_seed)
    kept = relevant.any(1) & np.isin(users, chosen)

    measures = {
        f"{name}@{depth}": partial(measured_by, k=depth)
        for name, measured_by in (("hr", metrics.hit_rate_at), ("ndcg", metrics.ndcg_at))
        for depth in k
    }
    measured: dict[tuple[str, str], float] = {}
    ranks = _ranks(score, chosen, users[kept], items[kept], relevant[kept], binary, catalog)
    for t, rank in zip(binary, ranks.T, strict=True):
        rank, query = rank[rank != 0], users[kept][rank != 0]
        measured |= {
            **{(tasks[t].name, metric): found(rank, query) for metric, found in measures.items()},
            (tasks[t].name, "queries"): float(len(np.unique(query))),
        }
    if binary:
        measured |= {
            (ALL, metric): metrics.mean_defined(measured[tasks[t].name, metric] for t in binary)
            for metric in measures
        }
    return [
        Row(model=model, seed=seed, split=split, slice=ALL, task=task, metric=metric, value=value)
        for (task, metric), value in measured.items()
    ]


def draw_queries(users: NDArray[np.integer], queries: int, seed: int) -> NDArray[np.int64]:
    """Draw distinct users, in rising order; all of them if there are at most `queries`.

    Example:
        >>> draw_queries(np.array([7, 7, 3]), queries=10, seed=0)
        array([3, 7])
    """
    distinct = np.unique(users).astype(np.int64)
    return (
        distinct
        if len(distinct) <= queries
        else np.sort(np.random.default_rng(seed).choice(distinct, queries, replace=False))
    )


def _ranks(
    score: Score,
    chosen: NDArray[np.int64],
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    relevant: NDArray[np.bool_],
    binary: Sequence[int],
    catalog: int,
) -> NDArray[np.float64]:
    """Rank of each relevant pair in its user's list, from 1, or NaN; 0 where it is not relevant or repeats.
    Shape (pairs, binary).
    """
    ranks = np.zeros(relevant.shape)
    at_once = max(1, BLOCK // max(1, catalog))
    with ProgressBar("ranking all items", len(chosen) * catalog, "pairs") as bar:
        for start in range(0, len(chosen), at_once):
            group = chosen[start : start + at_once]
            pairs = np.arange(len(group) * catalog)
            scores = score(group[pairs // catalog], pairs % catalog).reshape(len(group), catalog, -1)
            bar.advance(len(pairs))
            for user, lists in zip(group, scores[:, :, binary], strict=True):
                mine = np.flatnonzero(users == user)
                for column in range(len(binary)):
                    rows = mine[relevant[mine, column]]
                    wanted, first = np.unique(items[rows], return_index=True)
                    ranks[rows[first], column] = ranks_in(lists[:, column], wanted)
    return ranks


def ranks_in(scores: NDArray[np.floating], wanted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return ranks of items in a list, from 1; equal scores share their mean, and a list with a NaN has none.

    Args:
        scores: Of every item. Shape (I,).
        wanted: Items, shape (n,).

    Returns:
        Shape (n,).

    Example:
        >>> ranks_in(np.array([0.1, 0.5, 0.5, 0.9]), np.array([3, 1]))
        array([1. , 2.5])
    """
    ordered, own = np.sort(scores), scores[wanted]  # NaN is sorted last
    above = len(scores) - np.searchsorted(ordered, own, side="right")
    tied = len(scores) - above - np.searchsorted(ordered, own, side="left")
    return np.full(len(wanted), np.nan) if np.isnan(ordered[-1]) else above + (tied + 1) / 2
