"""Undoing the sampling of negatives: forecasts of draws, and probabilities over the whole catalogue."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mgoe
from mgoe.bundle.manifest import MANIFEST
from mgoe.bundle.sampling import (
    Sampling,
    in_whole_space,
    prior_of,
    shift_of,
    undo_sampling,
)
from mgoe.config import NegativeSettings, TaskSettings, load_settings
from mgoe.data.events import sample_negatives
from mgoe.errors import BundleError
from mgoe.pipeline.inputs import Inputs


@given(
    odds=st.floats(1e-4, 1e4),
    shift=st.floats(-8, 8),
)
def test_recalibration_adds_to_the_log_odds_and_leaves_values(odds: float, shift: float):
    p = np.array([[odds / (1 + odds), 2.5]], np.float32)
    found = undo_sampling(p, np.array([shift], np.float32), np.array([True, False]))
    assert_allclose(found[0, 0], 1 / (1 + np.exp(-(np.log(odds) + shift))), rtol=1e-3)
    assert found[0, 1] == 2.5


@given(
    anything=st.floats(1e-4, 0.9),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    drawn=st.floats(1e-3, 10),
)
def test_recalibration_undoes_the_sampling_for_rarer_tasks_too(
    anything: float, shares: list[float], drawn: float
):
    """The best model of sampled examples sees `drawn` negatives for each pair on which nothing was done."""
    true = anything * np.array([1, *shares])  # a click, and what only some of the clicked pairs have
    learned = (true / (anything + drawn * (1 - anything))).astype(np.float32)
    found = undo_sampling(learned[None], np.log([drawn]).astype(np.float32), np.ones(len(true), np.bool_))
    assert_allclose(found[0], true, rtol=2e-3, atol=1e-9)


def log_of(popularity: NDArray) -> Any:
    """A graph of two snapshots that know the popularity of each item: its pairs, for one task."""
    counts = np.zeros((len(popularity), 5), np.float32)
    counts[:, 1] = np.log(popularity)  # a forecast with the weights (1, 0, 0) is exact
    snapshot = SimpleNamespace(arrays={"item_counts": counts}, n_items=len(counts))
    return SimpleNamespace(snapshots=[snapshot, snapshot])


def prepared_of(positives: NDArray, negatives: NDArray, rate: float) -> Any:
    """Training examples of two windows: one of each positive and of each negative that was drawn."""
    item = np.r_[positives, negatives].astype(np.int64)
    labels = np.r_[np.ones(len(positives)), np.zeros(len(negatives))].astype(np.float32)[:, None]
    parts = [
        SimpleNamespace(item=item[rows], labels=labels[rows], snapshot=np.full(len(item[rows]), window))
        for window, rows in enumerate((slice(0, None, 2), slice(1, None, 2)))
    ]
    summary = {
        "negatives_per_positive": len(negatives) / max(1, len(positives)),
        "positives_per_user_bucket": rate,
    }
    return SimpleNamespace(streamed=lambda _: SimpleNamespace(parts=lambda: iter(parts)), summary=summary)


def undone(positives: NDArray, negatives: NDArray, sampling: Sampling, graph: Any) -> NDArray:
    """What the best model of the sampled examples says of each item, with the sampling undone. Shape (I,)."""
    items = graph.snapshots[-1].n_items
    done = np.bincount(positives, minlength=items)
    learned = done / np.maximum(done + np.bincount(negatives, minlength=items), 1)
    prior = sampling.prior(graph.snapshots[-1])[:-1]
    return undo_sampling(learned[:, None].astype(np.float32), prior, np.array([True]))[:, 0]


@given(seed=st.integers(0, 1000), ratio=st.integers(1, 5), rate=st.integers(1, 4))
def test_recalibration_undoes_the_sampling_on_average(seed: int, ratio: int, rate: int):
    """It gives each item the rate at which an active user does it in a bucket."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(8, 3.0)) * 0.9 + 0.1 / 8
    done = rng.choice(len(share), 4000 * rate, p=share)  # each user is active in a bucket with `rate` items
    drawn, graph = rng.choice(done, len(done) * ratio), log_of(share)
    sampling = Sampling.fit(prepared_of(done, drawn, rate), graph, NegativeSettings(ratio=ratio))
    assert sampling is not None
    found = undone(done, drawn, sampling, graph)
    odds = found / (1 - found)
    positives, negatives = (np.bincount(items, minlength=8) for items in (done, drawn))
    noise = 5 * np.sqrt(2 / positives + 1 / negatives)  # standard errors of odds, and of the forecast
    assert (np.abs(odds / (rate * share) - 1) <= 0.02 + noise).all(), (odds, rate * share)
    assert_allclose(odds.sum(), rate, rtol=0.1)


