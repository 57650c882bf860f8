"""A list that explores has the probabilities that it states."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mgoe.bundle.exploration import Exploration, chances, explored
from mgoe.config.experiment import ExploreSettings

HOW = st.one_of(
    st.floats(0.01, 10).map(lambda t: ExploreSettings(temperature=t)),
    st.tuples(st.floats(0.01, 1), st.integers(1, 5)).map(
        lambda two: ExploreSettings(epsilon=two[0], last=two[1])
    ),
)


@st.composite
def lists(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], int]:
    n, values = draw(st.integers(0, 6)), draw(st.integers(0, 2))
    scores = np.sort(draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))[::-1]
    held = [draw(st.lists(st.integers(-1, 2), min_size=values, max_size=values)) for _ in range(n)]
    most = np.array([1, 2, 1] if values else [], np.int64)
    return scores, np.array(held, np.int64).reshape(n, values), most, draw(st.integers(1, 5))


def chance_of(
    order: tuple[int, ...],
    scores: NDArray[np.float64],
    held: NDArray[np.int64],
    most: NDArray[np.int64],
    k: int,
    how: ExploreSettings,
) -> list[float]:
    """The probability of each item of a list given those above it, by the definition; 0 if it cannot come."""
    n, found, above = min(k, len(scores)), list[float](), list[int]()
    for place, row in enumerate(order):
        counts = Counter(value for one in above for value in set(held[one].tolist()) if value >= 0)
        left = [
            one
            for one in range(len(scores))
            if one not in above and all(counts[v] < most[v] for v in set(held[one].tolist()) if v >= 0)
        ]
        if row not in left:
            return [*found, 0.0]
        if how.temperature is not None:
            odds = [np.exp((scores[one] - scores[0]) / how.temperature) for one in left]
            found.append(odds[left.index(row)] / sum(odds))
        elif how.last is not None and how.epsilon is not None and place >= n - how.last:
            found.append(how.epsilon / len(left) + (1 - how.epsilon) * (row == left[0]))
        else:
            found.append(float(row == left[0]))
        above.append(row)
    return found


@given(lists(), HOW, st.integers(0, 2**32))
def test_each_probability_is_that_of_the_definition(
    drawn: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], int],
    how: ExploreSettings,
    seed: int,
) -> None:
    scores, held, most, k = drawn
    if any(len(set(row[row >= 0])) < (row >= 0).sum() for row in held):
        held = held[:, :1]  # an item holds no value twice
    rows, chances = explored(scores, held, most, k, Exploration(how, seed))
    again = explored(scores, held, most, k, Exploration(how, seed))
    assert (rows == again[0]).all()
    assert (chances == again[1]).all()
    assert (chances > 0).all()
    assert (chances <= 1 + 1e-12).all()
    expected = chance_of(tuple(rows.tolist()), scores, held, most, k, how)
    np.testing.assert_allclose(chances, expected, rtol=1e-9)


@pytest.mark.parametrize("limits", [[1, 1], []], ids=["quotas", "free"])
@pytest.mark.parametrize(
    "how", [ExploreSettings(temperature=0.3), ExploreSettings(epsilon=0.4, last=2)], ids=["draw", "epsilon"]
)
def test_lists_come_as_often_as_their_probability_says(how: ExploreSettings, limits: list[int]) -> None:
    scores, held = np.array([0.9, 0.7, 0.4, 0.1]), np.array([[0], [0], [1], [-1]])[:, : len(limits)]
    most, k, n = np.array(limits, np.int64), 3, 20_000
    seen = Counter(
        tuple(explored(scores, held, most, k, Exploration(how, seed))[0].tolist()) for seed in range(n)
    )
    expected = {
        order: float(np.prod(chance_of(order, scores, held, most, k, how)))
        for order in permutations(range(4), 3)
    }
    assert sum(expected.values()) == pytest.approx(1)
    for order, p in expected.items():
        assert abs(seen[order] - n * p) <= 5 * np.sqrt(n * p * (1 - p))


def test_an_item_whose_odds_vanish_does_not_come_before_one_that_has_some() -> None:
    scores = np.array([1.0, 1.0, -1e9])
    for seed in range(50):
        rows, chances = explored(
            scores, np.empty((3, 0), np.int64), np.empty(0, np.int64), 3,
            Exploration(ExploreSettings(temperature=1e-3), seed),
        )  # fmt: skip
        assert rows[-1] == 2
        assert chances.tolist() == [0.5, 1, 1]


@given(lists(), st.one_of(st.none(), HOW), st.integers(0, 100))
def test_chances_of_followed_lists_are_those_of_the_definition(
    drawn: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], int],
    how: ExploreSettings | None,
    seed: int,
) -> None:
    scores, _, _, k = drawn
    n = min(k, len(scores))
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(len(scores)), (5, 1)), axis=1)
    free = np.ones((5, len(scores)), bool)
    never = ExploreSettings(epsilon=1e-300, last=1)
    none, nothing = np.empty((len(scores), 0), np.int64), np.empty(0, np.int64)
    expected = [
        chance_of(tuple(order[:n]), scores, none, nothing, k, how or never) for order in orders.tolist()
    ]
    for place in range(n):
        odds = chances(scores, free, how, np.full(5, n - place))
        assert odds.sum(1) == pytest.approx(1)
        found = odds[np.arange(5), orders[:, place]]
        assert found == pytest.approx([one[place] for one in expected], abs=1e-12)
        free[np.arange(5), orders[:, place]] = False
    if n == len(scores):
        assert not chances(scores, free, how, np.zeros(5, np.int64)).any(), "no item is left"
