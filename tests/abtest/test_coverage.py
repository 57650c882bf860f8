"""Intervals hold what they promise, over simulated experiments of every kind of metric.

`make soak` runs 10,000 experiments of each kind with the bounds of the page; the short form runs fewer, with
bounds as wide as chance needs.
"""

import numpy as np
import pytest

from mgoe.abtest.effects import Effect, Sums, compare, fixed, sequential, sum_units
from tests.effort import SOAK

EXPERIMENTS = 10_000 if SOAK else 600
SLACK = 0.0 if SOAK else 0.02
SAMPLE = 4_000_000 if SOAK else 1_000_000
"""Units whose mean is taken for the truth."""
UNITS, DAYS, BLOCK, LIFT = 1960, 28, 100, 0.05
"""Units per arm; the same number arrive on each day."""
KINDS = ("rate", "ratio", "skewed sum")


def draw(kind: str, rng: np.random.Generator, shape: tuple[int, ...], lift: float) -> np.ndarray:
    """Numerator, denominator and covariate of units whose activity before and during is correlated."""
    taste, before = rng.gamma(4, 0.25, shape), rng.poisson(3, shape) + 1.0
    if kind == "rate":
        shown = np.ones(shape)
        done = (rng.random(shape) < np.minimum(0.3 * taste * (1 + lift), 1)).astype(float)
        return np.stack([done, shown, rng.poisson(3 * taste)], -1)
    if kind == "ratio":
        shown = rng.poisson(5 * before / before.mean()) + 1.0
        done = rng.poisson(shown * 0.2 * taste * (1 + lift))
        covariate = rng.poisson(before * 0.2 * taste) - 0.2 * before
        return np.stack([done, shown, covariate], -1)
    spent = rng.lognormal(0, 1, shape) * taste
    return np.stack([spent * (1 + lift), np.ones(shape), spent * rng.lognormal(0, 0.3, shape)], -1)


def truth(kind: str, lift: float) -> tuple[float, float]:
    """Values of the control and the treated arm, by a large sample of the same draws."""
    control, treated = (draw(kind, np.random.default_rng(7), (SAMPLE,), effect) for effect in (0.0, lift))
    return control[:, 0].sum() / control[:, 1].sum(), treated[:, 0].sum() / treated[:, 1].sum()


def cumulate(days: Sums) -> Sums:
    """Sums at the end of each day. Axis 1 is the day."""
    return Sums(*(np.cumsum(part, 1) for part in days))


def simulate(kind: str, lift: float, seed: int) -> tuple[Sums, Sums]:
    """Sums of both arms by experiment and day."""
    rng, blocks = np.random.default_rng(seed), []
    for _ in range(EXPERIMENTS // BLOCK):
        shape = (BLOCK, DAYS, UNITS // DAYS)
        blocks.append([cumulate(sum_units(draw(kind, rng, shape, effect))) for effect in (0.0, lift)])
    control, treated = zip(*blocks, strict=True)
    return (
        Sums(*(np.concatenate(part) for part in zip(*control, strict=True))),
        Sums(*(np.concatenate(part) for part in zip(*treated, strict=True))),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_a_planted_effect(kind: str) -> None:
    sums, (control, treated) = simulate(kind, LIFT, 1), truth(kind, LIFT)
    share = np.arange(1, DAYS + 1) / DAYS
    for cuped in (False, True):
        effect = compare(*sums, cuped)
        for name, value, variance, true in (
            ("difference", effect.difference, effect.variance, treated - control),
            ("lift", effect.lift, effect.lift_variance, treated / control - 1),
        ):
            once = _held(fixed(value, variance), true)[:, -1].mean()
            always = _held(sequential(value, variance, share), true).all(1).mean()
            how = f"{kind}, {name}, {'CUPED' if cuped else 'plain'}"
            print(f"{how}: fixed {once:.4f}, sequential {always:.4f}")
            assert 0.94 - SLACK <= once <= 0.96 + SLACK, how
            assert always >= 0.945 - SLACK, how


@pytest.mark.parametrize("kind", KINDS)
def test_daily_looks_of_no_effect_err_rarely(kind: str) -> None:
    sums, share = simulate(kind, 0.0, 2), np.arange(1, DAYS + 1) / DAYS
    for cuped in (False, True):
        effect = compare(*sums, cuped)
        peeked = 1 - _held(fixed(effect.difference, effect.variance), 0.0).all(1).mean()
        erred = 1 - _held(sequential(effect.difference, effect.variance, share), 0.0).all(1).mean()
        name = f"A/A {kind}, {'CUPED' if cuped else 'plain'}"
        print(f"{name}: sequential {erred:.4f}, fixed at each look {peeked:.4f}")
        assert erred <= 0.055, name
        assert peeked > 0.15, "looking at fixed intervals every day errs far more often"


def test_daily_looks_at_units_that_return_err_rarely() -> None:
    rng, units, erred = np.random.default_rng(3), 140, []
    for _ in range(EXPERIMENTS // BLOCK):
        arms = []
        for _arm in range(2):
            habit = rng.gamma(2, 0.5, (BLOCK, 1, units))
            seen = np.cumsum(rng.poisson(habit, (BLOCK, DAYS, units)), 1).astype(float)
            arms.append(sum_units(np.stack([seen, np.ones_like(seen), np.zeros_like(seen)], -1)))
        effect: Effect = compare(*arms)
        bounds = sequential(effect.difference, effect.variance, np.arange(1, DAYS + 1) / DAYS)
        erred.append(1 - _held(bounds, 0.0).all(1).mean())
    print(f"A/A of {units} units per arm that return daily: {np.mean(erred):.4f}")
    assert np.mean(erred) <= 0.055


def _held(bounds: tuple[np.ndarray, np.ndarray], true: float) -> np.ndarray:
    return (bounds[0] <= true) & (true <= bounds[1])
