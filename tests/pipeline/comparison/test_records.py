"""Lines of `results.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mgoe import pipeline
from mgoe.pipeline.comparison import records, tuning
from tests.pipeline.comparison.tiny import settings


def test_a_line_that_was_cut_off_is_no_line(tmp_path: Path):
    whole = {"log": "a", "model": "m", "seed": 0, "state": "finished"}
    (tmp_path / "results.jsonl").write_text('{"log": "a", "mod')
    records.append(tmp_path, whole)
    assert records.latest(tmp_path) == {("a", "m", 0): whole}


def test_a_line_may_hold_what_ends_one_elsewhere(tmp_path: Path):
    line = {"log": "a", "model": "m\u2028\u2029\x85", "seed": 0, "state": "failed", "reason": "\r\n"}
    records.append(tmp_path, line)
    records.append(tmp_path, line | {"seed": 1})
    assert list(records.read(tmp_path / "results.jsonl")) == [line, line | {"seed": 1}]


def test_a_cell_without_a_search_tells_none(own: dict[str, Any], tmp_path: Path, in_this_process: None):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tuned = settings(own, tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})
    out, key = tmp_path / "out", ("tiny", "shared-bottom", 0)
    pipeline.compare(tuned, out)
    assert records.latest(out)[key]["tuned"] == tuning.best_of(out / "logs/tiny/tuned/shared-bottom.json")
    pipeline.compare(settings(own), out, overwrite=True)
    assert records.latest(out)[key]["tuned"] is None
    assert pipeline.compare(settings(own), tmp_path / "there", take=[out / "results.jsonl"], stop_after=0).waiting == 0
