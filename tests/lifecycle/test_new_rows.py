"""New rows are read and checked once, whatever an update needs them for."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe.bundle import Bundle
from mgoe.bundle.held import FILES, read_held
from mgoe.lifecycle import Bounds, CycleSettings, Registry, Sources, new_rows, run_cycle, update
from mgoe.lifecycle.bundle_update import Weights
from mgoe.lifecycle.new_rows import NewRows
from tests.lifecycle.test_update_from_files import later

LENIENT = Bounds(margin=1, error=1e6, calibration=1e6, latency=1e3, requests=3)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places of the logs that are read, in this order."""
    places, checked = list[str](), new_rows.checked_rows

    def noted(source: Any, settings: Any, place: str) -> Any:
        places.append(place)
        return checked(source, settings, place)

    monkeypatch.setattr(new_rows, "checked_rows", noted)
    return places


@pytest.mark.parametrize("weights", ["keep", "continue"])
def test_an_update_reads_its_rows_once(
    weights: Weights, finished: Path, world: Path, tmp_path: Path, read: list[str]
):
    new = str(later(world / "events", tmp_path / "new.parquet"))
    update(finished / "bundle", Sources(new), tmp_path / "bundle", weights=weights, groups="keep")
    assert read == [new]


def test_a_round_learns_the_rows_that_no_round_has_learned(registry: Registry, world: Path, tmp_path: Path):
    new = str(later(world / "events", tmp_path / "new.parquet"))
    settings = CycleSettings(registry=registry.path, log=[new], weights="keep", rows=100, bounds=LENIENT)
    assert run_cycle(settings, lambda step: None) == 0
    more = pd.read_parquet(new)
    days = more["timestamp"].max() - more["timestamp"].min() + pd.Timedelta(days=1)
    more = pd.concat([more, more.assign(timestamp=more["timestamp"] + days)])
    more.to_parquet(new)
    assert run_cycle(settings, lambda step: None) == 0
    first, made = (Bundle.open(registry.place(alias)) for alias in ("current", "candidate"))
    half = more["behavior"].isin(["click", "buy"]).sum() // 2
    assert made.graph.manifest.events - first.graph.manifest.events == half
    ends = [read_held(one.path)[FILES].last or 0 for one in (first, made)]
    assert ends == sorted(set(ends)), "the files that are held end later"


def test_weights_of_rows_are_read_in_training_alone(shown: Path, world: Path, tmp_path: Path):
    """Two rows of one exposure that differ in their weight alone count once in the graph."""
    rows = pd.read_parquet(later(world / "exposures", tmp_path / "new.parquet")).assign(w=2.0)
    rows.to_parquet(tmp_path / "new.parquet")
    bundle = Bundle.open(shown / "bundle")
    bundle.settings = bundle.settings.model_copy(
        update={"data": bundle.settings.data.model_copy(update={"weight": "w"})}
    )
    for trains in (False, True):
        new = NewRows.of(bundle, Sources(str(tmp_path / "new.parquet")), tmp_path, trains=trains)
        examples = new.examples(bundle.encoders if trains else None)
        assert examples is not None
        assert set(examples.weight) == ({2.0} if trains else {1.0})
        with new.parts[0].opened(tmp_path) as (found, _):
            assert "weight" not in found.columns
