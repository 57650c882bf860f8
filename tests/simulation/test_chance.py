"""The best reachable is calibrated, and nothing ranks better."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import chi2

from mgoe.config import RunSettings
from mgoe.errors import ConfigError
from mgoe.metrics import auc
from mgoe.simulation import BehaviorSettings, reachable
from mgoe.simulation.chance import chances, expected_stay, label_chances
from mgoe.simulation.logs import with_negatives
from tests.effort import up_to
from tests.simulation.worlds import OPPOSED, SMALL, drawn

WORLD = SMALL.model_copy(update={"exposures": 150_000, "users": 3_000, "items": 1_500})
NAMES = WORLD.names


def run_settings(form: str, **changes) -> RunSettings:
    tasks = [{"name": name, "label": name} if form == "exposures" else {"name": name} for name in NAMES]
    return RunSettings.model_validate({"data": {"log": "log", "form": form}, "tasks": tasks} | changes)


@pytest.fixture(scope="module", params=["exposures", "events"])
def examples(request):
    """Return truth, form, ids and labels (N, T)."""
    log = drawn(WORLD)
    user, item, mask, day = log.shown.user, log.shown.item, log.shown.task_mask, log.day
    if request.param == "events":
        user, item, mask, day = with_negatives(user, item, mask, day, np.random.default_rng(0))
    ids = log.truth.user_ids.of(user), log.truth.item_ids.of(item), np.datetime64(WORLD.start) + day
    return log.truth, request.param, ids, (mask[:, None] >> np.arange(len(NAMES)) & 1).astype(float)


@pytest.fixture(scope="module")
def best(examples):
    truth, form, ids, _ = examples
    return reachable(truth, run_settings(form), *ids)


def test_best_predictions_are_calibrated(examples, best):
    for t in range(len(NAMES)):
        p = best[:, t]
        group = np.argsort(np.argsort(p)) * 20 // len(p)
        variance = np.bincount(group, p * (1 - p))
        squares = (np.bincount(group, examples[3][:, t] - p) ** 2 / variance).sum()
        assert squares < chi2.ppf(1 - 1e-6, 20)


def test_best_predictions_know_each_of_two_conflicting_tasks():
    """With opposed tastes, the best ranking of one task is worse than chance for the other; both are
    calibrated."""
    funnel = [
        BehaviorSettings(name="click", rate=0.3, strength=1.2, correlation=1),
        BehaviorSettings(name="buy", rate=0.3, strength=1.5, correlation=-1, user_spread=0, item_spread=0),
    ]
    log = drawn(WORLD.model_copy(update={"behaviors": funnel, "affinity_drift": 0}))
    ids = (
        log.truth.user_ids.of(log.shown.user),
        log.truth.item_ids.of(log.shown.item),
        np.datetime64(WORLD.start) + log.day,
    )
    tasks = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "given": "click"}]
    settings = RunSettings.model_validate({"data": {"log": "log", "form": "exposures"}, "tasks": tasks})
    best = reachable(log.truth, settings, *ids)
    clicked, bought = (log.shown.task_mask >> t & 1 for t in range(2))
    there = clicked > 0
    assert auc(bought[there], best[there, 1]) > 0.6
    assert auc(bought[there], best[there, 0]) < 0.45
    assert abs(bought[there].mean() - best[there, 1].mean()) < 0.02


def test_best_predictions_know_the_scenario_and_are_worse_without_it():
    log = drawn(OPPOSED.model_copy(update={"exposures": 150_000}))
    named = np.array(OPPOSED.scenario_names)[log.shown.scenario]
    known, unknown = (
        reachable(log.truth, run_settings("exposures"), *log.ids, scenario=scenario)
        for scenario in (named, None)
    )
    for t in range(len(NAMES)):
        done = log.shown.done(t)
        assert auc(done, known[:, t]) > auc(done, unknown[:, t]) + 0.02
        assert abs((done - known[:, t]).mean()) < 4 * np.sqrt(0.25 / len(done))
    with pytest.raises(ConfigError, match="several `scenarios` is known on its exposure log"):
        reachable(log.truth, run_settings("events"), *log.ids)


@up_to(12)
@given(seed=st.integers(0, 1_000), scale=st.floats(0.3, 2), t=st.integers(0, len(NAMES) - 1))
def test_a_perturbed_score_ranks_worse(examples, best, seed, scale, t):
    score = logit(best[:, t])
    noise = np.random.default_rng(seed).standard_normal(len(score))
    assert auc(examples[3][:, t], score + scale * noise) < auc(examples[3][:, t], score)


def test_parts_of_the_truth_rank_worse_than_the_whole(examples, best):
    truth, form, ids, labels = examples
    user, item, day = truth.user_ids.index(ids[0]), truth.item_ids.index(ids[1]), truth.days(ids[2])
    popularity = np.stack([truth.popularity(d) for d in range(WORLD.days)])
    cell = truth.affinity[:, :, 0, truth.users.community[user], truth.items.community[item]]
    for t in range(len(NAMES)):
        whole = auc(labels[:, t], best[:, t])
        parts = [
            popularity[day, item],
            truth.users.bias[user, t],
            truth.items.bias[item, t],
            cell[0, t],
            cell[1, t],
        ]
        other = (
            label_chances(truth, user, item, day, 3)
            if form == "exposures"
            else chances(truth, user, item, day)
        )
        parts.append(other[:, t])
        assert all(auc(labels[:, t], part) < whole - 0.003 for part in parts)
        assert whole > 0.65


def test_labels_of_events_follow_from_all_pairs_of_their_day():
    """Bayes' rule over all users and items, where the library interpolates between grid points of biases."""
    world = WORLD.model_copy(update={"users": 120, "items": 60, "exposures": 3_000})
    truth, day, negatives = drawn(world).truth, world.days // 2, 3
    user, item = np.divmod(np.arange(world.users * world.items), world.items)
    days = np.full(len(user), day)
    popularity, community = truth.popularity(day), truth.items.community
    mass = np.bincount(community, popularity)[community]
    shown = truth.aim(day, popularity)[truth.users.community][:, community] * popularity / mass
    done = shown * chances(truth, user, item, days)[:, 0].reshape(shown.shape)
    active = truth.activity * (truth.users.arrival <= day)
    drawn_as_negative = active @ done / (active @ done).sum()
    there = np.ix_(active > 0, popularity > 0)
    ratio = (done / done.sum(axis=1, keepdims=True))[there] / drawn_as_negative[popularity > 0]
    found = label_chances(truth, user, item, days, negatives)[:, 0].reshape(shown.shape)[there]
    assert np.abs(found - ratio / (ratio + negatives)).mean() < 0.0008


