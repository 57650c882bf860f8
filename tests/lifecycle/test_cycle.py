"""A cycle tests before it learns, and ends as if it had never been killed."""

import json
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from typer.testing import CliRunner

from mgoe._util.files import read_json
from mgoe.bundle import MANIFEST, Bundle
from mgoe.cli.app import app
from mgoe.errors import BundleError, ConfigError, DataError
from mgoe.lifecycle import (
    CycleSettings,
    Registry,
    Release,
    Sources,
    load_cycle,
    run_cycle,
    window_of,
)
from mgoe.lifecycle.acceptance import Bounds
from mgoe.serving import Consumer, open_log
from tests.effort import SOAK
from tests.lifecycle.fakes import write
from tests.lifecycle.test_update import stream
from tests.lifecycle.test_update_from_files import later

ROUNDS = 20 if SOAK else 3


class World:
    """A log of one text per day, and bundles of a few bytes that learn from it: their text is the days."""

    def __init__(self, folder: Path, refused: Sequence[str] = ()):
        self.folder, self.refused = folder, refused
        self.settings = CycleSettings(
            registry=folder / "bundles", log=["log"], rows=1, keep=2, weights="keep"
        )
        self.registry = Registry(self.settings.registry)
        write(folder / "first", "0")
        self.registry.promote(self.registry.add(folder / "first"))

    def days(self, bundle: Path) -> list[str]:
        return (bundle / "weights").read_text().split()

    def window(
        self, candidate: Bundle, current: Bundle, sources: Sources, folder: Path
    ) -> tuple[Sequence[str], Sequence[str]] | None:
        self.read_in = folder
        learned = {*self.days(candidate.path), *self.days(current.path)}
        new = [day for day in self.log if day not in learned]
        return (new, new) if new else None

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().split()

    def update(self, bundle: Path, rows: Sources, out: Path, **_: Any) -> None:
        work = out.with_name("unfinished")
        shutil.rmtree(work, ignore_errors=True)
        text = " ".join(self.log)
        write(work, text, Bundle.open(bundle).name, "refreshed")
        os.replace(work, out)

    def check(self, candidate: Bundle, current: Bundle, window: Any, bounds: Bounds) -> Release:
        approved = self.days(candidate.path)[-1] not in self.refused
        return Release(
            candidate=candidate.name, baseline=current.name, time="", rows=len(window[0]), approved=approved,
            reasons=[] if approved else ["auc"], bounds=bounds,
        )  # fmt: skip

    def run(self) -> tuple[int, list[dict[str, Any]]]:
        steps: list[dict[str, Any]] = []
        return run_cycle(self.settings, steps.append), steps

    @property
    def outcome(self) -> list[tuple[str, list[str]]]:
        """What each alias has learned."""
        return [
            (alias, self.days(self.registry.place(name))) for alias, name in self.registry.aliases.items()
        ]


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a world in the place of what reads logs and learns."""

    def patch(world: World) -> World:
        monkeypatch.setattr("mgoe.lifecycle.cycle.window_of", world.window)
        monkeypatch.setattr("mgoe.lifecycle.cycle.check_release", world.check)
        monkeypatch.setattr("mgoe.lifecycle.cycle.prepare", lambda _: None)
        monkeypatch.setattr("mgoe.lifecycle.cycle.update", world.update)
        return world

    return patch


def test_a_round_tests_what_waits_and_then_learns(patched: Any, tmp_path: Path):
    world = patched(World(tmp_path, refused=["2"]))
    outcomes = []
    for day in range(1, 5):
        (tmp_path / "log").write_text(" ".join(map(str, range(day + 1))))
        code, steps = world.run()
        outcomes.append((code, [step["step"] for step in steps]))
        assert world.run()[0] == 4, "nothing new"
    assert outcomes == [
        (0, ["collect", "prune", "learn"]),
        (0, ["collect", "test", "promote", "prune", "learn"]),
        (3, ["collect", "test", "hold", "prune", "learn"]),
        (0, ["collect", "test", "promote", "prune", "learn"]),
    ]
    learned = dict(world.outcome)
    assert learned["current"] == list("0123")
    assert learned["candidate"] == list("01234")
    assert learned["previous"] == list("01")
    assert [one.trained for one in world.registry.lineage("candidate")][-1] == "full"


def test_a_rollback_stays_undone_by_no_round(patched: Any, tmp_path: Path):
    """What waits was made from the version that was rolled back, and learns no further."""
    world, log = patched(World(tmp_path)), tmp_path / "log"
    for days in ("0 1", "0 1 2"):
        log.write_text(days)
        assert world.run()[0] == 0
    assert dict(world.outcome) == {"previous": ["0"], "current": list("01"), "candidate": list("012")}
    world.registry.rollback()
    for days in ("0 1 2 3", "0 1 2 3 4"):
        assert world.registry.aliases.get("candidate") is None or days.endswith("4")
        log.write_text(days)
        code, steps = world.run()
        assert code == 0
    assert [step["step"] for step in steps] == ["collect", "test", "promote", "prune", "learn"]
    assert dict(world.outcome) == {"previous": ["0"], "current": list("0123"), "candidate": list("01234")}
    assert [one.trained for one in world.registry.lineage("current")] == ["refreshed", "full"]


def test_a_version_that_is_rolled_back_while_a_round_learns_from_it_has_no_child(
    patched: Any, tmp_path: Path, monkeypatch: Any
):
    world = patched(World(tmp_path))
    for days in ("0 1", "0 1 2"):
        (tmp_path / "log").write_text(days)
        assert world.run()[0] == 0

    def interrupted(*given: Any, **more: Any) -> None:
        world.update(*given, **more)
        world.registry.rollback(reason="clicks fell")

    (tmp_path / "log").write_text("0 1 2 3")
    with monkeypatch.context() as patch:
        patch.setattr("mgoe.lifecycle.cycle.update", interrupted)
        with pytest.raises(BundleError, match=r"is rejected: made from .*, clicks fell; allow it first"):
            world.run()
    assert dict(world.outcome) == {"current": list("01")}
    assert world.run()[0] == 0
    assert dict(world.outcome) == {"current": list("01"), "candidate": list("0123")}
    assert not list((world.settings.registry / ".cycle").iterdir())


def test_a_held_candidate_is_explained_once(patched: Any, tmp_path: Path, monkeypatch: Any):
    world = patched(World(tmp_path, refused=["1"]))
    (tmp_path / "log").write_text("0 1")
    assert world.run()[0] == 0
    (tmp_path / "log").write_text("0 1 2")
    told: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr("mgoe.lifecycle.cycle.update", refuse)
        for _ in range(3):
            with pytest.raises(DataError, match="row 3"):
                run_cycle(world.settings, told.append)
    assert [step["step"] for step in told if step["step"] in ("test", "hold")] == ["test", "hold"]
    assert [step["step"] for step in told[-3:]] == ["collect", "held", "prune"]
    assert [step["reasons"] for step in told if "reasons" in step] == [["auc"]]
    candidate = world.registry.aliases["candidate"]
    (tmp_path / "log").write_text("0 1")
    for _ in range(2):
        code, steps = world.run()
        assert (code, [step["step"] for step in steps]) == (4, ["collect", "held"])
        assert steps[-1]["version"] == candidate
    (tmp_path / "log").write_text("0 1 2")
    code, steps = world.run()
    assert (code, [step["step"] for step in steps]) == (0, ["collect", "held", "prune", "learn"])
    assert dict(world.outcome) == {"current": ["0"], "candidate": list("012")}


def refuse(*_: Any, **__: Any) -> None:
    raise DataError("log, row 3", "an id must be given")


def test_a_cycle_that_is_killed_ends_as_if_it_had_not_been(patched: Any, tmp_path: Path):
    drawn = random.Random(0)
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    killed, whole = (World(tmp_path / name, refused=["2"]) for name in ("killed", "whole"))
    for day in range(1, ROUNDS + 1):
        for world in (killed, whole):
            (world.folder / "log").write_text(" ".join(map(str, range(day + 1))))
        patched(whole).run()
        patched(killed)
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                number = os.fork()
            if not number:
                try:
                    killed.run()
                finally:
                    os._exit(0)
            time.sleep(drawn.random() * 0.03)
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
        killed.run()
        assert killed.outcome == whole.outcome
    assert not list((killed.settings.registry / ".cycle").glob("*")), "nothing is left over"


def test_rows_that_a_killed_round_was_reading_do_not_stay(patched: Any, tmp_path: Path):
    world, work = patched(World(tmp_path)), tmp_path / "bundles" / ".cycle"
    (tmp_path / "log").write_text("0")
    (work / "mgoe-abcd").mkdir(parents=True)
    (work / "mgoe-abcd" / "rows.parquet").write_text("rows of users")
    assert world.run()[0] == 4, "nothing is new, so nothing is learned"
    assert world.read_in == work
    assert not [*work.iterdir()]


def test_a_mistake_in_the_rows_is_no_reason_to_start_over(patched: Any, tmp_path: Path, monkeypatch: Any):
    world = patched(World(tmp_path))
    (tmp_path / "log").write_text("0 1")

    with monkeypatch.context() as patch:
        patch.setattr("mgoe.lifecycle.cycle.update", refuse)
        with pytest.raises(DataError, match="row 3"):
            world.run()
    assert world.run()[0] == 0
    assert dict(world.outcome)["candidate"] == ["0", "1"]


def test_settings_that_cannot_be_followed_are_refused(tmp_path: Path):
    file = tmp_path / "cycle.yaml"
    for text, message in {
        "registry: bundles": "reads either `log` or `state`, found both or none",
        "{registry: bundles, log: a, state: b}": "reads either `log` or `state`",
        "{registry: bundles, log: a, margin: 1}": "margin",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_cycle(file)
    file.write_text(f"{{registry: {tmp_path / 'none'}, log: a}}")
    with pytest.raises(BundleError, match="holds no registry"):
        run_cycle(load_cycle(file), print)


def test_two_rounds_of_a_real_log(registry: Registry, world: Path, tmp_path: Path):
    rows = pd.read_parquet(later(world / "events", tmp_path / "later.parquet"))
    half = rows["timestamp"] < rows["timestamp"].quantile(0.5)
    (tmp_path / "log").mkdir()
    (tmp_path / "cycle.yaml").write_text(
        f"{{registry: {registry.path}, log: {tmp_path / 'log'}, rows: 100, weights: keep, "
        "bounds: {requests: 3, latency: 10}}"
    )
    first, steps = registry.aliases["current"], []
    for part, name in ((rows[half], "1.parquet"), (rows[~half], "2.parquet")):
        part.to_parquet(tmp_path / "log" / name)
        result = CliRunner().invoke(app, ["cycle", str(tmp_path / "cycle.yaml")])
        assert result.exit_code in (0, 3), result.output
        steps.append([json.loads(line)["step"] for line in result.stdout.splitlines()])
    assert steps[0] == ["collect", "prune", "learn"]
    assert steps[1][:2] == ["collect", "test"]
    assert [one.trained for one in registry.lineage("candidate")][-1] == "full"
    assert registry.lineage("candidate")[-1].name == first
    tested = [
        version for version in registry.versions if (registry.place(version.name) / "release.json").exists()
    ]
    assert len(tested) == 1


@pytest.mark.parametrize("full", ["never", "when due"])
def test_a_full_training_that_is_due_is_said_and_done_if_the_settings_want_it(
    full: Literal["never", "when due"], own: Path, world: Path, tmp_path: Path
):
    manifest = read_json(own / MANIFEST) | {"due": ["the log has gone on for 40 days"]}
    (own / MANIFEST).write_text(json.dumps(manifest))
    registry, first = Registry(tmp_path / "bundles"), Bundle.open(own, verify=False)
    registry.promote(registry.add(own))
    log = [str(later(world / "events", tmp_path / "later.parquet"))]
    settings = CycleSettings(registry=registry.path, log=log, weights="keep", rows=100, full=full)
    steps: list[dict[str, Any]] = []
    assert run_cycle(settings, steps.append) == 0
    due, learned = steps[-2:]
    assert (due["step"], due["reasons"]) == ("due", ["the log has gone on for 40 days"])
    assert due["full"] == (full == "when due")
    made = Bundle.open(registry.place("candidate"))
    assert learned["trained"] == made.manifest.lineage.trained == ("full" if due["full"] else "refreshed")
    assert learned["parent"] == (None if due["full"] else first.name)
    assert made.settings.data.log == [*first.settings.data.log, *log]
    new = pd.read_parquet(log[0])["behavior"].isin(["click", "buy"]).sum()
    assert made.graph.manifest.events == first.graph.manifest.events + new
    assert not list((registry.path / ".cycle").iterdir())


def test_live_events_are_learned_once(registry: Registry, tmp_path: Path):
    """A candidate says how much of the log it has learned, so no round and no service counts it twice."""
    current = Bundle.open(registry.place("current"))
    log = open_log(tmp_path / "state")
    where = {"registry": registry.path, "state": str(tmp_path / "state"), "retention": "30d"}
    settings, steps = CycleSettings(**where, weights="keep", rows=100), list[dict[str, Any]]()
    log.append(stream(current, 300))
    assert run_cycle(settings, steps.append) == 0
    assert [step["step"] for step in steps] == ["collect", "prune", "trim", "learn"]
    assert steps[2]["events"] == "", "the first version is of files"
    assert run_cycle(settings, lambda step: None) == 4, "nothing new"
    candidate = Bundle.open(registry.place("candidate"))
    assert candidate.graph.manifest.changes[-1]["events"] > 0
    assert Consumer.of(log, candidate).live.stats["events"] == 0
    log.append(stream(current, 300, seed=1))
    found = window_of(candidate, current, Sources(events=tmp_path / "state"))
    assert found is not None
    assert 200 < len(found[0]) == len(found[1])


def test_the_examples_are_valid():
    for example in (Path(__file__).parents[2] / "examples" / "serving").glob("*/cycle.yaml"):
        assert load_cycle(example).bounds == Bounds()
