"""Probabilities that agree with the newest labels: one rising map per task, judged by other labels."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import expit, logit

import mgoe
from mgoe.bundle import Bundle
from mgoe.bundle.calibration import (
    ENOUGH,
    FEWEST,
    SLOPES,
    Calibration,
    TaskCalibration,
    Window,
    calibrate,
    calibrated_sample,
    carried_over_losses,
    fit_calibration,
)
from mgoe.bundle.sampling import in_whole_space, undo_sampling
from mgoe.config import RunSettings, make_settings
from mgoe.data import Split
from mgoe.errors import BundleError
from mgoe.metrics import auc
from mgoe.pipeline.cell_results import calibrate_cell
from tests.effort import up_to

SEEDS = st.integers(0, 2**32 - 1)


def run_of(*tasks: dict[str, Any]) -> RunSettings:
    """Settings of a run on exposures, in which nothing is sampled."""
    labelled = [{"label": task["name"]} | task for task in tasks]
    return make_settings({"data": {"log": "log.parquet"}, "tasks": labelled})


CLICKS = run_of({"name": "click"})
THREE = run_of({"name": "click"}, {"name": "stay", "kind": "regression"}, {"name": "buy", "given": "click"})


def window_of(
    predictions: NDArray, labels: NDArray, settings: RunSettings, buckets: NDArray | None = None
) -> Window:
    rows = len(labels)
    shift = np.zeros(rows, np.float32)
    buckets = np.zeros(rows, np.int32) if buckets is None else buckets
    return Window.of(predictions.astype(np.float32), shift, labels.astype(np.float32), buckets, settings)


def drawn(seed: int, rows: int, scale: float = 1.0, moved: float = 0.0) -> tuple[NDArray, NDArray]:
    """Predictions and labels whose log-odds are a multiple of the predicted ones, and moved. Shape (N, 1)."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 1.5, rows)
    return expit(log_odds)[:, None], (rng.random(rows) < expit(scale * log_odds + moved))[:, None]


@given(
    log_odds=st.lists(st.integers(-1200, 600), min_size=2, max_size=20, unique=True),
    slope=st.floats(*SLOPES),
    intercept=st.floats(-3, 3),
)
def test_the_map_rises_strictly(log_odds: list[int], slope: float, intercept: float):
    p = expit(np.sort(log_odds) / 100)[:, None].astype(np.float32)
    found = calibrate(p, np.array([slope]), np.array([intercept]))[:, 0]
    assert (np.diff(found[found < 0.99]) > 0).all()
    assert (np.diff(found) >= 0).all()  # float32 has few numbers close to 1
    assert ((found >= 0) & (found <= 1)).all()


@given(seed=SEEDS, rows=st.integers(1, 2000), rate=st.floats(0, 1))
def test_whatever_the_labels_are_the_map_rises_and_is_finite(seed: int, rows: int, rate: float):
    rng = np.random.default_rng(seed)
    predictions = rng.choice([0.0, 1e-20, 1e-3, 0.5, 0.9, 1.0], (rows, 1))
    labels = np.where(rng.random((rows, 1)) < 0.1, np.nan, rng.random((rows, 1)) < rate)
    found = fit_calibration(window_of(predictions, labels, CLICKS), CLICKS.tasks, Calibration()).tasks[
        "click"
    ]
    assert SLOPES[0] <= found.slope <= SLOPES[1]
    assert np.isfinite(found.intercept)


@pytest.mark.parametrize("ends", [(0.0, 0.0), (1.0, 1.0)])
def test_impossible_and_certain_stay_what_they_are(ends: tuple[float, float]):
    found = calibrate(np.array([[ends[0]]], np.float32), np.array([0.5]), np.array([2.0]))
    assert found[0, 0] == ends[1]


@given(seed=SEEDS, scale=st.floats(0.5, 2), moved=st.floats(-2, 2))
def test_what_is_off_by_a_map_of_this_form_is_put_right_on_other_labels(
    seed: int, scale: float, moved: float
):
    of_one = window_of(*drawn(seed, 20_000, scale, moved), CLICKS)
    predictions, labels = drawn(seed + 1, 20_000, scale, moved)
    fitted = fit_calibration(of_one, CLICKS.tasks, Calibration())
    other = fit_calibration(window_of(predictions, labels, CLICKS), CLICKS.tasks, fitted).tasks["click"]
    assert other.after.predicted_over_observed == pytest.approx(1, abs=0.1)
    assert (other.after.calibration_error or 0) < 0.02
    served = calibrate(predictions.astype(np.float32), *fitted.numbers(CLICKS.tasks))
    assert served.sum() / labels.sum() == pytest.approx(1, abs=0.1)
    assert auc(labels[:, 0], served[:, 0]) == pytest.approx(auc(labels[:, 0], predictions[:, 0]), abs=1e-6)


