"""A day of two deployments on one Redis: a shadow, an erasure, late records, a wrong prefix, a lost store.

Every count of it is exact: what requests are answered, what metrics say, and what store, versions and the
shadow's log hold.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import Result

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from mgoe.bundle import Bundle
from mgoe.bundle.held import NEW_STORE
from mgoe.config import CLOCK_SKEW
from mgoe.lifecycle import Registry
from mgoe.lifecycle.new_rows import learned_until
from mgoe.serving import Event, open_log
from mgoe.serving.events.log import every
from mgoe.serving.events.redis_server import RedisServer
from mgoe.serving.events.stores import with_query
from tests.cli.conftest import Mgoe
from tests.lifecycle.test_kills import LENIENT
from tests.lifecycle.test_late_events import counted
from tests.serving.events.stores import Server
from tests.serving.http import test_shadow
from tests.serving.http.test_live_service import until
from tests.serving.http.test_other_logs import store_of
from tests.serving.http.test_redis_service import detail
from tests.serving.served import Served, served

SECOND = 1_000_000
NEW, ANOTHER = 10**6, 10**6 + 1
"""Users whom no version knows at first."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


@dataclass
class Shop:
    """A deployment: a registry, a prefix of Redis and a folder of state.

    Attributes:
        seconds: By how many seconds its next event is after the log of its first bundle.
    """

    folder: Path
    server: Server
    first: Bundle
    mgoe: Mgoe
    seconds: int = 0
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.registry, self.state = Registry(self.folder / "bundles"), self.folder / "state"
        self.registry.promote(self.registry.add(self.first.path))
        self.url = with_query(self.server.url, prefix=self.folder.name)
        self.store = ("--redis", self.url, "--state", self.state)

    def serve(self, shadow: Path | None = None):
        return served(self.registry.path / "current", self.state, redis=self.url, shadow=shadow)

    def events(self, *users: int, at: int | None = None) -> list[dict[str, Any]]:
        """Return one click of each user, each at a moment of its own: after the log of the first bundle, or
        up to a moment."""
        found = []
        for user in users:
            self.seconds += 1
            time = learned_until(self.first) + self.seconds * SECOND if at is None else at - self.seconds
            moment = str(pd.Timestamp(time, unit="us"))
            found.append({"user": user, "item": 3, "behavior": "click", "time": moment})
        return found

    def users(self) -> Counter[int]:
        """How many events of each user the store holds."""
        log = open_log(self.url)
        found = Counter(int(event.user) for _, event in every(log))
        log.close()
        return found

    def version(self, alias: str = "current") -> Bundle:
        return Bundle.open(self.registry.place(alias))

    def noted(self) -> list[int]:
        """The users of the requests in the shadow's log, in their order."""
        return [int(one.user or "") for one in test_shadow.of_shadow(self.state)]

    def cycle(self, url: str) -> Result:
        """Run a round on a store."""
        settings = {"registry": str(self.registry.path), "weights": "keep", "groups": "keep", "rows": 1}
        bounds = {"bounds": LENIENT.model_dump()}
        (file := self.folder / "cycle.yaml").write_text(yaml.safe_dump(settings | bounds | {"state": url}))
        return self.mgoe("cycle", file)

    def round(self) -> list[str]:
        """Run a round on its own store, and return the steps."""
        done = self.cycle(with_query(self.url, state=self.state))
        assert done.exit_code == 0, done.output
        return [json.loads(line)["step"] for line in done.stdout.splitlines()]


def outcomes(answer: dict[str, Any]) -> list[str]:
    """What became of each record of a request, whose counts say the same."""
    said = [one["outcome"] for one in answer["outcomes"]]
    assert Counter(said) == Counter({name: answer[name] for name in ("accepted", "erased", "refused")})
    return said


def learned(bundle: Bundle, before: Bundle) -> int:
    """How many events more than another version one holds."""
    return bundle.graph.manifest.events - before.graph.manifest.events


