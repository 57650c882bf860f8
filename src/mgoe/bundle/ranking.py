"""Ranking for users: candidates are given or retrieved, filtered, scored, and the best returned.

A bundle in Python, a service and the command line all rank here. What scores is theirs: a bundle scores
pairs, a service keeps what belongs to its items.

Axes: `B` candidates, one user's after another's where users are scored together, `T` tasks, `L` values of a
candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.bundle.exploration import Exploration, explored
from mgoe.bundle.item_index import Filter
from mgoe.bundle.objective import Objective, read_objective
from mgoe.bundle.request import RankingRequest
from mgoe.bundle.scored_model import ScoredModel
from mgoe.bundle.steps import Scores, Steps, finished
from mgoe.config import did_you_mean
from mgoe.errors import BundleError
from mgoe.retrieval import OwnItems, Retrieval, known_items

BLOCK = 2048
"""Rows of an objective that are computed in one step."""
TOGETHER = 8192
"""Items that are scored in one call for several users, about. It bounds the memory of any number of users."""
NEWEST = 50
"""Registered items that the snapshot lacks and that are always candidates, the newest of them."""
FILTERED = 4
"""So many times as many candidates are retrieved if filters leave some out."""


@dataclass(frozen=True)
class Query:
    """What is asked for, in the numbers of a catalogue.

    Attributes:
        k: Items to return at most.
        objective: What to rank by.
        at_least: The least probability (or value) by the number of its task.
        left_out: Indices of items to leave out, rising.
        exclude_known: Leave out the user's items too.
        filters: What every item must have.
        max_per: Items to return at most per value of a feature.
        exact: Score all items that pass, even where candidates could be retrieved.
        explore: Let chance put some items higher; None ranks by the objective alone.
    """

    k: int
    objective: Objective
    at_least: Mapping[int, float]
    left_out: NDArray[np.int64]
    filters: Sequence[Filter]
    max_per: Mapping[str, int]
    exact: bool
    exclude_known: bool = False
    explore: Exploration | None = None

    @classmethod
    def read(
        cls,
        catalogue: ScoredModel,
        request: RankingRequest,
        objective: str,
        left_out: NDArray[np.int64],
    ) -> Query:
        """Find in a catalogue what a request names.

        Args:
            catalogue: What is ranked.
            request: What is asked for.
            objective: Its objective, or what the bundle ranks by where it has none.
            left_out: The items that it excludes, by index; -1 was never seen.

        Raises:
            BundleError: A task or an item feature is not in the bundle.
            ObjectiveError: The objective breaks the grammar, or names no task.
        """
        for name in request.at_least:
            if name not in catalogue.tasks:
                near = did_you_mean(name, catalogue.tasks)
                raise BundleError("at_least", f"{name[:80]!r} is not a task of this bundle{near}")
        for name in request.max_per:
            catalogue.item_index.check(f"max_per.{name[:80]}", name)
        return cls(
            k=request.k,
            objective=read_objective(objective, catalogue.tasks),
            at_least={catalogue.tasks.index(name): least for name, least in request.at_least.items()},
            left_out=np.unique(left_out[left_out >= 0]),
            filters=catalogue.item_index.filters(request.where),
            max_per=request.max_per,
            exact=request.exact,
            exclude_known=request.exclude_known,
        )


class Ranked(NamedTuple):
    """The best items, the best first.

    Attributes:
        rows: Their places among the candidates that were given. Shape (n,).
        values: Of the objective, by which they are ordered. Shape (n,).
        places: Their places among the items that were scored. Shape (n,).
        scored: All of these by index. Shape (B,).
        all_scores: Probability (or value) of each task. Shape (B, T).
        exact: Whether these were all items that the query allows.
        propensities: The probability of each given those above it; None if nothing explores. Shape (n,).
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    places: NDArray[np.int64]
    scored: NDArray[np.int64]
    all_scores: NDArray[np.float32]
    exact: bool
    propensities: NDArray[np.float64] | None = None

    @property
    def items(self) -> NDArray[np.int64]:
        """The best items by index. Shape (n,)."""
        return self.scored[self.places]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Probability (or value) of each task of the best items. Shape (n, T)."""
        return self.all_scores[self.places]


def rank(
    catalogue: ScoredModel,
    scores: Scores,
    users: Sequence[int],
    query: Query,
    candidates: NDArray[np.int64] | None = None,
    context: Mapping[str, NDArray] | None = None,
) -> Steps[list[Ranked]]:
    """Rank candidates, or the best of the catalogue, for users that are scored together.

    Equal items of the catalogue come by their popularity, and equal candidates as they were given.

    Args:
        catalogue: What is ranked.
        scores: What scores.
        users: Indices, -1 if never seen.
        query: What is asked for.
        candidates: Indices; None retrieves them, or takes all items if none are retrieved.
        context: Encoded context features, one row each; None if all are unknown.

    Raises:
        ObjectiveError: The objective has no value for some item.
    """
    chosen, ranked = [choose(catalogue, scores, query, user, candidates) for user in users], list[Ranked]()
    sizes, every = [len(one.items) for one in chosen], np.concatenate([one.items for one in chosen])
    together = yield from scores.in_blocks(np.repeat(users, sizes), every, context)
    apart = np.split(together, np.cumsum(sizes)[:-1])
    for (rows, items, exact, own), found in zip(chosen, apart, strict=True):
        kept = _at_least(found, query.at_least)
        ordering = found if own is None else catalogue.blended(own, items, found)
        ties = np.arange(len(kept)) if candidates is not None else catalogue.item_index.places(items[kept])
        values = yield from _values(query.objective, ordering, kept, catalogue.tasks)
        best, chances = _best(catalogue, query, items[kept], values, ties)
        places = kept[best]
        ranked.append(Ranked(rows[places], values[best], places, items, found, exact, chances))
    return ranked


def rank_users(
    catalogue: ScoredModel,
    scores: Scores,
    users: Sequence[int],
    query: Query,
    context: Mapping[str, NDArray] | None = None,
) -> Iterator[Ranked]:
    """Rank the catalogue for any number of users, of whom as many are scored together as memory allows.

    Args:
        catalogue, scores, context: As for `rank`.
        users: Indices, -1 if never seen.
        query: What is asked for.
    """
    together = max(1, TOGETHER // max(1, wanted(catalogue, query, scores.n_items)))
    for start in range(0, len(users), together):
        yield from finished(rank(catalogue, scores, users[start : start + together], query, context=context))


def columns(scores: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return scores (B, T) as one column per task."""
    return {task: np.ascontiguousarray(scores[:, t]) for t, task in enumerate(tasks)}


