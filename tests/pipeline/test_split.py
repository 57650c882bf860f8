"""What a run with several test windows measures, and what its models read there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mgoe import experiments
from mgoe.bundle import scored_model
from mgoe.config import RunSettings, load_settings, make_settings
from mgoe.evaluation import read_rows
from mgoe.features import GROUPS
from mgoe.pipeline import cell_results
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.values import values_of_run
from mgoe.training import Batch, Feed
from tests.sharing import Shared

CUTS = ["2025-01-13", "2025-01-19", "2025-01-22"]
SECOND = "2025-01-27"


@pytest.fixture(scope="module")
def log(world: Path) -> pd.DataFrame:
    return pd.read_parquet(world / "exposures").assign(
        timestamp=lambda rows: rows.timestamp - rows.timestamp.min() + pd.Timestamp("2025-01-01")
    )


def settings_of(log: pd.DataFrame, folder: Path, **split: Any) -> RunSettings:
    log.to_parquet(folder.with_suffix(".parquet"))
    return make_settings(
        {
            "data": {"log": str(folder.with_suffix(".parquet"))},
            "tasks": [{"name": name, "label": name} for name in ("click", "buy")],
            "split": {"cuts": CUTS, **split},
            "models": ["shared-bottom+mgoe"],
            "training": {"epochs": 1, "batch_size": 1024},
            "evaluation": {"ranking_queries": 10_000},
            "graph": {"recents": 5, "rank": 8, "resolutions": [[4, 5]], "dense": 0},
        }
    )


@pytest.fixture(scope="module")
def runs(log: pd.DataFrame, shared: Shared) -> dict[str, tuple[RunSettings, Path]]:
    """A run with one snapshot for all of test, and one with two."""
    asked = {"frozen": {}, "daily": {"cuts": [*CUTS, SECOND], "test_windows": 2}}

    def make(folder: Path) -> None:
        folder.mkdir()
        for name, split in asked.items():
            experiments.run(settings_of(log, folder / name, **split), folder / name, reuse=True)

    folder = shared("experiments-windows", make)
    return {name: (load_settings(folder / name / "settings.yaml"), folder / name) for name in asked}


def read(settings: RunSettings, out: Path) -> tuple[Inputs, Batch]:
    """Return the inputs of a run, and what a model reads of all test examples."""
    inputs = Inputs.open(out, settings)
    examples = inputs.prepared.examples("test")
    feed = Feed(inputs.prepared, inputs.graph, examples, frozenset(GROUPS), inputs.spec)
    return inputs, feed.block(np.arange(len(examples)))


def test_only_rows_of_later_windows_read_something_else(runs):
    (frozen, one), (daily, other) = (read(*runs[name]) for name in ("frozen", "daily"))
    assert frozen.spec == daily.spec
    second = torch.from_numpy(daily.prepared.examples("test").snapshot == 3)
    assert 0 < second.sum() < len(second)
    assert all(torch.equal(one[name][~second], other[name][~second]) for name in other)
    assert {"labels", "weight"} < {name for name in other if torch.equal(one[name], other[name])}
    assert not torch.equal(one["rates"][second], other["rates"][second])
    weights = [load_file(out / "bundle" / "model.safetensors") for _, out in runs.values()]
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


def test_labels_of_a_test_window_change_nothing_that_it_reads(log, runs, tmp_path):
    other = log.copy()
    other.loc[other.timestamp >= SECOND, ["click", "buy"]] = 1 - other[["click", "buy"]]
    settings = settings_of(other, tmp_path / "out", cuts=[*CUTS, SECOND], test_windows=2)
    experiments.macro_graph(settings, tmp_path / "out")
    inputs, found = read(settings, tmp_path / "out")
    before, expected = read(*runs["daily"])
    assert inputs.spec == before.spec
    order = [
        np.lexsort((*(one.context[name] for name in one.context), one.item, one.user, one.bucket))
        for one in (each.prepared.examples("test") for each in (inputs, before))
    ]
    for name in expected.keys() - {"labels"}:
        assert torch.equal(found[name][order[0]], expected[name][order[1]]), name
    assert not torch.equal(found["labels"][order[0]], expected["labels"][order[1]])


def test_windows_are_slices_and_each_user_is_ranked_once_per_window(log, runs):
    keys = ["split", "slice", "task", "metric"]
    frozen, daily = (
        pd.DataFrame(read_rows(runs[name][1] / "metrics.json")).set_index(keys).value
        for name in ("frozen", "daily")
    )
    assert frozen["valid"].equals(daily["valid"])
    test = log[log.timestamp >= CUTS[-1]]
    rows = [len(test[test.timestamp < SECOND]), len(test[test.timestamp >= SECOND])]
    assert [daily["test", f"window-{n}", "click", "examples"] for n in (1, 2)] == rows
    assert frozen["test", "all", "click", "examples"] == sum(rows)
    assert "window-1" not in frozen["test"].index.get_level_values("slice")
    clicked = test[(test.click > 0) & test.item_id.isin(log[log.timestamp < CUTS[-1]].item_id)]
    known = clicked.assign(second=clicked.timestamp >= SECOND)
    assert daily["test", "all", "click", "queries"] == len(known[["user_id", "second"]].drop_duplicates())
    assert frozen["test", "all", "click", "queries"] == known.user_id.nunique()


def test_a_query_is_ranked_as_of_the_snapshot_before_its_window(runs, monkeypatch):
    settings, out = runs["daily"]
    inputs, asked = Inputs.open(out, settings), {2: set(), 3: set()}

    def scorer(model: Any, snapshot: Any) -> Any:
        number = next(n for n, one in enumerate(inputs.graph.snapshots) if one is snapshot)

        def score(users: np.ndarray, items: np.ndarray, context: Any) -> np.ndarray:
            asked[number].update(users.tolist())
            return np.zeros((len(users), 2), np.float32)

        return score

    monkeypatch.setattr(scored_model, "View", SimpleNamespace(of=lambda snapshot, *sides: snapshot))
    monkeypatch.setattr(scored_model, "PairScorer", scorer)
    cell_results.catalog(SimpleNamespace(spec=inputs.spec), settings, inputs, model="m", seed=0)  # type: ignore[arg-type]
    test = inputs.prepared.examples("test")
    known = (test.labels > 0).any(1) & (test.item < inputs.prepared.items_at[2])
    assert asked == {s: set(test.user[known & (test.snapshot == s)].tolist()) for s in asked}


def test_the_report_says_it(runs):
    pages = {name: (out / "report.html").read_text() for name, (_, out) in runs.items()}
    assert "Test is 2 windows" in pages["daily"]
    assert "Test is" not in pages["frozen"]


def test_results_are_noted_with_their_test_windows(runs):
    found = {name: values_of_run(settings)["split"]["test_windows"] for name, (settings, _) in runs.items()}
    assert found == {"frozen": 1, "daily": 2}
