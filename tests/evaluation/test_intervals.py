"""Leads with intervals, and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.evaluation import Influence, estimate, find_leads, group_users, holm, user_influence
from mgoe.evaluation import intervals as module
from tests.effort import SOAK, up_to

from .made_up import TASKS, drawn_again, made_up

P = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1))
COLUMN = (("all", "ranking"),)


@given(P)
def test_holm_is_the_step_down_procedure(p):
    naive = np.empty_like(p)
    order = sorted(range(len(p)), key=lambda k: p[k])
    for rank, k in enumerate(order):
        naive[k] = min(1.0, max((len(p) - r) * p[order[r]] for r in range(rank + 1)))
    assert_allclose(holm(p), naive)


@given(P, st.randoms(use_true_random=False))
def test_holm_keeps_order_raises_every_value_and_knows_no_place(p, random):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    places = list(range(len(p)))
    random.shuffle(places)
    assert_allclose(holm(p[places]), adjusted[places])


def test_holm_keeps_missing_values_missing():
    assert_array_equal(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def influence(value: float, parts: np.ndarray) -> Influence:
    return Influence(
        COLUMN, np.array([value]), np.arange(len(parts)), (parts - parts.mean())[:, None].astype(np.float32)
    )


@up_to(15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_leads_are_those_of_a_naive_loop(seed: int, baselines: int, metrics: int, seeds: int):
    """Every draw, baseline and metric by itself: sums of (weight - 1) times the mean paired influence."""
    rng, users, draws = np.random.default_rng(seed), 7, 50
    names = tuple(("t", str(m)) for m in range(metrics))

    def drawn(spread: float) -> dict[int, Influence]:
        parts = [rng.normal(size=(users, metrics)) for _ in range(seeds)]
        values = [0.6 + spread * rng.normal(size=metrics) for _ in range(seeds)]
        return {
            s: Influence(names, values[s], np.arange(users), (parts[s] - parts[s].mean(0)).astype(np.float32))
            for s in range(seeds)
        }

    ours, others = drawn(0.5), {f"r{v}": drawn(0.5) for v in range(baselines)}
    weights = np.random.default_rng(seed).poisson(1.0, (draws, users))
    of_seeds = (
        np.random.default_rng([seed, seeds]).standard_t(seeds - 1, draws) if seeds > 1 else np.zeros(draws)
    )
    naive = {}
    for name, theirs in others.items():
        for m in range(metrics):
            own = [ours[s].values[m] - theirs[s].values[m] for s in range(seeds)]
            error = np.std(own, ddof=1) / np.sqrt(seeds) if seeds > 1 else 0
            moved = []
            for draw in range(draws):
                move = 0.0
                for user in range(users):
                    paired = np.mean(
                        [
                            float(ours[s].parts[user, m]) - float(theirs[s].parts[user, m])
                            for s in range(seeds)
                        ]
                    )
                    move += (weights[draw, user] - 1) * paired
                moved.append(move * np.sqrt(users / (users - 1)) + of_seeds[draw] * error)
            value = np.mean(own)
            reached = min(sum(move >= value for move in moved), sum(move <= value for move in moved))
            interval = value - np.quantile(moved, 0.975), value - np.quantile(moved, 0.025)
            naive[name, str(m)] = (value, *interval, min(1, 2 * (reached + 1) / (draws + 1)))
    found = find_leads("a", ours, others, seed=seed, draws=draws)
    assert {(lead.baseline, lead.metric) for lead in found} == set(naive)
    for lead in found:
        assert_allclose(
            (lead.value, lead.low, lead.high, lead.p), naive[lead.baseline, lead.metric], rtol=1e-4, atol=1e-5
        )
    for m in range(metrics):
        family = [lead for lead in found if lead.metric == str(m)]
        assert_allclose([lead.adjusted for lead in family], holm([lead.p for lead in family]))


@pytest.mark.parametrize("seed", [0, *[1] * SOAK])
def test_an_interval_equals_that_of_drawing_users_and_measuring_again(seed: int):
    labels, good, users = made_up(seed, users=150, rows=2000, missing=0)
    noise = np.random.default_rng(seed).normal(0, 1.5, good[:, :2].shape)
    models = good[:, :2], np.log(good[:, :2] / (1 - good[:, :2])) + noise
    a, b = ({0: user_influence(scores, labels[:, :2], users, TASKS[:2])} for scores in models)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(300 if SOAK else 200):
        rows, names = drawn_again(users, rng)
        measured = [
            user_influence(scores[rows], labels[rows, :2], names, TASKS[:2]).values for scores in models
        ]
        drawn.append(measured[0] - measured[1])
    moved = np.array(drawn) - (a[0] - b[0]).values
    for m, lead in enumerate(find_leads("a", a, {"b": b})):
        width = np.subtract(*np.quantile(moved[:, m], [0.975, 0.025]))
        low, high = lead.value - np.quantile(moved[:, m], [0.975, 0.025])
        assert abs(lead.low - low) < 0.15 * width, lead
        assert abs(lead.high - high) < 0.15 * width, lead


def test_a_lead_over_equally_good_baselines_is_seldom_claimed():
    """Five equally good baselines, new users each time: intervals and Holm's correction keep their levels."""
    inside, claimed = [], []
    for world in range(200 if SOAK else 80):
        labels, scores, users = made_up(world, users=100, rows=600, missing=0)
        rng = np.random.default_rng(world)
        logit = np.log(scores[:, :2] / (1 - scores[:, :2]))
        model, *baselines = (
            {0: user_influence(logit + rng.normal(size=logit.shape), labels[:, :2], users, TASKS[:2])}
            for _ in range(6)
        )
        found = find_leads(
            "a", model, {str(k): baseline for k, baseline in enumerate(baselines)}, seed=world, draws=1000
        )
        leads = [lead for lead in found if (lead.task, lead.metric) == COLUMN[0]]
        inside += [lead.low <= 0 <= lead.high for lead in leads]
        claimed.append(any(lead.adjusted < 0.05 for lead in leads))
    assert 0.91 <= np.mean(inside) <= 0.98
    assert np.mean(claimed) < 0.09


