"""Inputs of repeats, trends and links in worlds in which every user chooses alike: they tell nothing."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mgoe.config import RunSettings
from mgoe.data import prepare
from mgoe.features import GROUPS
from mgoe.graph import build_graph
from mgoe.pipeline.stages import source_of
from mgoe.training import Feed, make_spec
from tests.data.test_following import world
from tests.effort import SOAK

MOMENT = ("repeats", "trend", "links")
TOLERANCE = 0.02


@pytest.mark.parametrize("kind", ["", "births", "bursts trends", "births bursts trends"])
def test_no_input_tells_draws_from_positives_where_users_are_alike(kind: str, tmp_path: Path):
    rows = world(kind, 240_000 if SOAK else 50_000, seed=0, days=20)
    rows["time"] += 1_700_006_400
    rows.to_parquet(tmp_path / "log.parquet")
    settings = RunSettings.model_validate(
        {
            "data": {
                "log": str(tmp_path / "log.parquet"),
                "user": "user",
                "item": "item",
                "time": "time",
                "behavior": None,
                "history": "moment",
            },
            "tasks": ["any"],
            "split": {"cuts": [0.3, 0.5, 0.7]},
            "negatives": {"ratio": 3},
            "graph": {"rank": 8, "power_iterations": 1, "resolutions": [[6, 8]]},
        }
    )
    prepared = prepare(settings, tmp_path / "data")
    graph = build_graph(source_of(settings, prepared), settings.graph, tmp_path / "graph")
    spec = make_spec(prepared, graph, MOMENT)
    found: dict[str, list[np.ndarray]] = {}
    for split in ("train", "valid", "test"):
        feed = Feed(prepared, graph, prepared.examples(split), frozenset(MOMENT), spec)
        block = feed.block(np.arange(len(feed)))
        found.setdefault("label", []).append(block["labels"][:, 0].numpy())
        for group in MOMENT:
            for key, names in GROUPS[group].names(graph.latest).items():
                for name, column in zip(names, block[key].numpy().T, strict=True):
                    found.setdefault(name, []).append(column)
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    label = values.pop("label")
    told = {name: round(float(roc_auc_score(label, column)), 4) for name, column in values.items()}
    assert {name: auc for name, auc in told.items() if abs(auc - 0.5) > TOLERANCE} == {}
