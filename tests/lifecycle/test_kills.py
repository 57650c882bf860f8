"""`mgoe cycle` is killed at random moments while a service runs under load.

Every answer is of a whole bundle, no acknowledged event is lost or counted twice, and every round ends as if
it had never been killed.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[serve]'")

from mgoe._util.files import read_json
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.held import read_held
from mgoe.cli.app import app
from mgoe.lifecycle import Bounds, CycleSettings, Registry, run_cycle
from mgoe.pipeline import serving_time
from mgoe.serving import Event, EventReader, LiveBundle, ServiceLog, open_log
from mgoe.training import WEIGHTS, load_checkpoint
from tests.cli.test_serve import process
from tests.effort import slow
from tests.lifecycle.conftest import by_torch
from tests.lifecycle.load import Load, endless, under_load
from tests.serving.http.test_live_service import until
from tests.serving.served import post

KILLS = int(os.environ.get("MGOE_KILLS", 100))
IN_A_ROW = 12
"""Kills after which a round is left alone, so that versions change."""
FIRST = 300
"""Events that are there before the service is."""
ROWS = 800
"""Rows that a round waits for: events, and what is sampled beside them."""
GRAPH = "graph/graph.json"
LENIENT = Bounds(margin=1, error=1e6, calibration=1e6, latency=1e3, requests=3)
"""Whatever the window, a candidate goes live."""
SETTLED = ServiceLog.wait
"""When exposures wait for no more labels."""
Pair = tuple[int | str, int | str]


def counts(bundle: Bundle) -> Counter[Pair]:
    """Interactions that the graph of a bundle holds, by ids of user and item."""
    pairs = bundle.graph.latest.arrays
    user = np.repeat(np.arange(len(pairs["pairs.indptr"]) - 1), np.diff(pairs["pairs.indptr"]))
    ids = zip(bundle.ids("user", user), bundle.ids("item", np.asarray(pairs["pairs.item"])), strict=True)
    return Counter(dict(zip(ids, pairs["pairs.events"].tolist(), strict=True)))


def interactions(bundle: Bundle, events: Sequence[Event]) -> Counter[Pair]:
    """Interactions of events, each counted once, by ids of user and item."""
    masks = EventReader.of(bundle).behaviors
    once = {event.id: event for event in events}.values()
    found = Counter[Pair]()
    for event in once:
        found[event.user, event.item] += masks[event.behavior].bit_count()
    return found


COMMANDS = multiprocessing.get_context("forkserver")
"""Starts processes that have imported this module already, so that a kill seldom hits an import."""
COMMANDS.set_forkserver_preload([__name__])


@dataclass
class Rounds:
    """Rounds of a registry, one killed process after the other, and the same rounds undisturbed.

    Attributes:
        folder: Holds the registry, the state of the service and temporary files of the rounds.
        first: What the registry had before any round.
        kills, ended: Numbers of killed processes and of rounds that have ended.
        length: Seconds that the last round took of those that were left alone.
    """

    folder: Path
    first: Bundle
    kills: int = 0
    ended: int = 0
    length: float = 10.0
    drawn: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / "bundles")

    def settings(self, registry: Path, state: Path) -> CycleSettings:
        return CycleSettings(registry=registry, state=str(state), rows=ROWS, keep=0, bounds=LENIENT)

    def begin(self) -> None:
        """Keep the registry as it is before a round."""
        shutil.copytree(self.registry.path, self.folder / "before" / "bundles", symlinks=True)

    def run(self, kill: bool) -> int | None:
        """Run the command, and kill it if asked to. Return its exit code; None if it was killed."""
        config = self.folder / "cycle.yaml"
        config.write_text(self.settings(self.registry.path, self.folder / "state").model_dump_json())
        running = COMMANDS.Process(target=cycle, args=(config, self.folder / "temporary", SETTLED))
        started = time.monotonic()
        running.start()
        if kill:
            running.join(self.drawn.uniform(0, self.length))
            running.kill()
        running.join(600)
        if running.exitcode == -signal.SIGKILL:
            self.kills += 1
            return None
        assert running.exitcode in (0, 4), (self.folder / "temporary" / "said").read_text()
        if running.exitcode == 0:
            self.length = time.monotonic() - started
        return running.exitcode

    def killed(self, load: Load) -> None:
        """Kill rounds under load, and end with one that promotes what the last one has learned."""
        self.begin()
        in_a_row = 0
        while self.kills < KILLS or not self.ended:
            known = self.registry.aliases.get("candidate")
            code = self.run(kill=in_a_row < IN_A_ROW and self.kills < KILLS)
            in_a_row = in_a_row + 1 if code is None else 0
            if self.registry.aliases.get("candidate") not in (None, known):  # None: killed after it promoted
                self.end()
                self.begin()
            print(f"{self.kills} kills, {self.ended} rounds, {len(load.answers)} answers", flush=True)
        while self.run(kill=False) != 0:
            time.sleep(1)

    def end(self) -> None:
        """Run the same round undisturbed over the same events, and compare."""
        candidate = Bundle.open(self.registry.place("candidate"))
        held, before = read_held(candidate.path), self.folder / "before"
        state = copy_events(
            self.folder / "state",
            before / "state",
            int(next(one.position for one in held.values() if one.position)),
        )
        assert run_cycle(self.settings(before / "bundles", state), lambda step: None) == 0
        undisturbed = Registry(before / "bundles")
        assert undisturbed.aliases["current"] == self.registry.aliases["current"]
        made = Bundle.open(undisturbed.place("candidate"))
        for one, other in zip(what_it_holds(made), what_it_holds(candidate), strict=True):
            assert one == other
        shutil.rmtree(before)
        self.ended += 1


def what_it_holds(bundle: Bundle) -> tuple[dict[str, Any], ...]:
    """Manifest with checksums, graph and weights, but for how long it took to make them."""
    manifest, graph = (read_json(bundle.path / name) for name in (MANIFEST, GRAPH))
    del manifest["checksums"][GRAPH], manifest["checksums"][WEIGHTS], graph["stages"], graph["seconds"]
    weights = load_checkpoint(bundle.path / WEIGHTS)[0]
    return manifest, graph, {name: one.tolist() for name, one in weights.items()}


def cycle(config: Path, temporary: Path, wait: Callable[[ServiceLog, int], int]) -> None:
    """Be the command `mgoe cycle`, which leaves here what it writes and prints."""
    ServiceLog.wait = wait  # type: ignore[method-assign]
    (temporary / "files").mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(temporary / "files")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(temporary / "kept")  # what torch keeps is nothing left over
    serving_time.Runtime = by_torch  # without an export, which takes half a minute
    said = os.open(temporary / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    app(["cycle", str(config)])


def copy_events(state: Path, out: Path, last: int) -> Path:
    """Copy the log of a service up to a position."""
    out.mkdir()
    with (
        closing(sqlite3.connect(state / "log.sqlite")) as log,
        closing(sqlite3.connect(out / "log.sqlite")) as copy,
    ):
        log.backup(copy)
        copy.execute("DELETE FROM records WHERE id > ?", (last,))
        copy.commit()
    return out


@slow
def test_a_cycle_that_is_killed_under_load(registry: Registry, finished: Path, tmp_path: Path):
    first = Bundle.open(finished / "bundle")  # the registry's own is pruned in time
    events, log = endless(first), open_log(tmp_path / "state")
    log.append(before := [event for _, event in zip(range(FIRST), events, strict=False)])
    rounds, served = Rounds(tmp_path, first), registry.path / "current"
    with process(served, "--engine", "torch", "--state", tmp_path / "state") as (_, url, lines):
        with under_load(url, events) as load:
            load.acknowledged += before
            rounds.killed(load)
        current = Bundle.open(registry.place("current")).name
        until(lambda: post(url + "/v1/rank", json={"user": 1, "k": 1}).json()["bundle"] == current, 300)
        check_answers(registry, load, lines)
        check_events(rounds, load, url)
    assert not list((registry.path / ".cycle").iterdir()), "nothing is left over"
    assert not list((tmp_path / "temporary" / "files").iterdir()), "nothing is left over"


def check_answers(registry: Registry, load: Load, lines: Sequence[str]) -> None:
    """No answer failed, and each is of a version that was current, every file of which has its checksum."""
    served = {name for _, name in load.answers if name}
    promoted = {change.version for change in registry.changes if change.action == "promote"}
    assert served <= promoted
    assert not [line for line in lines if json.loads(line)["event"] == "bundle refused"]


def check_events(rounds: Rounds, load: Load, url: str) -> None:
    """The graph of each version holds every acknowledged event up to its position once; the service counts
    the others."""
    log = open_log(rounds.folder / "state", make=False)
    for alias in ("current", "candidate"):
        bundle = Bundle.open(rounds.registry.place(alias))
        position = int(read_held(bundle.path)[log.identity].position)
        held = [event for place, event in log.read(limit=10**9) if int(place.position) <= position]
        assert counts(bundle) == counts(rounds.first) + interactions(rounds.first, held)
    sent = {event.id for _, event in log.read(limit=10**9)}
    assert {event.id for event in load.acknowledged} == sent
    current = Bundle.open(rounds.registry.place("current"))
    live = LiveBundle(current, log)
    users, items = current.ids("user", np.arange(20)), current.ids("item", np.arange(20))
    for user in users:
        answer = post(url + "/v1/score", json={"users": [user], "items": items}).json()["tasks"]
        expected = live.predict(user, items)
        for task in current.tasks:
            assert_allclose(answer[task], expected[task], rtol=0, atol=1e-5)
