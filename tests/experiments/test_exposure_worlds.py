"""Simulated worlds compared on what they show, and on what they show uniformly at random."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mgoe import experiments
from mgoe.data import Prepared
from mgoe.evaluation import read_rows
from mgoe.pipeline.plan import Plan
from tests.experiments.tiny import numbers, settings
from tests.simulation.worlds import RANKED

WORLD = RANKED.model_copy(update={"exposures": 20_000, "positions": 5, "content": 0.5})
MAIN = [(task, metric) for task in ("click", "favour", "cart", "buy") for metric in ("auc", "gauc")]


@pytest.fixture
def shown(raw: dict[str, Any]) -> dict[str, Any]:
    """The least comparison of a world's exposures."""
    data = {"form": "exposures", "position": "position", "uniform": "uniform"}
    world = {"simulate": WORLD.model_dump(mode="json", exclude_defaults=True), "data": data}
    rest = {"models": ["shared-bottom"], "variants": {}, "seeds": [0], "evaluation": {"ranking_queries": 0}}
    return raw | {"logs": {"ranked": world}} | rest


def test_a_world_is_compared_on_its_exposures_and_on_those_shown_uniformly(
    shown: dict[str, Any], tmp_path: Path, in_this_process: None
):
    out = tmp_path / "out"
    assert experiments.compare(settings(shown), out).failed == {}
    prepared = Prepared.open(out / "logs/ranked/seeds/0/data")
    for side, communities in ((prepared.user_side, 4), (prepared.item_side, 5)):
        assert (
            side.arrays["content"].shape[1] == 2 * communities + 1
        )  # the last says whether there is a vector
        assert side.arrays["content"][:, -1].all()
    log = pq.read_table(out / "logs/ranked/world/exposures").to_pandas()
    found = pd.concat([numbers(out), pd.DataFrame(read_rows(out / "logs/ranked/references.json"))])
    table = found[found["split"] == "test"].set_index(["slice", "model", "task", "metric"])["value"]
    cut = prepared.summary["cuts"][-1]
    rows = log[log["timestamp"] >= pd.Timestamp(cut)]
    for part, expected in (("all", rows), ("uniform", rows[rows["uniform"] == 1])):
        values = table[part]
        for model in ("shared-bottom", "best-reachable", "chance"):
            assert values[model, "click", "examples"] == len(expected)
            assert values[model, "click", "positives"] == expected["click"].sum()
        for task, metric in MAIN:
            error = 2 * np.sqrt(0.25 / values["chance", task, "positives"])
            assert values["chance", task, metric] == 0.5
            assert values["shared-bottom", task, metric] < values["best-reachable", task, metric] + error
        ratio = values["best-reachable", "click", "predicted_over_observed"]
        assert abs(ratio - 1) < 4 / np.sqrt(expected["click"].sum())
    assert table["uniform", "best-reachable", "click", "auc"] > 0.6
    markdown = (out / "tables.md").read_text()
    assert "| on uniformly shown rows | click AUC |" in markdown
    assert "on uniformly shown rows" in (out / "tables.md").read_text()
    assert "on uniformly shown rows" in (out / "comparison.html").read_text()


def test_tasks_and_files_of_a_world_are_those_of_its_form(shown: dict[str, Any]):
    events = {"simulate": {"users": 10, "items": 10, "user_communities": 2, "item_communities": 2}}
    plan = Plan(settings(shown | {"logs": shown["logs"] | {"plain": events}}), Path("out"))
    ranked, plain = (plan.logs[name].settings(0) for name in ("ranked", "plain"))
    assert (ranked.form, plain.form) == ("exposures", "events")
    assert ranked.data.log == ["out/logs/ranked/world/exposures"]
    assert plain.data.log == ["out/logs/plain/world/events"]
    assert [task.label for task in ranked.tasks] == list(WORLD.names)
    assert [task.label for task in plain.tasks] == [None] * 4
