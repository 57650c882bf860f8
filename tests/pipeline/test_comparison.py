"""Comparisons end to end, on a log of a second."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.testing import assert_array_equal

from mgoe import pipeline
from mgoe.config import ComparisonSettings, check_settings, load_comparison
from mgoe.data import Prepared
from mgoe.errors import ConfigError, DataError, MissingExtra, OutputError, TrainingError
from mgoe.evaluation import Cost
from mgoe.graph import MacroGraph
from mgoe.graph.workplace import building
from mgoe.models import PRESETS
from mgoe.models.mgoe import MGOEOptions
from mgoe.pipeline import cells
from mgoe.pipeline.comparison import kept, records, taken, tuning, work
from mgoe.pipeline.comparison.compare import jobs_of
from mgoe.pipeline.comparison.judged import judged_cells, odd_seed
from mgoe.pipeline.comparison.notes import failed_trials, precisions_of, processors_of, revisions_of
from mgoe.pipeline.comparison.outcome import TIDY_COLUMNS, cost_of
from mgoe.pipeline.comparison.plan import Plan
from mgoe.pipeline.processes import Job, Outcome
from tests.effort import SOAK


@pytest.fixture(scope="module")
def raw(world: Path) -> dict[str, Any]:
    """Two models and a variant, two seeds, one log."""
    return {
        "logs": {"tiny": {"data": {"log": str(world / "events"), "truth": str(world / "truth")}, "tasks": ["click", "buy"]}},
        "models": ["mgoe", "shared-bottom"],
        "variants": {"random": {"graph.clusters": "random", "model.options.tau": 0.5}},
        "seeds": [0, 1],
        "split": {"cuts": [0.4, 0.6, 0.8]},
        "training": {"epochs": 1, "batch_size": 1024},
        "evaluation": {"ranking_queries": 0, "slices": False},
        "graph": {"recents": 5, "rank": 8},
        "jobs": 2,
    }


def settings(raw: dict[str, Any], **changes: Any) -> ComparisonSettings:
    return check_settings(ComparisonSettings, raw | changes)


@pytest.fixture(scope="module")
def compared(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished comparison. Read it only."""
    out = tmp_path_factory.mktemp("compared") / "out"
    pipeline.compare(settings(raw), out, command="mgoe compare tiny.yaml")
    return out


