"""The time of serving: measured once per model, kept with its cell, no part of what is compared."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe import experiments
from mgoe._util.files import read_json
from mgoe._util.processes import Job, Outcome
from mgoe.bundle import Bundle
from mgoe.evaluation.standings import pareto
from mgoe.pipeline import records
from mgoe.pipeline.plan import Plan
from mgoe.pipeline.serving_time import time_cell, untimed
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer
from tests.effort import SOAK
from tests.experiments.tiny import here, numbers, settings


def without_export(bundle: Bundle, runtime: Runtime) -> Scorer:
    if runtime.engine != "torch":
        raise RuntimeError("this model cannot be exported")
    return Scorer(bundle, runtime=runtime)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an export, which takes seconds."""
    monkeypatch.setattr("mgoe.pipeline.serving_time.Scorer", without_export)
    monkeypatch.setattr("mgoe.pipeline.serving_time.run_jobs", here)


@pytest.fixture
def out(compared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(compared, tmp_path / "out")


def test_every_model_is_timed_once_with_its_first_seed(
    raw: dict[str, Any], compared: Path, out: Path, by_torch: None, said: pytest.LogCaptureFixture
):
    timed = settings(raw, serving_requests=2)
    experiments.compare(timed, out, command="another command")
    assert "timing the serving of 3 models" in said.messages
    lines = records.latest(out)
    figures = {key: line["serving_ms"] for key, line in lines.items() if line["serving_ms"] is not None}
    assert figures.keys() == {("tiny", model, 0) for model in ("mgoe", "shared-bottom", "mgoe:random")}
    assert min(figures.values()) > 0
    assert {line["serving_engine"] for line in lines.values()} == {"torch", None}
    assert {line["command"] for line in lines.values()} == {"mgoe compare tiny.yaml"}  # which trained them
    for name in ("tables.md", "comparison.html"):
        assert "ms per 500" in (out / name).read_text()
    for figure in figures.values():
        assert f"| {figure:,.2f} |" in (out / "tables.md").read_text().replace("**", "")
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    assert (out / "leads.json").read_text() == (compared / "leads.json").read_text()
    said.clear()
    experiments.compare(timed, out)
    assert not [line for line in said.messages if "serving" in line]


def test_a_time_comes_with_its_line_and_a_line_without_one_stays_empty(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    lines = [json.loads(line) for line in (compared / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["serving_ms"], line["serving_engine"]  # as earlier versions wrote them
        if (line["model"], line["seed"]) == ("mgoe", 0):
            line["serving_ms"] = 12.3456
    out = shutil.copytree(compared, tmp_path / "out")
    (out / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = experiments.compare(settings(raw, serving_requests=2), out, stop_after=0)
    parts = (out / "tables.md").read_text().split("\n\n")
    table = next(part for part in parts if part.startswith("| model "))
    served = {name: text for name, *_, text, _ in (line.split(" | ") for line in table.split("\n"))}
    assert (served["| mgoe"], served["| shared-bottom"]) == ("12.35", "-")
    assert "quality against cost" not in table
    [standings] = [one for one in result.standings if one.costs["mgoe"].serving_ms == 12.3456]
    assert [point.model for point in pareto(standings, "serving_ms")] == ["mgoe"]
    plan = Plan(settings(raw), out)
    assert {cell.variant.name for cell in untimed(plan, plan.cells)} == {"shared-bottom", "mgoe:random"}


@pytest.mark.parametrize("exported", [False, *[True] * SOAK])
def test_a_model_is_timed_as_a_service_runs_it(
    raw: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
):
    """In the short form the export itself, which takes seconds, is left to tests of the scorer."""
    asked: list[Runtime] = []

    def scorer(bundle: Bundle, runtime: Runtime) -> Scorer:
        asked.append(runtime)
        return Scorer(bundle, runtime=runtime if exported else Runtime(engine="torch"))

    monkeypatch.setattr("mgoe.pipeline.serving_time.Scorer", scorer)
    cell = next(cell for cell in Plan(settings(raw), out).cells if cell.variant.name == "shared-bottom")
    before = read_json(cell.folder / "fit.json")
    milliseconds = time_cell(cell, requests=3)
    assert read_json(cell.folder / "fit.json") == before | {
        "serving_ms": milliseconds,
        "serving_engine": Runtime().engine,
    }
    assert asked == [Runtime()]
    assert 0 < milliseconds < 60_000


def test_a_failure_leaves_the_cell_empty(
    raw: dict[str, Any],
    out: Path,
    by_torch: None,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
):
    def failing(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
        yield from (Outcome(job, failed="no space left") for job in jobs)

    monkeypatch.setattr("mgoe.pipeline.serving_time.run_jobs", failing)
    result = experiments.compare(settings(raw, serving_requests=2), out)
    assert "  serving of tiny, mgoe, seed 0 cannot be timed: no space left" in said.messages
    assert result.failed == {}
    assert "ms per 500" not in (out / "tables.md").read_text()