def test_intervals_cover_the_truth_at_their_level():
    """Leads of .01 over users and three seeds, both of which vary; new ones each time."""
    inside, sure = [], []
    for world in range(300):
        rng = np.random.default_rng(world)
        effects = rng.standard_gamma(1, 60) - 1  # of users, not normal
        seeds = 0.01 + rng.normal(0, 0.02, 3) + effects.mean()
        ours = {s: influence(0.7 + value, effects / 60) for s, value in enumerate(seeds)}
        flat = {s: influence(0.7, np.zeros(60)) for s in range(3)}
        [lead] = find_leads("a", ours, {"b": flat}, seed=world, draws=1000)
        inside.append(lead.low <= 0.01 <= lead.high)
        sure.append(lead.p < 0.05)
        assert (lead.p < 0.05) == (not lead.low <= 0 <= lead.high) or abs(lead.p - 0.05) < 0.01
    assert 0.91 <= np.mean(inside) <= 0.99
    assert np.mean(sure) < 0.12


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_model_s_own_interval_has_the_width_of_the_closed_form(seeds):
    """The root of the variance over users plus that over seeds, a little wider if both are added."""
    labels, scores, users = made_up(1, users=400, rows=4000, missing=0)
    logit = np.log(scores[:, :2] / (1 - scores[:, :2]))
    rngs = [np.random.default_rng(seed) for seed in range(seeds)]
    drawn = [logit + rng.normal(0, 0.5, logit.shape) for rng in rngs]
    runs = [user_influence(one, labels[:, :2], users, TASKS[:2]) for one in drawn]
    of_users = (np.mean([one.parts for one in runs], 0) ** 2).sum(0)
    of_seeds = np.var([one.values for one in runs], axis=0, ddof=1) / seeds if seeds > 1 else 0 * of_users
    for m, found in enumerate(estimate("a", runs)):
        closed = 2 * 1.96 * np.sqrt(of_users[m] + of_seeds[m])
        assert found.value == np.mean([one.values[m] for one in runs])
        assert 0.92 < (found.high - found.low) / closed < 2.5
        assert np.isnan([found.p, found.adjusted]).all()


def test_baselines_do_not_move_each_other_and_order_does_not_matter():
    labels, scores, users = made_up(0)
    ours = {seed: user_influence(scores + seed * 1e-3, labels, users, TASKS) for seed in (0, 1)}
    rolled = {name: [np.roll(scores, k + seed, 0) for seed in (0, 1)] for k, name in enumerate("bcd", 1)}
    others = {
        n: {seed: user_influence(one, labels, users, TASKS) for seed, one in enumerate(found)}
        for n, found in rolled.items()
    }
    alone = find_leads("a", ours, {"c": others["c"]})
    both = [lead for lead in find_leads("a", ours, dict(reversed(others.items()))) if lead.baseline == "c"]
    for one, other in zip(alone, both, strict=True):
        assert (one.value, one.low, one.high, one.p) == pytest.approx(
            (other.value, other.low, other.high, other.p), abs=1e-6, nan_ok=True
        )
        assert np.isnan(one.p) or other.adjusted >= one.p


def test_a_model_equals_itself_and_only_common_seeds_count():
    labels, scores, users = made_up(0)
    own = user_influence(scores, labels, users, TASKS)
    leads = find_leads("a", {0: own, 1: own}, {"a": {0: own}, "b": {1: own, 2: own}, "c": {5: own}})
    assert {lead.baseline for lead in leads} == {"b"}
    assert all(
        (lead.value, lead.low, lead.high, lead.p) == (0, 0, 0, 1)
        for lead in leads
        if not np.isnan(lead.value)
    )
    assert {len(lead.by_seed) for lead in leads} == {1}


def test_grouped_users_keep_values_and_variance(monkeypatch):
    monkeypatch.setattr(module, "GROUPS", 500)
    one = influence(0.7, np.random.default_rng(0).normal(size=20_000))
    few = group_users(one)
    assert few.parts.shape == (500, 1)
    assert few.values == one.values
    assert_allclose((few.parts**2).sum(), (one.parts**2).sum(), rtol=0.15)
    assert_allclose(few.parts.sum(), one.parts.sum(), atol=0.05)
    assert_array_equal(group_users(one).parts, few.parts)
