"""The table and the plot of quality against cost, from the lines of a comparison."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import yaml

from benchmarks import cost

mpl.use("Agg")


@pytest.fixture
def arena(tmp_path: Path) -> Path:
    """An arena, and the lines of three of its models, of which one was never timed."""
    raw = {"logs": {"mine": {}}, "models": ["mgoe", "mmoe", "esmm", "ple"]}
    (tmp_path / "arena.yaml").write_text(yaml.safe_dump(raw))
    both = {"log": "mine", "state": "finished", "parameters": 10, "cpu_seconds": 5.0}
    lines = [
        both | {"model": model, "seed": seed, "at": at, "serving_ms": served, "test.all.ranking": value}
        for model, seed, at, served, value in (
            ("mgoe", 0, "2026-01-01", None, 0.1),
            ("mgoe", 0, "2026-01-02", 9.5, 0.7),
            ("mgoe", 1, "2026-01-01", None, 0.8),
            ("mmoe", 0, "2026-01-01", 1.5, 0.6),
            ("esmm", 0, "2026-01-01", None, 0.5),
        )
    ]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "seed-0.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "arena.yaml"


def given(monkeypatch: pytest.MonkeyPatch, arena: Path, *words: str) -> None:
    where = [str(arena), str(arena.parent / "lines"), "--log", "mine", "--table", "all"]
    monkeypatch.setattr(sys, "argv", ["cost.py", *where, *words])
    cost.main()


def test_it_prints_the_latest_line_of_each_cell(
    arena: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given(monkeypatch, arena, "--image", str(arena.parent / "cost.svg"))
    assert capsys.readouterr().out.splitlines() == [
        "| quality against cost | mean | parameters | CPU s | ms per 500 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| mgoe | 0.7500 ±0.0707 | 10 | **5** | **9.50** |",
        "| mmoe | 0.6000 | 10 | 5 | **1.50** |",
        "| esmm | 0.5000 | 10 | 5 | - |",
    ]
    drawn = (arena.parent / "cost.svg").read_text()
    assert "milliseconds per 500 candidates" in drawn
    assert "processor seconds of training" in drawn


def test_models_without_a_time_are_no_table(arena: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match="fewer than two of the models have a time of serving on mine"):
        given(monkeypatch, arena, "--models", "mgoe", "esmm")
