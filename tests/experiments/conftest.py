"""A comparison of a log of a second, and what came of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgoe import experiments
from tests.experiments.tiny import here, settings
from tests.sharing import Shared


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
def compared(raw: dict[str, Any], shared: Shared) -> Path:
    """The folder of a finished comparison. Read it only."""
    return shared("compared", compare_here(raw, command="mgoe compare tiny.yaml"))


LEAST = {"models": ["shared-bottom"], "variants": {}, "seeds": [0]}
TUNE = {"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}}


@pytest.fixture(scope="session")
def least(raw: dict[str, Any], shared: Shared) -> Path:
    """The folder of what `own` asks for, finished. Read it only."""
    return shared("experiments-least", compare_here(raw | LEAST))


@pytest.fixture(scope="session")
def searched(raw: dict[str, Any], shared: Shared) -> Path:
    """The folder of what `tuned` asks for, finished. Read it only."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    return shared("experiments-searched", compare_here(raw | LEAST | {"tune": TUNE}))


def compare_here(raw: dict[str, Any], **how: Any) -> Callable[[Path], object]:
    """Return what compares in this process, to a folder."""

    def make(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mgoe._util.processes.run_jobs", here)
            experiments.compare(settings(raw), out, **how)

    return make


@pytest.fixture
def own(raw: dict[str, Any], world: Path, tmp_path: Path) -> dict[str, Any]:
    """The least comparison, of a log that may be changed."""
    shutil.copytree(world / "events", tmp_path / "log")
    data = {"log": str(tmp_path / "log"), "truth": str(world / "truth")}
    return raw | LEAST | {"logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}}}


@pytest.fixture
def tuned(own: dict[str, Any]) -> dict[str, Any]:
    """The same with a search."""
    return own | {"tune": TUNE}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
