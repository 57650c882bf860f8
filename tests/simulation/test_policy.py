"""Worlds in which popular items are shown first and users look at what comes first, and their random rows."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logit
from scipy.stats import chi2

from mgoe.config import check_settings
from mgoe.errors import ConfigError
from mgoe.metrics import auc
from mgoe.simulation import WorldSettings, make_truth, simulate
from mgoe.simulation.chance import chances, looks
from tests.effort import up_to
from tests.simulation.test_draw import check_agreement, check_law
from tests.simulation.worlds import RANKED, SMALL, Drawn, drawn

LARGE = RANKED.model_copy(update={"exposures": 200_000})


@pytest.fixture(scope="module")
def log() -> Drawn:
    return drawn(LARGE)


def popularity_rank(log: Drawn) -> np.ndarray:
    """Return the place of each exposure's item on its day, from 0 for the most popular."""
    places = np.stack([log.truth.popularity(day) for day in range(LARGE.days)]).argsort().argsort()
    return LARGE.items - 1 - places[log.day, log.shown.item]


def test_the_truth_is_the_empirical_rate_whether_or_not_the_policy_is_known(log: Drawn):
    """Within groups by position, by popularity and by taste."""
    random, popular = log.shown.uniform, popularity_rank(log) // 20
    cell = log.truth.users.community[log.shown.user] * 5 + log.truth.items.community[log.shown.item]
    unknown = chances(log.truth, *log.indices)
    for group in (cell, popular, popular * 25 + cell):
        check_agreement(unknown, log, group)
    known = np.where(
        random[:, None],
        chances(log.truth, *log.indices, uniform=True),
        chances(log.truth, *log.indices, uniform=False),
    )
    for group in (popular * 2 + random, cell * 2 + random):
        check_agreement(known, log, group)
    check_agreement(log.chances, log, log.shown.position.astype(int) * 2 + random)


def test_random_rows_show_every_item_equally_often_to_everybody_at_every_position(log: Drawn):
    random, last = log.shown.uniform, log.day == LARGE.days - 1
    assert abs(random.mean() - LARGE.uniform) < 4 * np.sqrt(0.25 / len(random))
    here = log.truth.items.arrival <= log.day.max()
    check_law(log.shown.item[random & last], here.astype(float))
    users = log.truth.users.community[log.shown.user]
    check_law(users[random], np.bincount(users[~random]).astype(float))
    check_law(log.shown.position[random] - 1, np.ones(LARGE.positions))
    ranks, position = popularity_rank(log)[random], log.shown.position[random]
    assert abs(np.corrcoef(ranks, position)[0, 1]) < 4 / np.sqrt(random.sum())


def test_the_policy_shows_popular_items_first_and_fills_every_position(log: Drawn):
    policy = ~log.shown.uniform
    check_law(log.shown.position[policy] - 1, np.ones(LARGE.positions))
    for day in range(LARGE.days):
        today = policy & (log.day == day)
        ranks, position = popularity_rank(log)[today], log.shown.position[today]
        for above, below in itertools.pairwise(range(1, LARGE.positions + 1)):
            assert ranks[position == above].max() <= ranks[position == below].min()


@up_to(8)
@given(examination=st.floats(0, 1.5), seed=st.integers(0, 1_000))
def test_a_click_needs_a_look_whose_probability_falls_with_the_position(examination: float, seed: int):
    """On random rows, whose positions depend on nothing, rates of positions are to each other as looks."""
    funnel = [SMALL.behaviors[0].model_copy(update={"rate": 0.12})]
    world = {"examination": examination, "uniform": 1.0, "seed": seed, "exposures": 20_000}
    log = drawn(RANKED.model_copy(update=world | {"behaviors": funnel}))
    look = looks(log.truth)
    assert_allclose(look, np.arange(1, 11) ** -examination)
    clicks = np.bincount(log.shown.position - 1, log.shown.done(0), minlength=10)
    expected = look / look.sum() * clicks.sum()
    assert ((clicks - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-6, 9)
    assert abs(log.shown.done(0).mean() - 0.12) < 0.02


@pytest.mark.parametrize("part", ["all", "uniform"])
def test_nothing_ranks_better_than_the_best_reachable(log: Drawn, part: str):
    """Other scores: by more than sampling error neither the best with noise, nor popularity, nor what is best
    on the other rows."""
    rows = log.shown.uniform if part == "uniform" else np.ones(len(log.day), bool)
    pairs, rng = tuple(column[rows] for column in log.indices), np.random.default_rng(0)
    best, by_policy, at_random = (
        chances(log.truth, *pairs, uniform=known)
        for known in (True if part == "uniform" else None, False, True)
    )
    for t in range(len(LARGE.names)):
        done = log.shown.done(t)[rows]
        error = np.sqrt(0.25 / min(done.sum(), len(done) - done.sum()))
        noisy = [logit(best[:, t]) + scale * rng.standard_normal(len(best)) for scale in (0.1, 0.3, 1.0)]
        others = [*noisy, -popularity_rank(log)[rows], by_policy[:, t], at_random[:, t]]
        assert all(auc(done, other) <= auc(done, best[:, t]) + error for other in others)


def test_what_the_policy_teaches_ranks_random_rows_worse(log: Drawn):
    """Who takes popular items for good ones has more to lose on random rows than sampling error."""
    random, pairs = log.shown.uniform, tuple(column[log.shown.uniform] for column in log.indices)
    clicked = log.shown.done(0)[random]
    biased, best = (chances(log.truth, *pairs, uniform=known)[:, 0] for known in (False, True))
    assert auc(clicked, best) > auc(clicked, biased) + 0.01


def test_the_log_marks_random_rows_and_is_the_same_again(tmp_path):
    for name in ("log", "again"):
        simulate(RANKED, tmp_path / name, form="exposures")
    table = pq.read_table(tmp_path / "log" / "exposures")
    assert table.equals(pq.read_table(tmp_path / "again" / "exposures"))
    shown = drawn(RANKED).shown
    assert (table["uniform"].to_numpy() == shown.uniform).all()
    assert (table["position"].to_numpy() == shown.position).all()
    simulate(SMALL, tmp_path / "plain", form="exposures")
    assert "uniform" not in pq.read_table(tmp_path / "plain" / "exposures").column_names


def test_worlds_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"click: its rate must be below the share .* look at, found 0\.25"):
        make_truth(RANKED.model_copy(update={"examination": 3.0}))
    with pytest.raises(ConfigError, match="known by its exposures"):
        simulate(RANKED, tmp_path / "log", form="events")
    with pytest.raises(ConfigError, match="uniform"):
        check_settings(WorldSettings, {"behaviors": [{"name": "uniform", "rate": 0.1}]}, "simulate")
