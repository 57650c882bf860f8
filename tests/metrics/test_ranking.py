import cProfile
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import ndcg_score, roc_auc_score

from mgoe.metrics import auc, gauc, group_auc, hit_rate_at, ndcg_at, placements, spearman, spearman_within

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def graded(draw, missing=True):
    """Labels, scores with many ties and groups of a few rows; every class, group and size may be absent."""
    rng = np.random.default_rng(draw(SEEDS))
    n = draw(st.integers(0, 60))
    labels = rng.choice([0.0, 1.0, np.nan] if missing else [0.0, 1.0], n)
    scores = rng.integers(0, draw(st.integers(1, 30)), n) / 7
    return labels, scores, rng.integers(0, draw(st.integers(1, 10)), n)


def naive_auc(labels, scores):
    up, down = labels == 1, labels == 0
    a, b = scores[up][:, None], scores[down][None]
    return ((a > b) + 0.5 * (a == b)).mean() if up.any() and down.any() else np.nan


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(graded())
def test_auc_counts_pairs(rows):
    labels, scores, _ = rows
    assert_allclose(auc(labels, scores), naive_auc(labels, scores))


@given(graded(missing=False))
def test_auc_is_that_of_scikit_learn(rows):
    labels, scores, _ = rows
    if len(set(labels)) == 2:
        assert_allclose(auc(labels, scores), roc_auc_score(labels, scores))


@given(graded(), SEEDS)
def test_order_and_monotone_scale_change_nothing(rows, seed):
    labels, scores, groups = rows
    p = np.random.default_rng(seed).permutation(len(labels))
    other = np.exp(3 * scores[p]) + 2
    assert auc(labels, scores) == auc(labels[p], other) or np.isnan(auc(labels, scores))
    assert_allclose(gauc(labels[p], other, groups[p]).value, gauc(labels, scores, groups).value)


@given(graded())
def test_reversed_scores_or_labels_mirror_the_auc(rows):
    labels, scores, _ = rows
    assert_allclose(auc(labels, -scores), 1 - auc(labels, scores))
    assert_allclose(auc(1 - labels, scores), 1 - auc(labels, scores))


@given(graded())
def test_gauc_is_the_weighted_mean_of_groups(rows):
    labels, scores, groups = rows
    names, areas, sizes = group_auc(labels, scores, groups)
    seen = ~np.isnan(labels)
    assert names.tolist() == sorted(set(groups[seen].tolist()))
    expected = [naive_auc(labels[groups == g], scores[groups == g]) for g in names]
    assert_allclose(areas, expected)
    assert sizes.tolist() == [int((seen & (groups == g)).sum()) for g in names]
    result = gauc(labels, scores, groups)
    used = ~np.isnan(areas)
    assert result.groups_used + result.groups_skipped == len(names)
    assert_allclose(result.value, np.average(areas[used], weights=sizes[used]) if used.any() else np.nan)


@given(graded())
def test_gauc_forgets_what_shifts_whole_groups(rows):
    labels, scores, groups = rows
    scores = np.round(scores * 7)  # whole numbers: the shift must not break ties
    assert_allclose(gauc(labels, scores + 100 * groups, groups).value, gauc(labels, scores, groups).value)


@given(graded())
def test_one_group_is_the_auc(rows):
    labels, scores, _ = rows
    assert_allclose(gauc(labels, scores, np.zeros(len(labels), int)).value, auc(labels, scores))


@given(graded(missing=False))
def test_placements_average_to_the_auc(rows):
    labels, scores, _ = rows
    area = auc(labels, scores)
    placed = placements(labels, scores)
    if np.isnan(area):
        assert np.isnan(placed).all()
    else:
        assert_allclose([placed[labels == 1].mean(), placed[labels == 0].mean()], area)


def test_a_nan_score_is_not_measured():
    assert np.isnan(auc([0, 1, 1], [0.1, np.nan, 0.3]))
    assert np.isnan(gauc([0, 1, 1], [0.1, np.nan, 0.3], [1, 1, 1]).value)
    assert auc([0, 1, np.nan], [0.1, 0.2, np.nan]) == 1


def test_one_class_is_counted_not_crashed_on():
    assert np.isnan(auc([1, 1], [0.2, 0.3]))
    result = gauc([1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], ["a", "a", "b", "b"])
    assert (result.value, result.groups_used, result.groups_skipped) == (1, 1, 1)


@given(SEEDS, st.integers(1, 12))
def test_ranking_measures_are_those_of_whole_lists(seed, k):
    rng = np.random.default_rng(seed)
    relevant = rng.random((5, 12)) < 0.3
    relevant[:, 0] = True
    scores = rng.permuted(np.tile(np.arange(12.0), (5, 1)), axis=1)
    queries, items = np.nonzero(relevant)
    ranks = (scores[queries] > scores[queries, items][:, None]).sum(1) + 1
    assert_allclose(ndcg_at(ranks, queries, k), ndcg_score(relevant, scores, k=k))
    hits = [relevant[q][np.argsort(-scores[q])[:k]].any() for q in range(5)]
    assert_allclose(hit_rate_at(ranks, queries, k), np.mean(hits))


def test_no_query_gives_nan():
    assert np.isnan([hit_rate_at([], [], 5), ndcg_at([], [], 5)]).all()


def test_a_rank_that_is_not_known_spoils_its_list():
    for ranks in ([1, np.nan, 2], [np.nan, 1, 1]):
        assert np.isnan([hit_rate_at(ranks, [0, 0, 1], 5), ndcg_at(ranks, [0, 0, 1], 5)]).all()


def test_the_calls_of_gauc_do_not_grow_with_the_rows():
    def calls(rows: int) -> int:
        rng, profile = np.random.default_rng(0), cProfile.Profile()
        labels, scores, users = (
            rng.integers(0, 2, rows),
            rng.random(rows, np.float32),
            rng.integers(0, rows // 20, rows),
        )
        profile.runcall(gauc, labels, scores, users)
        return sum(entry.callcount for entry in profile.getstats())

    calls(2_000)  # imports
    assert calls(200_000) <= calls(2_000) + 10


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([np.nan, 0.0, 1.0, 2.0, 3.5]), st.integers(0, 4)),
        max_size=60,
    )
)
def test_order_within_groups_is_a_mean_over_groups(rows):
    group, labels, values = np.array(rows, float).reshape(-1, 3).T
    groups = [group == one for one in set(group)]
    each = [((~np.isnan(labels[own])).sum(), spearman(labels[own], values[own])) for own in groups]
    used = [(n, found) for n, found in each if not np.isnan(found)]
    naive = sum(n * found for n, found in used) / sum(n for n, _ in used) if used else np.nan
    assert_allclose(spearman_within(labels, values, group), naive, atol=1e-12)
    if used:
        spoilt = np.where(np.arange(len(values)) == np.flatnonzero(~np.isnan(labels))[0], np.nan, values)
        assert np.isnan(spearman_within(labels, spoilt, group))
