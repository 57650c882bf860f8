"""The command `compare`."""

import json
from pathlib import Path

import pytest
import yaml

from mgoe.config import RunSettings
from tests.cli.conftest import Mgoe
from tests.experiments.tiny import here_or_failed


@pytest.fixture
def arena(small: RunSettings, tmp_path: Path) -> Path:
    """A log, a model, and one that cannot be trained."""
    raw = small.model_dump(mode="json")
    sections = {key: raw[key] for key in ("data", "tasks", "split", "graph", "training")}
    del sections["graph"]["seed"]  # which follows the comparison's
    steep = {
        "name": "steep",
        "base": "shared-bottom",
        "training": {"learning_rate": 1e30, "epochs": 3, "batch_size": 256},
    }
    path = tmp_path / "arena.yaml"
    evaluation = {"ranking_queries": 0}
    path.write_text(
        yaml.safe_dump(
            {
                "logs": {"tiny": sections},
                "models": ["shared-bottom", steep],
                "evaluation": evaluation,
                "serving_requests": 0,
            }
        )
    )
    return path


def test_tables_are_shown_though_a_cell_fails(
    mgoe: Mgoe, arena: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here_or_failed)
    result = mgoe("compare", arena, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "1 cell failed: tiny, steep, seed 0: " in result.stderr
    assert "| shared-bottom | 0." in result.stdout
    assert "steep: failed with seed 0" in result.stdout
    assert "training 2 of 2 cells" in result.stderr
    only = mgoe(
        "compare",
        arena,
        "--out",
        tmp_path / "out",
        "--models",
        "shared-bottom",
        "--stop-after",
        "1m",
        "--json",
    )
    assert "training 0 of 1 cells" in only.stderr
    assert list(json.loads(only.stdout)["failed"]) == ["tiny, steep, seed 0"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--stop-after", "soon"), "--stop-after: length: must be a whole number"),
        (("--seeds", "one"), "--seeds: takes whole numbers"),
    ],
)
def test_options_are_checked(mgoe: Mgoe, arena: Path, tmp_path: Path, words: tuple[str, ...], sentence: str):
    result = mgoe("compare", arena, "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()