@pytest.mark.parametrize("distribution", ["popularity", "uniform"])
@pytest.mark.parametrize("most", [0.05, 0.8, 0.97])
def test_recalibration_undoes_draws_that_were_dropped(distribution: Any, most: float):
    """Of an item that nearly everybody does, nearly all draws are dropped."""
    true = np.r_[most, 0.13, np.full(30, 0.012)]
    bucket, user, item = np.nonzero(np.random.default_rng(0).random((25, 400, len(true))) < true)
    settings = NegativeSettings(ratio=3, distribution=distribution)
    _, drawn = sample_negatives(user, item, bucket, settings)
    graph = log_of(true if distribution == "popularity" else np.ones(len(true)))  # what draws follow
    active = len(np.unique(bucket * 400 + user))
    sampling = Sampling.fit(prepared_of(item, drawn, len(item) / active), graph, settings)
    assert sampling is not None
    found, done = undone(item, drawn, sampling, graph), np.bincount(item, minlength=len(true))
    assert_allclose(found[:2], done[:2] / active, rtol=0.15)  # three standard errors of a draw
    assert_allclose(found[2:].mean(), (done[2:] / active).mean(), rtol=0.08)


@given(seed=st.integers(0, 1000), weights=st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_forecast_learns_what_draws_follow(seed: int, weights: tuple[float, float, float]):
    """Pairs, events and idle buckets, whatever each of them means on a log; nothing else is read."""
    rng = np.random.default_rng(seed)
    counts = rng.normal(0, 1, (200, 7)).astype(np.float32)  # of two tasks
    share = np.exp(counts[:, 2:5] @ weights)
    drawn = rng.choice(200, 20_000, p=share / share.sum())
    snapshot: Any = SimpleNamespace(arrays={"item_counts": counts}, n_items=200)
    graph: Any = SimpleNamespace(snapshots=[snapshot, snapshot])
    sampling = Sampling.fit(prepared_of(drawn, drawn, 1.0), graph, NegativeSettings(ratio=1))
    assert sampling is not None
    assert_allclose(sampling.weights, weights, atol=0.05)
    prior = sampling.prior(snapshot)
    assert_allclose(np.exp(prior[:-1]).sum(), 1, rtol=1e-4)
    assert_allclose(prior[-1], -np.log(np.exp(counts[:, 2:5] @ sampling.weights).sum()), atol=1e-4)


@pytest.mark.parametrize("distribution", ["popularity", "uniform"])
@given(
    done=st.lists(st.integers(0, 4), max_size=20),
    drawn=st.lists(st.integers(0, 4), max_size=20),
    active=st.integers(1, 20),
)
def test_a_forecast_is_finite_whatever_was_done_and_drawn(
    distribution: Any, done: list[int], drawn: list[int], active: int
):
    """An item that was never drawn, items nobody did anything on, and training without examples."""
    graph, rate = log_of(np.array([1e-3, 1, 5, 20, 400, 1e5])), len(done) / min(active, max(1, len(done)))
    prepared = prepared_of(np.array(done, np.int64), np.array(drawn, np.int64), rate)
    with np.errstate(all="raise"):
        sampling = Sampling.fit(prepared, graph, NegativeSettings(distribution=distribution))
        prior = prior_of(sampling, graph.snapshots[-1])
    assert prior.shape == (7,)
    assert np.isfinite(prior).all()
    assert (sampling is None) == (not (done and drawn))


def test_items_that_a_snapshot_does_not_know_share_the_last_entry():
    prior = np.array([1, 2, 3], np.float32)
    assert shift_of(prior, np.array([1, 2, 3, 900, -1, 0])).tolist() == [2, 3, 3, 3, 3, 1]


@pytest.mark.parametrize("found", [{}, {"drawn": 0, "weights": [0, 0, 0]}, {"drawn": 1, "weights": [1.0]}, 3])
def test_a_sampling_that_is_none_is_refused(found: Any, finished: Path, tmp_path: Path):
    manifest = json.loads((finished / "bundle" / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"sampling": found}))
    with pytest.raises(BundleError, match=r"sampling.*copy the bundle again"):
        mgoe.load(tmp_path)


def test_exposures_are_left_as_they_are(shown: Path):
    inputs = Inputs.open(shown, load_settings(shown / "settings.yaml"))
    assert inputs.sampling is None
    assert not inputs.prior(inputs.graph.latest).any()


def test_a_task_within_a_sample_space_is_ordered_by_how_likely_it_is_at_all():
    tasks = [
        TaskSettings(name="click"),
        TaskSettings(name="cart", given="click"),
        TaskSettings(name="like"),
        TaskSettings(name="buy", given="cart"),
    ]
    found = in_whole_space(np.array([[0.5, 0.25, 0.7, 0.5], [0.001, 0.9, 0.0, 1.0]], np.float32), tasks)
    assert_allclose(found, [[0.5, 0.125, 0.7, 0.0625], [0.001, 0.0009, 0.0, 0.0009]], rtol=1e-6)
