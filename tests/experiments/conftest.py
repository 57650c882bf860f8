"""A comparison of a log of a second, and what came of it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from mgoe import experiments
from tests.experiments.tiny import here, settings


@pytest.fixture(scope="session")
def raw(world: Path) -> dict[str, Any]:
    """Two models and a variant, two seeds, one log."""
    return {
        "logs": {
            "tiny": {
                "data": {"log": str(world / "events"), "truth": str(world / "truth")},
                "tasks": ["click", "buy"],
            }
        },
        "models": ["mgoe", "shared-bottom"],
        "variants": {"random": {"graph.clusters": "random", "model.options.tau": 0.5}},
        "seeds": [0, 1],
        "split": {"cuts": [0.4, 0.6, 0.8]},
        "training": {"epochs": 1, "batch_size": 1024},
        "evaluation": {"ranking_queries": 0, "slices": False},
        "graph": {"recents": 5, "rank": 8},
        "jobs": 2,
        "serving_requests": 0,
    }


@pytest.fixture(scope="session")
def compared(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished comparison. Read it only."""
    out = tmp_path_factory.mktemp("compared") / "out"
    experiments.compare(settings(raw), out, command="mgoe compare tiny.yaml")
    return out


@pytest.fixture
def own(raw: dict[str, Any], world: Path, tmp_path: Path) -> dict[str, Any]:
    """The least comparison, of a log that may be changed."""
    shutil.copytree(world / "events", tmp_path / "log")
    data = {"log": str(tmp_path / "log"), "truth": str(world / "truth")}
    return raw | {
        "logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}},
        "models": ["shared-bottom"],
        "variants": {},
        "seeds": [0],
    }


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgoe.experiments.execute.run_jobs", here)