def knows(bundle: Bundle, *users: int) -> list[bool]:
    return (bundle.indices("user", np.array(users)) >= 0).tolist()


def pairs(bundle: Bundle) -> int:
    """How many pairs of a user and an item a version holds."""
    return int(bundle.graph.latest.arrays["pairs.indptr"][-1])


def pairs_of(bundle: Bundle, user: int) -> int:
    """How many items a version holds for a user."""
    return int(np.diff(bundle.graph.latest.arrays["pairs.indptr"])[bundle.indices("user", [user])[0]])


def ask(shop: Shop, service: Served, *users: int) -> dict[str, float]:
    """Ask for a ranking per user, and return what became of all requests in the shadow."""
    until(lambda: test_shadow.taken(service))
    before = sum(test_shadow.counted(service).values())
    for user in users:
        assert service.rank(user=user, k=3)["bundle"] == shop.version().name
    until(lambda: sum(test_shadow.counted(service).values()) == before + len(users))
    return test_shadow.counted(service)


def is_refused(done: Result) -> bool:
    """Whether a command has refused what is another deployment's."""
    return done.exit_code == 2 and "is of the deployment" in " ".join(done.stderr.split())


def morning(shop: Shop, service: Served, gone: int, stays: int) -> None:
    """Events come, a round learns them, and its candidate is the shadow."""
    answer = service.add(*shop.events(gone, stays, NEW, gone), {"user": NEW})
    assert outcomes(answer) == ["accepted"] * 4 + ["refused"]
    assert shop.round() == ["collect", "prune", "learn"]
    candidate = shop.version("candidate")
    assert (learned(candidate, shop.first), knows(candidate, gone, stays, NEW)) == (4, [True] * 3)
    logged = ask(shop, service, gone, stays, gone, NEW, stays)
    assert logged == {"logged": 5, "dropped": 0, "failed": 0}
    assert shop.noted() == [gone, stays, gone, NEW, stays]


