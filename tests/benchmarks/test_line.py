"""The benchmark of an end-to-end run divides what a process takes among its stages."""

import json
from pathlib import Path

import pytest
from benchmarks.world import World

from benchmarks import line
from mgoe.config import make_settings
from tests.benchmarks.test_graph_benchmark import lines


def look(watch: line.Watch, used: list[float], seconds: float, memory: float) -> None:
    used[0] += seconds
    watch.look(0, memory)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Processor seconds so far of a process, whose clock shows the same."""
    now = [0.0]
    monkeypatch.setattr(line, "running_seconds", lambda process: now[0])
    monkeypatch.setattr(line.time, "perf_counter", lambda: now[0])
    return now


def test_a_stage_ends_when_what_it_writes_is_there_and_is_kept_for_a_line_that_resumes(
    tmp_path: Path, used: list[float]
):
    out, file = tmp_path / "run", tmp_path / "run.json"
    watch = line.Watch(out, file)
    look(watch, used, 2.0, memory=1.0)
    (out / "data").mkdir(parents=True)
    look(watch, used, 1.0, memory=3.0)
    look(watch, used, 4.0, memory=2.0)
    assert watch.stages == {"prepare": line.Stage(3.0, 3.0, 1.0)}
    used[0] = 0.0  # another process
    again = line.Watch(out, file)
    assert again.stages == watch.stages
    look(again, used, 5.0, memory=4.0)
    for place in ("graph", ".bundle.7.partial/retrieval", "bundle/retrieval"):
        (out / place).mkdir(parents=True)
    for name in ("model.safetensors", "metrics.json"):
        file_of_cell = out / "cells/mgoe/0" / name
        file_of_cell.parent.mkdir(parents=True, exist_ok=True)
        file_of_cell.touch()
    look(again, used, 1.0, memory=0.5)
    found = again.finish()
    assert list(found) == list(line.STAGES)
    assert (found["graph"].seconds, found["graph"].peak_gib) == (6.0, 4.0)
    assert sum(stage.seconds for stage in found.values()) == 3 + 6
    last = line.Watch(out, file)
    assert (last.finished, last.finish()) == (True, found)


def test_slopes_are_of_logarithms(capsys: pytest.CaptureFixture[str]):
    small, large = {"graph": line.Stage(1.0, 2.0)}, {"graph": line.Stage(100.0, 20.0)}
    line.show_slopes((10, small), (100, large))
    found = lines(capsys.readouterr().out)
    assert {name: one["value"] for name, one in found.items()} == {
        "line.slope.graph": 2.0,
        "line.cpu_slope.graph": 1.0,
        "line.slope.all": 2.0,
        "line.cpu_slope.all": 1.0,
    }


def test_a_forecast_is_compared_with_what_its_stages_took(capsys: pytest.CaptureFixture[str]):
    took = {"graph": line.Stage(10.0, 20.0, 1.0, 2.0), "bundle": line.Stage(1.0), "report": line.Stage(2.0)}
    promised = {"graph": line.Stage(5.0, 30.0, 2.0, 2.0), "bundle+report": line.Stage(6.0)}
    line.show_forecast(World(Path("log"), "1e6"), promised, took | {"answer": line.Stage(9.0)})
    found = lines(capsys.readouterr().out)
    graph = found["line.forecast.seconds.graph.1e6"]
    assert (graph["value"], graph["against"], graph["ratio"]) == (5.0, 10.0, 0.5)
    assert found["line.forecast.seconds.bundle+report.1e6"]["ratio"] == 2.0
    assert [found[f"line.forecast.{what}.1e6"]["ratio"] for what in ("seconds", "cpu_seconds")] == [
        0.84615,
        1.5,
    ]
    assert found["line.forecast.peak_gib.1e6"]["value"] == 2.0


def test_the_configuration_is_that_of_a_run_with_changes():
    raw = line.config(World(Path("log"), "1e6"), ["memory=2", "training.rows=50"])
    found = make_settings(json.loads(json.dumps(raw)))
    assert (found.memory, found.training.rows, len(found.split.cuts)) == (2.0, 50, 3)
