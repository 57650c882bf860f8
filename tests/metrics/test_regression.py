import numpy as np
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.metrics import mae, rmse, spearman
from tests.effort import up_to


@up_to(30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_measures_are_those_of_scikit_learn_and_scipy(seed, levels):
    rng = np.random.default_rng(seed)
    labels, values = rng.integers(0, levels, (2, 100)).astype(float)
    labels[:10] = np.nan
    a, b = labels[10:], values[10:]
    assert_allclose(rmse(labels, values), sklearn.metrics.root_mean_squared_error(a, b))
    assert_allclose(mae(labels, values), sklearn.metrics.mean_absolute_error(a, b))
    assert_allclose(spearman(labels, values), scipy.stats.spearmanr(a, b).statistic, atol=1e-12)
    assert_allclose(spearman(labels, np.exp(values)), spearman(labels, values), atol=1e-12)


def test_what_does_not_exist_is_nan():
    assert np.isnan(
        [
            rmse([], []),
            mae([np.nan], [1]),
            spearman([], []),
            spearman([1, 1], [1, 2]),
            spearman([1, 2], [np.nan, 1]),
        ]
    ).all()
