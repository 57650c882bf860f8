"""What is drawn is what the truth says."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2

from mgoe.simulation import make_truth
from mgoe.simulation.alias import alias_table, pick, uniform
from mgoe.simulation.chance import chances, expected_stay
from mgoe.simulation.draw import Day
from tests.simulation.worlds import OPPOSED, SMALL, Drawn, drawn, worlds


@pytest.fixture(scope="module")
def small() -> Drawn:
    return drawn(SMALL)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds())
def test_every_world_keeps_its_rules(world):
    log = drawn(world)
    truth, shown = log.truth, log.shown
    assert len(shown.user) == world.exposures
    for t, parent in enumerate(world.parents[1:], start=1):
        assert (shown.done(t) <= shown.done(parent)).all()  # the funnel: nothing without its parent
    assert (truth.users.arrival[shown.user] <= log.day).all()
    assert (truth.items.arrival[shown.item] <= log.day).all()
    assert (np.diff(shown.time) >= 0).all()
    assert_array_equal(truth.days(shown.time.astype("datetime64[ms]")), log.day)
    assert_array_equal(np.isnan(shown.stay), shown.done(0) == 0)
    assert shown.position.min() >= 1
    assert shown.position.max() <= world.positions
    assert shown.scenario.min() >= 0
    assert shown.scenario.max() < len(world.scenario_shares)


def test_the_rates_are_those_of_the_settings(small):
    done = np.stack([small.shown.done(t) for t in range(4)], 1)
    assert_allclose(done.mean(0), SMALL.rates, rtol=0.08)


def test_the_truth_is_the_empirical_rate_in_every_cell(small):
    users, items = (
        small.truth.users.community[small.shown.user],
        small.truth.items.community[small.shown.item],
    )
    cell = (users * SMALL.item_communities + items) * 3 + small.shown.device
    check_agreement(
        chances(small.truth, *small.indices, small.shown.device),
        small,
        cell,
    )
    check_agreement(chances(small.truth, *small.indices), small, cell // 3)  # device unknown
    where_shown = small.chances  # device and position known
    check_agreement(where_shown, small, small.shown.position.astype(int))
    for t in range(4):
        check_agreement(where_shown, small, np.argsort(np.argsort(where_shown[:, t])) * 20 // len(cell))


def test_the_truth_is_the_empirical_rate_in_every_scenario_whether_or_not_it_is_known():
    log = drawn(OPPOSED)
    users, items = (
        log.truth.users.community[log.shown.user],
        log.truth.items.community[log.shown.item],
    )
    cell = (users * OPPOSED.item_communities + items) * 3 + log.shown.scenario
    check_law(log.shown.scenario, np.array(OPPOSED.scenarios))
    check_agreement(chances(log.truth, *log.indices, scenario=log.shown.scenario), log, cell)
    check_agreement(chances(log.truth, *log.indices), log, cell // 3)
    check_agreement(log.chances, log, cell)


def check_agreement(chance, log, group):
    """Sums of outcomes minus probabilities are within binomial error: their squares follow a chi-square
    law."""
    for t in range(chance.shape[1]):
        p = chance[:, t]
        variance = np.bincount(group, p * (1 - p))
        apart = np.bincount(group, log.shown.done(t) - p)
        enough = variance > 5
        squares = (apart[enough] ** 2 / variance[enough]).sum()
        assert chi2.ppf(1e-5, enough.sum()) < squares < chi2.ppf(1 - 1e-5, enough.sum())


def test_users_come_by_activity_and_items_by_popularity_in_their_community(small):
    truth = small.truth
    day = Day(truth, 6, rows=1_000_000)
    shown = day.exposures(0)
    activity = truth.activity * (truth.users.arrival <= 6)
    check_law(shown.user, activity)
    popularity = truth.popularity(6)
    aim = truth.aim(6, popularity)
    offsets = truth.items.offsets(SMALL.item_communities)
    mass = np.add.reduceat(popularity, offsets[:-1])
    for community in range(SMALL.user_communities):
        mine = truth.users.community[shown.user] == community
        check_law(
            shown.item[mine], aim[community][truth.items.community] * popularity / mass[truth.items.community]
        )


def check_law(drawn, weights):
    expected = weights / weights.sum() * len(drawn)
    enough = expected > 5
    counts = np.bincount(drawn, minlength=len(weights))
    assert (counts[weights == 0] == 0).all()
    squares = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    assert (
        chi2.ppf(1e-5, enough.sum()) < squares < chi2.ppf(1 - 1e-5, enough.sum())
    )  # by chance: neither apart nor too regular


def test_untargeted_exposures_follow_popularity_alone():
    truth = make_truth(SMALL.model_copy(update={"personalized": 0.0}))
    popularity = truth.popularity(3)
    mass = np.bincount(truth.items.community, popularity)
    assert_allclose(truth.aim(3, popularity), np.tile(mass / mass.sum(), (SMALL.user_communities, 1)))


def test_stay_has_its_mean_and_its_noise(small):
    clicked = small.shown.done(0) == 1
    mean = expected_stay(small.truth, *small.indices)
    assert_allclose((small.shown.stay[clicked] / mean[clicked]).mean(), 1, atol=0.03)
    assert_allclose(np.log(small.shown.stay[clicked] / mean[clicked]).std(), SMALL.stay.noise, atol=0.02)


# --- from any distribution ---

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=30).filter(any)


@given(groups=st.lists(weights, min_size=1, max_size=4))
def test_an_alias_table_holds_its_distribution_exactly_and_never_draws_weight_zero(groups):
    flat, offsets = np.concatenate(groups), np.cumsum([0, *map(len, groups)])
    table = alias_table(flat, offsets)
    keep, other = (table >> np.uint64(32)) / 2**32, (table & np.uint64(2**32 - 1)).astype(int)
    for start, stop in itertools.pairwise(offsets):
        n = stop - start
        law = (keep[start:stop] + np.bincount(other[start:stop], 1 - keep[start:stop], n)) / n
        assert_allclose(law, flat[start:stop] / flat[start:stop].sum(), atol=1e-8)
        assert (law[flat[start:stop] == 0] == 0).all()


def test_picks_are_as_frequent_as_their_weights():
    law = np.array([0.5, 0.0, 0.2, 0.3])
    table = alias_table(np.concatenate([[1.0, 1.0], law]), np.array([0, 2, 6]))
    picks = [pick(u, 2, 6, table) for u in np.random.default_rng(0).random(4_000)]
    assert_allclose(np.bincount(picks, minlength=6)[2:] / 4_000, law, atol=0.03)


def test_uniform_numbers_are_uniform_and_independent():
    u = np.array([uniform(np.uint64(7), np.uint64(k)) for k in range(20_000)])
    assert ((u >= 0) & (u < 1)).all()
    assert_allclose(np.histogram(u, 10, (0, 1))[0] / 20_000, 0.1, atol=0.01)
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03
