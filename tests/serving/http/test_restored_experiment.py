"""Kills, a new bundle of an arm, restores and erasures in random order: no unit moves to another arm, and log
and report of an experiment hold each acknowledged answer once, and nobody who was erased."""

import json
import os
import shutil
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

import mgoe
from mgoe.abtest.check import check
from mgoe.abtest.report import make_report
from mgoe.abtest.samples import collect, read_answers, read_rows
from mgoe.config import load_experiment
from mgoe.config.assignment import arm_of
from mgoe.lifecycle import Registry
from mgoe.lifecycle.erasure import erase
from mgoe.lifecycle.taken import export
from mgoe.serving.events.answer_log import write_answers
from mgoe.serving.events.log import DAY
from tests.cli.test_serve import process
from tests.effort import SOAK
from tests.lifecycle.test_acceptance import changed, enlarge_weights
from tests.serving.http.test_live_service import until
from tests.serving.machine import Machine, needs
from tests.serving.served import post

STEPS = ("kill", "swap", "restore", "erase")
ROUNDS = 3 if SOAK else 1
"""How often each step is done."""
USERS = 60
TASK = "click"


class Shown(NamedTuple):
    """An acknowledged answer, and what was acknowledged of its exposures."""

    user: str
    arm: str
    version: str
    items: tuple[str, ...]
    clicks: int


class Backup(NamedTuple):
    """Where a backup is, and the acknowledged answers and open requests when it was made."""

    place: Path
    known: dict[str, Shown]
    open: set[str]


