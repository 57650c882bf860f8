"""What a round of a cycle leaves for Prometheus."""

import time
from pathlib import Path
from typing import Any

import pytest

from mgoe._util.files import exclusive
from mgoe.errors import BusyError, ConfigError, DataError, OutputError
from mgoe.lifecycle.cycle import run_measured
from tests.lifecycle.test_cycle import World, patched

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus_client is not installed: pip install -e '.[serve]'"
)
__all__ = ["patched"]


def figures(file: Path) -> dict[str, float]:
    """The figures of a file by name, with the value of a label if there is one."""
    return {
        " ".join([sample.name.removeprefix("mgoe_"), *sample.labels.values()]): sample.value
        for family in parser.text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def result(file: Path) -> str:
    [name] = [name for name, value in figures(file).items() if name.startswith("cycle_result") and value]
    return name.removeprefix("cycle_result ")


def test_each_round_leaves_what_became_of_it(patched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world, file, log = patched(World(tmp_path, refused=["2"])), tmp_path / "cycle.prom", tmp_path / "log"
    began, said = time.time(), []
    for days in ("0 1", "0 1 2", "0 1 2 3", "0 1 2 3"):
        log.write_text(days)
        before = world.registry.aliases.get("candidate", "")
        run_measured(world.settings, lambda step: None, file)
        found, current = figures(file), world.registry.aliases["current"]
        held = {name for name, value in found.items() if name.startswith("cycle_held") and value}
        said.append((result(file), found["cycle_rows"], held == {f"cycle_held {before}"}))
        assert began - 1 <= found[f"current_timestamp_seconds {current}"] <= time.time()
        assert began <= found["cycle_end_timestamp_seconds"] <= time.time()
        assert 0 <= found["cycle_seconds"] <= time.time() - began
        assert len(found) == 9
    assert said == [("done", 1, False), ("done", 1, False), ("held", 1, True), ("waiting", 0, False)]

    def fail(*_: Any, **__: Any) -> None:
        raise DataError("log", "is broken")

    monkeypatch.setattr("mgoe.lifecycle.cycle.window_of", fail)
    with pytest.raises(DataError):
        run_measured(world.settings, lambda step: None, file)
    assert result(file) == "failed"
    before = file.read_bytes()
    other = exclusive(world.settings.registry / ".cycle", "a cycle", "runs")
    with other, pytest.raises(BusyError, match=r"another process \(number \d+\) runs a cycle there; wait"):
        run_measured(world.settings, lambda step: None, file)
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_written_is_an_error(patched: Any, tmp_path: Path):
    world, steps = patched(World(tmp_path)), []
    (tmp_path / "log").write_text("0 1")
    with pytest.raises(
        ConfigError, match=r"^--metrics: must be a file in a folder that exists, found '.*'; make"
    ):
        run_measured(world.settings, steps.append, tmp_path / "none" / "cycle.prom")
    assert steps == []
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        run_measured(world.settings, steps.append, tmp_path / "taken")
