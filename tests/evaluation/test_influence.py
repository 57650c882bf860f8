"""Influence of users on metrics, and what follows for intervals."""

import cProfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe import metrics
from mgoe.errors import OutputError
from mgoe.evaluation import Influence, estimate, find_leads, measure, user_influence
from tests.effort import SOAK, up_to

from .made_up import TASKS, drawn_again, made_up

SEEDS = st.integers(0, 2**32 - 1)
NAMES = [
    ("click", "auc"),
    ("click", "gauc"),
    ("click", "logloss"),
    ("buy", "auc"),
    ("stay", "rmse"),
    ("stay", "mae"),
    ("all", "ranking"),
]


@given(SEEDS)
def test_values_are_those_measured_and_influences_sum_to_zero(seed):
    labels, scores, users = made_up(seed, rows=300)
    found = user_influence(scores, labels, users, TASKS)
    measured = {
        (r["task"], r["metric"]): r["value"]
        for r in measure(scores, labels, users, TASKS, model="m", seed=0, split="test")
    }
    assert_allclose(found.values, [measured[name] for name in found.names])
    known = ~np.isnan(found.parts).any(0)  # with so few rows some metrics have labels of too few users
    assert_allclose(found.parts[:, known].sum(0), 0, atol=1e-5)
    assert np.isnan(found.parts[:, ~known]).all()
    assert not known[np.isnan(found.values)].any()


@up_to(10)
@given(SEEDS)
def test_influence_is_the_effect_of_drawing_a_user_once_more(seed):
    labels, scores, users = made_up(seed, users=300, rows=3000)
    found = user_influence(scores, labels, users, TASKS)
    busiest = int(np.bincount(users).argmax())
    again = np.concatenate([np.arange(3000), np.flatnonzero(users == busiest)])
    twin = np.where(np.arange(len(again)) < 3000, users[again], 10_000)
    moved = user_influence(scores[again], labels[again], twin, TASKS).values - found.values
    row = found.parts[np.searchsorted(found.users, busiest)]
    assert_allclose(moved, row, atol=0.1 * np.abs(row).max() + 1e-5, rtol=0.25)


