"""Comparisons end to end: what is run, what is left alone, what comes of it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mgoe import experiments
from mgoe._util.files import exclusive, write_json
from mgoe._util.processes import Job, Outcome
from mgoe.errors import MissingExtra, OutputError, TrainingError
from mgoe.pipeline import cell as cell_module
from mgoe.pipeline import records
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Cell, Plan, best_of
from mgoe.work.node import Node
from mgoe.work.store import Store
from tests.effort import SOAK, slow
from tests.experiments.tiny import here, here_or_failed, numbers, settings, taken_out


def test_a_comparison_leaves_all_it_promises(compared: Path):
    for name in (
        "comparison.yaml",
        "results.jsonl",
        "results.parquet",
        "leads.json",
        "tables.md",
        "comparison.html",
    ):
        assert (compared / name).stat().st_size > 0
    table = numbers(compared)
    assert set(table["model"]) == {"mgoe", "shared-bottom", "mgoe:random"}
    assert set(table["seed"]) == {0, 1}
    lines = [json.loads(line) for line in (compared / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert line["state"] == "finished"
        assert line["command"] == "mgoe compare tiny.yaml"
        assert line["revision"] == records.revision()
        assert (line["precision"], line["device"]) in (
            ("float32", "cpu"),
            ("bfloat16", "cpu"),
            ("bfloat16", "cuda"),
            ("float32", "cuda"),
        )
        assert line["processor"]
        assert (
            min(line["parameters"], line["training_seconds"], line["cpu_seconds"], line["scored_per_second"])
            > 0
        )
        who = (table["model"] == line["model"]) & (table["seed"] == line["seed"]) & (table["split"] == "test")
        auc = table[who & (table["task"] == "click") & (table["metric"] == "auc")]["value"]
        assert line["test.click.auc"] == auc.item()
    markdown = (compared / "tables.md").read_text()
    assert "| best-reachable |" in markdown
    assert "reachable gain" in markdown
    assert "mgoe minus each baseline" in (compared / "comparison.html").read_text()
    leads = json.loads((compared / "leads.json").read_text())
    assert {lead["baseline"] for lead in leads} == {"shared-bottom", "mgoe:random"}
    assert all(lead["p"] <= lead["adjusted"] <= 1 for lead in leads if lead["p"] is not None)


def test_a_finished_comparison_runs_nothing_and_more_may_be_asked(
    raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None, said: pytest.LogCaptureFixture
):
    out = shutil.copytree(compared, tmp_path / "out")
    more = settings(
        raw,
        seeds=[0, 1, 2],
        models=["mgoe", "shared-bottom", {"name": "narrow", "base": "mgoe", "options": {"width": 4}}],
    )
    result = experiments.compare(more, out, models=["narrow"], seeds=[0])
    assert said.messages[0].startswith("training 1 of 1 cells")
    assert result.waiting == 5
    before, after = numbers(compared), numbers(out)
    kept = after[after["model"] != "narrow"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    assert "2 of 3 seeds are not run yet" in (out / "tables.md").read_text()


@slow
@pytest.mark.parametrize("delay", np.random.default_rng(0).uniform(2, 30, 10) if SOAK else [None])
def test_a_comparison_killed_at_any_moment_resumes_to_the_same_result(
    raw: dict[str, Any],
    compared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    delay: float | None,
):
    """In the short form when the first of the two cells that are left has its weights."""
    out = tmp_path / "out"
    if delay is None:
        taken_out(shutil.copytree(compared, out), "shared-bottom")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    words = [
        sys.executable,
        "-m",
        "mgoe",
        "compare",
        str(tmp_path / "tiny.yaml"),
        "--out",
        str(out),
    ]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        if delay is None:
            cells = out / "logs/tiny/cells/shared-bottom"
            while not [*cells.glob("*/model.safetensors")] and process.poll() is None:
                time.sleep(0.01)
            monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
        else:
            time.sleep(delay)
        process.kill()
    result = experiments.compare(settings(raw), out)
    assert (result.failed, result.waiting) == ({}, 0)
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    leads = [json.loads((folder / "leads.json").read_text()) for folder in (out, compared)]
    assert leads[0] == leads[1]
    assert len(records.latest(out)) == 6


def test_a_cell_that_fails_leaves_the_others_alone(
    raw: dict[str, Any], compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not SOAK:
        monkeypatch.setattr("mgoe._util.processes.run_jobs", here_or_failed)
    out = shutil.copytree(compared, tmp_path / "out")
    steep = {
        "name": "steep",
        "base": "shared-bottom",
        "training": {"learning_rate": 1e30, "epochs": 3, "batch_size": 256},
    }
    result = experiments.compare(
        settings(raw, models=["mgoe", steep, "shared-bottom"], seeds=[0, 1]), out, seeds=[0]
    )
    assert list(result.failed) == ["tiny, steep, seed 0"]
    assert "lower training" in result.failed["tiny, steep, seed 0"]
    assert "- steep: failed with seed 0: " in (out / "tables.md").read_text()
    assert records.latest(out)["tiny", "steep", 0]["state"] == "failed"
    fixed = steep | {"training": {}}
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
    result = experiments.compare(settings(raw, models=["mgoe", fixed, "shared-bottom"]), out, seeds=[0])
    assert result.failed == {}
    assert records.latest(out)["tiny", "steep", 0]["state"] == "finished"


def test_a_refused_command_leaves_the_settings_of_what_is_there(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    out = shutil.copytree(compared, tmp_path / "out")
    with pytest.raises(OutputError, match=r"another `training.epochs`"):
        experiments.compare(settings(raw, training={"epochs": 2, "batch_size": 1024}), out)
    assert (out / "comparison.yaml").read_bytes() == (compared / "comparison.yaml").read_bytes()


def test_what_is_finished_needs_no_library(raw: dict[str, Any], compared: Path, tmp_path: Path, monkeypatch):
    plan = Plan(settings(raw, models=["lightgbm"], variants={}, seeds=[0], tune={}), tmp_path / "out")
    [cell] = plan.cells
    shutil.copytree(compared / "logs/tiny/cells/mgoe/0", cell.folder)
    for part in nodes_of(plan, plan.cells):
        part.begin()
    shutil.copy(compared / "logs/tiny/seeds/0/examples.json", plan.logs["tiny"].stage(0) / "examples.json")
    write_json(cell.search, {"model": "lightgbm", "trials": [], "best": {}})
    (tmp_path / "out" / "comparison.yaml").touch()
    for name in ("lightgbm", "optuna"):
        monkeypatch.setitem(sys.modules, name, None)
    assert experiments.compare(plan.settings, plan.out, stop_after=0).waiting == 0
    with pytest.raises(MissingExtra, match=r"\.\[gbm\]"):
        experiments.compare(plan.settings, tmp_path / "new", stop_after=0)


def test_names_that_end_like_unfinished_files_lose_nothing(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    named = raw | {
        "logs": {"tiny.part": raw["logs"]["tiny"]},
        "models": [{"name": f"a.{end}", "base": "mgoe"} for end in ("tmp", "partial")],
    }
    plan = Plan(settings(named, variants={}), tmp_path / "out")
    for cell in plan.cells:
        shutil.copytree(compared / "logs/tiny/cells/mgoe/0", cell.folder)
    for part in nodes_of(plan, plan.cells):
        part.begin()
    for seed in (0, 1):
        shutil.copy(
            compared / "logs/tiny/seeds/0/examples.json", plan.logs["tiny.part"].stage(seed) / "examples.json"
        )
    (tmp_path / "out" / "comparison.yaml").touch()
    assert experiments.compare(plan.settings, plan.out, stop_after=0).waiting == 0


def test_folders_of_several_machines_are_put_together(
    raw: dict[str, Any],
    compared: Path,
    world: Path,
    tmp_path: Path,
    in_this_process: None,
    said: pytest.LogCaptureFixture,
):
    """One has the cells of the first seed, the other those of the second, and the log is somewhere else."""
    shutil.copytree(world, tmp_path / "moved")
    data = {"log": str(tmp_path / "moved" / "events"), "truth": str(tmp_path / "moved" / "truth")}
    moved = raw | {"logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}}}
    here, there = (shutil.copytree(compared, tmp_path / name) for name in ("here", "there"))
    for out, gone in ((here, 1), (there, 0)):
        for path in [*out.glob(f"logs/tiny/cells/*/{gone}*"), out / f"logs/tiny/seeds/{gone}"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        lines = (out / "results.jsonl").read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["seed"] != gone]
        (out / "results.jsonl").write_text("".join(f"{line}\n" for line in kept))
    shutil.copytree(there / "logs", here / "logs", dirs_exist_ok=True)
    with (here / "results.jsonl").open("a") as file:
        file.write((there / "results.jsonl").read_text())
    experiments.compare(settings(moved), here)
    assert said.messages == ["training 0 of 6 cells, 2 at a time"]
    pd.testing.assert_frame_equal(numbers(here), numbers(compared))
    assert (here / "leads.json").read_text() == (compared / "leads.json").read_text()


def test_a_cell_that_is_whole_is_finished_whatever_its_process_came_to(
    own: dict[str, Any],
    least: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
):
    def killed_at_the_end(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
        for outcome in here(jobs):
            yield Outcome(outcome.job, failed="its process ended with code -9")

    monkeypatch.setattr("mgoe._util.processes.run_jobs", killed_at_the_end)
    out = shutil.copytree(least, tmp_path / "out")
    taken_out(out, "shared-bottom")
    assert experiments.compare(settings(own), out).failed == {}
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "finished"
    assert "on validation" in said.messages[-1]


def test_a_model_that_predicts_nothing_on_test_is_not_measured(
    own: dict[str, Any],
    least: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_this_process: None,
):
    def with_a_gap(*args: Any) -> np.ndarray:
        scores = cells_predict(*args)
        scores[-1, 1] = np.nan
        return scores

    cells_predict = cell_module.predict
    monkeypatch.setattr(cell_module, "predict", with_a_gap)
    taken_out(out := shutil.copytree(least, tmp_path / "out"), "shared-bottom")
    with pytest.raises(
        TrainingError,
        match=r"shared-bottom, seed 0: predictions of 'buy' must be finite, found 1 of [\d,]+ on valid",
    ):
        experiments.compare(settings(own), out)


def test_the_files_of_others_are_never_touched(raw: dict[str, Any], tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="no comparison wrote"):
        experiments.compare(settings(raw), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_never_make_the_same_part(own: dict[str, Any], tmp_path: Path):
    with (
        exclusive(tmp_path / "out", "a comparison"),
        pytest.raises(OutputError, match=r"another process .* is writing a comparison there"),
    ):
        experiments.compare(settings(own), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def left_of(plan: Plan, cell: Cell) -> list[Node]:
    store = Store(plan.out, nodes_of(plan, plan.cells))
    return [*store.unfinished([store.nodes[cell.folder]]).values()]


def test_a_seed_alone_may_be_run_twice_and_needs_the_first_for_the_search_alone(
    tuned: dict[str, Any], tmp_path: Path, in_this_process: None, said: pytest.LogCaptureFixture
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    asked, out = settings(tuned, seeds=[0, 1]), tmp_path / "out"
    experiments.compare(asked, out, seeds=[1])
    said.clear()
    experiments.compare(asked, out, seeds=[1])
    assert said.messages == ["training 0 of 1 cells, 2 at a time"]
    search = out / "logs/tiny/tuned/shared-bottom.json"
    plan = Plan(asked, tmp_path / "other")
    _, second = plan.cells
    second.search.parent.mkdir(parents=True)
    shutil.copy(search, second.search)
    assert [node.title for node in left_of(plan, second)] == [
        "examples of tiny, seed 1",
        "graph of tiny, seed 1",
        second.title,
    ]
    best = best_of(search)
    search.write_bytes(b"")
    assert experiments.compare(asked, out).waiting == 0
    assert said.messages[1].startswith(f"damaged, to be computed again: {search}: is not valid JSON")
    assert best_of(search) == best
