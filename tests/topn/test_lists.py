"""Queries, lists and their measures against naive computations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from mgoe import metrics
from mgoe.errors import DataError, TrainingError
from mgoe.topn import Events, Queries, best_items, make_lists, measure_lists, ranks_of

USERS, ITEMS = 8, 30


def events_of(user: NDArray, item: NDArray, age: NDArray | None = None) -> Events:
    ages = np.zeros(len(user)) if age is None else age
    return Events(user, item, np.zeros(len(user), int), ages, (USERS, ITEMS), tasks=1)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Queries, NDArray]:
    """Queries of random events, and random scores with many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    known = events_of(rng.integers(0, USERS, 40), rng.integers(0, ITEMS, 40))
    user, item, hide = rng.integers(0, USERS, 20), rng.integers(0, ITEMS, 20), draw(st.booleans())
    scores = rng.integers(0, 6, (USERS, ITEMS)).astype(float)
    return Queries.of(known, 0, user, item, hide), scores


@given(asked())
def test_lists_are_the_naive_order(one: tuple[Queries, NDArray]):
    queries, scores = one
    lists = make_lists(lambda users: scores[users], queries, 12)
    counts = np.bincount(queries.events.item, minlength=ITEMS)
    for user, found in zip(queries.users, lists, strict=True):
        known = queries.events.item[queries.events.user == user] if queries.hide else []
        order = sorted(set(range(ITEMS)) - set(known), key=lambda i: (-scores[user, i], -counts[i], i))
        assert_array_equal(found, order[:12])


@given(asked())
def test_measures_are_those_of_the_metrics_package(one: tuple[Queries, NDArray]):
    queries, scores = one
    lists = make_lists(lambda users: scores[users], queries, 12)
    found = measure_lists(lists, queries, [4, 12])
    values = {metric: value for (_, metric), value in zip(found.names, found.values, strict=True)}
    ranks = ranks_of(lists, queries)
    for depth in (4, 12):
        assert_allclose(values[f"hr@{depth}"], metrics.hit_rate_at(ranks, queries.user, depth))
        assert_allclose(values[f"ndcg@{depth}"], metrics.ndcg_at(ranks, queries.user, depth))
        relevant = {u: set(queries.item[queries.user == u]) for u in queries.users}
        hits = [set(row[:depth]) & relevant[u] for u, row in zip(queries.users, lists, strict=True)]
        shares = [len(hit) / len(relevant[u]) for u, hit in zip(queries.users, hits, strict=True)]
        assert_allclose(values[f"recall@{depth}"], np.mean(shares))
        assert_allclose(values[f"coverage@{depth}"], len(set(lists[:, :depth].ravel())) / ITEMS)


def test_a_mean_over_users_has_the_influence_of_its_deviations():
    rng = np.random.default_rng(0)
    known = Events(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0), (60, ITEMS), 1)
    queries = Queries.of(known, 0, np.arange(60), rng.integers(0, ITEMS, 60), hide=False)
    lists = np.stack([rng.permutation(ITEMS)[:5] for _ in range(60)])
    found = measure_lists(lists, queries, [5])
    hit = np.isfinite(ranks_of(lists, queries))
    column = found.names.index(("all", "hr@5"))
    assert_allclose(found.parts[:, column], (hit - hit.mean()) / 60, rtol=1e-6)
    assert np.isnan(found.parts[:, found.names.index(("all", "coverage@5"))]).all()


def test_a_list_ends_where_nothing_is_left():
    assert_array_equal(best_items(np.array([1.0, -np.inf, 2.0]), np.arange(3), 3), [2, 0])


def test_known_items_are_neither_listed_nor_relevant_if_they_are_hidden():
    known = events_of(np.array([0, 1]), np.array([3, 4]))
    hidden = Queries.of(known, 0, np.array([0, 0, 1]), np.array([3, 5, 4]), hide=True)
    assert_array_equal(hidden.users, [0])
    assert_array_equal(hidden.item, [5])
    lists = make_lists(lambda users: np.eye(ITEMS)[np.full(len(users), 3)], hidden, 30)
    assert 3 not in lists


def test_nothing_relevant_is_refused():
    with pytest.raises(DataError, match="must do something to be found"):
        Queries.of(events_of(np.array([0]), np.array([3])), 0, np.array([0]), np.array([3]), hide=True)


def test_a_score_that_is_no_number_is_refused():
    queries = Queries.of(events_of(np.array([0]), np.array([3])), 0, np.array([0]), np.array([3]), hide=False)
    with pytest.raises(TrainingError, match="found NaN"):
        make_lists(lambda users: np.full((len(users), ITEMS), np.nan), queries, 3)


def test_a_sample_keeps_the_pairs_of_its_users():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, USERS, 30), rng.integers(0, ITEMS, 30)
    queries = Queries.of(events_of(*pairs), 0, *pairs, hide=False)
    drawn = queries.sample(3, seed=0)
    assert len(drawn.users) == 3
    assert_array_equal(drawn.item, queries.item[np.isin(queries.user, drawn.users)])
