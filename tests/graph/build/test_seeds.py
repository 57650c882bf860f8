import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import normalized_mutual_info_score

from mgoe.graph.build import seeds
from mgoe.graph.sketch import unit_rows
from tests.effort import up_to

numbers = st.integers(0, 2**32 - 1)


def naive_merge(means, sizes, k):
    """Every pair is priced before every step."""
    groups = [(mean, size) for mean, size in zip(means, sizes, strict=True)]
    while len(groups) > k:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        i, j = min(
            pairs,
            key=lambda pair: (
                ((groups[pair[0]][0] - groups[pair[1]][0]) ** 2).sum()
                / (1 / groups[pair[0]][1] + 1 / groups[pair[1]][1])
            ),
        )
        (a, m), (b, n) = groups.pop(i), groups.pop(j)
        groups.append(((m * a + n * b) / (m + n), m + n))
    return np.array([mean for mean, _ in groups])


@up_to(40)
@given(seed=numbers, n=st.integers(1, 25), data=st.data())
def test_merging_is_the_cheapest_joins_one_after_another(seed, n, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, n))
    means, sizes = rng.normal(size=(n, 3)), rng.uniform(0.5, 20, n)
    before = means.copy()
    found = seeds.merge(means, sizes, k)
    assert_allclose(np.sort(found, axis=0), np.sort(naive_merge(means, sizes, k), axis=0))
    assert np.array_equal(means, before)


@up_to(20)
@given(seed=numbers, n=st.integers(3, 60), data=st.data())
def test_groups_of_one_size_are_merged_as_scipy_does(seed, n, data):
    k = data.draw(st.integers(1, n))
    means = np.random.default_rng(seed).normal(size=(n, 3))
    label = fcluster(linkage(means, "ward"), k, "maxclust")
    expected = np.array([means[label == one].mean(axis=0) for one in np.unique(label)])
    assert_allclose(np.sort(seeds.merge(means, np.ones(n), k), axis=0), np.sort(expected, axis=0))


@up_to(20)
@given(seed=numbers, n=st.integers(1, 80), k=st.integers(1, 90))
def test_there_are_as_many_seeds_as_asked_for_or_as_nodes(seed, n, k):
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng.normal(size=(n, 4)).astype(np.float32))
    rows[rng.random(n) < 0.3] = rows[0]  # which lie on each other
    found = seeds.find_seeds(rows, rng.uniform(0.1, 1, n).astype(np.float32), k, 0)
    assert found.shape == (min(k, n), 4)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_of_many_groups_of_any_size_has_one_seed(seed):
    """Where k-means from as many seeds as groups ends with some of them halved and others joined."""
    rng = np.random.default_rng(seed)
    k, rank = 60, 40
    size = (600 / np.arange(1, k + 1) ** 0.7).astype(int) + 20
    truth = np.repeat(np.arange(k), size)
    rows = unit_rows(
        (rng.normal(size=(k, rank))[truth] + rng.normal(0, 0.9, (len(truth), rank))).astype(np.float32)
    )
    ones = np.ones(len(rows), np.float32)
    merged = seeds.trained(rows, ones, seeds.find_seeds(rows, ones, k, 0), 20, 0)
    plain = seeds.trained(rows, ones, seeds.draw_seeds(rows, k, 0), 20, 0)
    agreement = [
        normalized_mutual_info_score(truth, seeds.closest(rows, centres)) for centres in (merged, plain)
    ]
    assert agreement[0] > 0.97
    assert agreement[0] > agreement[1]
