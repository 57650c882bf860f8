"""Baselines against naive computations on a few users."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mgoe.config import BASELINE_NAMES
from mgoe.topn import BASELINES, Budget, Events
from mgoe.topn.baselines.lightgcn import Smoothed, smoothed, smoothing
from mgoe.topn.baselines.linear import fit_ease, slim_weights
from mgoe.topn.baselines.neighbors import swing_links

EVERY = {"half_life": np.inf, "own": 0.0}
"""Every event counts fully, and own items do not come back by themselves."""


def drawn_events(users: int, items: int, tasks: int = 1) -> Events:
    rng = np.random.default_rng(0)
    done = rng.random((users, items)) < 0.3
    done[np.arange(users), np.arange(users) % items] = done[np.arange(items) % users, np.arange(items)] = True
    user, item = np.nonzero(done)
    task, age = rng.integers(0, tasks, len(user)), rng.exponential(10, len(user))
    return Events(user, item, task, age, (users, items), tasks)


@pytest.fixture
def events() -> Events:
    return drawn_events(20, 12, tasks=2)


def scores_of(name: str, events: Events, **settings: object) -> NDArray:
    baseline = BASELINES[name]
    return baseline.fit(events, {**baseline.start, **settings}, 0, Budget())(np.arange(events.shape[0]))


def test_names_of_settings_are_those_of_baselines():
    assert set(BASELINES) == set(BASELINE_NAMES)


@pytest.mark.parametrize("name", BASELINES)
def test_the_first_trial_is_a_point_of_the_space(name: str):
    for key, value in BASELINES[name].start.items():
        values = BASELINES[name].space[key]
        assert value in values if isinstance(values, list) else values.low <= value <= values.high


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_scores_every_item(name: str, events: Events):
    if name in ("item-knn", "rp3beta", "slim", "ials"):
        pytest.importorskip("implicit")
    short = {"epochs": 2} if BASELINES[name].learns_in_epochs else {}
    found = scores_of(name, events, **short)
    assert found.shape == events.shape
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0


def test_older_events_count_less():
    events = Events(np.zeros(2, int), np.arange(2), np.zeros(2, int), np.array([0.0, 30.0]), (1, 2), 1)
    assert_allclose(scores_of("popularity", events, half_life=10.0), [[1, 1 / 8]])
    assert_allclose(events.matrix(10.0).toarray(), np.log1p([[1, 1 / 8]]), rtol=1e-6)


@given(seed=st.integers(0, 99), half_life=st.floats(1, 100), popular=st.floats(0.02, 100))
def test_own_items_by_decayed_counts_stand_before_what_is_popular(
    seed: int, half_life: float, popular: float
):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 5, 25), rng.integers(0, 9, 25)
    events = Events(user, item, np.zeros(25, int), rng.exponential(3, 25), (6, 9), 1)  # user 5 did nothing
    own, everybody = np.zeros((6, 9)), np.zeros(9)
    for u, i, age in zip(user, item, events.age, strict=True):
        own[u, i] += 0.5 ** (age / half_life)
        everybody[i] += 0.5 ** (age / popular)
    found = scores_of("frequent", events, half_life=half_life, popular_half_life=popular)
    for u in range(6):
        mine = np.flatnonzero(own[u])
        order = np.argsort(-found[u], kind="stable")
        assert set(order[: len(mine)]) == set(mine)
        assert (np.diff(own[u][order[: len(mine)]]) < 1e-5).all()
        assert (np.diff(everybody[order[len(mine) :]]) < 1e-5).all()


def test_swing_is_the_sum_over_pairs_of_users(events: Events):
    known, alpha = events.matrix(), 2.0
    done = known.toarray() > 0
    expected = np.zeros((events.shape[1],) * 2)
    for u in range(len(done)):
        for v in range(u + 1, len(done)):
            shared = np.flatnonzero(done[u] & done[v])
            expected[np.ix_(shared, shared)] += (done[u].sum() * done[v].sum()) ** -0.5 / (
                alpha + len(shared)
            )
    links = swing_links(events, alpha, 12)
    found = sp.csr_array((links.weight, links.item, links.indptr), shape=expected.shape)
    assert_allclose(found.toarray(), expected, rtol=1e-5)


def test_rp3beta_is_a_walk_of_three_steps(events: Events):
    pytest.importorskip("implicit")
    known, alpha, beta = events.matrix().toarray().astype(float), 0.7, 0.4
    of_user, of_item = known.sum(axis=1, keepdims=True), known.sum(axis=0)
    walk = ((known / of_item) ** alpha).T @ (known / of_user) ** alpha / of_item**beta
    found = scores_of("rp3beta", events, neighbors=12, alpha=alpha, beta=beta, half_life=np.inf)
    assert_allclose(found, known @ walk, rtol=1e-5)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
def test_ease_is_its_closed_form_whichever_side_is_smaller(shape: tuple[int, int]):
    events = drawn_events(*shape)
    known = events.matrix().toarray().astype(float)
    inverse = np.linalg.inv(known.T @ known + 3 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = fit_ease(events, {"l2": 3.0, **EVERY}, 0, Budget())(np.arange(shape[0]))
    assert_allclose(found, known @ weights, atol=1e-5)


def test_slim_weights_meet_the_conditions_of_a_minimum(events: Events):
    known, l1, l2 = events.matrix(), 0.05, 0.2
    items = events.shape[1]
    gram = (known.T @ known).tocsr()
    gram.sort_indices()
    start, near = (
        one.astype(np.int32) for one in (np.arange(items + 1) * items, np.tile(np.arange(items), items))
    )
    weights = slim_weights(start, near, gram.indptr, gram.indices, gram.data, l1, l2).reshape(items, items).T
    assert (np.diag(weights) == 0).all()
    assert (weights >= 0).all()
    dense = known.toarray()
    slope = dense.T @ (dense - dense @ weights) - l2 * weights - l1  # of the loss, downhill
    np.fill_diagonal(slope, -1)
    assert_allclose(slope[weights > 0], 0, atol=1e-2)
    assert slope.max() < 1e-2


def test_cascading_rank_solves_its_fixed_point(events: Events):
    walk, own = 0.4, 0.25
    weaker = None
    for task in range(events.tasks):
        graph = events.matrix(task=task).toarray().astype(float)
        scale = [np.divide(1, s, out=np.zeros(len(s)), where=s > 0) for s in (graph.sum(1), graph.sum(0))]
        smooth = np.sqrt(scale[0])[:, None] * graph * np.sqrt(scale[1])
        query = np.vstack([np.eye(len(graph)), (scale[0][:, None] * graph).T])
        start = (1 - walk) * (own * query + (1 - own) * (query if weaker is None else weaker))
        both = np.block([[np.zeros((len(graph),) * 2), smooth], [smooth.T, np.zeros((graph.shape[1],) * 2)]])
        weaker = np.linalg.solve(np.eye(len(both)) - walk * both, start)
    found = scores_of("cascading-rank", events, walk=walk, own=own, half_life=np.inf)
    assert_allclose(found, weaker[len(graph) :].T, atol=2e-3)


def test_smoothing_is_symmetric_and_of_norm_one():
    user, item = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    dense = smoothing(user, item, 3, 3).to_dense().numpy()
    assert_allclose(dense, dense.T)
    assert_allclose(np.linalg.eigvalsh(dense).max(), 1, atol=1e-6)
    assert_allclose(dense[0, 3], 1 / np.sqrt(2))


def test_the_gradient_of_smoothing_is_that_of_its_rounds():
    adjacency = smoothing(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3, 3)
    table, drawn = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    gradients = []
    for smooth in (smoothed, Smoothed.apply):
        rows = table.clone().requires_grad_()
        (smooth(adjacency, rows, 3) * drawn).sum().backward()
        gradients.append(rows.grad)
    torch.testing.assert_close(*gradients)
