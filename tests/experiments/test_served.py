"""Which model of a run is served, and why: validation decides, and `serve` overrides it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe import experiments
from mgoe.config import RunSettings, load_settings, make_settings
from mgoe.errors import ConfigError
from mgoe.evaluation import Estimate, Influence
from mgoe.experiments import runs
from mgoe.experiments.served import choose_served, decide
from mgoe.pipeline.folder import FIT, INFLUENCE, SERVED, VALID_INFLUENCE
from mgoe.pipeline.plan import Plan
from mgoe.training import Monitor
from tests.sharing import Shared

SIMPLE = ["constant", "history", "popularity"]
"""Models that learn nothing, of which the first one knows least."""


def changed(settings: RunSettings, **changes: Any) -> RunSettings:
    return make_settings(settings.model_dump(mode="json") | changes)


def gain(name: str, low: float, high: float) -> Estimate:
    return Estimate("first", name, "all", "mean", (low + high) / 2, low, high, (0.0,), users=500)


@pytest.fixture(scope="session")
def simple(small: RunSettings, shared: Shared) -> Path:
    """The folder of a finished run of simple models on a simulated log, with two seeds. Read it only."""
    settings = changed(small, models=SIMPLE, seeds=[0, 1])
    return shared("served-simple", lambda path: experiments.run(settings, path, reuse=True))


def copied(run: Path, to: Path) -> Plan:
    shutil.copytree(run, to)
    return Plan(load_settings(to / "settings.yaml"), to)


@given(
    ends=st.lists(
        st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=2, unique=True).map(sorted),
        min_size=1,
        max_size=4,
    ),
    boosted=st.sets(st.sampled_from("abcd")),
)
def test_the_best_of_those_measurably_ahead_is_served(ends: list[list[float]], boosted: set[str]):
    gains = [gain(name, low, high) for name, (low, high) in zip("abcd", ends, strict=False)]
    name, why = decide("first", gains, boosted, "all.ranking")
    ahead = {one.baseline: one.value for one in gains if one.low > 0}
    can = {model: value for model, value in ahead.items() if model not in boosted}
    assert name == max(can, key=lambda model: can[model], default="first")
    assert why.startswith(f"{name} is served")
    assert "the first of `models`" in why
    assert "all.ranking" in why
    better = [model for model in ahead.keys() - can if not can or ahead[model] > can[name]]
    assert why.count("no bundle can hold boosted trees") == len(better)
    assert all(f"{model} gains more" in why for model in better)


def test_without_an_interval_the_first_is_served():
    name, why = decide("first", [gain("a", float("nan"), float("nan"))], (), "all.ranking")
    assert name == "first"
    assert "too few users of validation" in why


def test_tasks_of_too_few_users_do_not_hide_who_is_ahead(simple: Path, tmp_path: Path):
    """The mean over all tasks has no interval then."""
    plan = copied(simple, tmp_path / "run")
    tasks = [task.name for task in plan.cells[0].settings.tasks]
    for cell in plan.cells:
        found = Influence.load(cell.folder / VALID_INFLUENCE)
        rare = [task == tasks[-1] for task, _ in found.names]
        replace(found, parts=np.where(rare, np.nan, found.parts)).save(cell.folder / VALID_INFLUENCE)
    choose_served(plan, kept=False)
    noted = json.loads((plan.out / SERVED).read_text())
    assert noted["model"] in ("history", "popularity")
    assert f"in all.ranking of {', '.join(tasks[:-1])} (" in noted["why"]


def test_a_simpler_row_that_validation_puts_ahead_is_served(simple: Path):
    noted = json.loads((simple / SERVED).read_text())
    assert noted["model"] == "popularity"
    assert mgoe.load(simple / "bundle").manifest.model.name == "popularity"
    assert "popularity is served: on validation it is ahead of constant" in noted["why"]
    found = experiments.run(load_settings(simple / "settings.yaml"), simple, reuse=True)
    assert found.standings.served == noted["why"]
    assert repr(found).splitlines()[2] == noted["why"]
    page = (simple / "report.html").read_text()
    assert page.split('class="served">')[1].startswith("popularity is served:")
    assert page.index('class="lede">') < page.index('class="served">'), "the result comes first"
    assert "popularity, seed" in page[page.index("The bundle holds") :]


def test_a_bundle_of_a_model_that_learns_nothing_scores(simple: Path):
    bundle = mgoe.load(simple / "bundle")
    user = bundle.ids("user", np.array([0]))[0]
    assert len(bundle.recommend(user, k=3)) == 3


def test_test_has_no_part_in_the_choice(simple: Path, tmp_path: Path):
    plan = copied(simple, tmp_path / "run")
    for file in plan.out.glob(f"cells/*/*/{INFLUENCE}"):
        file.unlink()
    (plan.out / SERVED).unlink()
    best = choose_served(plan, kept=False)
    assert best.variant.name == "popularity"
    assert best.validation == max(one.validation for one in plan.cells if one.variant == best.variant)
    assert (plan.out / SERVED).read_bytes() == (simple / SERVED).read_bytes()


def test_cells_of_an_earlier_version_leave_the_first_in_place(simple: Path, tmp_path: Path):
    plan = copied(simple, tmp_path / "run")
    next(plan.out.glob(f"cells/popularity/*/{VALID_INFLUENCE}")).unlink()
    assert choose_served(plan, kept=True).variant.name == "popularity", "a bundle that stays is of its model"
    assert choose_served(plan, kept=False).variant.name == "constant"
    assert "an earlier version of mgoe" in json.loads((plan.out / SERVED).read_text())["why"]


def test_an_interrupted_run_decides_the_same_again(
    small: RunSettings, simple: Path, tmp_path: Path, monkeypatch
):
    settings = changed(small, models=SIMPLE, seeds=[0, 1])
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_cell_bundle", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            experiments.run(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "bundle").exists()
    monkeypatch.setattr("mgoe.pipeline.cell.fit_model", lambda *_: 1 / 0)  # cells are finished
    result = experiments.run(settings, tmp_path / "run")
    assert result.bundle.manifest.model.name == "popularity"
    assert (tmp_path / "run" / SERVED).read_bytes() == (simple / SERVED).read_bytes()


@pytest.mark.parametrize("refit", ["none", "anew"])
def test_what_is_compared_is_what_chose_the_epoch(small: RunSettings, tmp_path: Path, refit: str):
    """With a refit, these are results of the weights that validation chose, not of those that learned it."""
    training = small.training.model_dump(mode="json") | {"refit": refit}
    settings = changed(
        small, models=["shared-bottom", "popularity"], serve="shared-bottom", training=training
    )
    experiments.run(settings, tmp_path / "run")
    assert "because `serve` names it" in json.loads((tmp_path / "run" / SERVED).read_text())["why"]
    monitor = Monitor.parse(settings.training.monitor, settings.tasks)
    for cell in Plan(settings, tmp_path / "run").cells:
        mean = Influence.load(cell.folder / VALID_INFLUENCE).mean_of(monitor.tasks, monitor.parts)
        assert mean.values[0] == pytest.approx(json.loads((cell.folder / FIT).read_text())["best_value"])


def test_serve_overrides_what_won(small: RunSettings, tmp_path: Path):
    result = experiments.run(changed(small, models=SIMPLE, serve="history"), tmp_path / "run")
    assert result.bundle.manifest.model.name == "history"
    assert result.standings.served == "history is served, because `serve` names it."


def test_boosted_trees_may_be_first_if_another_row_is_named(small: RunSettings, tmp_path: Path):
    both = {"models": ["lightgbm", "popularity"]}
    result = experiments.run(changed(small, **both, serve="popularity"), tmp_path / "run")
    assert result.bundle.manifest.model.name == "popularity"
    for settings in (changed(small, **both), changed(small, **both, serve="lightgbm")):
        with pytest.raises(ConfigError, match="a bundle holds a model of weights, found boosted trees"):
            experiments.run(settings, tmp_path / "other")


def test_an_unknown_name_is_refused_with_the_models(small: RunSettings):
    with pytest.raises(
        ConfigError, match="serve must name one of `models`, mgoe, shared-bottom, found 'mgo'"
    ):
        changed(small, serve="mgo")
