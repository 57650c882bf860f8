"""The benchmark of retraining in its short form: two windows of a tiny log, and one full training."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import retrain
from mgoe.bundle import Bundle
from mgoe.config import RunSettings
from tests.effort import slow

WINDOWS = 2


@pytest.fixture
def config(small: RunSettings, tmp_path: Path) -> Path:
    """Settings of a run with a model that trains in a second."""
    settings = small.model_dump(mode="json") | {"models": ["shared-bottom+counts"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "config.yaml"


def test_windows_share_no_row_and_lose_none(small: RunSettings, tmp_path: Path):
    files = retrain.split_log(small, tmp_path / "log", 0.5, 3)
    parts = [pd.read_parquet(file) for file in files]
    every = pd.concat(pd.read_parquet(file) for file in Path(small.data.log[0]).glob("*.parquet"))
    assert sum(map(len, parts)) == len(every)
    assert 0.45 < len(parts[0]) / len(every) < 0.6
    ends = [(part["timestamp"].min(), part["timestamp"].max()) for part in parts]
    assert all(before[1] < after[0] for before, after in pairwise(ends))


@slow
def test_every_way_is_measured_in_every_window(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    train, trained = retrain.full, list[Bundle]()

    def full(settings: RunSettings, files: list[Path], out: Path) -> Bundle:
        trained.append(trained[0] if trained else train(settings, files, out))
        return trained[0]

    monkeypatch.setattr(retrain, "full", full)
    monkeypatch.setattr(sys, "argv", ["retrain", str(config), "--windows", str(WINDOWS)])
    retrain.main()
    lines = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    for what in retrain.WHAT:
        per_window = [lines[f"retrain.{k}.{what}.ranking"]["value"] for k in range(1, WINDOWS + 1)]
        assert lines[f"retrain.all.{what}.ranking"]["value"] == pytest.approx(np.mean(per_window), abs=1e-4)
        assert min(per_window) > 0.4
        assert lines[f"retrain.1.{what}.cpu"]["value"] >= 0
    assert len(trained) == 1 + WINDOWS
    gain = lines["retrain.all.frozen.difference"]["value"]
    assert lines["retrain.all.frozen.difference.low"]["value"] < gain
    assert gain < lines["retrain.all.frozen.difference.high"]["value"]
