"""Mistakes around releases end in one sentence and exit code 2, and nothing that was there is lost."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe.bundle import Bundle
from mgoe.lifecycle import Bounds, CycleSettings, Registry
from tests.cli.conftest import Mgoe, mgoe
from tests.cli.test_bad_input import assert_refused
from tests.effort import SOAK
from tests.lifecycle.test_acceptance import changed, drop_context, drop_task
from tests.lifecycle.test_update_from_files import later
from tests.training.test_resume import file_size_limit

__all__ = ["mgoe"]
LENIENT = Bounds(margin=1, error=1e6, calibration=1e6, latency=1e3, requests=3)


@pytest.fixture(scope="module")
def new(world: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Events after those of the bundle."""
    return pd.read_parquet(later(world / "events", tmp_path_factory.mktemp("new") / "new.parquet"))


@contextmanager
def unchanged(registry: Registry) -> Iterator[None]:
    """Check that a registry stays as it is."""
    before = registry.changes, registry.versions
    yield
    assert (registry.changes, registry.versions) == before


def write_cycle(registry: Registry, folder: Path, rows: pd.DataFrame, **settings: Any) -> Path:
    """Write a log and the settings of a cycle that reads it."""
    rows.to_parquet(folder / "log.parquet")
    given = {"log": [str(folder / "log.parquet")], "weights": "keep", "rows": 100, "bounds": LENIENT}
    file = folder / "cycle.yaml"
    file.write_text(CycleSettings(registry=registry.path, **(given | settings)).model_dump_json())
    return file


