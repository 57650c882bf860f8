"""What a run will take, what is refused beforehand, and that it can be forced."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest

from mgoe import experiments
from mgoe._util.files import GIB
from mgoe.config import RunSettings, make_settings
from mgoe.data.size import LogSize
from mgoe.errors import ConfigError, GraphError, MgoeError, OutputError
from mgoe.experiments import costs, forecast
from mgoe.experiments.forecast import Forecast, announce, foresee
from mgoe.features.moments import WindowMoments
from mgoe.models import PRESETS
from mgoe.pipeline.stages import build, prepare_data

DAYS = 100


def log_of(rows: int) -> LogSize:
    """The size of a log with a fifth of its rows per pair, and as many rows every day."""
    each = np.full(DAYS, rows // DAYS)
    return LogSize(rows // 50, rows // 250, rows // 5, np.arange(DAYS), each, each, each)


def settings(**changes: object) -> RunSettings:
    raw = {"data": {"log": "absent.parquet"}, "tasks": ["click", "buy"], "models": ["mgoe"]}
    return make_settings(raw | {"split": {"cuts": [0.8, 0.9, 0.95]}} | changes)


@pytest.fixture
def forecast_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Forecasts a run on a log of so many rows, which nobody reads."""

    def call(rows: int, **changes: object) -> Forecast:
        monkeypatch.setattr(LogSize, "of", lambda settings: log_of(rows))
        return foresee(settings(**changes), tmp_path / "run")

    return call


def test_a_forecast_covers_what_is_built(world: Path, tmp_path: Path):
    """Of what is stored: arrays of snapshots and of moments, without the headers of their files."""
    whole = settings(data={"log": str(world / "events"), "history": "moment"})
    prepared = prepare_data(whole, tmp_path)
    graph = build(whole, prepared, tmp_path / "graph")
    for moments in WindowMoments(prepared, graph).values():
        assert len(moments.share) == 2
    found = foresee(whole, tmp_path)
    kept, before = dict[str, float](), 0.0
    for stage in found.stages:
        stays = stage.disk_gib * GIB - costs.COSTS[stage.stage].spilled * found.facts["rows"]
        kept[stage.stage], before = stays - before, stays

    def stored(folder: str) -> int:
        return sum(
            np.load(file, mmap_mode="r").nbytes for file in (tmp_path / "graph" / folder).rglob("*.npy")
        )

    table = costs.COSTS["training"].kept["cells"]
    assert stored("snapshots") < kept["graph"] < 2 * stored("snapshots")
    assert stored("moments") < kept["training"] - table < 2 * stored("moments")


EXPOSURES = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy"}]


@pytest.mark.parametrize("tasks", [["click", "buy"], EXPOSURES], ids=["events", "exposures"])
def test_more_rows_take_no_less_of_anything(forecast_of, tasks: object):
    found = [forecast_of(rows, tasks=tasks) for rows in (10**5, 10**6, 10**7, 10**8)]
    assert [stage.stage for stage in found[0].stages] == list(costs.COSTS)
    for less, more in itertools.pairwise(found):
        for one, other in zip(less.stages, more.stages, strict=True):
            for name, value in vars(one).items():
                assert name == "stage" or getattr(other, name) >= value, (one.stage, name)
        assert more.facts["seconds"] > less.facts["seconds"]


def test_models_seeds_and_epochs_take_time(forecast_of):
    def of(stage: str, **changes: object) -> float:
        [one] = [one for one in forecast_of(10**7, **changes).stages if one.stage == stage]
        return one.cpu_seconds - costs.COSTS[stage].seconds["start"]

    once = of("training", training={"epochs": 1})
    assert of("training", training={"epochs": 3}) == pytest.approx(3 * once)
    assert of("training", training={"epochs": 1}, seeds=[0, 1]) == pytest.approx(2 * once)
    assert of("training", training={"epochs": 1}, models=["mgoe", "home"]) == pytest.approx(3 * once)
    own = [{"name": "more", "base": "mgoe", "training": {"epochs": 2}}]
    assert of("training", training={"epochs": 1}, models=own) == pytest.approx(2 * once)
    few = of("training", training={"epochs": 1, "rows": 1_000_000})
    assert few < once
    assert of("evaluation", evaluation={"ranking_queries": 0}) < of("evaluation")
    assert of("graph", split={"cuts": [0.3, 0.5, 0.8, 0.9, 0.95]}) > of("graph")


