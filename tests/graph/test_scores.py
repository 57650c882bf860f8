import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.errors import ConfigError, GraphError
from mgoe.graph import merging_score
from mgoe.graph.build.clusters import preference_weights
from mgoe.graph.scores import UNIT, check_overflow, score_table

CODES = np.arange(16)
ranks_of_four = st.lists(st.floats(0.1, 50), min_size=4, max_size=4).map(np.array)
forms = st.sampled_from(["sum", "bits"])
FIGURE_2 = np.array([1.0, 2.0, 3.0])  # click, favour, buy


def test_scores_of_figure_2():
    click, favour, buy, favour_buy = 0b001, 0b010, 0b100, 0b110
    assert_allclose(
        merging_score(np.array([0, click, favour, buy, favour_buy]), FIGURE_2, beta=1), [0, 1, 2, 3, 5]
    )
    assert_allclose(merging_score(np.array([favour_buy]), FIGURE_2, beta=1, code="bits"), 6)


@given(quantile=st.floats(0.75, 0.999))
def test_grey_nodes_of_figure_2_at_any_threshold_above_3_and_up_to_5(quantile):
    """Row sums 2, 2 and 3 are inactive and 5 is the lowest active one: of four nodes, these quantiles take 5
    for the threshold.
    """
    rows = [[0b010], [0b001, 0b001], [0b100], [0b110]]
    sums = np.array([score_table(FIGURE_2, beta=1)[row].sum() / UNIT for row in rows])
    assert_array_equal(sums, [2, 2, 3, 5])
    sums = np.append(sums, 8.0)  # a more active node, which the quantile allows
    assert_array_equal(preference_weights(sums, quantile), np.float32([0, 0, 0, 1, 1]))


@given(ranks=ranks_of_four, beta=st.floats(0, 1), form=forms, task=st.integers(0, 3))
def test_doing_one_more_task_never_lowers_the_score(ranks, beta, form, task):
    more = merging_score(CODES | 1 << task, ranks, beta, form)
    assert (more >= merging_score(CODES, ranks, beta, form)).all()


@given(ranks=ranks_of_four, form=forms)
def test_beta_zero_is_the_limit_of_small_beta(ranks, form):
    assert_allclose(merging_score(CODES, ranks, 0, form), merging_score(CODES, ranks, 1e-9, form), rtol=1e-6)


@given(beta=st.floats(0, 1))
def test_bits_are_the_sum_with_powers_of_two_for_ranks(beta):
    powers = 2.0 ** np.arange(4)
    assert_allclose(merging_score(CODES, np.ones(4), beta, "bits"), merging_score(CODES, powers, beta, "sum"))


@given(ranks=ranks_of_four, beta=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_sums_of_fixed_point_scores_equal_sums_of_floats(ranks, beta, seed):
    masks = np.random.default_rng(seed).integers(0, 16, 1000)
    fixed = score_table(ranks, beta)[masks].sum() / UNIT
    assert_allclose(fixed, merging_score(masks, ranks, beta).sum(), atol=1000 * 0.5 / UNIT)


def test_a_rank_that_is_not_positive_is_refused():
    with pytest.raises(
        ConfigError, match=r"tasks.rank: every rank must be positive, found 0; ranks start at 1"
    ):
        merging_score(np.array([1]), np.array([1.0, 0.0]), beta=1)


@pytest.mark.parametrize("rank", [1e7, 1e300])
def test_ranks_whose_products_overflow_are_refused_before_they_wrap(rank):
    with pytest.raises(
        GraphError,
        match=r"graph.beta: .* would overflow 64 bits; use a smaller graph.beta or smaller task ranks",
    ):
        score_table(np.array([1.0, rank]), beta=1)


def test_sums_that_overflow_are_refused_and_the_largest_that_do_not_pass():
    check_overflow(np.array([2.0**31 - 1]), np.array([1, 2.0**31]))
    with pytest.raises(GraphError, match="overflow"):
        check_overflow(np.array([2.0**31]), np.array([1, 2.0**31]))