def test_a_task_on_its_sample_space_is_ranked_by_its_conditional_probability(examples):
    truth, form, ids, labels = examples
    if form == "events":
        return
    plain = run_settings(form)
    tasks = [task.model_dump() | ({"given": "click"} if task.name == "buy" else {}) for task in plain.tasks]
    given_click = RunSettings.model_validate({"data": {"log": "log"}, "tasks": tasks})
    chance, conditional = reachable(truth, plain, *ids), reachable(truth, given_click, *ids)
    np.testing.assert_allclose(conditional[:, 3], chance[:, 3] / chance[:, 0])
    clicked = labels[:, 0] == 1
    assert abs((labels[clicked, 3] - conditional[clicked, 3]).mean()) < 4 * np.sqrt(0.25 / clicked.sum())


def test_the_best_prediction_of_a_stay_is_its_expected_value(examples):
    truth, form, ids, _ = examples
    if form == "events":
        return
    tasks = [{"name": "click", "label": "click"}, {"name": "stay", "label": "stay", "kind": "regression"}]
    run = RunSettings.model_validate({"data": {"log": "log"}, "tasks": tasks})
    stay = expected_stay(truth, *truth.indices(*ids[:2]), truth.days(ids[2]))
    np.testing.assert_array_equal(reachable(truth, run, *ids)[:, 1], stay)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["click", {"name": "buy", "behaviors": ["byu"]}]}, "did you mean 'buy'"),
        ({"tasks": ["click", {"name": "deep", "behaviors": ["cart", "buy"]}]}, "one behaviour"),
        ({"tasks": ["cart", "buy"]}, "'click' is a task"),
        ({"negatives": {"distribution": "uniform"}}, "popularity"),
    ],
)
def test_runs_without_known_best_predictions_are_refused(examples, changes, message):
    truth, _, ids, _ = examples
    with pytest.raises(ConfigError, match=message):
        reachable(truth, run_settings("events", **changes), *ids)
