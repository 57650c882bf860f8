"""Effects by arrays of sums are those of the textbook's loops, and change with the units as they must."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.abtest.effects import compare, fixed_p, sequential, sequential_p, sum_units

seeds = st.integers(0, 2**20)


def arms(seed: int, units: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for n in (units, units + 7):
        before = rng.gamma(2, 1, n)
        shown = rng.poisson(4, n) + 1.0
        found.append(np.stack([rng.poisson(before * shown / 3) + 1.0, shown, before], 1))
    return found[0], found[1]


def naive(control: np.ndarray, treated: np.ndarray, cuped: bool) -> tuple[float, float, float, float]:
    """Difference, lift and their variances, unit by unit: each unit's influence on both adjusted values."""
    both = np.concatenate([control, treated])
    everyone = both[:, 2].mean()
    ratios = [arm[:, 0].sum() / arm[:, 1].sum() for arm in (control, treated)]
    shared = spread = 0.0
    for arm, ratio in zip((control, treated), ratios, strict=True):
        linear = (arm[:, 0] - ratio * arm[:, 1]) / arm[:, 1].mean()
        shared += np.cov(linear, arm[:, 2])[0, 1] / len(arm)
        spread += arm[:, 2].var(ddof=1) / len(arm)
    theta = shared / spread if cuped else 0.0
    values = [
        r - theta * (a[:, 2].mean() - everyone) for a, r in zip((control, treated), ratios, strict=True)
    ]
    difference_variance = lift_variance = 0.0
    for number, (arm, ratio) in enumerate(zip((control, treated), ratios, strict=True)):
        share, influences, n = len(arm) / len(both), [], len(arm)
        for numerator, denominator, covariate in arm:
            own = (numerator - ratio * denominator) / arm[:, 1].mean()
            x = theta * (covariate - arm[:, 2].mean())
            moved = [0.0, 0.0]
            for a in (0, 1):
                moved[a] = (own - x if a == number else 0.0) + share * x
            influences.append(
                (moved[1] - moved[0], moved[1] / values[0] - values[1] * moved[0] / values[0] ** 2)
            )
        table = np.array(influences)
        difference_variance += table[:, 0].var(ddof=1) / n
        lift_variance += table[:, 1].var(ddof=1) / n
    return values[1] - values[0], values[1] / values[0] - 1, difference_variance, lift_variance


@given(seed=seeds, cuped=st.booleans())
def test_effects_are_those_of_a_loop_over_units(seed: int, cuped: bool) -> None:
    control, treated = arms(seed)
    found = compare(sum_units(control), sum_units(treated), cuped)
    expected = naive(control, treated, cuped)
    got = (found.difference, found.lift, found.variance, found.lift_variance)
    assert np.allclose(got, expected, rtol=1e-8)


@given(seed=seeds, cuped=st.booleans())
def test_experiments_at_once_are_those_one_by_one(seed: int, cuped: bool) -> None:
    pairs = [arms(seed + number) for number in range(3)]
    together = compare(
        sum_units(np.stack([c for c, _ in pairs])), sum_units(np.stack([t for _, t in pairs])), cuped
    )
    for number, (control, treated) in enumerate(pairs):
        alone = compare(sum_units(control), sum_units(treated), cuped)
        assert np.allclose(together.lift[number], alone.lift)
        assert np.allclose(together.lift_variance[number], alone.lift_variance)


@given(seed=seeds)
def test_sums_of_parts_add_up(seed: int) -> None:
    control, _ = arms(seed)
    parts = [sum_units(control[:11]), sum_units(control[11:])]
    for whole, one, other in zip(sum_units(control), *parts, strict=True):
        assert np.allclose(whole, one + other)


@given(seed=seeds, scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_cuped_does_not_depend_on_the_covariates_unit(seed: int, scale: float, shift: float) -> None:
    control, treated = arms(seed)
    found = [compare(sum_units(control), sum_units(treated), True)]
    moved = [np.column_stack([arm[:, :2], arm[:, 2] * scale + shift]) for arm in (control, treated)]
    found.append(compare(sum_units(moved[0]), sum_units(moved[1]), True))
    assert np.allclose(found[0].lift, found[1].lift)
    assert np.allclose(found[0].lift_variance, found[1].lift_variance, rtol=1e-6)


@given(seed=seeds)
def test_a_covariate_that_explains_everything_removes_everything(seed: int) -> None:
    control, treated = (np.column_stack([arm[:, 2], np.ones(len(arm)), arm[:, 2]]) for arm in arms(seed))
    found = compare(sum_units(control), sum_units(treated), True)
    assert found.removed == pytest.approx(1, abs=1e-6)
    assert found.lift == pytest.approx(0, abs=1e-9)


@given(z=st.floats(-6, 6), variance=st.floats(1e-6, 100), share=st.floats(0.01, 3))
def test_an_always_valid_p_is_below_the_level_where_the_interval_excludes_zero(
    z: float, variance: float, share: float
) -> None:
    value = z * math.sqrt(variance)
    low, high = sequential(value, variance, share)
    p = sequential_p(value, variance, share)
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (low > 0 or high < 0)
    assert p >= fixed_p(value, variance) - 1e-12, "looking every day has its price"


def test_arms_that_do_not_vary_have_no_effect() -> None:
    same = sum_units(np.ones((5, 3)))
    found = compare(same, same, True)
    assert (found.difference, found.variance) == (0, 0)
    assert fixed_p(found.difference, found.variance) == 1


def test_tea_tasting_finds_the_same() -> None:
    tea_tasting: Any = pytest.importorskip("tea_tasting")
    pandas = pytest.importorskip("pandas")
    control, treated = arms(5, 400)
    frame = pandas.DataFrame(np.concatenate([control, treated]), columns=["done", "shown", "before"])
    frame["variant"] = np.repeat([0, 1], [len(control), len(treated)])
    experiment = tea_tasting.Experiment(
        plain=tea_tasting.Mean("done", use_t=False),
        cuped=tea_tasting.Mean("done", "before", use_t=False),
        ratio=tea_tasting.RatioOfMeans("done", "shown", use_t=False),
    )
    theirs = experiment.analyze(frame)
    for name, cuped in (("plain", False), ("cuped", True), ("ratio", False)):
        sides = [
            arm if name == "ratio" else np.column_stack([arm[:, 0], np.ones(len(arm)), arm[:, 2]])
            for arm in (control, treated)
        ]
        ours = compare(sum_units(sides[0]), sum_units(sides[1]), cuped)
        assert ours.difference == pytest.approx(theirs[name].effect_size, rel=2e-2 if cuped else 1e-9)
        half = (theirs[name].effect_size_ci_upper - theirs[name].effect_size_ci_lower) / 2
        assert 1.959964 * ours.variance**0.5 == pytest.approx(half, rel=2e-2)
