"""`mgoe demo`: what it announces, that it resumes, and how it ends."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.config import load_settings
from mgoe.simulation import SimulationSummary, WorldSettings, simulate
from tests.cli.conftest import Mgoe


def draw_less(_: WorldSettings, out: Path, **options: Any) -> SimulationSummary:
    return simulate(WorldSettings(users=200, items=100, exposures=12_000, days=30), out, **options)


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_demo_resumes_and_ends_with_recommendations(
    mgoe: Mgoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "a demo: 1"
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "run", stop)
        patch.setattr("mgoe.simulation.simulate", draw_less)
        stopped = mgoe("demo", "--out", out)
    assert stopped.exit_code == 130
    assert "minutes" in stopped.stderr
    assert "GiB of memory" in stopped.stderr
    assert "the same command" in stopped.stderr
    proposed = load_settings(out / "demo.yaml").models
    assert "shared-bottom+mgoe" in proposed
    few = {"models": ["shared-bottom+mgoe"], "split": {"cuts": [0.4, 0.6, 0.8]}, "graph": {"recents": 5}}
    few |= {"training": {"epochs": 1, "batch_size": 1024}, "evaluation": {"ranking_queries": 5}}
    raw = yaml.safe_load((out / "demo.yaml").read_text())
    (out / "demo.yaml").write_text(yaml.safe_dump(raw | few))
    drawn = (out / "log" / "summary.json").stat().st_mtime_ns

    finished = mgoe("demo", "--out", out)
    assert finished.exit_code == 0, finished.stderr
    assert (out / "log" / "summary.json").stat().st_mtime_ns == drawn
    assert re.search(r"^best-reachable ", finished.stdout, re.MULTILINE)
    assert re.search(
        r"^of the reachable gain over chance: shared-bottom\+mgoe -?\d+ %", finished.stdout, re.MULTILINE
    )
    user = int(re.search(r"^For user (\d+)", finished.stdout, re.MULTILINE)[1])
    best = Bundle.open(out / "run" / "bundle").recommend(user, 3, exclude_known=True)["item"]
    assert re.findall(r"^item (\d+): click", finished.stdout, re.MULTILINE) == best.astype(str).tolist()
    assert finished.stdout.count("% of the user's ties go to its group") == 3
    assert f"report {out / 'run' / 'report.html'}" in finished.stdout
    assert "mgoe init" in finished.stdout

    again = mgoe("demo", "--out", out)
    assert again.stdout == finished.stdout
    assert "shared-bottom+mgoe" in json.loads(mgoe("demo", "--out", out, "--json").stdout)["reachable"]
    assert "training" not in again.stderr


def test_a_folder_of_others_is_refused(mgoe: Mgoe, tmp_path: Path):
    (tmp_path / "diary.txt").write_text("mine")
    refused = mgoe("demo", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "found diary.txt; choose another --out" in refused.stderr
    assert "--out" in mgoe("demo", "--out", tmp_path / "diary.txt").stderr
    (tmp_path / "log").mkdir()
    shutil.move(tmp_path / "diary.txt", tmp_path / "log")
    assert mgoe("demo", "--out", tmp_path).exit_code == 2
    assert (tmp_path / "log" / "diary.txt").exists()
