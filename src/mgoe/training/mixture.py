"""A mixture of training negatives: beside those that are popular in their bucket, uniform and retrieved ones,
each drawn with a known probability; and, beside what was shown, items that were not.

Axes: `N` rows, `I` items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe.config import NegativeSettings, RetrievalSettings, TaskSettings
from mgoe.data import Examples, join
from mgoe.data.examples import mask_given
from mgoe.features import View
from mgoe.graph import MacroGraph, Snapshot
from mgoe.retrieval import Retrieval

USERS = 4096
"""Users whose candidates are in memory at once."""


class _Candidates(NamedTuple):
    """Candidates of some users, one user after the other.

    Attributes:
        item, user: Of each candidate.
        first, number: Place of a user's first candidate, and how many there are, by user; none of others.
    """

    item: NDArray[np.int64]
    user: NDArray[np.int64]
    first: NDArray[np.int64]
    number: NDArray[np.int64]

    @classmethod
    def of(cls, users: NDArray[np.int64], lists: Sequence[NDArray[np.int64]]) -> Self:
        """Join the candidates of each user."""
        first, count = (np.zeros(int(users.max(initial=-1)) + 1, np.int64) for _ in range(2))
        sizes = np.array([len(some) for some in lists], np.int64)
        first[users], count[users] = np.cumsum(sizes) - sizes, sizes
        return cls(np.concatenate([np.zeros(0, np.int64), *lists]), np.repeat(users, sizes), first, count)


def mixed_negatives(
    train: Examples,
    graph: MacroGraph,
    tasks: Sequence[TaskSettings],
    negatives: NegativeSettings,
    retrieval: RetrievalSettings,
) -> Examples:
    """Add uniform and retrieved negatives to training examples, and give every row its shift (ours).

    With `r_c` draws per positive from `q_c(i | u)` for each component c, a row's sampling shows the odds
    `p / (1 - p) / (n sum_c r_c q_c(i | u))`. A row's shift is `log r q(i) - log sum_c r_c q_c(i | u)`, where
    `r q(i)` are the draws by popularity in the row's window. With the shift added, a model's log-odds fit the
    row; without it they are those of negatives by popularity alone, as in validation and test. A draw that
    the user did in that bucket is dropped.

    Args:
        train: Training examples of an event log with negatives drawn by popularity.
        graph: Snapshots; a row's candidates and catalogue are those of its own.
        tasks: In the order of the labels.
        negatives: How many are drawn, and the seed.
        retrieval: How candidates are retrieved.

    Example:
        >>> from mgoe.config import NegativeSettings, RetrievalSettings
        >>> more = NegativeSettings(uniform=1, retrieved=1)
        >>> train = prepared.examples("train")
        >>> rows = mixed_negatives(train, graph, settings.tasks, more, RetrievalSettings(candidates=20))
        >>> len(rows) > len(train), rows.shift.shape == rows.user.shape
        (True, True)
    """
    parts = []
    for window in np.unique(train.snapshot).tolist():
        rows, snapshot = train.take(train.snapshot == window), graph.snapshots[window]
        rng = np.random.default_rng([negatives.of_training.seed, window])
        size = max(int(rows.item.max()) + 1, snapshot.n_items)
        popularity = np.bincount(rows.item[_is_positive(rows)], minlength=size) + 1.0  # no item is impossible
        popularity *= negatives.ratio / popularity.sum()
        for some, candidates in _users(rows, snapshot, retrieval if negatives.retrieved else None):
            positives = some.take(np.flatnonzero(_is_positive(some)))
            added = _drawn(positives, positives, snapshot.n_items, tasks, candidates, negatives, rng)
            whole = join([some, added])
            expected = _expected(whole, snapshot.n_items, popularity, candidates, negatives)
            shift = np.log(popularity[whole.item] / expected).astype(np.float32)
            parts.append(replace(whole, shift=shift))
    return join(parts)


def unexposed_negatives(
    train: Examples,
    graph: MacroGraph,
    tasks: Sequence[TaskSettings],
    negatives: NegativeSettings,
    retrieval: RetrievalSettings,
) -> Examples:
    """Add items that a user was not shown in a bucket to training exposures, on which nothing was done.

    They take the context of the exposure that they are drawn for, and weigh `negatives.weight` times as much
    in the loss. Labels of regressions are missing. Nothing is corrected: what a model then predicts is
    between the probability given an exposure, and that over the whole catalogue.

    Args:
        train, graph, tasks, negatives, retrieval: As for `mixed_negatives`, of an exposure log.

    Example:
        >>> from mgoe.config import NegativeSettings, RetrievalSettings
        >>> train, more = prepared.examples("train"), NegativeSettings(uniform=1, weight=0.5)
        >>> rows = unexposed_negatives(train, graph, settings.tasks, more, RetrievalSettings())
        >>> float(rows.weight.min())
        0.5
    """
    parts = []
    for window in np.unique(train.snapshot).tolist():
        rows, snapshot = train.take(train.snapshot == window), graph.snapshots[window]
        rng = np.random.default_rng([negatives.of_training.seed, window])
        for some, candidates in _users(rows, snapshot, retrieval if negatives.retrieved else None):
            positives = some.take(np.flatnonzero(_is_positive(some)))
            added = _drawn(positives, some, snapshot.n_items, tasks, candidates, negatives, rng)
            added.labels[:, [task.kind == "regression" for task in tasks]] = np.nan
            position = None if added.position is None else np.full_like(added.position, -1)
            weight = added.weight * np.float32(negatives.weight)
            parts += [some, replace(added, weight=weight, position=position)]
    return join(parts)


def _is_positive(rows: Examples) -> NDArray[np.bool_]:
    """Tell for which rows any task was done. Shape (N,)."""
    return np.asarray((np.nan_to_num(rows.labels) > 0).any(axis=1))


def _users(
    rows: Examples, snapshot: Snapshot, retrieval: RetrievalSettings | None
) -> Iterator[tuple[Examples, _Candidates]]:
    """Yield the rows of some users at a time, with their candidates if any are retrieved."""
    users, view = np.unique(rows.user), View.of(snapshot)
    with TemporaryDirectory(prefix="mgoe-") as folder:
        found = None if retrieval is None else Retrieval.build(view, Path(folder, "retrieval"), retrieval)
        for start in range(0, len(users), USERS):
            some = users[start : start + USERS]
            lists = [
                np.zeros(0, np.int64) if found is None else found.candidates(view, user)
                for user in some.tolist()
            ]
            yield rows.take(np.isin(rows.user, some)), _Candidates.of(some, lists)


def _drawn(
    positives: Examples,
    kept_out: Examples,
    items: int,
    tasks: Sequence[TaskSettings],
    candidates: _Candidates,
    negatives: NegativeSettings,
    rng: np.random.Generator,
) -> Examples:
    """Draw negatives for positives of a window whose snapshot knows `items` items.

    A draw that is among the rows of `kept_out` is dropped.
    """
    uniform = np.repeat(np.arange(len(positives)), negatives.uniform)
    retrieved = np.repeat(np.flatnonzero(candidates.number[positives.user]), negatives.retrieved)
    user = positives.user[retrieved]
    place = candidates.first[user] + rng.integers(0, candidates.number[user])
    item = np.concatenate([rng.integers(0, items, len(uniform)), candidates.item[place]])
    added = positives.take(np.concatenate([uniform, retrieved]))
    labels = mask_given(np.zeros_like(added.labels), tasks)
    added = replace(added, item=item, labels=labels)
    size, users = max(int(kept_out.item.max(initial=0)), items) + 1, kept_out.user.max(initial=0) + 1
    key, done = ((each.bucket * users + each.user) * size + each.item for each in (added, kept_out))
    return added.take(~np.isin(key, done))


def _expected(
    rows: Examples,
    items: int,
    popularity: NDArray[np.float64],
    candidates: _Candidates,
    negatives: NegativeSettings,
) -> NDArray[np.float64]:
    """Return how often each row's item is drawn per positive of its user, over all components. Shape (N,)."""
    expected = popularity[rows.item] + negatives.uniform / items * (rows.item < items)
    size = len(popularity)
    among = np.isin(rows.user * size + rows.item, candidates.user * size + candidates.item)
    return expected + negatives.retrieved * among / np.maximum(candidates.number[rows.user], 1)
