"""A day of a service in short: cycles, a rejection, a rollback, an erasure and a restore, under load.

No request fails, and in the end every acknowledged exposure counts once.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from mgoe.bundle import Bundle
from mgoe.lifecycle import CycleSettings, Registry, Sources, run_cycle, update
from mgoe.lifecycle.erasure import erase
from mgoe.serving.events.log import ServiceLog
from tests.effort import SOAK
from tests.lifecycle.load import Load, under_load
from tests.lifecycle.test_kills import LENIENT
from tests.lifecycle.test_taken import counted, counts_of, requests, take
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, served

SECOND = 1_000_000
PAUSE = 45.0 if SOAK else 0.5
"""Seconds of load between two steps of the day."""
REQUESTS = 60 if SOAK else 12
"""Requests of four exposures each that come before a round."""
Asked = dict[str, Any]


def endless(bundle: Bundle, without: Any) -> Iterator[Asked]:
    """Requests that no other equals, of all users but one."""
    for seed in count(1):
        for one in requests(bundle, 50, seed):
            for record in (*one["exposures"], *one["labels"]):
                record["time"] += 100 * seed  # rows that are equal in all but their request count once
            if one["exposures"][0]["user"] != without:
                yield one


class Shop(Load):
    """A client that reports what it has shown, and now and then the same again."""

    def send(self, client: httpx.Client) -> None:
        one = next(self.events)
        for _ in range(1 + (len(self.acknowledged) % 3 == 0)):
            answer = client.post("/v1/events", json=one)
            self.answers.append((answer.status_code, ""))
            assert answer.json()["refused"] == 0, answer.text
        self.acknowledged.append(one)


def of_user(bundle: Bundle, user: Any) -> np.ndarray:
    """What `counted` counts of one user."""
    return counted(bundle, int(bundle.indices("user", [user])[0]))


def test_a_day(shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mgoe.serving.events.log.CLOCK_SKEW", SECOND)  # exposures settle in a second
    monkeypatch.setattr("tests.lifecycle.load.SEND", 0.05)
    monkeypatch.setattr("tests.lifecycle.load.ASK", 0.05 if SOAK else 0.25)
    first, state = Bundle.open(shown / "bundle"), tmp_path / "state"
    registry = Registry(tmp_path / "bundles")
    registry.promote(registry.add(first.path))
    before = requests(first, 40)
    users = [one["exposures"][0]["user"] for one in before]
    erased = users[int(np.argmax(first.indices("user", users) >= 0))]
    ServiceLog(state / "log.sqlite", SECOND).close()
    take(state, first, before).close()
    rows = endless(first, erased)
    weights = "continue" if SOAK else "keep"
    settings = CycleSettings(
        registry=registry.path, state=str(state), weights=weights, rows=4 * REQUESTS, bounds=LENIENT
    )

    def cycle(service: Served, load: Load) -> None:
        """Wait for rows that have settled, and run a round."""
        log, end = ServiceLog(state / "log.sqlite", make=False), len(load.acknowledged) + REQUESTS
        until(lambda: len(load.acknowledged) > end)
        time.sleep(PAUSE)
        last = log.newest[0]
        until(lambda: log.settled() >= last)
        log.close()
        assert run_cycle(settings, lambda step: None) == 0
        answers_with(service, registry.aliases["current"])

    def answers_with(service: Served, version: str) -> None:
        until(lambda: service.rank(user=1, k=1)["bundle"] == version)

    def under_way(work: Callable[[Served, Load], None]) -> list[Asked]:
        """Serve under load while some work is done; return what was acknowledged."""
        with (
            served(registry.path / "current", state, window=SECOND) as service,
            under_load(service.url, rows, Shop) as load,
        ):
            work(service, load)
        return load.acknowledged

    def morning(service: Served, load: Load) -> None:
        cycle(service, load)
        cycle(service, load)
        good, bad = registry.aliases["current"], registry.aliases["candidate"]
        assert good != first.name
        registry.reject(bad, "somebody looked at it")
        cycle(service, load)
        assert registry.aliases["current"] == good, "the rejected candidate stays rejected"
        if SOAK:
            cycle(service, load)
            assert registry.aliases["current"] not in (good, bad)
        before_it = registry.aliases["previous"]
        assert registry.rollback() == before_it
        assert "candidate" not in registry.aliases, "it was made from what was rolled back"
        answers_with(service, before_it)
        erase(registry.path, [str(erased)], state=state)
        answers_with(service, registry.aliases["current"])
        assert registry.aliases["current"] not in (before_it, good)

    def loss() -> None:
        """Lose what has come since a backup, and restore it."""
        copy = tmp_path / "copy"
        shutil.copytree(registry.path, copy / "bundles", symlinks=True)
        shutil.copytree(state, copy / "state")
        assert under_way(cycle)
        for folder in (registry.path, state):
            shutil.rmtree(folder)
            shutil.copytree(copy / folder.name, folder, symlinks=True)

    def evening(service: Served, load: Load) -> None:
        for _ in range(3):  # the third promotes what the second has learned
            cycle(service, load)

    known = under_way(morning)
    if SOAK:
        loss()
        known += under_way(evening)
    log = ServiceLog(state / "log.sqlite", make=False)
    until(lambda: log.settled() >= log.newest[0])
    log.close()
    kept = [one for one in (*before, *known) if one["exposures"][0]["user"] != erased]
    last = update(registry.place("current"), Sources(events=state), tmp_path / "last", groups="keep")
    expected = counted(first) - of_user(first, erased) + counts_of(kept)
    assert counted(last).tolist() == expected.tolist()
