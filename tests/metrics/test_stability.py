"""The population stability index equals a direct computation, and is zero where nothing has moved."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.metrics import stability_index

BINS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=12)


@given(BINS)
def test_it_equals_a_direct_computation(bins: list[tuple[int, int]]):
    expected, actual = ([one[side] for one in bins] for side in (0, 1))
    found = stability_index(expected, actual)
    if not (sum(expected) and sum(actual)):
        assert math.isnan(found)
        return
    total = 0.0
    for e, a in bins:
        e_share = (e + 0.5) / (sum(expected) + 0.5 * len(bins))
        a_share = (a + 0.5) / (sum(actual) + 0.5 * len(bins))
        total += (a_share - e_share) * math.log(a_share / e_share)
    assert found == pytest.approx(total, abs=1e-12)
    assert found >= 0
    assert found == pytest.approx(stability_index(actual, expected), abs=1e-12)


@given(st.lists(st.integers(0, 1000), min_size=1).filter(any))
def test_nothing_has_moved_where_both_are_the_same(counts: list[int]):
    assert stability_index(counts, counts) == 0


def test_by_chance_it_is_as_small_as_stated():
    rng = np.random.default_rng(0)
    found = [
        stability_index(*(rng.multinomial(rows, [0.1] * 10) for rows in (20_000, 500))) for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(9 * (1 / 20_000 + 1 / 500), rel=0.15)