@given(seed=SEEDS, rarer=st.integers(0, ENOUGH + 20), often=st.booleans())
def test_too_few_labels_change_nothing_and_few_leave_the_slope(seed: int, rarer: int, often: bool):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.full(rarer, not often), np.full(2000, often)][:, None]
    predictions = expit(rng.normal(0, 1, (len(labels), 1)))
    former = TaskCalibration(slope=1.5, intercept=-0.25)
    for before in (Calibration(), Calibration(tasks={"click": former})):
        fitted = fit_calibration(window_of(predictions, labels, CLICKS), CLICKS.tasks, before)
        (slope,), (intercept,) = fitted.numbers(CLICKS.tasks)
        (old_slope,), (old_intercept,) = before.numbers(CLICKS.tasks)
        assert (slope == old_slope) == (rarer < ENOUGH)
        assert (intercept == old_intercept) == (rarer < FEWEST)
        if rarer < FEWEST and not before.tasks:
            p = predictions.astype(np.float32)
            assert_array_equal(calibrate(p, *fitted.numbers(CLICKS.tasks)), p)


@given(seed=SEEDS, order=st.permutations(range(3)))
def test_permuting_the_tasks_permutes_the_calibrations(seed: int, order: list[int]):
    rng = np.random.default_rng(seed)
    tasks = [{"name": "click"}, {"name": "stay", "kind": "regression"}, {"name": "buy"}]
    (one, labels), (other, bought) = drawn(seed, 3000, 0.7, 1), drawn(seed + 1, 3000, 1.3, -1)
    predictions = np.hstack([one, rng.random((3000, 1)) * 50, other])
    labels = np.hstack([labels, rng.random((3000, 1)) * 50, bought])
    shuffled = run_of(*(tasks[t] for t in order))
    straight = run_of(*tasks)
    found = [
        fit_calibration(window_of(p, y, settings), settings.tasks, Calibration())
        for p, y, settings in (
            (predictions, labels, straight),
            (predictions[:, order], labels[:, order], shuffled),
        )
    ]
    assert found[0] == found[1]
    assert set(found[0].tasks) == {"click", "buy"}
    served = [
        calibrate(p.astype(np.float32), *found[0].numbers(settings.tasks))
        for p, settings in ((predictions, straight), (predictions[:, order], shuffled))
    ]
    assert_array_equal(served[0][:, order], served[1])
    assert_array_equal(served[0][:, 1], predictions[:, 1].astype(np.float32))


@given(seed=SEEDS)
def test_a_task_within_a_sample_space_is_calibrated_within_it(seed: int):
    """Too few clicks are predicted, and too many purchases of those that click."""
    rng = np.random.default_rng(seed)
    clicks, buys = rng.uniform(0.05, 0.4, 30_000), rng.uniform(0.05, 0.4, 30_000)
    clicked = rng.random(30_000) < expit(logit(clicks) + 0.7)
    bought = np.where(clicked, rng.random(30_000) < expit(logit(buys) - 0.4), np.nan)
    predictions = np.stack([clicks, clicks, buys], axis=1)
    labels = np.stack([clicked, np.full(30_000, np.nan), bought], axis=1)
    fitted = fit_calibration(window_of(predictions, labels, THREE), THREE.tasks, Calibration())
    assert fitted.tasks["buy"].positives + fitted.tasks["buy"].negatives == clicked.sum()
    assert fitted.tasks["buy"].intercept == pytest.approx(-0.4, abs=0.35)
    served = calibrate(predictions.astype(np.float32), *fitted.numbers(THREE.tasks))
    at_all = in_whole_space(served, THREE.tasks)
    assert at_all[:, 2].sum() / np.nansum(bought) == pytest.approx(1, abs=0.1)


