"""Worlds in which what a user wants depends on the moment: lives of items, trends, repeats, sessions."""

import hashlib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import logit

from mgoe.config import RunSettings, check_settings
from mgoe.data import prepare
from mgoe.errors import ConfigError
from mgoe.metrics import auc
from mgoe.metrics.labels import mean_ranks
from mgoe.pipeline.prepare import reference_rows
from mgoe.simulation import Truth, WorldSettings, make_truth, reachable, simulate
from mgoe.simulation.draw import MS_PER_DAY, draw_log
from mgoe.simulation.moments import FEW, GAP, LIFE, PERIODS, STEP, Moments, make_moments
from tests.effort import up_to
from tests.simulation.worlds import MOMENTS, OPPOSED, RANKED, SMALL, areas, drawn, moment_world

TRENDS = FEW * len(PERIODS)
EFFECTS = ("lives", "trends", "repeats", "sessions")
DRAWN_BEFORE = {
    "small": "70c9c39a01281a457a4babdae61786f7aaa3272b89b51762360f05277955dc94",
    "ranked": "edf62b85fb3ac9a9d2a8be49acb0cb649bff631db7ad1ed069293b9fe79626a0",
    "opposed": "9e55562dca104dcac1d6274d40c3588cd8f7acbf97d8f67e96efde41ba37e308",
}
"""Checksums of logs that were drawn before there were these effects."""


@pytest.mark.parametrize("name", DRAWN_BEFORE)
def test_without_effects_a_log_is_bit_for_bit_what_it_was(name):
    shown = drawn({"small": SMALL, "ranked": RANKED, "opposed": OPPOSED}[name]).shown
    digest = hashlib.sha256()
    for column in sorted(vars(shown)):
        digest.update(np.ascontiguousarray(getattr(shown, column)).tobytes())
    assert digest.hexdigest() == DRAWN_BEFORE[name]


