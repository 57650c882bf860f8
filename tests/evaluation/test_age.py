"""What age costs, with the difficulty of windows removed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mgoe.evaluation import DAY, Influence, estimate_ages, losses_of_age
from mgoe.evaluation.age import Place
from tests.effort import up_to

NAMES = (("click", "auc"), ("click", "logloss"))
SIGNS = np.array([-1.0, 1.0])
"""An AUC that falls and a log loss that rises are losses."""


def triangle(
    windows: int, effect: Callable[[int, int], NDArray], users: int = 30, noise: float = 0.0, seed: int = 0
) -> dict[Place, Influence]:
    """Return cells of given values, where every user has an influence of noise on each; a few users are in
    every window, and the others in some."""
    rng, cells = np.random.default_rng(seed), {}
    for first in range(windows):
        for window in range(first, windows):
            there = np.sort(rng.choice(2 * users, users, replace=False))
            moved = rng.normal(size=(users, 2)) * noise / users
            value = effect(first, window) + moved.sum(axis=0)
            parts = (moved - moved.mean(axis=0)).astype(np.float32)
            cells[first, window] = Influence(NAMES, value, there, parts)
    return cells


effects = st.lists(st.floats(-1, 1), min_size=6, max_size=6)


@given(windows=st.integers(2, 6), age=effects, hard=effects)
@up_to(15)
def test_the_effect_of_age_is_found_exactly_whatever_windows_are_hard(
    windows: int, age: list[float], hard: list[float]
):
    cells = triangle(windows, lambda first, window: hard[window] + SIGNS * age[window - first])
    found = losses_of_age(cells, {place: float(place[1] - place[0]) for place in cells})
    assert [*found] == [*range(1, windows), DAY]
    for older in range(1, windows):
        assert_allclose(found[older].values, [age[older] - age[0]] * 2, atol=1e-9)


@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=6), slope=st.floats(-1, 1), hard=effects)
@up_to(15)
def test_a_loss_per_day_is_found_exactly_over_windows_of_any_lengths(
    lengths: list[int], slope: float, hard: list[float]
):
    starts = np.cumsum(lengths)
    cells = triangle(
        len(starts),
        lambda first, window: hard[window] + SIGNS * slope * (starts[window] - starts[first]),
    )
    days = {(first, window): float(starts[window] - starts[first]) for first, window in cells}
    assert_allclose(losses_of_age(cells, days)[DAY].values, [slope] * 2, atol=1e-9)


@given(windows=st.integers(2, 5), seed=st.integers(0, 99), user=st.integers(0, 59))
@up_to(10)
def test_the_influence_of_a_user_is_what_moving_the_cells_by_it_changes(windows: int, seed: int, user: int):
    cells = triangle(windows, lambda *_: np.zeros(2), noise=1.0, seed=seed)
    days = {place: float(place[1] - place[0]) for place in cells}
    moved = {
        place: replace(cell, values=cell.values + cell.parts[cell.users == user].sum(axis=0))
        for place, cell in cells.items()
    }
    before, after = losses_of_age(cells, days), losses_of_age(moved, days)
    for age, loss in before.items():
        assert_allclose(
            after[age].values - loss.values, loss.parts[loss.users == user].sum(axis=0), atol=1e-6
        )


@pytest.mark.parametrize("of_trainings", [0.0, 0.05])
def test_intervals_hold_the_truth_as_often_as_they_say(of_trainings: float):
    """Also if a training is as good or bad on all windows, which few users tell nothing of."""
    held = 0
    for seed in range(100):
        luck = of_trainings * np.random.default_rng([seed, 1]).normal(size=5)
        cells = triangle(
            5,
            lambda first, window, luck=luck: window + SIGNS * (0.1 * (window - first) + luck[first]),
            60,
            0.1,
            seed,
        )
        days = {place: float(place[1] - place[0]) for place in cells}
        [loss, _] = estimate_ages("mgoe", [cells], days, draws=1000)[DAY]
        held += loss.low <= 0.1 <= loss.high
    assert 88 <= held <= 100


def test_seeds_count_as_their_mean_and_an_age_of_one_training_has_no_interval():
    seeds = [triangle(4, lambda *_, of=of: np.full(2, of), noise=0.1, seed=1) for of in (1.0, 3.0)]
    days = {place: float(place[1] - place[0]) for place in seeds[0]}
    one, both = (estimate_ages("mgoe", some, days, draws=100) for some in ([seeds[0]], seeds))
    for age in (1, 2, DAY):
        for ours, theirs in zip(one[age], both[age], strict=True):
            assert_allclose([theirs.value, theirs.low], [ours.value, ours.low], atol=1e-9)
            assert ours.low < ours.value < ours.high
    assert np.isnan([loss.low for loss in one[3]]).all()
    assert np.isfinite([loss.value for loss in one[3]]).all()


def test_a_cell_that_does_not_exist_leaves_what_the_others_tell():
    def effect(first: int, window: int) -> NDArray:
        return window + SIGNS * 0.1 * (window - first) + np.where((first, window) == (1, 2), np.nan, 0)

    cells = triangle(3, effect)
    days = {place: float(place[1] - place[0]) for place in cells}
    found = losses_of_age(cells, days)
    assert_allclose([found[age].values for age in (1, 2, DAY)], [[0.1] * 2, [0.2] * 2, [0.1] * 2])
    few = cells[0, 1]
    cells[0, 1] = replace(few, parts=np.full_like(few.parts, np.nan))  # too few users to be told
    found = losses_of_age(cells, days)
    assert np.isnan(found[1].values).all()
    assert np.isnan(found[1].parts).all()
    assert_allclose(found[2].values, [0.2] * 2)
