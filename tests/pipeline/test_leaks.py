"""No model knows what it may not: what is left of it when users are exchanged."""

from pathlib import Path

import numpy as np
import pytest

from mgoe import experiments
from mgoe.config import RunSettings, load_settings, make_settings
from mgoe.metrics import auc
from mgoe.models import PRESETS, resolve
from mgoe.pipeline.cell import fit_model
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.prepare import reference_rows
from mgoe.simulation import WorldSettings, simulate
from mgoe.training import Feed, predict
from tests.effort import SOAK
from tests.sharing import Shared

WORLD = WorldSettings(
    users=600,
    items=200,
    exposures=120_000 if SOAK else 60_000,
    days=30,
    user_communities=4,
    item_communities=5,
)
SHUFFLES = 5


@pytest.fixture(scope="module")
def personal(shared: Shared) -> tuple[RunSettings, Path]:
    """A log of strong tastes, prepared, and its graph."""

    def make(folder: Path) -> None:
        simulate(WORLD, folder / "log", form="events")
        settings = make_settings(
            {
                "data": {"log": str(folder / "log" / "events"), "truth": str(folder / "log" / "truth")},
                "tasks": ["click", "buy"],
                "split": {"cuts": [0.3, 0.5, 0.7, 0.85]},
                "training": {"epochs": 3, "batch_size": 512},
                "graph": {"recents": 5, "rank": 8, "resolutions": [[4, 5]], "dense": 0},
            }
        )
        experiments.macro_graph(settings, folder / "run")

    run = shared("experiments-personal", make) / "run"
    return load_settings(run / "settings.yaml"), run


@pytest.fixture(scope="module")
def best(personal: tuple[RunSettings, Path]) -> list[float]:
    """The AUC on the test part of whoever knows the world, a task."""
    settings, run = personal
    rows = reference_rows(settings, Inputs.open(run, settings).prepared)
    where = ("best-reachable", "test", "all", "auc")
    of_task = {
        row["task"]: row["value"]
        for row in rows
        if (row["model"], row["split"], row["slice"], row["metric"]) == where
    }
    return [of_task[task.name] for task in settings.tasks]


@pytest.mark.parametrize(
    "name", sorted(PRESETS.keys() - {"logistic", "rates"}) if SOAK else ["mgoe", "lightgbm"]
)
def test_with_users_exchanged_a_model_knows_no_more_than_items_tell(
    personal: tuple[RunSettings, Path], best: list[float], tmp_path: Path, name: str
):
    """Negatives of an event log are drawn as often as items are clicked: items alone tell nothing of clicks,
    and of purchases no more than the model's own mean over users does. With its own users a model knows no
    more than the world, which has the tastes and not the draws.
    """
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="lightgbm is not installed: pip install -e '.[gbm]'")
    settings, run = personal
    inputs = Inputs.open(run, settings)
    model, feeds, _ = fit_model(resolve(name), 0, settings, inputs, tmp_path)
    test = inputs.prepared.examples("test")
    rng = np.random.default_rng(0)
    exchanged = []
    for _ in range(SHUFFLES):
        others = test.take(np.arange(len(test)))
        others.user[:] = rng.permutation(test.user)
        exchanged.append(
            predict(model, Feed(inputs.prepared, inputs.graph, others, model.needs, inputs.spec))
        )
    items, place = np.unique(test.item, return_inverse=True)
    for t, task in enumerate(settings.tasks):
        sums = sum(np.bincount(place, found[:, t], len(items)) for found in exchanged)
        of_item = (sums / (SHUFFLES * np.bincount(place)))[place]
        alone = auc(test.labels[:, t], of_item)
        without = np.mean([auc(test.labels[:, t], found[:, t]) for found in exchanged])
        assert without < alone + 0.02, task.name
        if task.name == "click":
            assert abs(without - 0.5) < 0.03
            assert abs(alone - 0.5) < 0.03
    found = predict(model, feeds["test"])
    assert all(auc(test.labels[:, t], found[:, t]) < best[t] + 0.02 for t in range(len(best)))
    own = auc(test.labels[:, 0], found[:, 0])
    assert own > 0.5 + (0.05 if "aggregates" in model.needs else -0.05)