def steps(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_a_log_that_overlaps_that_of_the_bundle(
    registry: Registry, mgoe: Mgoe, world: Path, new: pd.DataFrame, tmp_path: Path
):
    """Learning and a round leave out what was learned before."""
    old = pd.concat([pd.read_parquet(file) for file in sorted((world / "events").glob("*.parquet"))])
    both = pd.concat([old, new])
    config = write_cycle(registry, tmp_path, both)
    learned = mgoe(
        "update",
        registry.path / "current",
        "--log",
        tmp_path / "log.parquet",
        "--weights",
        "continue",
        "--out",
        tmp_path / "x",
    )
    assert learned.exit_code == 0
    assert "rows are left out: they are from before" in learned.stderr
    assert mgoe("cycle", config).exit_code == 0
    first, made = (
        Bundle.open(registry.place(alias)).graph.manifest.events for alias in ("current", "candidate")
    )
    assert made - first == new["behavior"].isin(["click", "buy"]).sum()


def test_a_gap_of_days_is_reported(registry: Registry, mgoe: Mgoe, new: pd.DataFrame, tmp_path: Path):
    moved = new.assign(timestamp=new["timestamp"] + pd.Timedelta("9D"))
    done = mgoe("cycle", write_cycle(registry, tmp_path, moved, weights="continue"))
    assert done.exit_code == 0
    assert "is a file missing?" in done.stderr


def test_a_label_that_changes_after_it_was_learned_changes_nothing(
    shown: Path, world: Path, mgoe: Mgoe, tmp_path: Path
):
    registry = Registry(tmp_path / "bundles")
    registry.promote(registry.add(shown / "bundle"))
    rows = pd.read_parquet(later(world / "exposures", tmp_path / "later.parquet"))
    config = write_cycle(registry, tmp_path, rows)
    assert mgoe("cycle", config).exit_code == 0
    registry.promote(force="a test")
    again = write_cycle(registry, tmp_path, rows.assign(click=1 - rows["click"], buy=0))
    with unchanged(registry):
        assert mgoe("cycle", again).exit_code == 4
        log = ("--log", tmp_path / "log.parquet")
        told = ("--weights", "continue", "--out", tmp_path / "x")
        assert_refused(mgoe("update", registry.path / "current", *log, *told), "holds every event")
        assert_refused(mgoe("registry", "test", registry.path, "previous", *log), "found none; wait for some")


def test_a_candidate_with_other_tasks_or_features_is_held(
    registry: Registry, shown: Path, mgoe: Mgoe, world: Path, tmp_path: Path
):
    """Whatever else is different about it, even the form of its log."""
    other = Registry(tmp_path / "other")
    other.promote(other.add(shown / "bundle"))

    def fewer(folder: Path, manifest: dict[str, Any]) -> None:
        drop_context(folder, manifest)
        drop_task(folder, manifest)

    changed(shown / "bundle", tmp_path / "fewer", fewer)
    exposed = pd.read_parquet(later(world / "exposures", tmp_path / "exposed.parquet"))
    events = pd.read_parquet(later(world / "events", tmp_path / "events.parquet"))
    tasks = "the tasks must be those of the current bundle"
    device = "features of the current bundle are missing: context device"
    form = "the log must be one of events"
    for at, candidate, rows, reasons in (
        (other, tmp_path / "fewer", exposed, [f"{tasks} (click, buy, stay), found click", device]),
        (
            registry,
            shown / "bundle",
            events,
            [form, f"{tasks} (click, buy), found click, buy, stay"],
        ),
    ):
        at.add(candidate)
        before = at.aliases["current"]
        held = mgoe("cycle", write_cycle(at, tmp_path, rows))
        assert held.exit_code == 3, held.output
        (test,) = (step for step in steps(held.stdout) if step["step"] == "test")
        for reason, found in zip(reasons, test["reasons"], strict=True):
            assert found.startswith(reason)
        assert at.aliases["current"] == before


def test_a_registry_without_a_current_version(finished: Path, mgoe: Mgoe, new: pd.DataFrame, tmp_path: Path):
    registry = Registry(tmp_path / "bundles")
    registry.add(finished / "bundle")
    config = write_cycle(registry, tmp_path, new)
    with unchanged(registry):
        assert_refused(mgoe("cycle", config), "has no current version; `mgoe registry promote` sets it")
        assert_refused(
            mgoe("serve", f"{registry.path}/current"),
            "holds no bundle (bundle.json is missing); `mgoe run` writes one into its output folder, and "
            "`mgoe registry promote` makes one the current version of a registry",
        )
        assert_refused(
            mgoe("registry", "test", registry.path, "--log", tmp_path / "log.parquet"), "no current"
        )


def test_a_clock_that_went_back_is_reported_and_loses_nothing(
    registry: Registry, mgoe: Mgoe, new: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, then = write_cycle(registry, tmp_path, new), new["timestamp"].min().timestamp()
    with monkeypatch.context() as patch, unchanged(registry):
        patch.setattr(time, "time_ns", lambda: int(then * 1e9))
        waiting = mgoe("cycle", config)
        assert waiting.exit_code == 4
        assert "later than the clock of this machine" in waiting.stderr
    assert mgoe("cycle", config).exit_code == 0


@pytest.mark.parametrize("weights", ["keep", "continue"] if SOAK else ["continue"])
def test_a_full_disk_ends_a_round_that_resumes_when_there_is_room(
    weights: str, registry: Registry, mgoe: Mgoe, new: pd.DataFrame, tmp_path: Path
):
    whole = Registry(shutil.copytree(registry.path, tmp_path / "whole", symlinks=True))
    assert mgoe("cycle", write_cycle(whole, tmp_path, new, weights=weights)).exit_code == 0
    config = write_cycle(registry, tmp_path, new, weights=weights)
    for size in (1_000, 30_000, 100_000) if not SOAK else range(1_000, 200_000, 10_000):
        with unchanged(registry), file_size_limit(size):
            full = mgoe("cycle", config)
        assert full.exit_code == 2, (size, full.output)
        *_, sentence = full.stderr.splitlines()
        assert sentence.startswith("mgoe: "), full.output
        assert "space" in sentence, (size, sentence)
    assert mgoe("cycle", config).exit_code == 0
    names = [Bundle.open(one.place("candidate")).manifest.lineage for one in (whole, registry)]
    assert names[0] == names[1]


def test_a_full_training_needs_files(registry: Registry, mgoe: Mgoe, tmp_path: Path):
    config = tmp_path / "cycle.yaml"
    config.write_text(f"{{registry: {registry.path}, state: {tmp_path / 'state'}, full: when due}}")
    with unchanged(registry):
        assert_refused(mgoe("cycle", config), "cycle.full", "name files by `log`")
