"""An experiment as planned finds the effect as often as the plan says."""

from dataclasses import replace

import numpy as np
import pytest

from mgoe.abtest.effects import compare, fixed_p, sum_units
from mgoe.abtest.plan import Plan, make_plans, units_needed, verdicts
from mgoe.abtest.samples import read_rows
from mgoe.errors import DataError
from tests.abtest import logs
from tests.abtest.test_coverage import draw
from tests.effort import SOAK


@pytest.mark.parametrize("kind", ["rate", "ratio", "skewed sum"])
def test_power_is_that_of_the_plan(kind: str) -> None:
    rng, lift, power = np.random.default_rng(4), 0.1, 0.8
    past = sum_units(draw(kind, rng, (200_000,), 0.0))
    effect = compare(past, past, True)
    variance = float(effect.variance) * 100_000
    n, found = round(units_needed(variance, lift * float(effect.control), power=power) / 2), []
    for _ in range(100 if SOAK else 10):
        arms = [sum_units(draw(kind, rng, (100, n), planted)) for planted in (0.0, lift)]
        got = compare(arms[0], arms[1], True)
        found.append(fixed_p(got.difference, got.variance) < 0.05)
    print(f"{kind}: power {np.mean(found):.3f} of {power} with {n} units per arm")
    assert abs(np.mean(found) - power) < 0.05


def test_longer_experiments_find_smaller_effects_and_cuped_helps() -> None:
    _, exposures = logs.make(5, 800, days=28, before=8)
    plans = make_plans(logs.settings(), read_rows(logs.settings(), exposures), lift=0.05)
    own = [plan for plan in plans if plan.metric == "click per unit"]
    assert [plan.days for plan in own] == [7, 14, 21, 28]
    assert own[0].detectable > own[-1].detectable
    assert all(plan.with_cuped < plan.detectable < 1 for plan in own)
    assert all(plan.at_every_look > plan.with_cuped for plan in own)
    lift = max(plan.with_cuped for plan in own[1:3]) * 1.001
    [said] = verdicts([replace(plan, needed=needed_for(plan, lift)) for plan in own[::-1]], lift)
    assert said == f"click per unit: 14 days find {lift:.2%}."


def needed_for(plan: Plan, lift: float) -> int:
    """Effects shrink with the root of the units."""
    return int(np.ceil(plan.units * (plan.with_cuped / lift) ** 2))


def test_a_log_of_a_few_days_plans_nothing() -> None:
    _, exposures = logs.make(5, 20, days=3, before=1)
    with pytest.raises(DataError, match="must reach back 7 days"):
        make_plans(logs.settings(), read_rows(logs.settings(), exposures), lift=0.05)
