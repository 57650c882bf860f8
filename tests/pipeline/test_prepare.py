"""The best that any model can reach knows what models are given; chance knows the middle of the labels
alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgoe.config import RunSettings
from mgoe.data import prepare
from mgoe.pipeline.prepare import reference_rows
from mgoe.simulation import WorldSettings, simulate

WORLD = WorldSettings(
    users=400,
    items=200,
    exposures=40_000,
    days=20,
    device_spread=3.0,
    user_communities=4,
    item_communities=4,
    scenarios=[1.0, 1.0],
    scenario_correlation=-1.0,
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a world in which much depends on the device and on the scenario."""
    path = tmp_path_factory.mktemp("devices") / "log"
    simulate(WORLD, path, form="exposures")
    return path


def best(log: Path, out: Path, context: list[dict[str, Any]]) -> float:
    """AUC on test."""
    data = {"log": str(log / "exposures"), "truth": str(log / "truth"), "context": context}
    tasks, split = [{"name": "click", "label": "click"}], {"cuts": [0.4, 0.6, 0.8]}
    settings = RunSettings.model_validate({"data": data, "tasks": tasks, "split": split})
    where = ("best-reachable", "test", "click", "auc")
    rows = reference_rows(settings, prepare(settings, out))
    return next(
        row["value"]
        for row in rows
        if tuple(row[key] for key in ("model", "split", "task", "metric")) == where
    )


def test_the_best_reachable_sees_the_device_where_models_do(log: Path, tmp_path: Path):
    unseen = best(log, tmp_path / "unseen", [])
    assert best(log, tmp_path / "seen", [{"name": "device"}]) > unseen + 0.01
    assert (
        best(log, tmp_path / "rare", [{"name": "device", "min_count": 1_000_000}]) == unseen
    )  # every device has the code of the unknown


def test_the_best_reachable_sees_the_scenario_where_models_do(log: Path, tmp_path: Path):
    unseen = best(log, tmp_path / "unseen", [{"name": "device"}])
    seen = best(log, tmp_path / "seen", [{"name": "scenario"}, {"name": "device"}])
    assert seen > unseen + 0.05


def test_chance_is_a_half_and_of_a_regression_the_mean_in_training(log: Path, tmp_path: Path):
    data = {"log": str(log / "exposures"), "truth": str(log / "truth")}
    tasks = [{"name": "click", "label": "click"}, {"name": "stay", "label": "stay", "kind": "regression"}]
    settings = RunSettings.model_validate({"data": data, "tasks": tasks, "split": {"cuts": [0.4, 0.6, 0.8]}})
    prepared = prepare(settings, tmp_path / "log")
    test, train = (prepared.examples(split).labels.astype(float) for split in ("test", "train"))
    of = {
        (row["task"], row["metric"]): row["value"]
        for row in reference_rows(settings, prepared)
        if row["model"] == "chance"
    }
    assert (of["click", "auc"], of["click", "logloss"]) == pytest.approx((0.5, np.log(2)))
    errors = test[:, 1] - np.nanmean(train[:, 1])
    assert of["stay", "rmse"] == pytest.approx(np.sqrt(np.nanmean(errors**2)))
