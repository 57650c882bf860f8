"""`mgoe cycle` is killed at random moments while a service takes exposures and labels, all on Redis.

As `test_kills.py` for events in a folder: every round ends as if it had never been killed, and no
acknowledged exposure is lost or counted twice.
"""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mgoe.bundle import Bundle
from mgoe.bundle.held import exposures_of, read_held
from mgoe.lifecycle import CycleSettings, Registry, run_cycle
from mgoe.serving import LiveBundle, open_log
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.stores import with_query
from tests.cli.test_serve import process
from tests.effort import slow
from tests.lifecycle import test_kills
from tests.lifecycle.load import Load, under_load
from tests.lifecycle.test_kills import LENIENT, Rounds, check_answers, what_it_holds
from tests.lifecycle.test_taken import counted, counts_of, requests
from tests.serving.events.stores import Server
from tests.serving.http.test_live_service import until
from tests.serving.served import post

ROWS = 60
"""Exposures that a round waits for."""
WAIT = 5_000_000
"""Microseconds after which an exposure counts as settled: its labels come with it."""
PREFIX, BEFORE = "shop", "before"


def settle_soon(log: ServiceLog, delay: int) -> int:
    return WAIT


@dataclass
class Shows(Load):
    """Sends requests of four exposures with their labels; now and then the same ones again.

    Attributes:
        shown: What was acknowledged.
    """

    shown: list[dict[str, Any]] = field(default_factory=list)

    def send(self, client: httpx.Client) -> None:
        for request in itertools.islice(self.events, 8):
            for _ in range(1 + len(self.shown) % 3 // 2):
                answer = client.post("/v1/events", json=request)
                self.answers.append((answer.status_code, ""))
                assert answer.json()["refused"] == 0, answer.text
            self.shown.append(request)


@dataclass
class RedisRounds(Rounds):
    """The same with exposures on Redis.

    Attributes:
        url: Address of the server.
    """

    url: str = ""

    def settings(self, registry: Path, state: Path) -> CycleSettings:
        prefix = BEFORE if BEFORE in state.parts else PREFIX
        address = with_query(self.url, prefix=prefix, state=state)
        return CycleSettings(
            registry=registry, state=address, rows=ROWS, weights="keep", groups="keep", keep=0, bounds=LENIENT
        )

    def end(self) -> None:
        """Run the same round undisturbed over the same exposures, and compare."""
        candidate, before = Bundle.open(self.registry.place("candidate")), self.folder / BEFORE
        self.copy_keys(candidate)
        settings = self.settings(before / "bundles", before / "state")
        assert run_cycle(settings, lambda step: None) == 0
        undisturbed = Registry(before / "bundles")
        assert undisturbed.aliases["current"] == self.registry.aliases["current"]
        made = Bundle.open(undisturbed.place("candidate"))
        for one, other in zip(what_it_holds(made), what_it_holds(candidate), strict=True):
            assert one == other
        shutil.rmtree(before)
        self.ended += 1

    def copy_keys(self, candidate: Bundle) -> None:
        """Copy what Redis holds, the exposures up to where a bundle holds them."""
        log = open_log(with_query(self.url, prefix=PREFIX, state=self.folder / "state"))
        [(taken,)] = log._store.read("SELECT taken FROM exposures WHERE id = ?", (held(candidate, log),))
        client = log._server.client  # type: ignore[attr-defined]
        for key in client.keys(f"{BEFORE}:*"):
            client.delete(key)
        for key in client.keys(f"{PREFIX}:*"):
            client.copy(key, key.replace(PREFIX.encode(), BEFORE.encode(), 1))
        later = [at for at, _ in client.xrange(f"{BEFORE}:events", min=taken // 1000 + 1)]
        if later:
            client.xdel(f"{BEFORE}:events", *later)
        log.close()


def held(bundle: Bundle, log: ServiceLog) -> int:
    """The position up to which a bundle holds exposures."""
    return int(read_held(bundle.path)[exposures_of(log.identity)].position)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "redis")
    yield made
    made.kill()


@slow
def test_a_cycle_on_redis_that_is_killed_under_load(
    shown: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ServiceLog, "wait", settle_soon)
    monkeypatch.setattr(test_kills, "SETTLED", settle_soon)
    registry = Registry(tmp_path / "bundles")
    registry.promote(registry.add(shown / "bundle"))
    first, address = Bundle.open(shown / "bundle"), with_query(server.url, prefix=PREFIX)
    rounds = RedisRounds(tmp_path, first, url=server.url)
    words = ("--engine", "torch", "--redis", address, "--state", tmp_path / "state")
    with process(registry.path / "current", *words) as (_, url, lines):
        with under_load(url, iter(requests(first, 50_000)), Shows) as load:
            rounds.killed(load)
        current = Bundle.open(registry.place("current"))
        until(lambda: post(url + "/v1/rank", json={"user": 1, "k": 1}).json()["bundle"] == current.name, 300)
        check_answers(registry, load, lines)
        log = open_log(address)
        names = dict(log._store.read("SELECT id, substr(request, 2) FROM exposures"))
        by_name = {one["exposures"][0]["request"]: one for one in load.shown}
        assert sorted(names.values()) == sorted(4 * [*by_name])
        for bundle in (current, Bundle.open(registry.place("candidate"))):
            inside = {names[number] for number in names if number <= held(bundle, log)}
            learned = counts_of([by_name[name] for name in inside])
            assert counted(bundle) - counted(first) == pytest.approx(learned)
        live = LiveBundle(current, log)
        items = current.ids("item", np.arange(20))
        expected = live.predict([1] * 20, items)

        def agrees() -> bool:
            answer = post(url + "/v1/score", json={"users": [1], "items": items}).json()["tasks"]
            return all(np.allclose(answer[task], expected[task], rtol=1e-5, atol=1e-5) for task in answer)

        until(agrees, 60)  # a service counts exposures every ten seconds
    assert not list((registry.path / ".cycle").iterdir()), "nothing is left over"