@up_to(10)
@given(seed=SEEDS)
def test_sampled_rows_give_the_calibration_of_all_rows(seed: int):
    """A model learns from a few of the negatives, and gives each task e times its odds."""
    rng = np.random.default_rng(seed)
    events = make_settings({"data": {"log": "log.parquet"}, "tasks": ["click", "buy"]})
    share = rng.uniform(0.01, 0.2, 50)  # of the negatives of an item that are kept
    item = rng.integers(0, 50, 300_000)
    true = rng.uniform(0.002, 0.05, len(item))
    clicked = rng.random(len(item)) < true
    labels = np.stack([clicked, clicked & (rng.random(len(item)) < 0.3)], axis=1)
    kept = clicked | (rng.random(len(item)) < share[item])
    item, true, labels = item[kept], true[kept], labels[kept]
    odds = np.e * true / (1 - true) / share[item]
    learned = (odds / (1 + odds))[:, None] * [1, 0.3]
    window = Window.of(
        learned.astype(np.float32),
        np.log(share[item]).astype(np.float32),
        labels.astype(np.float32),
        np.zeros(len(item), np.int32),
        events,
    )
    fitted = fit_calibration(window, events.tasks, Calibration())
    click = fitted.tasks["click"]
    assert click.slope == pytest.approx(1, abs=0.15)
    undone = undo_sampling(learned, np.log(share[item]), np.array([True, True]))
    served = calibrate(undone.astype(np.float32), *fitted.numbers(events.tasks))
    assert served[:, 0].mean() / true.mean() == pytest.approx(1, abs=0.15)
    own = calibrated_sample(window, events.tasks, fitted)
    assert_allclose(own.sum(0), labels.sum(0), rtol=1e-4)


@up_to(10)
@given(seed=SEEDS, older=st.integers(0, 3))
def test_older_buckets_count_only_where_the_newest_hold_too_few(seed: int, older: int):
    rng = np.random.default_rng(seed)
    predictions, labels = drawn(seed, 4000, moved=-1)
    buckets = np.repeat([5, 6, 7, 8], 1000).astype(np.int32)
    found = [
        fit_calibration(window_of(predictions, y, CLICKS, buckets), CLICKS.tasks, Calibration())
        for y in (labels, np.where(buckets[:, None] == 5, rng.random((4000, 1)) < 0.5, labels))
    ]
    rarer = [min(labels[buckets >= day].sum(), (~labels[buckets >= day]).sum()) for day in (5, 6, 7, 8)]
    newest = max((day for day, count in zip((5, 6, 7, 8), rarer, strict=True) if count >= ENOUGH), default=5)
    first, other = (one.tasks["click"] for one in found)
    assert first.since == f"1970-01-0{newest + 1}"
    if newest > 5:
        assert (first.slope, first.intercept) == (other.slope, other.intercept)
        assert first.before != other.before  # measured on the whole window


