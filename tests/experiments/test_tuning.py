"""Search of settings."""

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mgoe import experiments
from mgoe._util.processes import Job, Outcome
from mgoe.config import ModelSettings, RunSettings, deep_merge, load_settings, make_settings, nested
from mgoe.errors import ConfigError, DataError, MissingExtra, OutputError, TrainingError
from mgoe.experiments import runs
from mgoe.pipeline import prepare as work
from mgoe.pipeline import tuning
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Plan, applicable_search, best_of, is_done
from tests.effort import slow
from tests.experiments.tiny import here, settings


def test_an_interrupted_search_resumes_to_the_same_settings(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    tune = {
        "trials": 5,
        "share": 0.5,
        "space": {"training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "options.tau": [1, 2]},
    }
    tune["first"] = [{"options.tau": 2}]
    plan = Plan(settings(raw, tune=tune), compared)
    cell = plan.cells[0]
    assert plan.settings.tune is not None
    assert tuning.search(cell, plan.settings.tune, tmp_path / "a.json") == 5
    whole = json.loads((tmp_path / "a.json").read_text())
    assert [trial["settings"] for trial in whole["trials"][:2]] == [{}, *tune["first"]]
    assert set(whole["trials"][2]["settings"]) == set(tune["space"])
    values = [trial["value"] for trial in whole["trials"]]
    assert whole["best"] == whole["trials"][int(np.argmax(values))]["settings"]
    (tmp_path / "b.json").write_text(json.dumps({"model": "mgoe", "trials": whole["trials"][:3]}))
    tuning.search(cell, plan.settings.tune, tmp_path / "b.json")
    again = json.loads((tmp_path / "b.json").read_text())
    assert [trial["settings"] for trial in again["trials"]] == [
        trial["settings"] for trial in whole["trials"]
    ]
    assert [trial["value"] for trial in again["trials"]] == values
    tuned = cell.variant.settings(best_of(tmp_path / "b.json"))
    assert tuned.training == {
        k.split(".")[1]: v for k, v in whole["best"].items() if k.startswith("training")
    }


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
        opened = SimpleNamespace(resolve_ids=lambda model: model)
        monkeypatch.setattr(tuning, "Inputs", SimpleNamespace(open=lambda *_: opened))

    def fit(self, model: Any, *_: Any, **__: Any) -> Any:
        self.fitted += 1
        if error := self.fail.pop(self.fitted, None):
            raise error
        return None, None, SimpleNamespace(best_value=1 - float(model.training.get("learning_rate", 0.01)))

    def resume(self) -> list[dict[str, Any]]:
        """Resume the search and return its trials without their seconds."""
        cell, tune = self.plan.cells[0], self.plan.settings.tune
        assert tune is not None
        tuning.search(cell, tune, self.out)
        return [
            {key: value for key, value in trial.items() if key != "seconds"}
            for trial in json.loads(self.out.read_text())["trials"]
        ]


@pytest.fixture
def searched(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
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
def test_a_trial_that_fails_leaves_the_others_to_the_search(
    searched: Searched, fault: Exception, reason: str
):
    searched.fail = {2: fault}
    trials = searched.resume()
    assert [trial["value"] is None for trial in trials] == [False, True, False, False]
    assert reason in trials[1]["failed"]
    assert is_done(searched.out)


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left"), "a file of the fit"], ids=repr
)
def test_what_is_no_fault_of_a_trial_stops_the_search_where_it_is(
    searched: Searched, stop: BaseException | str
):
    whole = searched.resume()
    searched.out.unlink()
    place = searched.out.with_suffix(".fit") / "checkpoints"
    error = TrainingError(place, "the checkpoint cannot be written") if isinstance(stop, str) else stop
    for _ in range(3):
        searched.fitted, searched.fail = 0, {2: error}
        with pytest.raises(type(error)):
            searched.resume()
    assert searched.resume() == whole


def test_a_trial_with_a_killed_process_is_tried_once_more(searched: Searched):
    whole = searched.resume()
    searched.out.unlink()
    tuning.note_killed(searched.out)
    assert searched.resume() == whole
    tuning.note_killed(searched.out)  # when all was there
    assert searched.resume() == whole
    first = json.loads(searched.out.read_text())["trials"][:1]
    searched.out.write_text(json.dumps({"model": "mgoe", "trials": first}))
    for _ in range(2):
        tuning.note_killed(searched.out)
    trials = searched.resume()
    assert [trial["value"] is None for trial in trials] == [False, True, False, False]
    assert trials[1]["settings"] == whole[1]["settings"]
    assert "its process was killed 2 times" in trials[1]["failed"]


def test_a_search_of_which_every_trial_failed_starts_again(searched: Searched):
    searched.fail = {number: MemoryError() for number in (1, 2, 3, 4)}
    with pytest.raises(TrainingError, match="every one of 4 trials failed, the first with: MemoryError"):
        searched.resume()
    assert [trial["value"] is None for trial in searched.resume()] == [False] * 4


def test_a_comparison_notes_a_search_that_was_killed(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    tuned = settings(
        own, tune={"trials": 2, "share": 0.5, "space": {"training.learning_rate": [0.001, 0.01]}}
    )

    def killed(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
        for job in jobs:
            if job.work in (work.prepare_log, work.build_graph_of):
                yield Outcome(job, job.work(*job.args))
            else:
                yield Outcome(job, failed="its process ended with code -9", lost=job.work is tuning.search)

    for run_jobs, failed in ((killed, 1), (killed, 1), (here, 0)):
        monkeypatch.setattr("mgoe._util.processes.run_jobs", run_jobs)
        assert len(experiments.compare(tuned, tmp_path / "out").failed) == failed
    trials = json.loads((tmp_path / "out/logs/tiny/tuned/shared-bottom.json").read_text())["trials"]
    assert [trial["value"] is None for trial in trials] == [True, False]


def test_what_is_searched_is_what_a_model_has(raw: dict[str, Any], tmp_path: Path):
    tune = {"space": {"options.one_gate": [True], "training.epochs": [2]}}
    plain = Plan(settings(raw, tune=tune), tmp_path)
    plan = Plan(
        settings(raw, tune=tune | {"first": [{"training.epochs": 2, "options.one_gate": True}]}), tmp_path
    )
    assert plan.settings.tune is not None
    of = {name: applicable_search(c.settings(), plan.settings.tune) for name, c in plan.variants.items()}
    assert set(of["mgoe"].space) == {"options.one_gate", "training.epochs"}
    assert set(of["shared-bottom"].space) == {"training.epochs"}
    assert (len(of["mgoe"].first), of["shared-bottom"].first) == (1, [])
    asked = [{p.path: p.digest for p in nodes_of(each, each.cells)} for each in (plain, plan)]
    changed = {str(path) for path, one in asked[1].items() if one != asked[0][path]}
    assert changed
    assert not any("shared-bottom" in path for path in changed)


def test_trees_are_searched_where_the_space_names_their_options(raw: dict[str, Any], tmp_path: Path):
    def space_of(model: str, space: dict[str, Any]) -> set[str]:
        tune = {"space": space, "first": [{"training.epochs": 2}]}
        plan = Plan(settings(raw, models=["mgoe", "lightgbm"], variants={}, tune=tune), tmp_path)
        assert plan.settings.tune is not None
        found = applicable_search(plan.variants[model].settings(), plan.settings.tune)
        assert bool(found.first) == bool(found.space)
        return set(found.space)

    epochs: dict[str, Any] = {"training.epochs": [2, 3]}
    assert space_of("lightgbm", epochs) == set()
    assert space_of("mgoe", epochs) == set(epochs)
    assert space_of("lightgbm", epochs | {"options.leaves": [15, 31]}) == {
        "training.epochs",
        "options.leaves",
    }
    assert space_of("lightgbm", epochs | {"options.tau": [1, 2]}) == set()


def test_a_missing_optuna_is_named_before_the_log_is_read(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[tune\]'"):
        experiments.compare(settings(raw, tune={}), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("data"))


class Clock:
    """Stands for the module `time` of a search: time passes in fits alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


TAKES = 10.0
"""Seconds of a made-up fit of `Timed`."""


class Timed(Searched):
    """A search with a time, whose fits take `TAKES` by a clock and say how far they are every second."""

    def __init__(self, raw: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch, budget: str):
        super().__init__(raw, out, monkeypatch)
        self.plan = Plan(settings(raw, tune=TUNE | {"trials": 20, "budget": budget}), out.parent)
        self.clock = Clock()
        monkeypatch.setattr(tuning, "time", self.clock)

    def fit(self, *args: Any, **how: Any) -> Any:
        on_progress = args[5]
        for second in range(1, int(TAKES) + 1):
            self.clock.now += 1
            on_progress(SimpleNamespace(step=second, steps=TAKES))
        return super().fit(*args, **how)


@pytest.mark.parametrize(("budget", "trials"), [("10s", 1), ("35s", 4), ("40s", 4), ("1h", 20)])
def test_a_search_with_a_time_ends_with_it(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, trials: int
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    search = Timed(raw, tmp_path / "a.json", monkeypatch, budget)
    found = search.resume()
    assert len(found) == trials
    assert search.clock.now <= 3600 if budget == "1h" else int(budget[:-1]) + 1
    done = [trial for trial in found if trial["value"] is not None]
    assert len(done) == search.clock.now // TAKES
    best = max(done, key=lambda trial: trial["value"])["settings"]
    assert json.loads(search.out.read_text())["best"] == best


def test_a_search_with_a_time_resumes_with_what_is_left_of_it(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    whole = Timed(raw, tmp_path / "a.json", monkeypatch, "35s").resume()
    search = Timed(raw, tmp_path / "b.json", monkeypatch, "35s")
    search.fail = {3: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search.resume()
    assert search.resume() == whole


def test_a_time_for_less_than_a_trial_is_refused(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search = Timed(raw, tmp_path / "a.json", monkeypatch, "4s")
    with pytest.raises(TrainingError, match="a trial takes about 10 s, found 4 s of 4s left"):
        search.resume()
    assert not search.out.exists()


class Tuned:
    """`mgoe run --tune` up to the run itself, without a log: the value of a trial is a function of its
    settings."""

    def __init__(self, given: RunSettings, out: Path, monkeypatch: pytest.MonkeyPatch):
        self.given, self.out, self.fitted = given, out, 0
        opened = SimpleNamespace(resolve_ids=lambda model: model)
        monkeypatch.setattr(tuning, "Inputs", SimpleNamespace(open=lambda *_: opened))
        monkeypatch.setattr(tuning, "fit_model", self.fit)
        monkeypatch.setitem(tuning.OF_A_RUN, "trials", 6)
        monkeypatch.setattr(runs, "begin", lambda *_: nullcontext((None, None)))
        monkeypatch.setattr(runs, "build", lambda *_: None)

    def fit(self, model: Any, *_: Any, **__: Any) -> Any:
        self.fitted += 1
        rate = model.training.get("learning_rate", self.given.training.learning_rate)
        return None, None, SimpleNamespace(best_value=1 / (1 + abs(np.log(rate / 0.002))))

    def __call__(self, budget: str = "10m", overwrite: bool = False) -> RunSettings:
        return runs._tuned(self.given, self.out, budget, overwrite, None)


def test_a_run_takes_the_settings_of_the_best_trial(
    small: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    tuned = Tuned(small, tmp_path, monkeypatch)
    found = tuned()
    trials = json.loads((tmp_path / "tuned/mgoe.json").read_text())["trials"]
    best = trials[int(np.argmax([trial["value"] for trial in trials]))]
    assert best["settings"]  # 0.005 is not the best of six
    assert found == make_settings(deep_merge(small.model_dump(), nested(best["settings"])))
    assert f"{best['value']:.4f} on validation" in said.messages[-1]
    assert "best of 6 trials" in said.messages[-1]
    assert tuned.fitted == 6


def test_what_the_first_model_sets_itself_is_not_searched(
    small: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    own = ModelSettings(name="mine", base="mgoe", training={"learning_rate": 0.1})
    found = Tuned(small.model_copy(update={"models": [own]}), tmp_path, monkeypatch)()
    assert found.training.learning_rate == small.training.learning_rate
    searched = {
        key
        for trial in json.loads((tmp_path / "tuned/mine.json").read_text())["trials"]
        for key in trial["settings"]
    }
    assert searched == {"training.batch_size", "training.epochs"}


def test_a_time_that_is_none_is_refused(small: RunSettings, tmp_path: Path):
    with pytest.raises(ConfigError, match="tune: budget: must be a whole number"):
        experiments.run(small, tmp_path / "out", tune="soon")
    assert not (tmp_path / "out").exists()


@slow
def test_a_tuned_run_equals_one_with_its_settings(small: RunSettings, tmp_path: Path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")
    with pytest.raises(TrainingError, match="takes about"):
        experiments.run(small, tmp_path / "a", tune="1s")
    tuned = experiments.run(small, tmp_path / "a", tune="15s")
    with pytest.raises(OutputError, match="holds a finished run"):
        experiments.run(small, tmp_path / "a", tune="15s")
    again = experiments.run(load_settings(tmp_path / "a/settings.yaml"), tmp_path / "b")
    pd.testing.assert_frame_equal(tuned.metrics, again.metrics)
    assert json.loads((tmp_path / "a/tuned/mgoe.json").read_text())["best"] is not None
