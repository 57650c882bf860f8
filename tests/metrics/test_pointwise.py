import numpy as np
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.metrics import calibration, log_loss, mae, rmse, spearman

SEEDS = st.integers(0, 2**32 - 1)


def draws(seed, n=200, missing=True):
    rng = np.random.default_rng(seed)
    probs = rng.beta(1, 4, n)
    labels = (rng.random(n) < probs).astype(float)
    if missing:
        labels[rng.random(n) < 0.1] = np.nan
    return labels, probs


@given(SEEDS)
def test_log_loss_is_that_of_scikit_learn(seed):
    labels, probs = draws(seed)
    probs[:3] = [0, 1, 0.5]
    seen = ~np.isnan(labels)
    assert_allclose(
        log_loss(labels, probs), sklearn.metrics.log_loss(labels[seen], probs[seen], labels=[0, 1])
    )


@given(SEEDS, st.integers(1, 30))
def test_bins_hold_every_row_once(seed, bins):
    labels, probs = draws(seed)
    probs = np.round(probs, 1)  # many ties
    result = calibration(labels, probs, bins)
    seen = ~np.isnan(labels)
    assert len(result.rows) <= bins
    assert result.rows.sum() == seen.sum()
    assert (result.rows > 0).all()
    assert (np.diff(result.predicted) > 0).all()
    assert_allclose(result.rows @ result.predicted, probs[seen].sum())
    assert_allclose(result.rows @ result.observed, labels[seen].sum())
    assert_allclose(result.ratio, probs[seen].sum() / labels[seen].sum())


@given(SEEDS, SEEDS)
def test_order_changes_nothing(seed, other):
    labels, probs = draws(seed)
    probs = np.round(probs, 1)
    p = np.random.default_rng(other).permutation(len(labels))
    a, b = calibration(labels, probs), calibration(labels[p], probs[p])
    assert a.rows.tolist() == b.rows.tolist()
    assert_allclose([a.error, *a.observed], [b.error, *b.observed])


def test_true_probabilities_are_calibrated_and_doubled_ones_are_not():
    labels, probs = draws(0, 200_000, missing=False)
    assert calibration(labels, probs).error < 0.005
    doubled = calibration(labels, 2 * probs)
    assert_allclose(doubled.ratio, 2, rtol=0.02)
    assert doubled.error > 0.15


def test_nothing_to_measure_gives_nan():
    assert np.isnan(log_loss([np.nan], [0.5]))
    assert np.isnan(calibration([], []).error)
    assert np.isnan(calibration([0, 0], [0.1, 0.2]).ratio)
    assert np.isnan(calibration([0, 1], [0.1, np.nan]).error)
    assert np.isnan(log_loss([0, 1], [0.1, np.nan]))


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