class Shop:
    """A service with an experiment on a machine of its own, and what a client knows of it.

    Attributes:
        known: Acknowledged answers, by their request.
        open: Requests that were never answered.
        erased: Users.
    """

    def __init__(self, folder: Path, bundle: Path, seed: int):
        self.draws, self.folder, self.machine = np.random.default_rng(seed), folder, Machine(folder, {})
        self.registry, self.state = Registry(folder / "place" / "bundles"), folder / "place" / "state"
        self.registry.promote(self.registry.add(bundle))
        self.versions = [changed(bundle, folder / name, enlarge_weights).path for name in ("one", "two")]
        self.link, self.file, self.backups = folder / "daily", folder / "experiment.yaml", 0
        self.swap()
        arms = [{"name": "frozen", "share": 0.5}, {"name": "daily", "share": 0.5, "bundle": str(self.link)}]
        self.file.write_text(json.dumps({"id": "one", "arms": arms}))
        users = mgoe.load(bundle).encoders.users.ids(np.arange(USERS)).to_pylist()
        self.users, self.erased = [*map(str, users)], set[str]()
        self.known, self.open, self.asked = dict[str, Shown](), set[str](), 0

    def ask(self, url: str, users: list[str]) -> None:
        """Ask for some users, each with a retry now and then, and say what was shown and clicked."""
        for user in users:
            request, clicks = self.request(), int(self.draws.integers(3))
            body = self.recommended(url, request, user)
            if self.draws.random() < 0.2:
                body = self.recommended(url, request, user)  # it is asked again
            shown = {"request": request, "user": user}
            record = {
                "exposures": [shown | {"item": item} for item in body["items"]],
                "labels": [
                    shown | {"item": item, "labels": {TASK: int(place < clicks)}}
                    for place, item in enumerate(body["items"])
                ],
            }
            assert post(url + "/v1/events", json=record).json()["refused"] == 0
            self.known[request] = self.known[request]._replace(clicks=clicks)

    def request(self) -> str:
        self.asked += 1
        return f"request{self.asked}"

    def recommended(self, url: str, request: str, user: str) -> dict[str, Any]:
        """Ask for a list, and note that it was asked for, and then what was acknowledged."""
        self.open.add(request)
        found = post(
            url + "/v1/recommend", json={"user": user, "k": 3}, headers={"X-Request-Id": request}
        ).json()
        items = tuple(map(str, found["items"]))
        self.known[request] = Shown(user, found["arm"], found["bundle"], items, 0)
        self.open.discard(request)
        return found

    def kill(self, url: str, running: Any) -> None:
        """Kill the service while clients ask."""
        before, done = len(self.known), list[threading.Thread]()

        def ask(user: str) -> None:
            with suppress(httpx.TransportError):
                while True:
                    self.recommended(url, self.request(), user)

        for user in [user for user in self.users if user not in self.erased][:4]:
            done.append(threading.Thread(target=ask, args=(user,)))
            done[-1].start()
        until(lambda: len(self.known) >= before + 8)
        running.kill()
        for thread in done:
            thread.join(120)

    def swap(self) -> None:
        """Let the arm's link lead to the other version."""
        self.versions.reverse()
        (new := self.folder / "new").symlink_to(self.versions[0])
        os.replace(new, self.link)

    def erase(self) -> None:
        user = str(self.draws.choice([user for user in self.users if user not in self.erased]))
        erase(self.registry.path, [user], state=self.state)
        self.erased.add(user)

    def back_up(self) -> Backup:
        """Back up what is known until now."""
        self.backups += 1
        out = self.folder / f"backup{self.backups}"
        self.machine.administer([f"examples/serving/backup.sh {self.registry.path} {self.state} {out}"])
        return Backup(out, dict(self.known), set(self.open))

    def restore(self, backup: Backup) -> None:
        """Lose everything, and restore a backup."""
        for folder in (self.registry.path, self.state):
            shutil.rmtree(folder)
        self.machine.administer(
            [f"examples/serving/restore.sh {backup.place} {self.registry.path} {self.state}"]
        )
        self.known, self.open = backup.known, backup.open

    def live(self, steps: list[str]) -> None:
        """Serve during some steps, of which a kill or a restore may be the last."""
        backup: Backup | None = None
        words = "--engine", "torch", "--experiment", self.file, "--state", self.state, "--no-access-log"
        with process(self.registry.path / "current", *words) as (running, url, _):
            self.ask(url, [user for user in self.users if user not in self.erased])
            for step in steps:
                if step == "kill":
                    self.kill(url, running)
                    break
                if step == "restore":
                    backup = self.back_up()
                else:
                    getattr(self, step)()
                self.ask(url, [user for user in self.users if user not in self.erased][::5])
        if backup is not None:
            self.restore(backup)

    def remembered(self) -> dict[str, Shown]:
        """Return the acknowledged answers to users who are not erased."""
        return {request: one for request, one in self.known.items() if one.user not in self.erased}

    def answers(self) -> Any:
        """Return the exported answers of the experiment."""
        write_answers(self.state, out := self.folder / "answers.parquet")
        return read_answers(out, "one")

    def rows(self) -> Any:
        """Return the exported exposures with their labels."""
        bundle, log = self.registry.path / "current", self.folder / "log.parquet"
        export(bundle, self.state, log, "exposures", now=time.time_ns() // 1000 + 3 * DAY)
        return read_rows(mgoe.load(bundle).settings, [str(log)])


@needs("flock", "tar")
@pytest.mark.parametrize("seed", range(10 if SOAK else 1))
def test_an_experiment_outlives_kills_swaps_restores_and_erasures(shown: Path, tmp_path: Path, seed: int):
    shop = Shop(tmp_path, shown / "bundle", seed)
    steps = [str(step) for step in shop.draws.permutation(STEPS * ROUNDS)]
    ends = [n + 1 for n, step in enumerate(steps) if step in ("kill", "restore")]
    experiment, metric = load_experiment(shop.file), f"{TASK} per unit"
    names = [arm.name for arm in experiment.arms]
    for first, last in pairwise([0, *ends, len(steps)]):
        shop.live(steps[first:last])
        known, answers, rows = shop.remembered(), shop.answers(), shop.rows()
        assert not {*answers["user"], *answers["unit"], *rows["user"]} & shop.erased
        logged = {
            row.request: (str(row.user), row.arm, row.version, tuple(row.items))
            for row in answers.itertuples()
        }
        assert len(logged) == len(answers), "each request counts once"
        assert {request: one[:4] for request, one in known.items()}.items() <= logged.items()
        assert logged.keys() <= known.keys() | shop.open
        arms = {one.user: names[arm_of(experiment, one.user) or 0] for one in known.values()}
        assert all(arms[user] == arm for user, arm, *_ in logged.values()), "no unit has moved"
        sample = collect(experiment, mgoe.load(shop.registry.path / "current").settings, answers, rows)
        report = make_report(experiment, sample, check(experiment, sample), metric)
        assert report.units == {name: [*arms.values()].count(name) for name in names}
        [line] = [one for one in report.lines if one.metric == metric and not one.cuped]
        for name, value in zip(names, (line.control, line.treated), strict=True):
            clicks = sum(one.clicks for one in known.values() if one.arm == name)
            assert value == pytest.approx(clicks / report.units[name])
