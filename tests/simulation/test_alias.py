"""Draws follow their law, and ids are found again."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.simulation.alias import alias_table, pick, uniform
from mgoe.simulation.ids import Ids
from tests.effort import up_to

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=30).filter(any)


@up_to(60)
@given(groups=st.lists(weights, min_size=1, max_size=4))
def test_an_alias_table_holds_its_distribution_exactly_and_never_draws_weight_zero(groups):
    flat, offsets = np.concatenate(groups), np.cumsum([0, *map(len, groups)])
    table = alias_table(flat, offsets)
    keep, other = (table >> np.uint64(32)) / 2**32, (table & np.uint64(2**32 - 1)).astype(int)
    for start, stop in itertools.pairwise(offsets):
        n = stop - start
        law = (keep[start:stop] + np.bincount(other[start:stop], 1 - keep[start:stop], n)) / n
        assert_allclose(law, flat[start:stop] / flat[start:stop].sum(), atol=1e-8)
        assert (law[flat[start:stop] == 0] == 0).all()


def test_picks_are_as_frequent_as_their_weights():
    law = np.array([0.5, 0.0, 0.2, 0.3])
    table = alias_table(np.concatenate([[1.0, 1.0], law]), np.array([0, 2, 6]))
    picks = [pick(u, 2, 6, table) for u in np.random.default_rng(0).random(4_000)]
    assert_allclose(np.bincount(picks, minlength=6)[2:] / 4_000, law, atol=0.03)


def test_uniform_numbers_are_uniform_and_independent():
    u = np.array([uniform(np.uint64(7), np.uint64(k)) for k in range(20_000)])
    assert ((u >= 0) & (u < 1)).all()
    assert_allclose(np.histogram(u, 10, (0, 1))[0] / 20_000, 0.1, atol=0.01)
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03


@given(count=st.integers(1, 2**31 - 1), index=st.lists(st.integers(0, 2**31 - 1), max_size=20))
def test_every_id_gives_its_index_and_other_numbers_none(count, index):
    ids, index = Ids(count, 500), np.array(index, np.int64) % count
    assert (ids.index(ids.of(index)) == index).all()
    assert (ids.index([499, 500 + 2**36, -1]) == -1).all()
    assert len(np.unique(ids.of(np.unique(index)))) == len(np.unique(index))


def test_most_numbers_in_the_range_of_ids_are_not_ids():
    ids = Ids(1_000, 0)
    assert (ids.index(np.arange(2**20)) >= 0).sum() == 1_000
