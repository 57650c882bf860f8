import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from mgoe.config import NegativeSettings
from mgoe.data import events
from mgoe.data.events import Pools, blocks, sample_negatives, uniforms

triples = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 6), st.integers(0, 6)), unique=True, min_size=1, max_size=60
)
samplers = st.builds(
    NegativeSettings,
    ratio=st.integers(1, 5),
    distribution=st.sampled_from(["popularity", "uniform"]),
    seed=st.integers(0, 5),
)


def columns(rows):
    bucket, user, item = np.array(sorted(rows), dtype=np.int64).T
    return user, item, bucket


@given(rows=triples, how=samplers)
def test_a_negative_is_an_item_of_the_bucket_that_the_user_did_not_do_in_it(rows, how):
    user, item, bucket = columns(rows)
    source, drawn = sample_negatives(user, item, bucket, how)
    done, of_bucket = set(rows), {(b, i) for b, _, i in rows}
    for row, negative in zip(source, drawn, strict=True):
        assert (bucket[row], user[row], negative) not in done
        assert (bucket[row], negative) in of_bucket
    assert (np.bincount(source, minlength=len(user)) <= how.ratio).all()


@given(rows=triples, more=triples, how=samplers)
def test_other_buckets_change_no_draw(rows, more, how):
    user, item, bucket = columns(rows)
    source, drawn = sample_negatives(user, item, bucket, how)
    wider = columns(rows + [(b + 10, u, i) for b, u, i in more] + [(b - 10, u, i) for b, u, i in more])
    wide_source, wide_drawn = sample_negatives(*wider, how)
    inside = (wider[2][wide_source] >= -3) & (wider[2][wide_source] <= 3)
    assert (wide_drawn[inside] == drawn).all()
    assert (wider[0][wide_source[inside]] == user[source]).all()


@pytest.mark.parametrize("distribution", ["popularity", "uniform"])
def test_items_are_drawn_by_the_set_distribution(distribution):
    user = np.arange(2000)
    item = np.where(
        user < 1200, 0, np.where(user < 1800, 1, 2)
    )  # three items, 60, 30 and 10 % of the positives
    source, drawn = sample_negatives(
        user, item, np.zeros_like(user), NegativeSettings(ratio=20, distribution=distribution)
    )
    share = np.array([0.6, 0.3, 0.1]) if distribution == "popularity" else np.full(3, 1 / 3)
    for own in range(3):  # what a user of one item may be given
        seen = np.bincount(drawn[item[source] == own], minlength=3)
        assert seen[own] == 0
        others = np.delete(np.arange(3), own)
        assert chisquare(seen[others], seen.sum() * share[others] / share[others].sum()).pvalue > 1e-4
    kept = np.bincount(item[source], minlength=3) / (20 * np.bincount(item))
    assert np.allclose(kept, 1 - share, atol=0.02)


def test_draws_are_uniform_and_differ_by_seed_and_bucket():
    draws = np.arange(20_000)
    one = uniforms(0, np.zeros_like(draws), draws)
    assert kstest(one, "uniform").pvalue > 1e-3
    for seed, bucket in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        assert abs(np.corrcoef(one, uniforms(seed, np.full_like(draws, bucket), draws))[0, 1]) < 0.03


@given(counts=st.lists(st.integers(1, 20), min_size=1), size=st.integers(1, 30))
def test_blocks_hold_every_bucket_once(counts, size):
    found = list(blocks(np.array(counts), size))
    assert [k for low, high in found for k in range(low, high)] == list(range(len(counts)))
    assert all(sum(counts[low + 1 : high]) < size for low, high in found)


@given(rows=triples, how=samplers, size=st.integers(1, 20))
def test_negatives_of_some_users_do_not_depend_on_the_others(rows, how, size):
    user, item, bucket = columns(rows)
    source, expected = sample_negatives(user, item, bucket, how)
    found, pools = [], Pools(item, bucket, how.distribution)
    ends = events._whole_users(user, bucket, size)
    assert (ends[0], ends[-1]) == (0, len(rows))
    for start, end in itertools.pairwise(ends):
        piece = (column[start:end] for column in (user, item, bucket))
        rows_of, drawn = sample_negatives(*piece, how, pools, start)
        found += zip(rows_of + start, drawn, strict=True)
    assert found == list(zip(source, expected, strict=True))