def top(values: NDArray[np.float64], ties: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """Return the rows of the k largest values, largest first. Shape (min(k, B),).

    Args:
        values: Shape (B,).
        ties: Orders equal values, the smallest first. Shape (B,).
        k: How many at most.
    """
    rows = np.arange(len(values))
    if k * 8 < len(values):  # few enough that a partition is faster
        least = np.partition(values, len(values) - k)[len(values) - k]
        rows = np.flatnonzero(values >= least)
    return rows[np.lexsort((ties[rows], -values[rows]))[:k]]


def wanted(catalogue: ScoredModel, query: Query, n_items: int) -> int:
    """Return how many items are scored for a user, all of the catalogue if none are retrieved."""
    retrieval = None if query.exact else catalogue.retrieval
    return n_items if retrieval is None else max(query.k, sum(retrieval.quotas.values()))


class Chosen(NamedTuple):
    """Items to score, all of which pass.

    Attributes:
        rows: Their places among the candidates that were given. Shape (B,).
        items: By index. Shape (B,).
        exact: Whether these are all that the query allows.
        own: The user's items, where candidates may be retrieved from them and a blend reads them.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    exact: bool
    own: OwnItems | None


def choose(
    catalogue: ScoredModel,
    scores: Scores,
    query: Query,
    user: int,
    candidates: NDArray[np.int64] | None = None,
) -> Chosen:
    """Choose the items to score: candidates, or those of the catalogue in the order of their indices.

    Withdrawn items are chosen only if they are named as candidates.
    """
    if candidates is None and len(catalogue.withdrawn):
        left_out = np.union1d(query.left_out, catalogue.withdrawn).astype(np.int64)
        query = replace(query, left_out=left_out)
    retrieval, own = catalogue.retrieval if candidates is None else None, None
    if retrieval is not None or query.exclude_known:
        with scores.reading() as view:
            own = None if retrieval is None else retrieval.own_items(view, user)
            known = known_items(view, user) if own is None else own.all
        if query.exclude_known:
            query = replace(query, left_out=np.union1d(query.left_out, known).astype(np.int64))
    n = wanted(catalogue, query, scores.n_items)
    if retrieval is not None and own is not None and n + len(query.left_out) < scores.n_items:
        items, exact = _retrieved(catalogue, retrieval, scores, query, user, own, n)
        return Chosen(np.arange(len(items)), items, exact, own)
    items = np.arange(scores.n_items) if candidates is None else candidates
    rows = np.flatnonzero(catalogue.item_index.passes(items, query.filters, query.left_out))
    return Chosen(rows, items[rows], True, own)


def _retrieved(
    catalogue: ScoredModel,
    retrieval: Retrieval,
    scores: Scores,
    query: Query,
    user: int,
    own: OwnItems,
    wanted: int,
) -> tuple[NDArray[np.int64], bool]:
    """Retrieve candidates, beside the newest registered items; the most popular items that pass fill up the
    rest.

    So a query that allows few items is answered from all of these. More are retrieved than wanted if filters
    may leave some out.
    """
    later = np.arange(max(catalogue.snapshot.n_items, scores.n_items - NEWEST), scores.n_items)
    later = later[catalogue.item_index.passes(later, query.filters, query.left_out)]
    newest = later[catalogue.are_registered(later)]
    n = wanted * (FILTERED if query.filters else 1)
    with scores.reading() as view:
        found = retrieval.candidates(view, user, n, query.left_out, own)
    found = found[catalogue.item_index.passes(found, query.filters, query.left_out)]
    found = np.concatenate([newest, found[~np.isin(found, newest)]])[:wanted]
    missing = wanted - len(found)
    if missing == 0:
        return np.sort(found), False
    popular = catalogue.item_index.most_popular(wanted, query.filters, query.left_out)
    rest = np.concatenate([popular, later])
    more = rest[~np.isin(rest, found)][:missing]
    few = scores.n_items - catalogue.snapshot.n_items <= NEWEST  # that the snapshot lacks
    return np.sort(np.concatenate([found, more])), few and len(rest) < wanted


def _at_least(scores: NDArray[np.float32], least: Mapping[int, float]) -> NDArray[np.int64]:
    """Return the rows that reach the least score of every task."""
    kept = np.ones(len(scores), bool)
    for task, value in least.items():
        kept &= scores[:, task] >= value
    return np.flatnonzero(kept)


def _values(
    objective: Objective, scores: NDArray[np.float32], rows: NDArray[np.int64], tasks: Sequence[str]
) -> Steps[NDArray[np.float64]]:
    """Compute the objective of some rows. It is the client's, and may be long: in blocks, too."""
    parts = []
    for start in range(0, max(1, len(rows)), BLOCK):
        part = scores[rows[start : start + BLOCK]]
        parts.append(objective({task: part[:, t] for t, task in enumerate(tasks)}))
        if start + BLOCK < len(rows):
            yield
    return np.concatenate(parts)


def _best(
    catalogue: ScoredModel,
    query: Query,
    items: NDArray[np.int64],
    values: NDArray[np.float64],
    ties: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return the rows of the best items, at most `max_per` for each value of a feature, and `propensities`.

    The best is taken first, then the best that still fits: what is below the last place does not matter.
    """
    if query.explore is not None:
        rows = top(values, ties, len(values))
        found, chances = explored(
            values[rows], *_held(catalogue, query, items[rows], query.k), query.k, query.explore
        )
        return rows[found], chances
    if not query.max_per:
        return top(values, ties, query.k), None
    k = min(query.k, len(values))
    n = 8 * k
    while True:
        rows = top(values, ties, n)
        kept = rows[_fitting(*_held(catalogue, query, items[rows], k), k)]
        if len(kept) == k or n >= len(values):
            return kept, None
        n *= 4


def _held(
    catalogue: ScoredModel, query: Query, items: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which values of the features of `max_per` items have, (B, L) padded with -1, and how often each
    may come."""
    held, most = [np.empty((len(items), 0), np.int64)], [np.empty(0, np.int64)]
    for feature, limit in query.max_per.items():
        own = catalogue.item_index.values(feature, items)
        held.append(np.where(own < 0, -1, own + sum(map(len, most))))
        most.append(np.full(own.max(initial=0) + 1, min(limit, k)))
    return np.concatenate(held, axis=1), np.concatenate(most)


@kernel("most")
def _fitting(held, most, k):  # pragma: no cover - compiled
    """Return the first k rows whose values, (B, L), all fit; `most` says how often each value still may come.

    A several-valued feature pads with -1.
    """
    rows, n = np.empty(min(k, len(held)), np.int64), 0
    for row in range(len(held)):
        if n == len(rows):
            break
        fits = True
        for value in held[row]:
            fits &= value < 0 or most[value] > 0
        if fits:
            for value in held[row]:
                if value >= 0:
                    most[value] -= 1
            rows[n] = row
            n += 1
    return rows[:n]