def here(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
    """`run_jobs` in this process, which needs none to start."""
    for job in jobs:
        yield Outcome(job, job.work(*job.args))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgoe.pipeline.comparison.compare.run_jobs", here)


def numbers(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "results.parquet")
    return table.sort_values([*table.columns[:-1]]).reset_index(drop=True)


def test_a_comparison_leaves_all_it_promises(compared: Path):
    for name in ("comparison.yaml", "results.jsonl", "results.parquet", "leads.json", "tables.md", "tables.tex", "comparison.html"):
        assert (compared / name).stat().st_size > 0
    table = numbers(compared)
    assert set(table["model"]) == {"mgoe", "shared-bottom", "mgoe:random"}
    assert set(table["seed"]) == {0, 1}
    lines = [json.loads(line) for line in (compared / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert line["state"] == "finished"
        assert (line["command"], line["revision"]) == ("mgoe compare tiny.yaml", records.revision())
        assert (line["precision"], line["device"]) in (("float32", "cpu"), ("bfloat16", "cpu"), ("bfloat16", "cuda"), ("float32", "cuda"))
        assert line["processor"]
        assert min(line["parameters"], line["training_seconds"], line["cpu_seconds"], line["scored_per_second"]) > 0
        who = (table["model"] == line["model"]) & (table["seed"] == line["seed"]) & (table["split"] == "test")
        auc = table[who & (table["task"] == "click") & (table["metric"] == "auc")]["value"]
        assert line["test.click.auc"] == auc.item()
    markdown = (compared / "tables.md").read_text()
    assert "| best-reachable |" in markdown
    assert "reachable gain" in markdown
    assert r"\begin{table}" in (compared / "tables.tex").read_text()
    assert "mgoe minus each rival" in (compared / "comparison.html").read_text()
    leads = json.loads((compared / "leads.json").read_text())
    assert {lead["rival"] for lead in leads} == {"shared-bottom", "mgoe:random"}
    assert all(lead["p"] <= lead["adjusted"] <= 1 for lead in leads if lead["p"] is not None)


def test_seeds_vary_training_and_not_what_is_judged(compared: Path):
    seeds = [compared / "logs" / "tiny" / "seeds" / str(seed) for seed in (0, 1)]
    a, b = (Prepared.open(seed / "data") for seed in seeds)
    for split in ("valid", "test"):
        for one, other in zip(a.examples(split).columns(), b.examples(split).columns(), strict=True):
            assert_array_equal(one, other)
    trained = [part.examples("train") for part in (a, b)]
    positives = [part.take((part.labels > 0).any(1)) for part in trained]
    for one, other in zip(positives[0].columns(), positives[1].columns(), strict=True):
        assert_array_equal(one, other)
    drawn = [part.item[~(part.labels > 0).any(1)] for part in trained]
    assert len(drawn[0]) != len(drawn[1]) or (drawn[0] != drawn[1]).any()
    graphs = [MacroGraph.open(folder).meta["settings"] for seed in seeds for folder in (seed / "graph", seed / "graphs" / "random")]
    assert [(graph["seed"], graph["clusters"]) for graph in graphs] == [(0, "learned"), (0, "random"), (1, "learned"), (1, "random")]


def test_a_finished_comparison_runs_nothing_and_more_may_be_asked(raw: dict[str, Any], compared: Path, tmp_path: Path):
    out = shutil.copytree(compared, tmp_path / "out")
    said: list[str] = []
    more = settings(raw, seeds=[0, 1, 2], models=["mgoe", "shared-bottom", {"name": "narrow", "base": "mgoe", "options": {"width": 4}}])
    result = pipeline.compare(more, out, models=["narrow"], seeds=[0], say=said.append)
    assert said[0].startswith("1 of 1 cells")
    assert result.waiting == 5
    before, after = numbers(compared), numbers(out)
    kept = after[after["model"] != "narrow"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    assert "2 of 3 seeds are not run yet" in (out / "tables.md").read_text()


@pytest.mark.parametrize("delay", np.random.default_rng(0).uniform(2, 30, 10) if SOAK else [6.0])
def test_a_comparison_killed_at_any_moment_goes_on_to_the_same_result(raw: dict[str, Any], compared: Path, tmp_path: Path, delay: float):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    words = [sys.executable, "-m", "mgoe", "compare", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        time.sleep(delay)
        process.kill()
    result = pipeline.compare(settings(raw), tmp_path / "out")
    assert (result.failed, result.waiting) == ({}, 0)
    pd.testing.assert_frame_equal(numbers(tmp_path / "out"), numbers(compared))
    leads = [json.loads((out / "leads.json").read_text()) for out in (tmp_path / "out", compared)]
    assert leads[0] == leads[1]
    lines = records.latest(tmp_path / "out")
    assert len(lines) == 6


def test_a_cell_that_fails_leaves_the_others_alone(raw: dict[str, Any], compared: Path, tmp_path: Path):
    out = shutil.copytree(compared, tmp_path / "out")
    steep = {"name": "steep", "base": "shared-bottom", "training": {"learning_rate": 1e30, "epochs": 3, "batch_size": 256}}
    result = pipeline.compare(settings(raw, models=["mgoe", steep, "shared-bottom"], seeds=[0, 1]), out, seeds=[0])
    assert list(result.failed) == ["tiny, steep, seed 0"]
    assert "lower training" in result.failed["tiny, steep, seed 0"]
    assert "- steep: failed with seed 0: " in (out / "tables.md").read_text()
    assert records.latest(out)["tiny", "steep", 0]["state"] == "failed"
    mended = steep | {"training": {}}
    result = pipeline.compare(settings(raw, models=["mgoe", mended, "shared-bottom"]), out, seeds=[0])
    assert result.failed == {}
    assert records.latest(out)["tiny", "steep", 0]["state"] == "finished"


def test_what_was_made_with_other_settings_is_refused_or_made_anew(raw: dict[str, Any], compared: Path, tmp_path: Path):
    out = shutil.copytree(compared, tmp_path / "out")
    other = settings(raw, models=["mgoe"], variants={}, seeds=[0], training={"epochs": 2, "batch_size": 1024})
    with pytest.raises(OutputError, match=r"another `training.epochs`; choose another --out, or --overwrite"):
        pipeline.compare(other, out)
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    built = (out / "logs" / "tiny" / "seeds" / "0" / "graph" / "graph.json").stat().st_mtime_ns
    pipeline.compare(other, out, overwrite=True)
    assert (out / "logs" / "tiny" / "seeds" / "0" / "graph" / "graph.json").stat().st_mtime_ns == built
    assert set(numbers(out)["model"]) == {"mgoe"}


def test_a_refused_command_leaves_the_settings_of_what_is_there(raw: dict[str, Any], compared: Path, tmp_path: Path):
    out = shutil.copytree(compared, tmp_path / "out")
    with pytest.raises(OutputError, match=r"another `training.epochs`"):
        pipeline.compare(settings(raw, training={"epochs": 2, "batch_size": 1024}), out)
    assert (out / "comparison.yaml").read_bytes() == (compared / "comparison.yaml").read_bytes()


def test_names_that_end_like_unfinished_files_lose_nothing(raw: dict[str, Any], compared: Path, tmp_path: Path):
    named = raw | {
        "logs": {"tiny.part": raw["logs"]["tiny"]},
        "models": [{"name": f"a.{end}", "base": "mgoe"} for end in ("tmp", "partial")],
    }
    plan = Plan(settings(named, variants={}), tmp_path / "out")
    for entry in plan.entries:
        shutil.copytree(compared / "logs/tiny/cells/mgoe/0", entry.cell().folder)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
    for seed in (0, 1):
        shutil.copy(compared / "logs/tiny/seeds/0/examples.json", plan.logs["tiny.part"].stage(seed) / "examples.json")
    (tmp_path / "out" / "comparison.yaml").touch()
    assert pipeline.compare(plan.settings, plan.out, stop_after=0).waiting == 0


def test_damaged_cells_are_found_and_made_anew(raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None):
    out = shutil.copytree(compared, tmp_path / "out")
    log = out / "logs" / "tiny"
    broken = [log / "cells" / name for name in ("mgoe/0/metrics.json", "shared-bottom/1/test.npz", "mgoe:random/0/fit.json")]
    shared = [log / name for name in ("references.json", "seeds/1/examples.json")]
    for path in broken + shared:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said: list[str] = []
    result = pipeline.compare(settings(raw), out, say=said.append)
    assert (result.failed, result.waiting) == ({}, 0)
    for path in broken + shared:
        assert sum(line.startswith(f"damaged, to be made anew: {path}: ") for line in said) == 1
    assert "3 of 6 cells to run, 2 at a time" in said
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    for path in shared:  # of whichever seed references come first, they are the same
        texts = [folder.read_text().replace('"seed": 1', '"seed": 0') for folder in (path, compared / path.relative_to(out))]
        assert texts[0] == texts[1]
    said.clear()
    pipeline.compare(settings(raw), out, say=said.append)
    assert said == ["0 of 6 cells to run, 2 at a time"]


def test_a_cell_that_is_whole_is_finished_whatever_its_process_came_to(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed_at_the_end(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
        for outcome in here(jobs):
            yield Outcome(outcome.job, failed="its process ended with code -9")

    monkeypatch.setattr("mgoe.pipeline.comparison.compare.run_jobs", killed_at_the_end)
    said: list[str] = []
    assert pipeline.compare(settings(own), tmp_path / "out", say=said.append).failed == {}
    assert records.latest(tmp_path / "out")["tiny", "shared-bottom", 0]["state"] == "finished"
    assert "on validation" in said[-1]


def test_a_model_that_predicts_nothing_on_test_is_not_measured(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
):
    def with_a_gap(*args: Any) -> np.ndarray:
        scores = cells_predict(*args)
        scores[-1, 1] = np.nan
        return scores

    cells_predict = cells.predict
    monkeypatch.setattr(cells, "predict", with_a_gap)
    with pytest.raises(TrainingError, match=r"shared-bottom, seed 0: predictions of 'buy' must be finite, found 1 of [\d,]+ on valid"):
        pipeline.compare(settings(own), tmp_path / "out")


@pytest.fixture
def own(raw: dict[str, Any], world: Path, tmp_path: Path) -> dict[str, Any]:
    """The least comparison, of a log that may be changed."""
    shutil.copytree(world / "events", tmp_path / "log")
    data = {"log": str(tmp_path / "log"), "truth": str(world / "truth")}
    return raw | {"logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}}, "models": ["shared-bottom"], "variants": {}, "seeds": [0]}


def test_what_is_made_anew_is_made_anew_in_all_that_follows_from_it(own: dict[str, Any], tmp_path: Path):
    """Checksums of what is judged, rows of the references and lines of cells are of the data that are there."""
    out = tmp_path / "out"
    kept = [out / "logs" / "tiny" / name for name in ("references.json", "seeds/0/examples.json")]
    pipeline.compare(settings(own), out)
    before = [path.read_text() for path in kept]
    other = settings(own, split={"cuts": [0.4, 0.6, 0.9]})
    with pytest.raises(OutputError, match=r"another `split.cuts`"):
        pipeline.compare(other, out)
    assert [path.read_text() for path in kept] == before
    assert pipeline.compare(other, out, stop_after=0, overwrite=True).waiting == 1
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "outdated"
    assert list(numbers(out).columns) == list(TIDY_COLUMNS)
    assert pipeline.compare(other, out).failed == {}
    assert all(path.read_text() != text for path, text in zip(kept, before, strict=True))
    assert records.latest(out)["tiny", "shared-bottom", 0]["examples"] == json.loads(kept[1].read_text())


def test_another_log_under_the_same_path_is_noticed(own: dict[str, Any], tmp_path: Path):
    out, made = tmp_path / "out", settings(own)
    pipeline.compare(made, out)
    file = max((tmp_path / "log").rglob("*.parquet"))
    os.utime(file, ns=(1, 1))  # copied, and the same
    pipeline.compare(made, out)
    rows = pd.read_parquet(file)
    rows.iloc[:-1].to_parquet(file)
    with pytest.raises(
        OutputError, match=r"was made of another log: the files hold something else now; choose another --out, or --overwrite"
    ):
        pipeline.compare(made, out)
    shutil.move(tmp_path / "log", tmp_path / "gone")
    assert pipeline.compare(made, out).waiting == 0  # all is finished, and nothing tells that it is of another
    shutil.move(tmp_path / "gone", tmp_path / "log")
    for note in out.rglob("*.asked.json"):  # as an earlier version wrote them
        note.write_text(json.dumps({key: value for key, value in json.loads(note.read_text()).items() if key != "source"}))
    assert pipeline.compare(made, out).waiting == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"bytes": 1}}'])
def test_damaged_checksums_of_a_log_are_made_anew(own: dict[str, Any], tmp_path: Path, text: str):
    out, made = tmp_path / "out", settings(own)
    plan = Plan(made, out)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
    (out / "comparison.yaml").touch()
    file = out / "logs" / "tiny" / "source.json"
    before = file.read_text()
    file.write_text(text)
    said: list[str] = []
    pipeline.compare(made, out, stop_after=0, say=said.append)
    assert said[0].startswith(f"damaged, to be made anew: {file}: ")
    assert file.read_text() == before


@pytest.mark.parametrize(("text", "state"), [("{", "damaged"), ("[]", "damaged"), (None, "gone")])
def test_what_lost_its_note_is_said_to_have(raw: dict[str, Any], tmp_path: Path, text: str | None, state: str):
    plan = Plan(settings(raw), tmp_path)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
        part.done.parent.mkdir(parents=True, exist_ok=True)
        part.done.touch()
    [part] = [part for part in kept.parts_of(plan, plan.entries[:1]) if part.path == plan.entries[0].cell().folder]
    part.note.unlink() if text is None else part.note.write_text(text)
    with pytest.raises(
        OutputError, match=rf"cannot be told to be what is asked for: its note, .*0\.asked\.json, is {state}; choose another --out"
    ):
        kept.outdated(kept.parts_of(plan, plan.entries), overwrite=False)
    assert kept.outdated(kept.parts_of(plan, plan.entries), overwrite=True) == [part]


def test_a_build_that_was_cut_off_goes_with_its_settings(raw: dict[str, Any], tmp_path: Path):
    plan = Plan(settings(raw), tmp_path)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
    cut_off = building(plan.entries[0].log.graph(0))
    cut_off.mkdir(parents=True)
    plan = Plan(settings(raw, graph=raw["graph"] | {"rank": 4}), tmp_path)
    for part in kept.outdated(kept.parts_of(plan, plan.entries), overwrite=False):
        part.remove()
    assert not cut_off.exists()


def test_what_was_tuned_otherwise_goes_with_the_cells_that_used_it(raw: dict[str, Any], tmp_path: Path):
    tuned = settings(raw, tune={"trials": 2})
    plan = Plan(tuned, tmp_path)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
        part.done.parent.mkdir(parents=True, exist_ok=True)
        part.done.touch()
    assert kept.outdated(kept.parts_of(plan, plan.entries), overwrite=False) == []
    plan = Plan(tuned.model_copy(update={"seeds": [1, 0]}), tmp_path)  # the search is of the first seed
    parts = kept.parts_of(plan, plan.entries)
    for _ in ("it is there", "the cells that used it are"):
        with pytest.raises(OutputError, match=r"tuned/mgoe.json: was made with another `.*seed`"):
            kept.outdated(parts, overwrite=False)
        (tmp_path / "logs" / "tiny" / "tuned" / "mgoe.json").unlink(missing_ok=True)
    for part in kept.outdated(parts, overwrite=True):
        part.remove()
    assert not any(entry.cell().done for entry in plan.entries)
    assert all((entry.log.stage(entry.seed) / "data").exists() for entry in plan.entries)


def test_a_choice_that_one_model_has_alone_leaves_the_others_as_they_are(raw: dict[str, Any], tmp_path: Path):
    def digests(space: dict[str, Any]) -> dict[str, str]:
        plan = Plan(settings(raw, variants={}, seeds=[0], tune={"space": space}), tmp_path)
        parts = {part.path: part.digest for part in kept.parts_of(plan, plan.entries)}
        return {entry.contestant.name: parts[entry.cell().folder] + parts[entry.tuned] for entry in plan.entries}

    epochs = {"training.epochs": [1, 2]}
    before, after = digests(epochs), digests(epochs | {"options.products": [0, 64]})
    assert {name for name in before if before[name] != after[name]} == {"mgoe"}


def test_another_default_of_a_switch_is_noticed(raw: dict[str, Any], tmp_path: Path):
    plan = Plan(settings(raw, variants={}, models=[{"name": "m", "base": "mgoe", "options": {"tau": 2.0}}], seeds=[0]), tmp_path)
    [part] = [part for part in kept.parts_of(plan, plan.entries) if part.path == plan.entries[0].cell().folder]
    part.begin()
    assert part.differs == ""
    note = json.loads(part.note.read_text())
    options = note["model"]["options"]
    assert options["tau"] == 2
    note["model"]["options"] = {**options, "width": options["width"] + 1}
    part.note.write_text(json.dumps(note))
    assert part.differs == "model.options.width"


def test_a_comparison_goes_on_on_another_machine(raw: dict[str, Any], compared: Path, world: Path, tmp_path: Path):
    """Where the log lies elsewhere, nothing but `results.jsonl` was copied, and one more seed is asked for."""
    shutil.copytree(world, tmp_path / "moved")
    data = {"log": str(tmp_path / "moved" / "events"), "truth": str(tmp_path / "moved" / "truth")}
    moved = raw | {"logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}}}
    said: list[str] = []
    out, file = tmp_path / "out", compared / "results.jsonl"
    pipeline.compare(settings(moved), out, take=[file], say=said.append)
    assert said[0] == f"{file}: 6 of 6 lines taken"
    assert said[1:] == ["0 of 6 cells to run, 2 at a time", "  examples of tiny, seed 0"]
    whole = numbers(compared)
    pd.testing.assert_frame_equal(numbers(out), whole[whole["slice"] == "all"].reset_index(drop=True))
    for one, other in zip(*(json.loads((folder / "leads.json").read_text()) for folder in (out, compared)), strict=True):
        assert (one["rival"], one["task"], one["metric"], one["value"]) == (other["rival"], other["task"], other["metric"], other["value"])
        if other["low"] is not None:
            assert abs(one["low"] - other["low"]) < 0.02 * (other["high"] - other["low"]) + 1e-12
    tables = [(folder / "tables.md").read_text().split("\n\n")[2] for folder in (out, compared)]
    assert tables[0] == tables[1]  # quality and costs, the references of the world included
    (out / "results.jsonl").unlink()  # what is taken stays without it
    assert pipeline.compare(settings(moved), out).waiting == 0
    assert (out / "leads.json").read_text() == (pipeline.compare(settings(moved), out).path / "leads.json").read_text()


def test_cells_of_here_and_of_elsewhere_are_paired_user_by_user(raw: dict[str, Any], compared: Path, tmp_path: Path):
    """Half of the cells are taken, half fitted: leads are those of one machine."""
    lines = (compared / "results.jsonl").read_text().splitlines()
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(line for line in lines if json.loads(line)["model"] == "mgoe") + "\n")
    pipeline.compare(settings(raw), tmp_path / "out", take=[half])
    for one, other in zip(*(json.loads((folder / "leads.json").read_text()) for folder in (tmp_path / "out", compared)), strict=True):
        if other["low"] is not None:
            width = other["high"] - other["low"]
            assert [one["low"], one["high"]] == pytest.approx([other["low"], other["high"]], abs=0.02 * width + 1e-12)


def test_of_other_settings_or_another_log_nothing_is_taken(own: dict[str, Any], tmp_path: Path):
    file = tmp_path / "out" / "results.jsonl"
    pipeline.compare(settings(own), tmp_path / "out")
    for number, other in enumerate((own | {"training": {"epochs": 2}}, own)):
        result = pipeline.compare(settings(other), tmp_path / f"other-{number}", take=[file], stop_after=0)
        assert result.waiting == 1 - number
    log = max((tmp_path / "log").rglob("*.parquet"))
    pd.read_parquet(log).iloc[:-1].to_parquet(log)
    assert pipeline.compare(settings(own), tmp_path / "changed", take=[file], stop_after=0).waiting == 1
    line = json.loads(file.read_text())
    damaged = tmp_path / "damaged.jsonl"
    pd.read_parquet(log).to_parquet(log)
    plan = Plan(settings(own), tmp_path / "plan")
    [part] = [part for part in kept.parts_of(plan, plan.entries) if part.path == plan.entries[0].cell().folder]
    damaged.write_text(json.dumps(line | {"asked": part.digest, "influence": {"metrics": []}}))
    with pytest.raises(OutputError, match=r"damaged\.jsonl: the line of tiny, shared-bottom, seed 0 is damaged"):
        pipeline.compare(settings(own), tmp_path / "again", take=[damaged])
    with pytest.raises(OutputError, match="cannot be read"):
        pipeline.compare(settings(own), tmp_path / "again", take=[tmp_path / "none.jsonl"])


def test_a_cell_is_taken_whole_or_not_at_all(own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where a fit of here was cut off, nothing of it stays beside what is taken, and the other way round."""
    file, made = tmp_path / "out" / "results.jsonl", settings(own)
    pipeline.compare(made, tmp_path / "out")
    plan = Plan(made, tmp_path / "there")
    cell = plan.entries[0].cell()
    (cell.folder / "checkpoints").mkdir(parents=True)
    for part in kept.parts_of(plan, plan.entries):
        part.begin()
    (plan.out / "comparison.yaml").touch()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(taken, "write_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            pipeline.compare(made, tmp_path / "there", take=[file])
    assert not (cell.folder / "taken.json").exists()
    assert pipeline.compare(made, tmp_path / "there", take=[file], stop_after=0).waiting == 0
    assert {path.name for path in cell.folder.iterdir()} == {"metrics.json", "taken.json", "test.npz"}
    (cell.folder / "taken.json").write_text("{")
    said: list[str] = []
    assert pipeline.compare(made, tmp_path / "there", stop_after=0, say=said.append).waiting == 1
    assert said[0].startswith(f"damaged, to be made anew: {cell.folder / 'taken.json'}: holds no JSON")


def test_references_of_the_first_seed_may_be_made_for_another(raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None):
    """And the same command then finds all it made to be of the same settings."""
    said: list[str] = []
    for _ in range(2):
        said.clear()
        assert pipeline.compare(settings(raw), tmp_path / "out", seeds=[1], take=[compared / "results.jsonl"], say=said.append).failed == {}
    assert said[1:] == ["0 of 3 cells to run, 2 at a time"]


def test_cells_are_taken_with_the_search_they_were_fitted_with(own: dict[str, Any], tmp_path: Path):
    tuned = settings(own, tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})
    pipeline.compare(tuned, tmp_path / "out")
    file = tmp_path / "out" / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["state"] for line in lines] == ["searched", "finished"]
    assert lines[0]["search"] == json.loads((tmp_path / "out/logs/tiny/tuned/shared-bottom.json").read_text())
    assert pipeline.compare(tuned, tmp_path / "there", take=[file], stop_after=0).waiting == 0
    search, cell = tmp_path / "search.jsonl", tmp_path / "cell.jsonl"
    for path, line in zip((search, cell), lines, strict=True):
        path.write_text(json.dumps(line))
    said: list[str] = []
    assert pipeline.compare(tuned, tmp_path / "alone", take=[cell], stop_after=0, say=said.append).waiting == 1
    assert said[0] == f"{cell}: 0 of 1 lines taken; 1 waiting for a search"
    for number, files in enumerate(([search, cell], [cell, search])):
        assert pipeline.compare(tuned, tmp_path / f"both-{number}", take=files, stop_after=0).waiting == 0
    other = [lines[0], lines[1] | {"tuned": {"training": {"learning_rate": 0.5}}}]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, other)))
    said.clear()
    assert pipeline.compare(tuned, tmp_path / "else", take=[tmp_path / "other.jsonl"], stop_after=0, say=said.append).waiting == 1
    assert said[0] == f"{tmp_path / 'other.jsonl'}: 1 of 2 lines taken; 1 of another search"


def test_of_several_lines_the_latest_is_taken_whichever_file_holds_it(own: dict[str, Any], tmp_path: Path):
    pipeline.compare(settings(own), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    files = [tmp_path / "earlier.jsonl", tmp_path / "later.jsonl"]
    for year, file in zip(("2001", "2002"), files, strict=True):
        file.write_text(json.dumps(line | {"at": f"{year}-01-01T00:00:00+00:00", "parameters": int(year)}))
    for number, take in enumerate((files, files[::-1])):
        said: list[str] = []
        out = pipeline.compare(settings(own), tmp_path / f"there-{number}", take=take, stop_after=0, say=said.append).path
        assert records.latest(out)["tiny", "shared-bottom", 0]["parameters"] == 2002
        assert f"{files[0]}: 0 of 1 lines taken; 1 there already, or of other settings or another log" in said


def test_a_cell_without_a_search_tells_none(own: dict[str, Any], tmp_path: Path, in_this_process: None):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tuned = settings(own, tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})
    out, key = tmp_path / "out", ("tiny", "shared-bottom", 0)
    pipeline.compare(tuned, out)
    assert records.latest(out)[key]["tuned"] == tuning.best_of(out / "logs/tiny/tuned/shared-bottom.json")
    pipeline.compare(settings(own), out, overwrite=True)
    assert records.latest(out)[key]["tuned"] is None
    assert pipeline.compare(settings(own), tmp_path / "there", take=[out / "results.jsonl"], stop_after=0).waiting == 0


def test_a_damaged_search_is_put_back_or_goes_with_what_it_decided(own: dict[str, Any], tmp_path: Path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tuned = settings(own, seeds=[0, 1], tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})
    out = tmp_path / "out"
    pipeline.compare(tuned, out, seeds=[0])
    search, lines = out / "logs/tiny/tuned/shared-bottom.json", out / "results.jsonl"
    whole = search.read_text()
    search.write_text("{")
    said: list[str] = []
    assert pipeline.compare(tuned, out, stop_after=0, say=said.append).waiting == 1  # the second seed
    assert search.read_text() == whole
    assert [line.partition(":")[0] for line in said[:2]] == ["damaged, to be made anew", "  put back from results.jsonl"]
    lines.write_text("\n".join(line for line in lines.read_text().splitlines() if json.loads(line)["state"] != "searched"))
    search.unlink()
    assert pipeline.compare(tuned, out, stop_after=0).waiting == 2
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "outdated"


def test_a_cell_that_was_judged_on_other_rows_is_left_out(own: dict[str, Any], tmp_path: Path):
    pipeline.compare(settings(own), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(line | {"examples": {"valid": "0", "test": "1"}}))
    both = own | {"models": ["shared-bottom", "single-task"]}
    pipeline.compare(settings(both), tmp_path / "both", models=["single-task"])
    assert pipeline.compare(settings(both), tmp_path / "both", take=[other], stop_after=0).waiting == 1


def test_a_log_prepared_with_other_rows_than_cells_were_judged_on_fails_before_training(own: dict[str, Any], tmp_path: Path):
    pipeline.compare(settings(own), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    other, both = tmp_path / "other.jsonl", settings(own, models=["shared-bottom", "single-task"])
    other.write_text(json.dumps(line | {"examples": {"valid": "0", "test": "1"}}))
    for take in ([other], ()):  # and once more where all is prepared
        result = pipeline.compare(both, tmp_path / "there", take=take)
        [(title, reason)] = result.failed.items()
        assert title == "tiny, single-task, seed 0"
        assert "seeds/0: holds other rows to be judged on than tiny, shared-bottom, seed 0, so that" in reason
        assert not (result.path / "logs/tiny/cells/single-task/0").exists()
    assert "- single-task: failed with seed 0: " in (result.path / "tables.md").read_text()


def test_seeds_that_are_prepared_otherwise_are_noticed(raw: dict[str, Any], compared: Path, tmp_path: Path):
    plan = Plan(settings(raw), shutil.copytree(compared, tmp_path / "out"))
    log, cells = plan.logs["tiny"], judged_cells(plan, plan.logs["tiny"], records.latest(plan.out))
    assert [len(titles) for titles in cells.values()] == [6]
    assert [odd_seed(log, seed, (0, 1), known) for seed in (0, 1) for known in (cells, {})] == [""] * 4
    (log.stage(1) / "examples.json").write_text('{"test": "another"}')
    assert odd_seed(log, 0, (0, 1), cells) == ""
    assert "than tiny, mgoe, seed 0; tiny, shared-bottom, seed 0; " in odd_seed(log, 1, (0, 1), cells)
    assert "seed 1 and 1 more, so that" in odd_seed(log, 1, (0, 1), cells)
    assert "than seed 0, so that" in odd_seed(log, 1, (0, 1), {})
    assert "than seed 1, so that" in odd_seed(log, 0, (0, 1), {})


def test_odd_cells_are_named_and_the_tables_of_other_logs_are_written(raw: dict[str, Any], compared: Path, tmp_path: Path):
    out = shutil.copytree(compared, tmp_path / "out")
    shutil.copytree(out / "logs" / "tiny", out / "logs" / "twin")
    lines = [*records.latest(out).values()]
    for line in lines:
        records.append(out, line | {"log": "twin"})
    [odd] = [line for line in lines if (line["model"], line["seed"]) == ("mgoe", 1)]
    records.append(out, odd | {"examples": {"valid": "0", "test": "1"}})
    both = settings(raw, logs={"tiny": raw["logs"]["tiny"], "twin": raw["logs"]["tiny"]})
    with pytest.raises(
        OutputError, match=r"logs/tiny: cells were judged on different rows, .* anything: tiny, mgoe, seed 1 on others than"
    ):
        pipeline.compare(both, out)
    tiny, twin = (out / "tables.md").read_text().split("## ")[1:]
    assert "tiny, mgoe, seed 1 on others than most" in tiny
    assert not re.search(r"0\.\d{4}", tiny)
    assert twin.partition("\n")[2] == (compared / "tables.md").read_text().partition("\n")[2]
    shutil.rmtree(out / "logs" / "tiny" / "cells" / "mgoe" / "1")
    assert pipeline.compare(both, out, stop_after=0).waiting == 1


def test_a_log_that_could_not_be_read_at_first_is_known_by_its_files_later(own: dict[str, Any], tmp_path: Path):
    shutil.move(tmp_path / "log", tmp_path / "away")
    assert pipeline.compare(settings(own), tmp_path / "out").failed
    shutil.move(tmp_path / "away", tmp_path / "log")
    assert pipeline.compare(settings(own), tmp_path / "out").failed == {}
    file = tmp_path / "out" / "results.jsonl"
    assert pipeline.compare(settings(own), tmp_path / "there", take=[file], stop_after=0).waiting == 0


def test_costs_that_a_cell_does_not_tell_are_none():
    known = {"parameters": 10, "training_seconds": 2.0, "cpu_seconds": 1.0, "scored_per_second": 5}
    whole, earlier = cost_of([known, known | {"cpu_seconds": 3.0}]), cost_of([known, {**known, "cpu_seconds": None}])
    assert whole == Cost(10, 2, 2, 5)
    assert np.isnan(earlier.cpu_seconds)
    assert earlier.training_seconds == 2
    assert np.isnan(cost_of([]).parameters)


def test_cells_of_several_revisions_are_said_to_be():
    assert revisions_of([{"revision": "a"}] * 3) == []
    [sentence] = revisions_of([{"revision": "a"}, {"revision": "b"}, {"revision": "b"}])
    assert sentence.endswith("b (2), a (1).")


@pytest.mark.parametrize(("key", "told"), [("precision", precisions_of), ("processor", processors_of)])
def test_cells_that_the_machine_made_otherwise_are_said_to_be(key: str, told: Callable[[list[dict]], list[str]]):
    assert told([{key: "a"}, {key: "a"}, {key: None}, {}]) == []
    [sentence] = told([{key: "a"}, {key: "b"}, {key: "b"}, {}])
    assert sentence.endswith("b (2), a (1).")


def test_trials_that_failed_are_said_with_their_reason():
    lost = {"value": None, "failed": "memory"}
    trials = [{"value": 0.5, "failed": ""}, lost, {"value": None, "failed": "NaN"}, lost]
    assert failed_trials({"a": trials, "b": trials[:1]}) == ["search of a: 3 of 4 trials failed (memory)"]


def test_a_table_says_where_its_cells_came_from(raw: dict[str, Any], compared: Path, tmp_path: Path):
    lines = [json.loads(line) for line in (compared / "results.jsonl").read_text().splitlines()]
    for line in lines[:2]:
        line |= {"precision": "float16", "processor": "abacus"}
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = pipeline.compare(settings(raw), tmp_path / "out", take=[tmp_path / "lines.jsonl"], stop_after=0).path
    below = [line for line in (out / "tables.md").read_text().splitlines() if line.startswith("- ")]
    assert below[0].startswith("- Cells were trained in several precisions: ")
    assert below[0].endswith("float16 (2).")
    assert below[1].startswith("- Costs (training s, CPU s, scored/s) are of several processors")
    assert below[1].endswith("abacus (2).")


def test_the_files_of_others_are_never_touched(raw: dict[str, Any], tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="no comparison wrote"):
        pipeline.compare(settings(raw), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


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


WRONG = [
    ({"modles": ["mgoe"]}, ConfigError, "did you mean 'models'"),
    ({"models": ["mgeo"]}, ConfigError, "did you mean 'mgoe'"),
    ({"models": ["mgoe", "mgoe"]}, ConfigError, "found 'mgoe' twice"),
    ({"reference": "mgoo"}, ConfigError, "did you mean 'mgoe'"),
    ({"tables": {"a": {"models": ["mgoe:randm"]}}}, ConfigError, "did you mean 'mgoe:random'"),
    ({"variants": {"a": {"data.log": "b"}}}, ConfigError, "changes keys below graph, training, model"),
    ({"variants": {"a": {"graph.betta": 1}}}, ConfigError, "did you mean 'beta'"),
    ({"variants": {"a": {"model.options.ta": 1}}}, ConfigError, "did you mean 'tau'"),
    ({"variants": {"a/b": {"graph.beta": 1}}}, ConfigError, "found 'a/b'"),
    ({"logs": {"a": {"simulate": {"userz": 5}}}}, ConfigError, "did you mean 'users'"),
    ({"logs": {"a": {"run": "nowhere.yaml"}}}, ConfigError, "no such file"),
    ({"logs": {"a": {"tasks": ["click"]}}}, ConfigError, "data is needed"),
    ({"tune": {"space": {"data.log": [1]}}}, ConfigError, "found 'data.log'"),
    ({"tune": {"space": {"training.monitor": ["click.auc", "buy.auc"]}}}, ConfigError, "what trials are held against"),
    ({"tune": {"space": {"training.learning_rte": [1]}}}, ConfigError, "did you mean 'learning_rate'"),
    ({"tune": {"space": {"training.epochs": [2, -1]}}}, ConfigError, "greater than or equal to 1"),
    ({"tune": {"space": {"options.ta": [1]}}}, ConfigError, "did you mean 'tau'"),
    ({"tune": {"space": {"options.tau": ["hot"]}}}, ConfigError, "found 'hot'"),
    ({"models": ["mgoe", {"name": "mgoe:random", "base": "mmoe"}]}, ConfigError, "found 'mgoe:random' twice"),
    ({"models": ["mgoe", {"name": "chance", "base": "mmoe"}]}, ConfigError, "choose another name than 'chance'"),
    ({"models": [{"name": "../mgoe", "base": "mgoe"}], "variants": {}}, ConfigError, "a name has no slash"),
    ({"variants": {"a\n": {"graph.beta": 1}}}, ConfigError, "found 'a"),
    ({"tune": {"space": {"training.epochs": {"low": 5, "high": 2}}}}, ConfigError, "below `high`"),
    ({"tune": {"first": [{"training.epoch": 2}]}}, ConfigError, "did you mean 'training.epochs'"),
    ({"tune": {"first": [{"training.epochs": 5}]}}, ConfigError, "values that `space` allows, found training.epochs: 5"),
    ({"tune": {"first": [{"training.learning_rate": 1}]}}, ConfigError, "found training.learning_rate: 1"),
    (
        {"tune": {"space": {"training.epochs": {"low": 2, "high": 6}}, "first": [{"training.epochs": 2.5}]}},
        ConfigError,
        "found training.epochs: 2.5",
    ),
    (
        {"tune": {"space": {"training.epochs": {"low": 1, "high": 6}}, "first": [{"training.epochs": True}]}},
        ConfigError,
        "found training.epochs: True",
    ),
    ({"tune": {"space": {"training.epochs": [1, 2]}, "first": [{"training.epochs": True}]}}, ConfigError, "found training.epochs: True"),
    (
        {"logs": {"a": {"simulate": {}, "negatives": {"distribution": "uniform"}}}},
        ConfigError,
        r"logs\.a\.negatives\.distribution: the best reachable is known for negatives drawn by popularity",
    ),
    (
        {"logs": {"a": {"simulate": {}, "tasks": ["buy"]}}},
        ConfigError,
        r"logs\.a\.tasks: the best reachable is known where 'click' is a task",
    ),
    ({"tune": {"first": [{"training.epochs": 2}], "trials": 1}}, ConfigError, "more than the 1 points of `first`, found 1"),
    ({"graph": {"seed": 3}}, ConfigError, "graph.seed follows the comparison's `seeds`"),
    ({"logs": {"a": {"negatives": {"training_seed": 3}}}}, ConfigError, "logs.a.negatives.training_seed follows"),
    ({"training": {"monitor": "bye.auc"}}, TrainingError, "did you mean 'buy.auc'"),
]


@pytest.mark.parametrize(("changes", "error", "sentence"), WRONG)
def test_mistakes_are_named_before_any_work(raw: dict[str, Any], tmp_path: Path, changes: dict, error: type, sentence: str):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw | changes))
    with pytest.raises(error, match=sentence):
        pipeline.compare(tmp_path / "c.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_section_of_a_run_s_file_is_named(raw: dict[str, Any], tmp_path: Path):
    (tmp_path / "run.yaml").write_text("grahp: {}")
    with pytest.raises(ConfigError, match=r"run.yaml: unknown key 'grahp'; did you mean 'graph'"):
        pipeline.compare(settings(raw, logs={"a": {"run": str(tmp_path / "run.yaml")}}), tmp_path / "out")


def test_a_part_that_does_not_exist_is_named(raw: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'shared-bottom'"):
        pipeline.compare(settings(raw), tmp_path / "out", models=["shared"])
    with pytest.raises(ConfigError, match="--seeds"):
        pipeline.compare(settings(raw), tmp_path / "out", seeds=[7])


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_comparison_of_the_examples_is_valid(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if "models" not in yaml.safe_load(path.read_text()) or "logs" not in yaml.safe_load(path.read_text()):
        pytest.skip("a run's settings")
    monkeypatch.chdir(path.parents[1])
    plan = Plan(load_comparison(path), tmp_path)
    plan.check([entry for entry in plan.entries if "lightgbm" not in entry.contestant.name])  # which needs not be installed
    assert plan.entries


@pytest.mark.parametrize("name", ["arena-tmall", "arena-worlds"])
def test_every_rival_is_in_the_arenas(name: str):
    settings = load_comparison(Path(__file__).parents[2] / "examples" / f"{name}.yaml")
    tables = settings.tables
    rivals = PRESETS.keys() - {"macgnn-released"}
    assert rivals <= set(tables["graph"].models)
    assert {"mgoe", "shared-bottom-knots", *(f"{rival}+mgoe" for rival in rivals - {"mgoe"})} == {*tables["experts"].models}
    [bent] = [model for model in settings.models if not isinstance(model, str) and model.name == "shared-bottom-knots"]
    assert tuple(bent.options["knots"]) == MGOEOptions().knots


# Search of settings


def test_a_search_cut_off_goes_on_to_the_same_settings(raw: dict[str, Any], compared: Path, tmp_path: Path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tune = {"trials": 5, "share": 0.5, "space": {"training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "options.tau": [1, 2]}}
    tune["first"] = [{"options.tau": 2}]
    plan = Plan(settings(raw, tune=tune), compared)
    entry = plan.entries[0]
    from mgoe.pipeline.comparison.work import tune_model

    assert plan.settings.tune is not None
    assert tune_model(entry, plan.settings.tune, tmp_path / "a.json") == 5
    whole = json.loads((tmp_path / "a.json").read_text())
    assert [trial["settings"] for trial in whole["trials"][:2]] == [{}, *tune["first"]]
    assert set(whole["trials"][2]["settings"]) == set(tune["space"])
    values = [trial["value"] for trial in whole["trials"]]
    assert whole["best"] == whole["trials"][int(np.argmax(values))]["settings"]
    (tmp_path / "b.json").write_text(json.dumps({"model": "mgoe", "trials": whole["trials"][:3]}))
    tune_model(entry, plan.settings.tune, tmp_path / "b.json")
    again = json.loads((tmp_path / "b.json").read_text())
    assert [trial["settings"] for trial in again["trials"]] == [trial["settings"] for trial in whole["trials"]]
    assert [trial["value"] for trial in again["trials"]] == values
    tuned = entry.contestant.settings(tuning.best_of(tmp_path / "b.json"))
    assert tuned.training == {k.split(".")[1]: v for k, v in whole["best"].items() if k.startswith("training")}


TUNE = {"trials": 4, "space": {"training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}}}


class Searched:
    """A search whose fits are made up: the value of a trial is a function of its settings, or the fit fails.

    Args:
        raw: Of the comparison.
        out: The file of the search.
    """

    def __init__(self, raw: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch):
        self.plan, self.out, self.fitted, self.fail = Plan(settings(raw, tune=TUNE), out.parent), out, 0, {}
        monkeypatch.setattr(tuning, "fit_model", self.fit)

    def fit(self, model: Any, *_: Any, **__: Any) -> Any:
        self.fitted += 1
        if error := self.fail.pop(self.fitted, None):
            raise error
        return None, None, SimpleNamespace(best_value=1 - float(model.training.get("learning_rate", 0.01)))

    def go_on(self) -> list[dict[str, Any]]:
        """Trials of the search, which is gone on with, but for the time they took."""
        entry, tune = self.plan.entries[0], self.plan.settings.tune
        assert tune is not None
        tuning.search(entry.contestant.settings(), 0, entry.settings, tune, None, self.out)  # pyright: ignore[reportArgumentType]
        return [{key: value for key, value in trial.items() if key != "seconds"} for trial in json.loads(self.out.read_text())["trials"]]


@pytest.fixture
def searched(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    return Searched(raw, tmp_path / "a.json", monkeypatch)


FAULTS = [
    (torch.OutOfMemoryError("CUDA out of\nmemory"), "OutOfMemoryError: CUDA out of memory"),
    (MemoryError(), "MemoryError:"),
    (ConfigError("options.width", "must divide by heads"), "options.width: must divide by heads"),
    (DataError("a log", "is none"), "a log: is none"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
    (ZeroDivisionError("by nothing"), "ZeroDivisionError: by nothing"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=lambda value: type(value).__name__)
def test_a_trial_that_fails_leaves_the_others_to_the_search(searched: Searched, fault: Exception, reason: str):
    searched.fail = {2: fault}
    trials = searched.go_on()
    assert [trial["value"] is None for trial in trials] == [False, True, False, False]
    assert reason in trials[1]["failed"]
    assert tuning.is_done(searched.out)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left"), "a file of the fit"], ids=repr)
def test_what_is_no_fault_of_a_trial_stops_the_search_where_it_is(searched: Searched, stop: BaseException | str):
    whole = searched.go_on()
    searched.out.unlink()
    place = searched.out.with_suffix(".fit") / "checkpoints"
    error = TrainingError(place, "the checkpoint cannot be written") if isinstance(stop, str) else stop
    for _ in range(3):
        searched.fitted, searched.fail = 0, {2: error}
        with pytest.raises(type(error)):
            searched.go_on()
    assert searched.go_on() == whole


def test_a_trial_whose_process_is_killed_is_tried_once_more(searched: Searched):
    whole = searched.go_on()
    searched.out.unlink()
    tuning.note_killed(searched.out)
    assert searched.go_on() == whole
    tuning.note_killed(searched.out)  # when all was there
    assert searched.go_on() == whole
    first = json.loads(searched.out.read_text())["trials"][:1]
    searched.out.write_text(json.dumps({"model": "mgoe", "trials": first}))
    for _ in range(2):
        tuning.note_killed(searched.out)
    trials = searched.go_on()
    assert [trial["value"] is None for trial in trials] == [False, True, False, False]
    assert trials[1]["settings"] == whole[1]["settings"]
    assert "its process was killed 2 times" in trials[1]["failed"]


def test_a_search_of_which_every_trial_failed_begins_anew(searched: Searched):
    searched.fail = {number: MemoryError() for number in (1, 2, 3, 4)}
    with pytest.raises(TrainingError, match="every one of 4 trials failed, the first with: MemoryError"):
        searched.go_on()
    assert [trial["value"] is None for trial in searched.go_on()] == [False] * 4


def test_a_comparison_notes_whose_search_was_killed(own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tuned = settings(own, tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})

    def killed(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
        for job in jobs:
            if job.work in (work.prepare_log, work.build):
                yield Outcome(job, job.work(*job.args))
            else:
                yield Outcome(job, failed="its process ended with code -9", lost=job.work is work.tune_model)

    for run_jobs, failed in ((killed, 1), (killed, 1), (here, 0)):
        monkeypatch.setattr("mgoe.pipeline.comparison.compare.run_jobs", run_jobs)
        assert len(pipeline.compare(tuned, tmp_path / "out").failed) == failed
    trials = json.loads((tmp_path / "out/logs/tiny/tuned/shared-bottom.json").read_text())["trials"]
    assert [trial["value"] is None for trial in trials] == [True, False]


def test_a_seed_alone_may_be_run_twice_and_needs_the_first_for_the_search_alone(own: dict[str, Any], tmp_path: Path, in_this_process: None):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mgoe[tune]'")
    tuned = settings(own, seeds=[0, 1], tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}})
    out = tmp_path / "out"
    pipeline.compare(tuned, out, seeds=[1])
    said: list[str] = []
    pipeline.compare(tuned, out, seeds=[1], say=said.append)
    assert said == ["0 of 1 cells to run, 2 at a time"]
    search = out / "logs/tiny/tuned/shared-bottom.json"
    plan = Plan(tuned, tmp_path / "other")
    _, second = plan.entries
    second.tuned.parent.mkdir(parents=True)
    shutil.copy(search, second.tuned)
    assert [job.name for job in jobs_of(plan, [second])[0]] == ["examples of tiny, seed 1", "graph of tiny, seed 1", second.title]
    best = tuning.best_of(search)
    search.write_bytes(b"")
    assert pipeline.compare(tuned, out, say=said.append).waiting == 0
    assert said[1].startswith(f"damaged, to be made anew: {search}: holds no JSON")
    assert tuning.best_of(search) == best


def test_what_is_searched_is_what_a_model_has(raw: dict[str, Any], tmp_path: Path):
    tune = {"space": {"options.one_gate": [True], "training.epochs": [2]}}
    plain = Plan(settings(raw, tune=tune), tmp_path)
    plan = Plan(settings(raw, tune=tune | {"first": [{"training.epochs": 2, "options.one_gate": True}]}), tmp_path)
    assert plan.settings.tune is not None
    of = {name: tuning.concerning(c.settings(), plan.settings.tune) for name, c in plan.contestants.items()}
    assert set(of["mgoe"].space) == {"options.one_gate", "training.epochs"}
    assert set(of["shared-bottom"].space) == {"training.epochs"}
    assert (len(of["mgoe"].first), of["shared-bottom"].first) == (1, [])
    asked = [{p.path: p.asked for p in kept.parts_of(each, each.entries)} for each in (plain, plan)]
    changed = {str(path) for path, told in asked[1].items() if told != asked[0][path]}
    assert changed
    assert not any("shared-bottom" in path for path in changed)


def test_trees_are_searched_where_the_space_names_their_options(raw: dict[str, Any], tmp_path: Path):
    def space_of(model: str, space: dict[str, Any]) -> set[str]:
        tune = {"space": space, "first": [{"training.epochs": 2}]}
        plan = Plan(settings(raw, models=["mgoe", "lightgbm"], variants={}, tune=tune), tmp_path)
        assert plan.settings.tune is not None
        found = tuning.concerning(plan.contestants[model].settings(), plan.settings.tune)
        assert bool(found.first) == bool(found.space)
        return set(found.space)

    epochs: dict[str, Any] = {"training.epochs": [2, 3]}
    assert space_of("lightgbm", epochs) == set()
    assert space_of("mgoe", epochs) == set(epochs)
    assert space_of("lightgbm", epochs | {"options.leaves": [15, 31]}) == {"training.epochs", "options.leaves"}
    assert space_of("lightgbm", epochs | {"options.tau": [1, 2]}) == set()


def test_a_log_whose_best_is_not_known_is_refused_before_any_work(raw: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"logs\.tiny\.negatives\.distribution"):
        pipeline.compare(settings(raw, negatives={"distribution": "uniform"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_variant_lies_above_what_was_tuned(raw: dict[str, Any]):
    plan = Plan(settings(raw), Path("nowhere"))
    tuned = plan.contestants["mgoe:random"].settings({"training": {"epochs": 9}, "options": {"tau": 2, "width": 8}})
    assert (tuned.options["tau"], tuned.options["width"], tuned.training["epochs"]) == (0.5, 8, 9)


def test_a_missing_optuna_is_named_before_any_work(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(tuning, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'mgoe\[tune\]'"):
        pipeline.compare(settings(raw, tune={}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
