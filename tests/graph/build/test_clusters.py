import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import normalized_mutual_info_score

from mgoe.graph.build import clusters
from mgoe.graph.sketch import unit_rows

seeds = st.integers(0, 2**32 - 1)


def cloud(seed, n=60, k=4, spread=0.2, rank=6):
    """Rows around `k` directions, some of them without edges; the true direction of each."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    rows = np.eye(rank)[truth] + rng.normal(0, spread, (n, rank))
    linked = rng.random(n) < 0.9
    return unit_rows((rows * linked[:, None]).astype(np.float32)), linked, truth


def cluster(rows, linked, weights, k, before, iterations, seed):
    """Macro nodes and centres at one resolution, from all nodes that have weight."""
    previous = None if before is None else [before]
    centers = clusters.learn_centers(rows, weights, [k], previous, seed, len(rows), iterations)
    return clusters.assign(rows, linked, centers)[0], centers[0]


@given(seed=seeds, k=st.integers(1, 70))
def test_every_linked_node_gets_a_macro_node_and_every_other_the_cold_one(seed, k):
    rows, linked, _ = cloud(seed)
    macro, centers = cluster(rows, linked, linked.astype(np.float32), k, None, 5, 0)
    assert ((macro >= 0) & (macro < k))[linked].all()
    assert (macro[~linked] == k).all()
    assert centers.shape == (k, rows.shape[1])
    length = np.linalg.norm(centers, axis=1)
    assert (np.isclose(length, 1, atol=1e-5) | (length == 0)).all()


@given(seed=seeds, k=st.integers(1, 6))
def test_a_node_belongs_to_the_macro_node_with_the_nearest_centre(seed, k):
    rows, linked, _ = cloud(seed, spread=1.0)
    macro, centers = cluster(rows, linked, linked.astype(np.float32), k, None, 5, 0)
    cosine = rows @ centers.T
    assert_allclose(cosine[linked, macro[linked]], cosine[linked].max(axis=1), atol=1e-5)


def test_planted_groups_are_found():
    rows, linked, truth = cloud(0, n=400)
    macro, _ = cluster(rows, linked, linked.astype(np.float32), 4, None, 20, 0)
    assert normalized_mutual_info_score(truth[linked], macro[linked]) > 0.95


@given(seed=seeds)
def test_inactive_nodes_belong_but_do_not_move_centres(seed):
    rows, linked, _ = cloud(seed)
    active = linked & (np.arange(len(rows)) % 2 == 0)
    moved = rows.copy()
    moved[~active] = (
        unit_rows(np.random.default_rng(seed).normal(size=rows.shape).astype(np.float32))[~active]
        * linked[~active, None]
    )
    one = cluster(rows, linked, active.astype(np.float32), 4, None, 5, 0)
    other = cluster(moved, linked, active.astype(np.float32), 4, None, 5, 0)
    assert_array_equal(one[1], other[1])
    assert_array_equal(one[0][active], other[0][active])
    assert (other[0][linked] < 4).all()


@given(seed=seeds, permutation=st.permutations(range(4)))
def test_a_warm_start_keeps_the_numbers_whatever_they_are(seed, permutation):
    rows, linked, truth = cloud(seed, n=200)
    before = np.where(linked, np.array(permutation)[truth], 4).astype(np.int32)[:150]  # the last 50 are new
    macro, _ = cluster(rows, linked, linked.astype(np.float32), 4, before, 10, 0)
    assert (macro[linked] == np.array(permutation)[truth[linked]]).mean() > 0.95


@given(seed=seeds)
def test_a_start_seeds_what_has_no_members_any_more(seed):
    rows, linked, truth = cloud(seed, n=200)
    before = np.where(linked, np.where(truth < 2, truth, 0), 4).astype(np.int32)
    macro, centers = cluster(rows, linked, linked.astype(np.float32), 4, before, 10, 0)
    assert centers.any(axis=1).all()
    assert len(np.unique(macro[linked])) == 4


@given(seed=seeds)
def test_macro_nodes_are_kept_where_there_are_edges_and_the_rest_is_cold(seed):
    rng = np.random.default_rng(seed)
    linked, before = (
        rng.random(60) < 0.7,
        rng.integers(0, 5, 40).astype(np.int32),
    )  # the last 20 are new, number 4 is cold
    macro = clusters.keep(before, linked, 4)
    assert_array_equal(macro[:40][linked[:40]], before[linked[:40]])
    assert (macro[:40][~linked[:40]] == 4).all()
    assert (macro[40:] == 4).all()


@given(seed=seeds, part=st.integers(1, 70))
def test_nodes_are_assigned_alike_in_parts_of_any_size(seed, part):
    rows, linked, _ = cloud(seed)
    weights, sizes = linked.astype(np.float32), [4, 2]
    centers = clusters.learn_centers(rows, weights, sizes, None, 0, sample=60)
    whole = clusters.assign(rows, linked, centers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "ROWS", part)
        for some, all_at_once in zip(clusters.assign(rows, linked, centers), whole, strict=True):
            assert_array_equal(some, all_at_once)
        means = clusters.member_means(rows, weights, whole, sizes)
    for some, all_at_once in zip(means, clusters.member_means(rows, weights, whole, sizes), strict=True):
        assert_allclose(some, all_at_once, atol=1e-6)


def test_centres_learned_from_a_sample_find_the_planted_groups():
    rows, linked, truth = cloud(0, n=4000)
    centers = clusters.learn_centers(rows, linked.astype(np.float32), [4], None, 0, sample=200, iterations=20)
    found = clusters.assign(rows, linked, centers)[0]
    assert normalized_mutual_info_score(truth[linked], found[linked]) > 0.95


@given(weights=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12), k=st.integers(1, 12))
def test_all_linked_nodes_move_centres_where_too_few_would(weights, k):
    weights = np.array(weights, np.float32)
    linked = np.arange(len(weights)) % 3 > 0
    found = clusters.moving_weights(weights, linked, k)
    assert_array_equal(found, weights if sum(weights > 0) >= k else linked)


def test_a_macro_node_without_a_centre_takes_nobody():
    """A centre of zeros would have cosine 0, larger than any negative one."""
    rows, centers = unit_rows(np.float32([[-1, 0.1], [0, 0]])), np.float32([[1, 0], [0, 0], [0.6, -0.8]])
    assert_array_equal(clusters.assign(rows, np.array([True, False]), [centers])[0], [2, 3])


@given(seed=seeds)
def test_member_means_by_definition(seed):
    rows, linked, truth = cloud(seed)
    macro = np.where(linked, truth, 5).astype(np.int32)  # macro node 4 has no member
    weights = np.random.default_rng(seed).choice(np.float32([0, 0.5, 1]), len(rows))
    means = clusters.member_means(rows, weights, [macro], [5])[0]
    for k in range(5):
        total = weights[macro == k] @ rows[macro == k]
        assert_allclose(means[k], total / max(np.linalg.norm(total), 1e-9), atol=1e-5)


def test_random_groups_are_even_the_same_at_every_snapshot_and_differ_between_sides():
    _, linked, _ = cloud(0, n=4000)
    macro = clusters.random_groups(linked, 4, (0, 0))
    sizes = np.bincount(macro[linked], minlength=4)
    assert sizes.min() > 0.9 * linked.sum() / 4
    assert (macro[~linked] == 4).all()
    assert_array_equal(clusters.random_groups(linked[:1000], 4, (0, 0)), macro[:1000])
    other = clusters.random_groups(linked, 4, (0, 1))
    assert (macro[linked] == other[linked]).mean() < 0.3


@given(sums=st.lists(st.floats(0, 100), min_size=1, max_size=30).map(np.array), threshold=st.floats(0, 0.99))
def test_preference_weights_by_definition(sums, threshold):
    weights = clusters.preference_weights(sums, threshold)
    linked = np.sort(sums[sums > 0])
    for w, total in zip(weights, sums, strict=True):
        assert w == (total > 0 and total >= linked[int(threshold * (len(linked) - 1))])


# --- seeds ---


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


@given(seed=seeds, n=st.integers(1, 25), data=st.data())
def test_merging_is_the_cheapest_joins_one_after_another(seed, n, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, n))
    means, sizes = rng.normal(size=(n, 3)), rng.uniform(0.5, 20, n)
    before = means.copy()
    found, mass = clusters.merge(means, sizes, k)
    assert_allclose(np.sort(found, axis=0), np.sort(naive_merge(means, sizes, k), axis=0))
    assert_allclose(mass @ found, sizes @ means)
    assert np.array_equal(means, before)


@given(seed=seeds, n=st.integers(3, 60), data=st.data())
def test_groups_of_one_size_are_merged_as_scipy_does(seed, n, data):
    k = data.draw(st.integers(1, n))
    means = np.random.default_rng(seed).normal(size=(n, 3))
    label = fcluster(linkage(means, "ward"), k, "maxclust")
    expected = np.array([means[label == one].mean(axis=0) for one in np.unique(label)])
    assert_allclose(np.sort(clusters.merge(means, np.ones(n), k)[0], axis=0), np.sort(expected, axis=0))


@given(seed=seeds, n=st.integers(1, 80), sizes=st.lists(st.integers(1, 90), min_size=1, max_size=3))
def test_every_resolution_has_as_many_seeds_as_asked_for_or_as_there_are_distinct_nodes(seed, n, sizes):
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng.normal(size=(n, 4)).astype(np.float32))
    distinct = np.ones(n, bool)
    distinct[1:] = rng.random(n - 1) > 0.3
    rows[~distinct] = rows[0]  # they lie on each other
    found = clusters.find_seeds(rows, rng.uniform(0.1, 1, n).astype(np.float32), sizes, 0)
    for k, seeds in zip(sizes, found, strict=True):
        assert seeds.shape == (k, 4)
        assert np.isfinite(seeds).all()
        if n <= clusters.FINER * max(sizes):
            assert seeds.any(axis=1).sum() == min(k, distinct.sum())


def test_random_seeds_follow_from_the_seed():
    rows = unit_rows(np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))
    drawn = [clusters.draw_seeds(rows, 5, seed).tolist() for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2] != drawn[3] != drawn[1]


def test_a_resolution_that_is_too_fine_to_merge_has_random_seeds(monkeypatch):
    monkeypatch.setattr(clusters, "MOST", 20)
    rows = unit_rows(np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))
    ones = np.ones(90, np.float32)
    coarse, fine, all_rows = clusters.find_seeds(rows, ones, [5, 21, 90], 0)
    assert len(np.unique(coarse, axis=0)) == 5
    assert (fine[:, None] == rows).all(axis=2).any(axis=1).all()
    assert_array_equal(np.sort(all_rows, axis=0), np.sort(rows, axis=0))


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
    merged = clusters.trained(rows, ones, clusters.find_seeds(rows, ones, [k], 0)[0], 20, 0)
    plain = clusters.trained(rows, ones, clusters.draw_seeds(rows, k, 0), 20, 0)
    agreement = [
        normalized_mutual_info_score(truth, clusters.closest(rows, centers)) for centers in (merged, plain)
    ]
    assert agreement[0] > 0.97
    assert agreement[0] > agreement[1]