def noon(shop: Shop, service: Served, gone: int, stays: int) -> None:
    """A user is erased and comes back, and records of the time before are late."""
    where = ("--registry", shop.registry.path, *shop.store)
    done = shop.mgoe("erase", *where, "--user", gone, "--json")
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)["records"]
    assert (records["events"], records["answers"], shop.noted()) == (2, 2, [stays, NEW, stays])
    erased = shop.version()
    assert (pairs(shop.first) - pairs(erased), knows(erased, gone)) == (pairs_of(shop.first, gone), [False])
    assert shop.registry.aliases == {"current": erased.name}, "the candidate held the user"

    [entry] = json.loads((shop.folder / "bundles.erased.json").read_text())["erasures"]
    back = shop.events(gone, at=entry["time"] + CLOCK_SKEW + SECOND // 100)
    answer = service.add(*shop.events(gone, NEW), *back, *shop.events(gone, ANOTHER), {"user": gone})
    assert outcomes(answer) == ["erased", "accepted", "accepted", "erased", "accepted", "refused"]
    assert counted(service) == {"accepted": 7, "erased": 2, "refused": 2}
    assert shop.users() == {stays: 1, NEW: 2, gone: 1, ANOTHER: 1}
    log = open_log(shop.url)  # what a service that knows of no erasure takes
    log.append([Event(gone, 3, "click", learned_until(shop.first) + number) for number in range(3)])
    log.close()
    assert shop.users()[gone] == 4
    assert shop.mgoe("erase", *where, "--verify").exit_code == 3
    until(lambda: service.reloader.engine.name == erased.name)

    assert shop.round() == ["collect", "prune", "learn"]
    assert shop.users() == {stays: 1, NEW: 2, gone: 1, ANOTHER: 1}
    candidate = shop.version("candidate")
    assert (learned(candidate, erased), knows(candidate, gone, NEW, ANOTHER)) == (5, [True] * 3)
    assert pairs_of(candidate, gone) == 1
    assert ask(shop, service, NEW, ANOTHER) == {"logged": 7, "dropped": 0, "failed": 0}
    assert shop.noted() == [stays, NEW, stays, NEW, ANOTHER]

    assert outcomes(service.add(*shop.events(stays, ANOTHER))) == ["accepted"] * 2
    shop.registry.promote(force="too few rows for a test")
    assert shop.round() == ["collect", "prune", "learn"]
    # the morning's candidate, which the shadow had open at the first round, is gone, too
    found = shop.mgoe("erase", *where, "--verify")
    assert found.exit_code == 0, found.stdout
    assert shop.version().name == candidate.name
    assert learned(shop.version("candidate"), candidate) == 2
    until(lambda: service.reloader.engine.name == candidate.name)


def afternoon(shop: Shop, other: Shop, service: Served) -> None:
    """The other deployment is started with the prefix of the first one, and nothing changes."""
    before = shop.users(), other.users(), shop.registry.aliases, other.registry.aliases
    current, store = other.registry.path / "current", shop.store
    assert is_refused(other.mgoe("serve", current, *store, "--engine", "torch", "--port", 0))
    assert is_refused(other.mgoe("update", current, *store, "--out", other.folder / "made"))
    assert is_refused(other.mgoe("erase", "--registry", other.registry.path, *store, "--user", NEW))
    assert is_refused(other.mgoe("registry", "add", other.registry.path, shop.version().path))
    assert is_refused(other.cycle(shop.url))
    assert (shop.users(), other.users(), shop.registry.aliases, other.registry.aliases) == before
    assert not (other.folder / "made").exists()
    assert outcomes(service.add(*shop.events(NEW))) == ["accepted"]


def evening(shop: Shop, gone: int) -> None:
    """The events of the first deployment are lost, and it continues with an empty store."""
    before = shop.version()
    for file in shop.state.glob("replica.sqlite*"):  # to accept the loss, as the page says
        file.unlink()
    with shop.serve() as service:
        assert (detail(service), store_of(service)) == (NEW_STORE, (1, 1))
        answer = service.add(*shop.events(NEW, gone, ANOTHER, NEW))
        assert outcomes(answer) == ["accepted", "erased", "accepted", "accepted"]
        assert (shop.users(), detail(service)) == ({NEW: 2, ANOTHER: 1}, NEW_STORE)
        update = ("update", before.path, *shop.store, "--weights", "keep", "--groups", "keep")
        assert shop.mgoe(*update, "--out", shop.folder / "made").exit_code == 0
        shop.registry.promote(shop.registry.add(shop.folder / "made"), force="the store was lost")
        assert learned(shop.version(), before) == 3
        until(lambda: not detail(service))
        assert store_of(service) == (1, 0)


def test_a_day_of_operation(finished: Path, tmp_path: Path, server: Server, mgoe: Mgoe):
    first = Bundle.open(finished / "bundle")
    shop, other = (Shop(tmp_path / name, server, first, mgoe) for name in ("shop", "other"))
    gone, stays = (int(user) for user in first.ids("user", np.array([5, 2])))
    with shop.serve(shop.registry.path / "candidate") as ours, other.serve() as theirs:
        assert outcomes(theirs.add(*other.events(gone, stays, stays))) == ["accepted"] * 3
        morning(shop, ours, gone, stays)
        noon(shop, ours, gone, stays)
        afternoon(shop, other, ours)
        assert shop.users() == {stays: 2, NEW: 3, gone: 1, ANOTHER: 2}
        client = RedisServer(server.url).client
        client.delete(*client.keys("shop:*"))
        until(lambda: store_of(ours)[1] == 1)
        assert ours.client.post("/v1/events", json={"events": shop.events(NEW)}).status_code == 503
        assert ours.rank(user=NEW, k=3)["ranked"]
        assert (other.users(), counted(theirs)) == (
            {gone: 1, stays: 2},
            {"accepted": 3, "erased": 0, "refused": 0},
        )
    evening(shop, gone)
    assert other.users() == {gone: 1, stays: 2}
