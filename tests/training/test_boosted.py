"""Boosted trees: what they are grown on, when they stop, and that they are the same again."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.config import ModelSettings, TrainingSettings
from mgoe.data import Examples
from mgoe.errors import MissingExtra, TrainingError
from mgoe.models import BoostedTrees, CategoricalSpec, TaskSpec, make_model
from mgoe.training import Feed, Monitor, fit_trees, predict
from mgoe.training.boosted import gather, load_trees
from mgoe.training.monitor import measure
from tests.training.fakes import GRAPH, PREPARED, SPEC, TASKS, make_examples

lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed: pip install -e '.[gbm]'")

WIDTHS = {"counts": 3, "context_numeric": 2, "user_side_numeric": 1, "item_side_numeric": 1}
SIDES = {
    "user_side": (CategoricalSpec("kind", 4),),
    "item_side": (CategoricalSpec("kind", 4),),
    "context": (CategoricalSpec("hour", 24),),
}
SMALL = {"rounds": 60, "patience": 20, "leaf_rows": 5, "leaves": 7}


def make_trees(tasks: tuple[TaskSpec, ...] = TASKS, **options: object) -> BoostedTrees:
    spec = replace(SPEC, tasks=tasks, widths=WIDTHS, **SIDES)
    settings = ModelSettings(
        name="trees", base="lightgbm", inputs=("ids", "side", "context", "counts"), options=SMALL | options
    )
    model = make_model(settings, spec, 0)
    assert isinstance(model, BoostedTrees)
    return model


def make_feeds(model: BoostedTrees, change=lambda labels: labels) -> tuple[Feed, Feed]:
    def feed(count: int, seed: int) -> Feed:
        examples = make_examples(count, seed)
        examples = replace(examples, labels=change(examples.labels.copy()))
        return Feed(PREPARED, GRAPH, examples, model.needs, model.spec)  # type: ignore[arg-type]

    return feed(2000, 0), feed(600, 1)


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(monitor="all.auc").model_copy(update=changes)


def test_columns_are_the_numbers_and_categories_as_they_are():
    model = make_trees()
    train, _ = make_feeds(model)
    assert "ids" not in model.needs
    assert len(model.columns) == 7 + 3
    assert model.columns[-1] == "context.hour"
    rows, batch = gather(model, train), train.block(np.arange(5))
    assert rows.features.dtype == np.float32
    assert_array_equal(rows.features[:5, -1], batch["context.hour"].numpy())
    assert_array_equal(
        rows.features[:5, [model.columns.index(f"counts_{k}") for k in range(3)]], batch["counts"].numpy()
    )
    assert_array_equal(rows.labels, train.examples.labels)
    assert_array_equal(rows.weight, train.examples.weight)


def test_trees_learn_and_come_back_from_their_text(tmp_path: Path):
    model = make_trees()
    train, valid = make_feeds(model)
    assert (predict(model, valid) == 0.5).all()  # nothing is grown yet
    found = fit_trees(model, train, valid, settings(), tmp_path)
    assert found.best_value > 0.65
    scores = json.loads((tmp_path / "curves.json").read_text())["epochs"][0]
    assert scores["monitor"] == found.best_value
    assert 0 < scores["losses"]["click"] < np.log(2)
    again = make_trees()
    load_trees(again, tmp_path)
    assert_array_equal(predict(again, valid), predict(model, valid))
    leaves = sum(booster.trees_to_dataframe().left_child.isna().sum() for booster in model.boosters)
    trees = sum(booster.num_trees() for booster in model.boosters)
    assert model.size == leaves + 2 * (leaves - trees)


def test_features_may_have_any_name(tmp_path: Path):
    """LightGBM refuses some, and takes a blank for an underscore."""
    grown = []
    for name, other in (("hour", "day"), ('a "b", [c: {d}]', "a b"), ("a_b", "a b")):
        features = (CategoricalSpec(name, 24), CategoricalSpec(other, 24))
        spec = replace(SPEC, widths={"context_numeric": 2}, context=features)
        model = make_model(
            ModelSettings(name="trees", base="lightgbm", inputs=("context",), options=SMALL), spec, 0
        )
        assert isinstance(model, BoostedTrees)
        feeds = make_feeds(model)
        for feed in feeds:
            assert isinstance(feed.examples, Examples)
            context = feed.examples.context
            feed.examples = replace(
                feed.examples, context={**context, name: context["hour"], other: 23 - context["hour"]}
            )
        fit_trees(model, *feeds, settings(), tmp_path)
        grown.append(model.texts())
    assert grown[0] == grown[1] == grown[2]


def test_the_same_seed_grows_the_same_trees_and_another_one_others(tmp_path: Path):
    found = []
    for seed in (0, 0, 1):
        model = make_trees()
        fit_trees(model, *make_feeds(model), settings(), tmp_path, seed=seed)
        found.append(model.texts())
    assert found[0] == found[1] != found[2]


def test_rows_with_a_missing_label_take_no_part(tmp_path: Path):
    predictions = []
    for spoilt in (False, True):
        model = make_trees()
        train, valid = make_feeds(model)
        examples = train.examples
        held = np.flatnonzero(~np.isnan(examples.labels[:, 0]))
        if spoilt:  # the other task's labels say nothing
            examples.labels[:, 1] = np.nan
        train.examples = examples.take(held)
        fit_trees(model, train, valid, settings(), tmp_path)
        predictions.append(predict(model, valid))
    assert_array_equal(predictions[0][:, 0], predictions[1][:, 0])
    assert (predictions[1][:, 1] == 0.5).all()
    assert model.boosters[1] is None


def test_weights_count_as_copies(tmp_path: Path):
    whole, _ = make_feeds(make_trees())
    light = replace(whole.examples, weight=np.where(whole.examples.user % 2, 1e-6, 1).astype(np.float32))
    predictions = []
    for examples in (light, light.take(light.weight == 1)):
        model = make_trees(leaf_rows=1, share=1.0, rounds=10)
        train, valid = make_feeds(model)
        train.examples = examples
        fit_trees(model, train, valid, settings(), tmp_path)
        predictions.append(predict(model, valid))
    correlation = np.corrcoef(predictions[0][:, 0], predictions[1][:, 0])[0, 1]
    assert correlation > 0.8


def test_a_regression_is_in_its_own_unit(tmp_path: Path):
    model = make_trees((TaskSpec("click"), TaskSpec("stay", kind="regression", mean=50.0, std=20.0)))

    def change(labels):
        labels[:, 1] = 50 + 20 * labels[:, 0]
        return labels

    train, valid = make_feeds(model, change)
    found = fit_trees(model, train, valid, settings(monitor="stay.rmse"), tmp_path)
    assert found.best_value < 10
    assert 45 < np.median(predict(model, valid)[:, 1]) < 75


def test_trees_are_counted_by_validation(tmp_path: Path):
    model = make_trees(rounds=400, learning_rate=0.5, leaf_rows=1, leaves=63)
    train, valid = make_feeds(model)
    seen = []
    (curve,) = fit_trees(model, train, valid, settings(monitor="all.logloss"), tmp_path, seen.append).curves
    clicks = {now.step: now.monitor for now in seen if now.epoch == 1}
    best = min(clicks, key=clicks.get)
    assert model.boosters[0].num_trees() == best < 400
    assert max(clicks) == best + 20
    assert curve["step"] == sum(booster.num_trees() for booster in model.boosters)
    seen, weight = ~np.isnan(train.examples.labels[:, 0]), train.examples.weight
    learned = np.abs(1 - train.examples.labels - predict(model, train))[
        seen, 0
    ]  # probability of what happened
    assert_allclose(curve["losses"]["click"], np.average(-np.log(learned), weights=weight[seen]), rtol=1e-4)
    labels, known = valid.examples.labels[:, 0], ~np.isnan(valid.examples.labels[:, 0])
    predicted = predict(model, valid)[known, 0]
    assert_allclose(
        -np.log(np.where(labels[known] == 1, predicted, 1 - predicted)).mean(), clicks[best], rtol=1e-3
    )


@pytest.mark.parametrize("rows", range(210, 300, 15))
def test_what_is_kept_is_what_validation_preferred_where_rounds_find_no_split(tmp_path: Path, rows: int):
    model = make_trees(rounds=120, patience=120, leaf_rows=90, learning_rate=0.3)
    train, valid = make_feeds(model)
    labels = train.examples.labels
    labels[np.flatnonzero(~np.isnan(labels[:, 0]))[rows:]] = np.nan
    seen = []
    fit_trees(model, train, valid, settings(monitor="click.logloss"), tmp_path, seen.append)
    seen = [now for now in seen if now.epoch == 1]
    known = ~np.isnan(valid.examples.labels[:, 0])
    kept = measure(
        TASKS[:1],
        valid.examples.labels[known, :1],
        predict(model, valid)[known, :1],
        valid.examples.user[known],
    )
    assert_allclose(kept["click"]["logloss"], min(now.monitor for now in seen), rtol=1e-5)


@pytest.mark.parametrize("labelled", [0, 1, 2, 7])
@pytest.mark.parametrize("weight", [0, 1])
def test_few_labels_and_rows_of_weight_0_grow_what_they_can(tmp_path: Path, labelled: int, weight: float):
    model = make_trees()
    train, valid = make_feeds(model)
    few = np.flatnonzero(~np.isnan(train.examples.labels[:, 1]))
    train.examples.labels[few[labelled:], 1] = np.nan
    train.examples.weight[few[:labelled]] = weight
    fit_trees(model, train, valid, settings(), tmp_path)
    assert (model.boosters[1] is None) == (labelled * weight == 0)
    assert np.isfinite(predict(model, valid)).all()


def test_rows_of_weight_0_are_as_if_they_were_not_there(tmp_path: Path):
    whole, _ = make_feeds(make_trees())
    light = replace(whole.examples, weight=(whole.examples.user % 2 == 0).astype(np.float32))
    texts = []
    for examples in (light, replace(light, labels=np.where(light.weight[:, None] > 0, light.labels, np.nan))):
        model = make_trees()
        train, valid = make_feeds(model)
        train.examples = examples
        fit_trees(model, train, valid, settings(), tmp_path)
        texts.append(model.texts())
    assert texts[0] == texts[1]


def test_a_task_is_watched_by_its_loss_where_the_metric_is_of_others():
    monitor, users = Monitor.parse("all.ranking", TASKS), np.zeros(3)
    labels = np.array([0, 1, 1], np.float32)
    assert monitor.of_task(TASKS[0], labels, users).text == "click.ranking"
    assert monitor.of_task(TASKS[0], labels * 0, users).text == "click.logloss"
    assert monitor.of_task(TaskSpec("stay", kind="regression"), labels, users).text == "stay.rmse"


def test_rows_that_memory_cannot_hold_are_refused_before_they_are_read(tmp_path: Path):
    model = make_trees()
    with pytest.raises(TrainingError, match=r"2,000 and 600 rows of 10 columns take .* raise it"):
        fit_trees(model, *make_feeds(model), settings(), tmp_path / "fit", memory=1e-5)
    assert not (tmp_path / "fit").exists()


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch):
    def missing(name: str):
        raise ImportError(f"No module named {name!r}")

    model = make_trees()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[gbm\]'"):
        fit_trees(model, *make_feeds(model), settings(), tmp_path)


def test_a_prediction_of_trees_is_independent_of_its_batch_mates(tmp_path: Path):
    model = make_trees()
    train, valid = make_feeds(model)
    fit_trees(model, train, valid, settings(), tmp_path)
    together = model.predict(valid.block(np.arange(9)))
    assert torch.equal(torch.cat([model.predict(valid.block(np.array([k]))) for k in range(9)]), together)
