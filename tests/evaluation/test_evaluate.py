import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe import metrics
from mgoe.errors import OutputError
from mgoe.evaluation import measure, read_rows, reliability, write_rows

from .made_up import TASKS, made_up

WHO = {"model": "m", "seed": 3, "split": "test"}
SEEDS = st.integers(0, 2**32 - 1)


def values(rows, slice="all"):
    return {(row["task"], row["metric"]): row["value"] for row in rows if row["slice"] == slice}


@given(SEEDS)
def test_a_slice_is_measured_as_if_alone(seed):
    labels, scores, users = made_up(seed, rows=200)
    mask = np.random.default_rng(seed).random(200) < 0.4
    sliced = values(measure(scores, labels, users, TASKS, {"some": mask}, **WHO), "some")
    alone = values(measure(scores[mask], labels[mask], users[mask], TASKS, **WHO))
    assert sliced.keys() == alone.keys()
    assert_allclose(list(sliced.values()), list(alone.values()))


@given(SEEDS)
def test_ranking_is_the_mean_of_auc_and_gauc(seed):
    labels, scores, users = made_up(seed)
    found = values(measure(scores, labels, users, TASKS, **WHO))
    parts = [found[t, m] for t in ("click", "buy") for m in ("auc", "gauc")]
    assert_allclose(found["all", "ranking"], np.mean(parts))
    assert_allclose(found["all", "auc"], (found["click", "auc"] + found["buy", "auc"]) / 2)


def test_rows_carry_every_metric_and_their_origin():
    labels, scores, users = made_up(0)
    rows = measure(scores, labels, users, TASKS, **WHO)
    assert all(
        (row["model"], row["seed"], row["split"], row["slice"]) == ("m", 3, "test", "all") for row in rows
    )
    found = values(rows)
    areas, believed, counted = (
        ["auc", "gauc", "gauc_users", "gauc_users_skipped"],
        ["logloss", "calibration_error", "predicted_over_observed"],
        ["users", "examples", "positives"],
    )
    assert [m for t, m in found if t == "click"] == [*areas, *believed, *counted]
    assert [m for t, m in found if t == "stay"] == ["rmse", "mae", "spearman", "user_spearman", *counted]
    assert found["click", "auc"] == metrics.auc(labels[:, 0], scores[:, 0])
    assert found["buy", "examples"] == (~np.isnan(labels[:, 1])).sum()
    assert found["buy", "users"] == len({*users[~np.isnan(labels[:, 1])]})


def test_a_slice_of_one_class_or_no_rows_counts_and_does_not_crash():
    labels, scores, users = made_up(0)
    only = labels[:, 0] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = measure(scores, labels, users, TASKS, {"clicked": only, "nothing": np.zeros_like(only)}, **WHO)
    clicked, nothing = values(rows, "clicked"), values(rows, "nothing")
    assert math.isnan(clicked["click", "auc"])
    assert clicked["click", "positives"] == only.sum()
    assert clicked["click", "gauc_users"] == 0 < clicked["click", "gauc_users_skipped"]
    assert clicked["all", "auc"] == clicked["buy", "auc"]
    assert math.isnan(nothing["all", "ranking"])
    assert nothing["click", "examples"] == 0


def test_rows_come_back_from_the_file_with_what_does_not_exist_as_null(tmp_path):
    labels, scores, users = made_up(0)
    rows = measure(scores, labels, users, TASKS, {"nothing": np.zeros(len(users), bool)}, **WHO)
    write_rows(tmp_path / "metrics.json", rows)
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    back = read_rows(tmp_path / "metrics.json")
    assert [{**r, "value": 0} for r in back] == [{**r, "value": 0} for r in rows]
    assert_allclose([r["value"] for r in back], [r["value"] for r in rows])
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("text", [None, "[", "{}x", '[{"value": "x"}]', '[{"value": 1}]', "[1]"])
def test_a_file_of_something_else_is_one_clear_error(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(OutputError, match="mgoe run"):
        read_rows(tmp_path / "metrics.json")


def test_reliability_has_points_for_binary_tasks():
    labels, scores, _ = made_up(0)
    points = reliability(scores, labels, TASKS, bins=5)
    assert list(points) == ["click", "buy"]
    assert sum(points["click"]["rows"]) == (~np.isnan(labels[:, 0])).sum()
