"""Estimates from logged lists are those of naive loops, and hold the known truth of a simulated bandit."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.abtest.offpolicy import Estimate, estimate
from mgoe.errors import DataError

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


@given(seed=st.integers(0, 10_000))
def test_estimates_are_those_of_a_loop(seed: int) -> None:
    log, _ = bandit(seed, 60)
    found = estimate(**log, min_effective=0)
    total, robust, weighted, weights = 0.0, 0.0, np.zeros(2), np.zeros(2)
    for n in range(60):
        weight = 1.0
        for k in range(2):
            robust += weight * log["expected"][n, k]
            weight *= log["policy"][n, k] / log["propensities"][n, k]
            total += weight * log["rewards"][n, k]
            robust += weight * (log["rewards"][n, k] - log["predicted"][n, k])
            weighted[k] += weight * log["rewards"][n, k]
            weights[k] += weight
    assert found.ips == pytest.approx(total / 60)
    assert found.doubly_robust == pytest.approx(robust / 60)
    assert found.self_normalised == pytest.approx((weighted / weights).sum())


def test_the_truth_of_a_bandit_is_within_chance() -> None:
    log, truth = bandit(1, 40_000)
    found: Estimate = estimate(**log)
    for value, error in (
        (found.ips, found.ips_error),
        (found.self_normalised, found.self_normalised_error),
        (found.doubly_robust, found.doubly_robust_error),
    ):
        assert abs(value - truth) < 3.5 * error < 0.05
    assert abs(found.logged - truth) > 0.02, "the log's own reward is another"


@pytest.mark.parametrize("wrong", [0.0, 1.5, np.nan])
def test_impossible_propensities_are_refused(wrong: float) -> None:
    log, _ = bandit(1, 100)
    log["propensities"][3, 1] = wrong
    with pytest.raises(DataError, match="must be above 0 and at most 1"):
        estimate(**log)


def test_a_policy_without_support_is_refused() -> None:
    log, _ = bandit(1, 100)
    log["policy"] = np.where(np.arange(100)[:, None] < 3, 1.0, 0.0) * np.ones((100, 2))
    with pytest.raises(DataError, match="must support the bundle's lists"):
        estimate(**log)