class Before(NamedTuple):
    """Events by a key and time, and which were before others.

    Attributes:
        place: Sorted, one number per key and time.
        order: The events in this order.
        span: Numbers per key.
    """

    place: NDArray
    order: NDArray
    span: int

    @classmethod
    def of(cls, key: NDArray, time: NDArray, span: int) -> "Before":
        place = key.astype(np.int64) * span + time
        order = np.argsort(place, kind="stable")
        return cls(place[order], order, span)

    def last(self, key: NDArray, time: NDArray) -> NDArray:
        """The last event of each key strictly before a time, -1 for none."""
        at = np.searchsorted(self.place, key.astype(np.int64) * self.span + time) - 1
        return np.where((at >= 0) & (self.place[at] // self.span == key), self.order[at], -1)

    def count_of(self, key: NDArray, begin: NDArray, end: NDArray) -> NDArray:
        """How many events of each key there are from a time on, and strictly before another."""
        start = key.astype(np.int64) * self.span
        return np.searchsorted(self.place, start + end) - np.searchsorted(
            self.place, start + np.maximum(begin, 0)
        )


def events_of(world: WorldSettings) -> tuple[NDArray, NDArray, NDArray]:
    parts = [
        (e.user[d], e.item[d], e.time[d]) for _, e in draw_log(make_truth(world)) for d in [e.done(0) > 0]
    ]
    user, item, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, item, time - start_of(world)


def start_of(world: WorldSettings) -> int:
    return int(np.datetime64(world.start, "ms").astype(np.int64))


def simple_inputs(truth: Truth, rows: dict[str, NDArray]) -> dict[str, NDArray]:
    """Return, for each effect, the number of rows that an engineer would write down for it: what the log had
    before the moment, and for the first two whether the user is one whom it concerns."""
    s, span = truth.settings, truth.settings.days * MS_PER_DAY
    # a null world has the tables of any other
    moments = moments_of(truth if s.at_moments else make_truth(s.model_copy(update={"repeats": 0.5})))
    user, item, time = events_of(s)
    u, i = rows["user"], rows["item"]
    t = rows["time"] - start_of(s)
    first = np.full(s.items, span)
    np.minimum.at(first, item, time)
    age = (t - first[i]) / MS_PER_DAY
    by_item, by_user = Before.of(item, time, span), Before.of(user, time, span)
    by_pair = Before.of(user * np.int64(s.items) + item, time, span)
    pair, last = by_pair.last(u * s.items + i, t), by_user.last(u, t)
    since = np.where(pair >= 0, t - time[pair], np.inf) / moments.interval[i]
    follows = (moments.following[item[last]] == i[:, None]).any(1)
    going = (last >= 0) & (t - time[last] <= GAP)
    return {
        "lives": for_some(-age, truth.users.community[u] % 2 > 0),
        "trends": for_some(by_item.count_of(i, t - STEP, t), truth.users.community[u] % 4 > 1),
        "repeats": np.round(np.exp(-((np.log(since) / 0.25) ** 2) / 2), 2),
        "sessions": going * np.where(follows, 1, -1),
    }


def for_some(value: NDArray, some: NDArray) -> NDArray:
    """The share of rows with a smaller value, of users whom an effect concerns; of larger ones for others."""
    share = np.empty(len(value))
    for side in (True, False):
        share[some == side] = mean_ranks(value[some == side]) / np.count_nonzero(some == side)
    return np.where(some, share, 1 - share)


@pytest.fixture(scope="module", params=[None, *EFFECTS])
def world(request, tmp_path_factory):
    """Return the effect, its world, the truth, and the simple inputs of each row."""
    made = moment_world(request.param, tmp_path_factory.mktemp("world") / "log")
    truth = Truth.open(made.log.parent)
    return request.param, made, truth, simple_inputs(truth, made.rows)


def test_the_best_reachable_is_clearly_above_chance_where_an_effect_is_on(world):
    effect, made, _, _ = world
    for area in (made.best["auc"], made.best["gauc"]):
        assert area > 0.6 if effect else abs(area - 0.5) < 0.01


def test_a_simple_input_recovers_most_of_its_own_world_and_nothing_of_others(world):
    effect, made, _, inputs = world
    for name, values in inputs.items():
        for kind, area in areas(made.rows, values).items():
            if name == effect:
                assert 0.6 * (made.best[kind] - 0.5) < area - 0.5 < made.best[kind] - 0.5
            else:
                assert abs(area - 0.5) < 0.01


def test_the_best_reachable_is_calibrated_and_knows_what_inputs_and_popularity_say(world):
    effect, made, truth, inputs = world
    late, label = made.rows["late"], made.rows["task_mask"] > 0
    label, best, item = label[late], made.best["chance"][late], made.rows["item"][late]
    group = np.argsort(np.argsort(best + 1e-9 * np.random.default_rng(0).random(len(best)))) * 10 // len(best)
    size = np.bincount(group)
    assert_allclose(np.bincount(group, label) / size, np.bincount(group, best) / size, atol=0.05)
    more = [truth.popularity(0)[item], *(values[late] for values in inputs.values())]
    for score in more:
        place = mean_ranks(score) / len(score) - 0.5
        for weight in (-0.5, 0.5):
            assert auc(label, logit(best) + weight * place) < auc(label, best) + (0.003 if effect else 0.01)


def test_a_comparison_measures_the_same_on_the_log_as_it_is_prepared(tmp_path):
    made = moment_world("sessions", tmp_path / "log", exposures=10_000, users=300)
    prepared = prepare(made.settings, tmp_path / "data")
    moments = prepared.examples("test").moment
    assert moments is not None
    inside = made.rows["time"] * 1_000 >= moments.min()
    for row in reference_rows(made.settings, prepared):
        if (row["model"], row["split"], row["task"]) == ("best-reachable", "test", "click"):
            if row["metric"] in ("auc", "gauc"):
                expected = areas(made.rows | {"late": inside}, made.best["chance"])[row["metric"]]
                assert row["value"] == pytest.approx(expected, abs=0.02)
            if row["metric"] == "examples":
                assert row["value"] == pytest.approx(np.count_nonzero(inside), rel=0.02)


@up_to(12)
@given(
    shares=st.tuples(*[st.sampled_from([0.0, 0.3, 0.9])] * 4),
    seed=st.integers(0, 2**32),
    exposures=st.integers(1, 3_000),
    changes=st.fixed_dictionaries(
        {"days": st.integers(1, 20), "arriving_items": st.floats(0, 1), "arriving_users": st.floats(0, 1)}
    ),
)
def test_every_world_keeps_its_rules(shares, seed, exposures, changes):
    few = {"users": 20, "items": 10, "seed": seed, "exposures": exposures}
    settings = MOMENTS.model_copy(update={**dict(zip(EFFECTS, shares, strict=True)), **few, **changes})
    log, again = drawn(settings), drawn(settings)
    truth, shown = log.truth, log.shown
    assert len(shown.user) == exposures
    assert (np.diff(shown.time) >= 0).all()
    assert_array_equal(truth.days(shown.time.astype("datetime64[ms]")), log.day)
    assert (truth.users.arrival[shown.user] <= log.day).all()
    assert (truth.items.arrival[shown.item] <= log.day + settings.at_moments).all()
    for column, values in vars(shown).items():
        assert_array_equal(values, getattr(again.shown, column))
    if settings.at_moments and shown.done(0).any():
        rows = rng_rows(settings, seed)
        run = RunSettings.model_validate(run_settings(history="moment"))
        chance = reachable(truth, run, truth.user_ids.of(rows[0]), truth.item_ids.of(rows[1]), rows[2])
        assert ((chance >= 0) & (chance <= 1)).all()


def rng_rows(settings: WorldSettings, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Users, items and moments of any kind: also before the first day and after the last one."""
    rng, days = np.random.default_rng(seed), settings.days
    moment = np.datetime64(settings.start, "ms") + rng.integers(-2 * MS_PER_DAY, (days + 2) * MS_PER_DAY, 40)
    return rng.integers(settings.users, size=40), rng.integers(settings.items, size=40), moment


def run_settings(**data) -> dict:
    return {"data": {"log": ["log"], **data}, "tasks": [{"name": "click"}]}


def moments_of(truth: Truth) -> Moments:
    moments = make_moments(truth)
    assert moments is not None
    return moments


def share_of(settings: WorldSettings) -> tuple[Truth, NDArray, NDArray, NDArray]:
    """Return the truth, and user, item and time of all first behaviours."""
    truth = make_truth(settings)
    return truth, *events_of(settings)


def test_half_of_what_the_curious_do_is_new_and_fades_within_days():
    truth, user, item, time = share_of(MOMENTS.model_copy(update={"lives": 0.5}))
    moments = moments_of(truth)
    curious = truth.users.community[user] % 2 > 0
    place = moments.now[time // STEP, TRENDS:] == item[:, None]  # from the newest on
    assert_allclose(place.any(1)[curious].mean(), 0.5 + 0.5 * place.any(1)[~curious].mean(), atol=0.05)
    of_rank = place[curious].mean(0) - place[~curious].mean(0)
    assert of_rank[:3].mean() > of_rank[8:11].mean() > of_rank[16:19].mean() > 0
    first = np.full(MOMENTS.items, MOMENTS.days * MS_PER_DAY)
    np.minimum.at(first, item, time)
    age = (time - first[item])[first[item] > 10 * MS_PER_DAY]
    assert (age < LIFE).sum() > 2 * ((age > 2 * LIFE) & (age < 3 * LIFE)).sum()


def test_half_of_what_followers_do_is_wanted_now():
    truth, user, item, time = share_of(MOMENTS.model_copy(update={"trends": 0.5}))
    moments = moments_of(truth)
    trends = moments.now[:, :TRENDS]
    hot = (trends[time // STEP] == item[:, None]).any(1)
    follows = truth.users.community[user] % 4 > 1
    assert_allclose(hot[follows].mean(), 0.5 + 0.5 * hot[~follows].mean(), atol=0.02)
    assert hot[~follows].mean() < 0.1
    alike = [(trends[step:] == trends[: len(trends) - step]).mean() for step in (1, 8, 60)]
    assert alike[0] > alike[1] > alike[2] + 0.1  # hours to weeks


def test_users_come_back_to_an_item_after_its_interval():
    truth, user, item, time = share_of(MOMENTS.model_copy(update={"repeats": 0.5}))
    before = Before.of(user * np.int64(MOMENTS.items) + item, time, MOMENTS.days * MS_PER_DAY)
    last = before.last(user * np.int64(MOMENTS.items) + item, time)
    again = last >= 0
    interval = moments_of(truth).interval[item]
    assert set((interval / MS_PER_DAY).tolist()) == {2, 4, 8}
    part = (time - time[last])[again] / interval[again]
    assert 0.25 < ((part > 0.6) & (part < 1.6)).sum() / len(item) < 0.5
    assert (part < 0.4).mean() < 0.15


def test_events_of_a_session_follow_each_other():
    for share in (0.0, 0.5):
        truth, user, item, time = share_of(MOMENTS.model_copy(update={"sessions": share, "seed": 3}))
        order = np.lexsort((time, user))
        user, item, time = user[order], item[order], time[order]
        near = (user[1:] == user[:-1]) & (np.diff(time) <= GAP)
        follows = (moments_of(truth).following[item[:-1]] == item[1:, None]).any(1) if share else near * 0
        assert near.mean() > 0.6 if share else near.mean() < 0.1
        assert_allclose(follows[near].mean(), share, atol=0.06)
        assert follows[~near].mean() < 0.05


def test_the_summary_says_what_is_reachable_in_either_form(tmp_path):
    settings = SMALL.model_copy(update={"repeats": 0.5, "days": 20})
    for form in ("events", "exposures"):
        summary = simulate(settings, tmp_path / form, form=form)
        assert 0.65 < summary.best_auc["click"] < 0.95
    assert Truth.open(tmp_path / "events").settings == settings


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"lives": 1.0}, "lives"),
        ({"repeats": -0.1}, "repeats"),
        ({"sessions": 0.5, "uniform": 0.1}, "neither `uniform`, `popular_first` nor several"),
        ({"trends": 0.5, "scenarios": [1.0, 1.0]}, "leave out either"),
        ({"lives": 0.5, "user_communities": 2}, "at least 3 communities of users.* found user_communities 2"),
    ],
)
def test_what_is_not_known_together_is_refused(raw, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(WorldSettings, raw)


def test_rows_must_read_up_to_their_moment():
    truth = make_truth(MOMENTS.model_copy(update={"repeats": 0.5}))
    ids = truth.user_ids.of(np.array([0])), truth.item_ids.of(np.array([0])), [np.datetime64(MOMENTS.start)]
    with pytest.raises(ConfigError, match=r"data.history: .* found cut; set `moment`"):
        reachable(truth, RunSettings.model_validate(run_settings()), *ids)
