from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import TrainingError
from mgoe.training import Monitor, measure

TASKS = [
    SimpleNamespace(name=name, kind=kind)
    for name, kind in (("click", "binary"), ("buy", "binary"), ("stay", "regression"))
]
VALUES = st.floats(0.01, 0.99)


@given(
    value=VALUES, best=VALUES, metric=st.sampled_from(["auc", "gauc", "ranking", "logloss", "rmse", "mae"])
)
def test_the_direction_follows_from_the_metric(value, best, metric):
    task = "stay" if metric in ("rmse", "mae") else "buy"
    monitor = Monitor.parse(f"{task}.{metric}", TASKS)
    assert monitor.better(value, best) == (
        value < best if metric in ("logloss", "rmse", "mae") else value > best
    )
    assert monitor.better(value, None)


@given(
    scores=st.fixed_dictionaries(
        {task: st.fixed_dictionaries({"auc": VALUES, "gauc": VALUES}) for task in ("click", "buy")}
    )
)
def test_ranking_is_the_mean_of_auc_and_gauc_and_all_the_mean_of_the_tasks_that_have_it(scores):
    scores = scores | {"stay": {"rmse": 1.0, "mae": 1.0}}
    ranking = [np.mean([scores[task]["auc"], scores[task]["gauc"]]) for task in ("click", "buy")]
    assert Monitor.parse("buy.ranking", TASKS).value(scores) == pytest.approx(ranking[1])
    assert Monitor.parse("all.ranking", TASKS).value(scores) == pytest.approx(np.mean(ranking))
    assert Monitor.parse("all.mae", TASKS).value(scores) == 1.0


def test_a_task_without_the_metric_is_left_out_and_none_at_all_is_nan():
    scores = {"click": {"auc": np.nan, "gauc": np.nan}, "buy": {"auc": 0.7, "gauc": np.nan}}
    assert Monitor.parse("all.ranking", TASKS).value(scores) == 0.7
    assert np.isnan(Monitor.parse("click.auc", TASKS).value(scores))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("buy.acu", "did you mean 'buy.auc'"),
        ("clik.gauc", "did you mean 'click.gauc'"),
        ("stay.auc", "did you mean 'stay.mae'|'buy.auc'"),
        ("x", "valid names: all.auc"),
    ],
)
def test_a_typo_is_refused_with_the_nearest_name(text, hint):
    with pytest.raises(
        TrainingError, match=f"training.monitor: must be task.metric .*found '{text}'.*({hint})"
    ):
        Monitor.parse(text, TASKS)


def test_missing_labels_are_not_measured():
    labels = np.array([[1, np.nan, 2], [0, 1, 3], [1, 0, np.nan]])
    values = np.array([[0.9, 0.9, 2], [0.1, 0.8, 1], [0.8, 0.2, 9]])
    scores = measure(TASKS, labels, values, np.zeros(3))
    assert scores["click"]["auc"] == scores["buy"]["auc"] == 1
    assert scores["stay"] == pytest.approx({"rmse": 2**0.5, "mae": 1.0})