def test_a_row_of_exposures_takes_longer_than_one_of_events(forecast_of):
    events, shown = (forecast_of(10**7, tasks=tasks).stages for tasks in (["click", "buy"], EXPOSURES))
    for one, other in zip(events, shown, strict=True):
        if one.stage in ("training", "evaluation"):
            assert other.cpu_seconds / other.rows > 1.1 * one.cpu_seconds / one.rows


def test_every_model_has_a_cost(forecast_of):
    assert forecast_of(10**6, models=list(PRESETS)).facts["seconds"] > 0
    assert set(costs.WEIGHTS) <= {model.base for model in PRESETS.values()}


def test_a_sketch_that_the_memory_cannot_hold_is_refused_in_the_words_of_the_build(forecast_of):
    found = forecast_of(10**9, graph={"rank": 1024}, memory=1)
    assert isinstance(found.excluded, GraphError)
    assert "the sketch must be learned in memory" in str(found.excluded)
    assert found.facts["excluded"] == str(found.excluded)
    assert forecast_of(10**7, memory=1).excluded is None


def test_what_the_machine_cannot_hold_is_refused(forecast_of, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecast, "machine_memory", lambda: 1 << 30)
    assert isinstance(forecast_of(10**9, memory=64).excluded, GraphError)
    assert forecast_of(10**8, models=["mgoe"], graph={"sample": 20_000}).excluded is None
    found = forecast_of(
        10**8, models=[{"name": "wide", "base": "mmoe", "options": {"width": 512}}], graph={"sample": 20_000}
    )
    assert isinstance(found.excluded, ConfigError)
    assert "the machine must hold the table of ids, 3.8 GiB at least, found 1.0 GiB" in str(found.excluded)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with 100 MiB free."""
    usage = forecast.shutil.disk_usage("/")
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage._replace(free=100 << 20))


@pytest.mark.usefixtures("little")
def test_a_disk_that_is_too_small_is_refused(forecast_of, tmp_path: Path):
    found = forecast_of(10**7)
    assert isinstance(found.excluded, OutputError)
    text = (
        "the disk must hold 4 snapshots of the graph, one per cut and the last, at least 0.5 GiB, found 0.1"
    )
    assert text in str(found.excluded)
    assert forecast_of(10**6).excluded is None
    (tmp_path / "run" / "data").mkdir(parents=True)
    assert forecast_of(10**7).excluded is None  # its own files are there already
    assert foresee(settings(), tmp_path / "run", replaces=True).excluded is not None


@pytest.mark.usefixtures("little")
def test_a_run_says_beforehand_what_it_takes(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: pytest.LogCaptureFixture
):
    whole = settings(data={"log": str(world / "events")})
    monkeypatch.setattr(LogSize, "of", lambda settings: pytest.fail("a small log is not scanned"))
    announce(whole, tmp_path / "run", replaces=False, force=False)
    monkeypatch.setattr(forecast, "SMALL", 0)
    monkeypatch.setattr(LogSize, "of", lambda settings: log_of(10**7))
    with pytest.raises(OutputError, match="the disk must hold"):
        experiments.run(whole, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(forecast, "slowness", lambda: 60.0)
    announce(whole, tmp_path / "run", replaces=False, force=True)
    assert "GiB of memory and" in said.text
    assert " h, " in said.text
    said.clear()
    logging.getLogger("mgoe").setLevel(logging.WARNING)  # as without progress
    announce(whole, tmp_path / "run", replaces=False, force=True)
    assert not said.text
    (tmp_path / "run" / "data").mkdir(parents=True)
    announce(whole, tmp_path / "run", replaces=False, force=False)  # it has begun


def test_a_mistake_is_left_to_the_stage_that_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(forecast, "SMALL", 0)
    announce(settings(), tmp_path, replaces=False, force=False)
    with pytest.raises(MgoeError, match="no such file"):
        foresee(settings(), tmp_path)


def test_a_machine_is_compared_with_that_of_the_costs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(costs, "repeat", lambda work, **_: [work() is None or 0.5, 2.0])
    monkeypatch.setattr(costs, "REFERENCE", {"memory": 0.5, "arithmetic": 2.0})
    assert costs.slowness() == pytest.approx(0.5)
