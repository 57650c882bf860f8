"""What a day of age costs, measured with the trainings of a run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from mgoe import experiments
from mgoe.cli import app
from mgoe.config import RunSettings, make_settings
from mgoe.data import SPLITS, Examples, Prepared
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import DAY
from mgoe.experiments import rolling
from mgoe.experiments.rolling import AgeLoss, days_until, measure_ageing
from mgoe.pipeline.refit import train_anew
from mgoe.simulation import WorldSettings, simulate
from tests.cli.answers import check
from tests.effort import slow
from tests.sharing import Shared

IDS = {"name": "ids", "base": "shared-bottom", "inputs": ["ids"], "ids": "on"}
"""A model that knows users and items by their ids alone, and so what they were like when it learned them."""
WINDOWS = 6


def settings_of(world: Path, **changes: Any) -> RunSettings:
    return make_settings(
        {
            "data": {"log": str(world / "exposures")},
            "tasks": [{"name": name, "label": name} for name in ("click", "buy")],
            "split": {"cuts": [0.1, 0.25, 0.4, 0.55, 0.7, 0.85]},
            "models": [IDS],
            "training": {"epochs": 4, "batch_size": 512},
            "evaluation": {"ranking_queries": 0, "slices": False},
            "graph": {"recents": 5, "rank": 8},
        }
        | changes
    )


@pytest.fixture(scope="session")
def worlds(shared: Shared) -> dict[float, Path]:
    """A world where nothing changes, and one whose tastes and popularity do."""

    def make(drift: float) -> Callable[[Path], object]:
        still: dict[str, Any] = {"arriving_users": 0, "arriving_items": 0, "days": 30, "seed": 3}
        size: dict[str, Any] = {"users": 300, "items": 100, "exposures": 30_000}
        groups: dict[str, Any] = {"user_communities": 4, "item_communities": 5}
        world = WorldSettings(**still, **size, **groups, affinity_drift=drift, popularity_drift=drift)
        return lambda path: simulate(world, path)

    return {drift: shared(f"rolling-world-{drift:g}", make(drift)) for drift in (0.0, 1.0)}


@pytest.fixture(scope="session")
def runs(worlds: dict[float, Path], shared: Shared) -> dict[float, Path]:
    """The folder of a finished run on each. Read them only."""
    return {
        drift: shared(
            f"rolling-run-{drift:g}",
            lambda path, world=world: experiments.run(settings_of(world), path, reuse=True),
        )
        for drift, world in worlds.items()
    }


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def of_mean(losses: list[AgeLoss], age: int | None = DAY) -> AgeLoss:
    [found] = [one for one in losses if (one.windows, one.task, one.metric) == (age, "all", "ranking")]
    return found


def test_age_costs_where_the_world_drifts_and_nothing_where_it_does_not(
    runs: dict[float, Path], tmp_path: Path
):
    for drift, run in runs.items():
        found = measure_ageing(copied(run, tmp_path / f"{drift:g}"), 4)
        loss = of_mean(found.losses)
        if drift:
            assert loss.low > 0.001
            assert found.update_after == pytest.approx(found.threshold / loss.value)
        else:
            assert loss.low < 0 < loss.high
            assert found.update_after is None


def test_trainings_learn_as_many_rows_before_their_window_and_are_measured_on_all_later_ones(
    runs: dict[float, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    learned, measured, run = list[Examples](), list[tuple[int, Examples]](), copied(runs[1.0], tmp_path)

    def noted(model: Any, spec: Any, rows: Examples, *given: Any, **how: Any) -> Any:
        learned.append(rows)
        return train_anew(model, spec, rows, *given, **how)

    def fed(*given: Any) -> rolling.Feed:
        measured.append((len(learned), given[2]))
        return rolling_feed(*given)

    rolling_feed = rolling.Feed
    monkeypatch.setattr(rolling, "train_anew", noted)
    monkeypatch.setattr(rolling, "Feed", fed)
    found = measure_ageing(run, 3)
    assert (found.trainings, found.seeds, found.rows) == (3, 1, len(learned[0]))
    rows = Prepared.open(run / "data").streamed(SPLITS).read()
    assert {len(one) for one in learned} == {(rows.snapshot < 3).sum()}
    for first, one in enumerate(learned, 3):
        before = np.flatnonzero(rows.snapshot < first)[-found.rows :]
        for ours, theirs in zip(one.columns(), rows.take(before).columns(), strict=True):
            assert_array_equal(ours, theirs)
    at = [(1, 3), (1, 4), (1, 5), (2, 4), (2, 5), (3, 5)]
    assert [(training, *np.unique(one.snapshot)) for training, one in measured] == at
    for _, one in measured:
        assert len(one) == (rows.snapshot == one.snapshot[0]).sum()


class Killed(Exception):
    """Stands for the end of a process."""


def test_an_interrupted_measurement_resumes_to_the_same_result(
    runs: dict[float, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, trained = copied(runs[1.0], tmp_path), []
    whole = measure_ageing(copied(runs[1.0], tmp_path / "whole"), 3)

    def counted(*given: Any, **how: Any) -> Any:
        trained.append(given[7].name)
        return train_anew(*given, **how)

    def killed(scores: Any, labels: Any, *given: Any) -> Any:
        if len(trained) == 2:
            raise Killed
        return rolling_influence(scores, labels, *given)

    rolling_influence = rolling.user_influence
    monkeypatch.setattr(rolling, "train_anew", counted)
    monkeypatch.setattr(rolling, "user_influence", killed)
    with pytest.raises(Killed):
        measure_ageing(run, 3)
    monkeypatch.setattr(rolling, "user_influence", rolling_influence)
    resumed = measure_ageing(run, 3)
    assert len(trained) == 3 + 1  # the second one again, from its last checkpoint
    same = [repr(replace(one, seconds=0)) for one in (resumed, whole)]  # NaN differs from NaN
    assert same[0] == same[1]
    assert repr(measure_ageing(run, 3)) == repr(resumed)
    assert len(trained) == 3 + 1
    assert not [*(run / rolling.ROLLING).rglob("fit")]
    fit = run / "cells/ids/0/fit.json"  # another choice of the run is another measurement
    fit.write_text(json.dumps(json.loads(fit.read_text()) | {"best_epoch": 1}))
    measure_ageing(run, 3)
    assert len(trained) == 3 + 1 + 3


@slow
def test_trees_age_too(worlds: dict[float, Path], tmp_path: Path):
    pytest.importorskip("lightgbm", reason="the extra gbm is not installed")
    experiments.run(settings_of(worlds[1.0], models=[IDS, "lightgbm"]), tmp_path, reuse=True)
    found = measure_ageing(tmp_path, 3, model="lightgbm")
    assert found.model == "lightgbm"
    assert np.isfinite(of_mean(found.losses).value)


def test_a_threshold_is_reached_when_the_loss_per_day_adds_up_to_it():
    def loss(windows: int | None, days: float, value: float, low: float) -> AgeLoss:
        return AgeLoss(windows, days, "all", "ranking", value, low, value + 1, 100)

    losses = [loss(1, 3.0, 0.1, 0.0), loss(2, 6.0, 0.2, 0.0), loss(DAY, 1.0, 0.01, 0.005)]
    assert days_until(losses, 0.02) == pytest.approx(2)
    assert days_until(losses, 0.06) == pytest.approx(6)
    assert days_until(losses, 0.061) is None  # no training was measured at that age
    assert days_until([*losses[:2], loss(DAY, 1.0, 0.01, -0.005)], 0.02) is None


def test_the_command_prints_what_was_measured(runs: dict[float, Path], tmp_path: Path):
    run = copied(runs[1.0], tmp_path)
    found = measure_ageing(run, 3)
    printed, shown, other = (
        CliRunner().invoke(app, ["evaluate", str(run), "--rolling", "3", *more])
        for more in (["--json"], [], ["--slice", "new-pairs"])
    )
    check("evaluate", printed.stdout)
    answer = json.loads(printed.stdout)
    assert answer["losses"][0]["value"] == found.losses[0].value
    assert (answer["update_after"], answer["seconds"]) == (found.update_after, found.seconds)
    assert f"{of_mean(found.losses).value:+.5f}" in shown.stdout
    assert f"3 trainings on {found.rows:,} rows each" in shown.stdout
    assert other.exit_code == 2
    assert "leave out pairs, --split and --slice" in " ".join(other.stderr.split())


def test_a_run_that_is_unfinished_or_has_too_few_windows_is_refused(
    runs: dict[float, Path], finished: Path, tmp_path: Path
):
    with pytest.raises(OutputError, match="holds no finished run"):
        measure_ageing(tmp_path, 3)
    with pytest.raises(ConfigError, match="'idz' is not part of the comparison; did you mean 'ids'"):
        measure_ageing(runs[1.0], 3, model="idz")
    for run, trainings in ((runs[1.0], 2), (runs[1.0], WINDOWS), (finished, 3)):
        with pytest.raises(
            ConfigError, match=r"must be at least 3 and less than the [36] windows of the run"
        ):
            measure_ageing(run, trainings)