@given(SEEDS)
def test_the_influence_on_a_ratio_is_the_effect_of_drawing_a_user_once_more(seed):
    """Of means over users, where one user is a thousandth; a ratio to nothing does not exist."""
    values = np.random.default_rng(seed).random((1000, 2)) * [1, 0.5] + 0.1
    means, names = values.mean(axis=0), (("all", "ndcg@10"), ("all", "hr@10"))
    parts = ((values - means) / len(values)).astype(np.float32)
    ours = Influence(names, means, np.arange(1000), parts)
    best = Influence(names, np.array([means[1], 0]), np.arange(1000), parts[:, [1, 1]])
    found = ours / best
    assert np.isnan(found.values[1])
    assert np.isnan(found.parts[:, 1]).all()
    again = np.concatenate([values, values[:1]]).mean(axis=0)
    moved = again[0] / again[1] - means[0] / means[1]
    assert_allclose(found.values[0], means[0] / means[1])
    assert_allclose(found.parts[0, 0], moved, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("seed", [0, *[1] * SOAK])
def test_the_spread_equals_that_of_a_bootstrap_over_users(seed):
    labels, good, users = made_up(seed, users=150, rows=2000)
    poor = good.copy()
    rng = np.random.default_rng(seed)
    poor[:, :2] = 1 / (1 + np.exp(-np.log(good[:, :2] / (1 - good[:, :2])) - rng.normal(size=(2000, 2))))
    a, b = (user_influence(scores, labels, users, TASKS) for scores in (good, poor))
    users_n = len(a.users)
    closed = np.sqrt((((a - b).parts ** 2).sum(0)) * users_n / (users_n - 1))
    drawn = []
    for _ in range(400 if SOAK else 200):
        rows, names = drawn_again(users, rng)
        both = [user_influence(scores[rows], labels[rows], names, TASKS).values for scores in (good, poor)]
        drawn.append(both[0] - both[1])
    judged = [
        a.names.index(name) for name in NAMES if name[0] != "stay"
    ]  # both predict the same for the regression
    assert_allclose(closed[judged], np.std(drawn, axis=0)[judged], rtol=0.2)


def test_intervals_cover_the_truth_at_their_level():
    """Two models of equal skill differ by 0; new users and new seeds each time."""
    inside, narrow = [], []
    for world in range(120 if SOAK else 60):
        labels, scores, users = made_up(world, users=80, rows=500, missing=0)
        rng = np.random.default_rng(world)
        logit = np.log(scores[:, :2] / (1 - scores[:, :2]))
        seeds = [
            [
                user_influence(logit + rng.normal(size=logit.shape), labels[:, :2], users, TASKS[:2])
                for _ in range(3)
            ]
            for _ in "ab"
        ]
        found = {
            (e.task, e.metric): e
            for e in find_leads("a", dict(enumerate(seeds[0])), {"b": dict(enumerate(seeds[1]))}, draws=2000)
        }
        whole = found["all", "ranking"]
        inside.append(whole.low <= 0 <= whole.high)
        narrow.append(whole.high - whole.low)
    assert np.mean(inside) >= 0.92
    assert np.mean(narrow) < 0.2


def test_with_one_seed_the_interval_is_over_users():
    labels, scores, users = made_up(0)
    one = user_influence(scores, labels, users, TASKS)
    found = {(e.task, e.metric): e for e in estimate("m", [one])}["click", "auc"]
    assert found.low < found.value < found.high
    same = find_leads("m", {0: one}, {"n": {0: one}})
    assert all((e.value, e.low, e.high) == (0, 0, 0) for e in same)


def test_a_task_of_one_class_gives_nan_not_a_crash():
    labels, scores, users = made_up(0)
    labels[:, 1] = 0
    found = {(e.task, e.metric): e for e in estimate("m", [user_influence(scores, labels, users, TASKS)] * 2)}
    assert np.isnan([found["buy", "auc"].value, found["buy", "auc"].low]).all()
    assert found["all", "auc"].value == found["click", "auc"].value


@pytest.mark.parametrize("few", [1, 19, 20])
def test_labels_of_few_users_give_a_value_without_an_interval(few):
    """The influence of a single user on its own mean is zero, so noise would look certain."""
    rng = np.random.default_rng(few)
    users = np.arange(400) % 100
    labels = np.where(users[:, None] < few, rng.integers(0, 2, (400, 3)), np.nan)
    found = user_influence(rng.random((400, 3)), labels, users, TASKS)
    for name in (("click", "logloss"), ("stay", "rmse"), ("stay", "mae")):
        at = found.names.index(name)
        assert found.values[at] > 0
        assert np.isnan(found.parts[:, at]).all() == (few < 20)


@pytest.mark.parametrize("few", [1, 19, 20])
def test_a_task_with_few_positive_users_has_a_value_without_an_interval(few):
    """A single user with a positive moves nothing, so noise would look certain."""
    rng, users = np.random.default_rng(few), np.repeat(np.arange(200), 10)
    labels = np.zeros((2000, 2))
    labels[::2, 0] = 1
    labels[np.arange(few) * 10, 1] = 1
    ours, theirs = (user_influence(rng.random((2000, 2)), labels, users, TASKS[:2]) for _ in range(2))
    found = {(one.task, one.metric): one for one in find_leads("a", {0: ours}, {"b": {0: theirs}})}
    for name, metric in (("buy", "auc"), ("buy", "gauc"), ("all", "auc"), ("all", "ranking")):
        assert np.isfinite(found[name, metric].value)
        assert np.isnan([found[name, metric].low, found[name, metric].high]).all() == (few < 20)
    assert np.isfinite([found["click", "auc"].low, found["buy", "logloss"].low]).all()


@up_to(5)
@given(SEEDS, st.integers(1, 3))
def test_users_without_a_label_change_no_interval(seed, seeds):
    rng, rows, silent = np.random.default_rng(seed), 800, 400
    labels, good, users = made_up(seed, users=60, rows=rows)
    both = [
        [np.clip(good + rng.normal(0, 0.1, good.shape), 0.01, 0.99) for _ in range(seeds)] for _ in range(2)
    ]

    def found(more: int) -> list:
        padded = np.concatenate([labels, np.full((more, labels.shape[1]), np.nan)])
        names = np.concatenate([users, users.max() + 1 + np.arange(more)])
        ours, theirs = (
            [
                user_influence(
                    np.concatenate([one, np.full((more, labels.shape[1]), 0.5)]), padded, names, TASKS
                )
                for one in runs
            ]
            for runs in both
        )
        return find_leads(
            "a", dict(enumerate(ours)), {"b": dict(enumerate(theirs))}, draws=16_000
        )  # widths then differ by a few hundredths

    for one, other in zip(found(0), found(silent), strict=True):  # of other draws
        assert_allclose(other.value, one.value, rtol=1e-5, atol=1e-9)
        assert other.users == one.users or np.isnan(one.low)
        assert_allclose(other.high - other.low, one.high - one.low, rtol=0.1)


def test_influence_survives_a_round_trip_through_its_file(tmp_path):
    labels, scores, users = made_up(0)
    found = user_influence(scores, labels, users, TASKS)
    found.save(tmp_path / "influence.safetensors")
    back = Influence.load(tmp_path / "influence.safetensors")
    assert back.names == found.names
    assert not (back - found).parts.any()
    (tmp_path / "influence.safetensors").write_bytes(b"no such format")
    with pytest.raises(OutputError):
        Influence.load(tmp_path / "influence.safetensors")
    with pytest.raises(OutputError):
        Influence.load(tmp_path / "missing.safetensors")


def test_other_users_are_refused():
    labels, scores, users = made_up(0)
    a = user_influence(scores, labels, users, TASKS)
    with pytest.raises(ValueError, match="same tasks and users"):
        a - user_influence(scores[:50], labels[:50], users[:50], TASKS)
    with pytest.raises(ValueError, match="same tasks and users"):
        a / user_influence(scores[:50], labels[:50], users[:50], TASKS)


def test_users_are_not_looked_up_one_by_one():
    def calls(users: int) -> int:
        labels, scores, ids = made_up(0, users=users, rows=9 * users)
        profile = cProfile.Profile()
        one = profile.runcall(user_influence, scores, labels, ids, TASKS)
        profile.runcall(find_leads, "a", dict.fromkeys(range(5), one), {"b": dict.fromkeys(range(5), one)})
        assert_allclose(one.values[0], metrics.auc(labels[:, 0], scores[:, 0]))
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(20_000) < 20_000  # 5,500 in blocks of users


def test_influence_that_cannot_be_written_says_so(tmp_path):
    labels, scores, users = made_up(0, rows=30)
    with pytest.raises(
        OutputError,
        match=r"v.safetensors: cannot be written: .*; choose a folder you may write, or free space",
    ):
        user_influence(scores, labels, users, TASKS).save(tmp_path / "none" / "v.safetensors")
