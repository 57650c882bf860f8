"""Worlds are what their settings say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.config import check_settings, make_settings
from mgoe.errors import ConfigError, DataError
from mgoe.simulation import Truth, WorldSettings, make_truth, reachable
from mgoe.simulation.chance import chances, expected_stay, label_chances
from mgoe.simulation.content import contents
from mgoe.simulation.truth import Ids
from tests.effort import up_to
from tests.simulation.worlds import SMALL, drawn, worlds


def changed(**settings) -> Truth:
    return make_truth(SMALL.model_copy(update=settings))


@up_to(12)
@given(world=worlds())
def test_a_world_is_drawn_again_from_its_settings_and_reopened_from_its_folder(world, tmp_path_factory):
    truth, again = make_truth(world), make_truth(world)
    folder = tmp_path_factory.mktemp("truth")
    truth.save(folder)
    rng = np.random.default_rng(0)
    rows = tuple(rng.integers(0, size, 50) for size in (world.users, world.items, world.days))
    reopened = Truth.open(folder)
    assert reopened.settings == world
    for other in (again, reopened):
        assert_array_equal(chances(other, *rows), chances(truth, *rows))
        assert_array_equal(label_chances(other, *rows, 3), label_chances(truth, *rows, 3))
        assert_array_equal(expected_stay(other, *rows), expected_stay(truth, *rows))


@up_to(12)
@given(world=worlds())
def test_no_community_is_empty_and_days_hold_all_exposures(world):
    truth = make_truth(world)
    for nodes, count, communities in (
        (truth.users, world.users, world.user_communities),
        (truth.items, world.items, world.item_communities),
    ):
        assert len(nodes) == count
        assert np.bincount(nodes.community, minlength=communities).min() >= 1
        assert nodes.arrival.min() == 0
        assert nodes.arrival.max() < world.days
    assert truth.day_rows.sum() == world.exposures


def test_skew_makes_communities_fall_in_size():
    sizes = np.bincount(changed(users=10_000, skew=1.0).users.community)
    assert_allclose(sizes / sizes[0], 1 / np.arange(1, 5), rtol=0.01)
    even = np.bincount(changed(users=10_000, skew=0.0).users.community)
    assert np.ptp(even) <= 1


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_popularity_and_activity_follow_power_laws_on_every_day(exponent):
    truth = changed(users=20_000, items=20_000, popularity=exponent, activity=exponent, arriving_items=0.0)
    for law in (truth.popularity(0), truth.popularity(11), truth.activity):
        rank, value = np.arange(1, 20_001), np.sort(law)[::-1]
        middle = slice(20, 10_000)  # the first few ranks are a matter of luck
        slope = np.polyfit(np.log(rank[middle]), np.log(value[middle]), 1)[0]
        assert_allclose(slope, -exponent, atol=0.05)


def test_drift_changes_affinities_and_popularity_and_zero_drift_keeps_them():
    last = SMALL.days - 1
    still, moved, gone = (
        changed(
            items=5_000,
            item_communities=100,
            user_communities=20,
            affinity_drift=d,
            popularity_drift=d,
            arriving_items=0.0,
        )
        for d in (0.0, 0.5, 1.0)
    )
    for truth, expected in ((still, 1.0), (moved, np.cos(np.pi / 4)), (gone, 0.0)):
        for t in range(4):
            assert_allclose(
                _likeness(truth.logits(0)[0, ..., t], truth.logits(last)[0, ..., t]), expected, atol=0.08
            )
            assert_allclose(truth.logits(last)[..., t].std(), SMALL.behaviors[t].strength, rtol=0.08)
        score = [np.argsort(np.argsort(truth.popularity(day))) for day in (0, last)]
        assert _likeness(*score) == pytest.approx(
            6 / np.pi * np.arcsin(expected / 2), abs=0.05
        )  # rank correlation of normal scores


def _likeness(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_affinities_have_the_set_correlation_even_if_negative():
    behaviors = [
        b.model_copy(update={"correlation": c})
        for b, c in zip(SMALL.behaviors, (1, 0.9, 0.0, -0.8), strict=True)
    ]
    truth = changed(items=5_000, item_communities=100, user_communities=20, behaviors=behaviors)
    for t, expected in enumerate((1, 0.9, 0.0, -0.8)):
        assert_allclose(_likeness(truth.affinity[0, 0], truth.affinity[0, t]), expected, atol=0.08)


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.0, 0.8, 1.0])
def test_scenarios_have_the_set_correlation_of_tastes_and_one_taste_of_stays(correlation):
    several = {"scenarios": [1.0, 2.0, 1.0], "scenario_correlation": correlation}
    truth = changed(items=5_000, item_communities=100, user_communities=20, **several)
    alone = changed(items=5_000, item_communities=100, user_communities=20)
    assert_array_equal(truth.affinity[:, :, :1], alone.affinity)  # further ones leave the first as it is
    for t, behavior in enumerate(SMALL.behaviors):
        for scenario in (1, 2):
            first, other = truth.affinity[0, t, 0], truth.affinity[0, t, scenario]
            assert_allclose(_likeness(first, other), correlation, atol=0.08)
            assert_allclose(other.std(), behavior.strength, rtol=0.08)
            likeness = _likeness(truth.affinity[0, 0, scenario], other)
            assert_allclose(likeness, behavior.correlation, atol=0.08)
    assert (truth.affinity[:, -1] == truth.affinity[:, -1, :1]).all()


def test_growth_delays_arrivals():
    day = SMALL.days // 2
    for growth in (1.0, 3.0):
        truth = changed(users=20_000, arriving_users=0.5, growth=growth)
        assert_allclose((truth.users.arrival < day).mean(), 0.5 + 0.5 * 0.5**growth, atol=0.02)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"user": 5}, "did you mean 'users'?"),
        ({"users": 3, "user_communities": 5}, "user_communities must not exceed users, found 5 of 3"),
        ({"behaviors": [{"name": "click", "rate": 1.5}]}, "rate"),
        (
            {"behaviors": [{"name": "click", "rate": 0.5}, {"name": "buy", "rate": 0.5, "given": "clck"}]},
            "did you mean 'click'?",
        ),
        (
            {"behaviors": [{"name": "click", "rate": 0.5}, {"name": "click", "rate": 0.5}]},
            "need different names",
        ),
        ({"behaviors": [{"name": "click", "rate": 0.5, "rank": 1}]}, "unknown key"),
        ({"popularity": float("nan")}, "popularity"),
        ({"scenarios": [1.0, 0.0]}, "scenarios"),
    ],
)
def test_inconsistent_settings_are_refused(raw, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        check_settings(WorldSettings, raw)


def test_unknown_ids_and_devices_are_refused():
    truth = make_truth(SMALL)
    tasks = [{"name": "click", "label": "click"}]
    run = make_settings({"data": {"log": "log"}, "tasks": tasks})
    known = truth.user_ids.of(np.array([0])), truth.item_ids.of(np.array([0])), [np.datetime64(SMALL.start)]
    with pytest.raises(DataError, match="of this simulated world, found 7"):
        reachable(truth, run, [7], *known[1:])
    with pytest.raises(DataError, match="must be one of phone, desktop, tablet"):
        reachable(truth, run, *known, ["fridge"])
    with pytest.raises(DataError, match=r"scenario: must be one of s0, or null .* found 's1'"):
        reachable(truth, run, *known, scenario=["s1"])
    assert_allclose(reachable(truth, run, *known, [None]), reachable(truth, run, *known))


def test_ids_of_another_type_are_unknown():
    truth = make_truth(SMALL)
    with pytest.raises(
        DataError,
        match=r"users: every id must be of this simulated world, .* integers as ids, found others \(.*'u1'",
    ):
        truth.indices(["u1"], truth.item_ids.of(np.array([0])))


@pytest.mark.parametrize("change", [{"strength": 100.0}, {"user_spread": 200.0}])
def test_rates_are_as_set_for_any_spread_of_users(change):
    click = SMALL.behaviors[0].model_copy(update=change)
    world = drawn(SMALL.model_copy(update={"behaviors": [click]}))
    assert_allclose(world.shown.done(0).mean(), click.rate, rtol=0.08)


def test_a_folder_without_a_truth_is_refused(tmp_path):
    with pytest.raises(DataError, match="`mgoe simulate` writes one"):
        Truth.open(tmp_path)
    make_truth(SMALL).save(tmp_path / "truth")
    (tmp_path / "truth" / "users.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="simulate the log again"):
        Truth.open(tmp_path)


@given(count=st.integers(1, 2**31 - 1), index=st.lists(st.integers(0, 2**31 - 1), max_size=20))
def test_every_id_gives_its_index_and_other_numbers_none(count, index):
    ids, index = Ids(count, 500), np.array(index, np.int64) % count
    assert (ids.index(ids.of(index)) == index).all()
    assert (ids.index([499, 500 + 2**36, -1]) == -1).all()
    assert len(np.unique(ids.of(np.unique(index)))) == len(np.unique(index))


def test_most_numbers_in_the_range_of_ids_are_not_ids():
    ids = Ids(1_000, 0)
    assert (ids.index(np.arange(2**20)) >= 0).sum() == 1_000


@pytest.mark.parametrize("content", [0.0, 0.5])
@pytest.mark.parametrize("side", ["user", "item"])
def test_the_best_linear_reading_of_a_taste_from_vectors_has_the_set_correlation(content, side):
    truth = changed(users=20_000, items=20_000, content=content, user_communities=12, item_communities=9)
    vectors = contents(truth, side)
    known = np.c_[vectors, np.ones(len(vectors))]
    affinity = truth.affinity[0, :, 0] if side == "item" else truth.affinity[0, :, 0].swapaxes(1, 2)
    nodes = truth.items if side == "item" else truth.users
    for taste in (affinity[0, 0], affinity[0, 1], affinity[2, 3]):  # of a behaviour, with a community
        own = taste[nodes.community]
        read = known @ np.linalg.lstsq(known, own, rcond=None)[0]
        assert_allclose(np.cov(read, own)[0, 1] ** 0.5 / own.std(ddof=1), content, atol=0.04)
    np.testing.assert_array_equal(changed(**vars(truth.settings) | {"content": None}).taste, truth.taste)