def cell(seed: int, labels_seed: int, sale: int = 0) -> tuple[dict[Split, Calibration], NDArray]:
    """Calibrate the predictions of a seed, with test labels of another.

    The last day of validation is a sale of some rows, with labels of the other seed.
    """
    (valid, valid_labels), (test, _) = drawn(seed, 3000, 0.8, 0.5), drawn(seed + 1, 3000)
    parts = {
        "valid": valid_labels,
        "test": np.random.default_rng(labels_seed).random((3000, 1)) < 0.3,
    }
    parts["valid"][3000 - sale :] = parts["test"][3000 - sale :]
    columns = {name: np.zeros(3000, np.int64) for name in ("item", "bucket", "snapshot")}
    buckets = {"valid": np.arange(3000) // max(1, 3000 - sale), "test": columns["bucket"]}
    examples = {
        split: SimpleNamespace(
            labels=labels.astype(np.float32), column=(columns | {"bucket": buckets[split]}).__getitem__
        )
        for split, labels in parts.items()
    }
    inputs: Any = SimpleNamespace(
        prepared=SimpleNamespace(streamed=examples.__getitem__, summary={"odd_buckets": [1]}),
        graph=SimpleNamespace(snapshots=[None]),
        prior=lambda _: np.zeros(2, np.float32),
    )
    scores = {"valid": valid.astype(np.float32), "test": test.astype(np.float32)}
    return calibrate_cell(scores, CLICKS, inputs)[:2]


@up_to(10)
@given(seed=SEEDS)
def test_the_labels_of_a_window_never_move_what_is_measured_on_it(seed: int):
    (one, measured), (other, again) = cell(seed, 1), cell(seed, 2)
    assert_array_equal(measured, again)
    assert one["valid"] == other["valid"]
    assert one["test"] != other["test"]  # the bundle's own calibration is of these labels


@up_to(10)
@given(seed=SEEDS, sale=st.sampled_from([400, 1500, 1600]))
def test_a_day_that_is_another_world_moves_no_map_unless_it_is_most_of_the_window(seed: int, sale: int):
    (_, measured), (_, again) = cell(seed, 1, sale), cell(seed, 2, sale)
    assert (measured == again).all() == (2 * sale <= 3000)


def test_a_bundle_gives_calibrated_probabilities_in_the_order_of_its_model(finished: Path):
    bundle = mgoe.load(finished / "bundle")
    assert set(bundle.calibration.tasks) == {"click", "buy"}
    plain = Bundle(bundle.path, bundle.manifest.model_copy(update={"calibration": Calibration()}))
    users, items = np.full(bundle.size("item"), 3), np.arange(bundle.size("item"))
    found, before = bundle.score_indices(users, items), plain.score_indices(users, items)
    for t, task in enumerate(bundle.calibration.tasks.values()):
        assert task.intercept != 0
        assert_allclose(
            found[:, t], expit(task.slope * logit(before[:, t].astype(float)) + task.intercept), rtol=1e-5
        )
        assert (np.diff(found[np.argsort(before[:, t], kind="stable"), t]) >= 0).all()
    assert_array_equal(
        bundle.score_indices(users, items, recalibrated=False),
        plain.score_indices(users, items, recalibrated=False),
    )


@given(seed=st.integers(0, 99), moved=st.floats(-2, 2))
@up_to(15)
def test_a_map_that_was_carried_over_costs_what_the_best_map_of_other_rows_would_save(
    seed: int, moved: float
):
    """Labels are drawn from probabilities that a map of validation shifts by some log-odds."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-1, 1, (4000, 1))
    labels = (rng.random(true.shape) < expit(true)).astype(np.float32)
    window = window_of(expit(true), labels, CLICKS)
    carried = Calibration(tasks={"click": TaskCalibration(intercept=moved)})
    found = carried_over_losses(window, CLICKS.tasks, carried)["click"]
    logits = true + moved
    worse = np.logaddexp(0, logits) - labels * logits - (np.logaddexp(0, true) - labels * true)
    assert found >= -1e-9
    assert found == pytest.approx(worse.mean(), abs=3e-3)
    few = window_of(expit(true[:20]), labels[:20], CLICKS)
    assert np.isnan(carried_over_losses(few, CLICKS.tasks, carried)["click"])


def test_a_run_measures_before_and_after(finished: Path):
    bundle = mgoe.load(finished / "bundle")
    rows = bundle.metrics.query("split == 'test' and slice == 'all' and seed == 0").set_index(
        ["task", "metric"]
    )
    after = {"logloss_after", "calibration_error_after", "predicted_over_observed_after"}
    assert not after & set(bundle.metrics.query("split == 'valid'").metric)
    for name, task in bundle.calibration.tasks.items():
        for metric in ("predicted_over_observed", "calibration_error"):
            assert rows.loc[(name, metric), "value"] == pytest.approx(getattr(task.before, metric), rel=1e-5)
            assert rows.loc[(name, f"{metric}_after"), "value"] == pytest.approx(getattr(task.after, metric))
        carried = rows.loc[(name, "carried_over_loss"), "value"]
        assert -1e-9 <= carried < rows.loc[(name, "logloss_after"), "value"]
    assert "log loss, carried over" in (finished / "report.html").read_text()
    assert "log loss, calibrated" in (finished / "report.html").read_text()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ([], "valid dictionary"),
        ({"tasks": 3}, "tasks"),
        ({"tasks": {"click": {"slope": -1}, "buy": {}}}, "tasks.click.slope"),
        ({"tasks": {"click": {"slope": 0}, "buy": {}}}, "tasks.click.slope"),
        ({"tasks": {"click": {"intercept": float("nan")}, "buy": {}}}, "tasks.click.intercept"),
        ({"tasks": {"click": {}}}, r"must name the binary tasks \(click, buy\), found click"),
        ({"tasks": {"click": {}, "by": {}}}, r"must name the binary tasks \(click, buy\), found click, by"),
        ({"maps": {}}, "maps'; valid names"),
    ],
)
def test_a_calibration_that_is_none_is_refused(finished: Path, tmp_path: Path, broken: Any, sentence: str):
    copy = shutil.copytree(finished / "bundle", tmp_path / "bundle")
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(manifest | {"calibration": broken}))
    with pytest.raises(BundleError, match=f"bundle.json: .*calibration.*{sentence}.*copy the bundle again"):
        mgoe.load(copy)
