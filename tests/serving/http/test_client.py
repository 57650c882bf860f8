"""One client over two transports, on a clock that the test supplies."""

import asyncio
import doctest
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import mgoe
from mgoe._util import extras
from mgoe.errors import ConfigError, MissingExtra, ServiceError
from mgoe.lifecycle.taken import taken_rows
from mgoe.serving import every, open_log
from mgoe.serving.events.answer_log import Answer, write_answers
from mgoe.serving.events.event import EventReader
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.stores import with_query
from mgoe.serving.http.experiment import Experiment
from mgoe.serving.http.settings import ServeSettings
from tests.serving.events.stores import Server
from tests.serving.served import httpx

module = pytest.importorskip("mgoe.serving.http.client")

SECOND = 1_000_000
HOUR = 3600 * SECOND
BEGIN = 1_583_020_800 * SECOND
"""A March long past."""
BOTH = pytest.mark.parametrize("http", [False, True], ids=["calls", "http"])
NEW = 10**9


@dataclass
class Clock:
    """A clock that the test sets."""

    now: int = BEGIN

    def __call__(self) -> int:
        return self.now


Use = Callable[["httpx.AsyncClient", Clock], Awaitable[Any]]


def asked(bundle: Path, state: Path, http: bool, use: Use, **more: Any) -> Any:
    """Return what is made of a service of a bundle."""
    more = {"runtime": {"engine": "torch"}, "access_log": False, "port": 0} | more
    settings, clock = ServeSettings.model_validate({"bundle": bundle, "state": state, **more}), Clock()

    async def run() -> Any:
        async with module.client(settings, clock, http) as service:
            return await use(service, clock)

    return asyncio.run(run())


async def post(service: httpx.AsyncClient, path: str, n: int = 0, **body: Any) -> httpx.Response:
    return await service.post(f"/v1/{path}", json=body, headers={"x-request-id": f"q{n}"})


async def recommended(service: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    return (await post(service, "recommend", **body)).json()


async def day(service: httpx.AsyncClient, clock: Clock) -> list[bytes]:
    """Ask 50 times: lists, which are seen and clicked, what visitors of a session want, and new items."""
    chance, answers, seen = random.Random(0), list[bytes](), list[int]()
    for n in range(50):
        clock.now += chance.choice([0, 1000, 3 * SECOND, HOUR])
        user = chance.choice([1, 2, 3, NEW])
        if n % 5 in (0, 2):
            found = await post(service, "recommend", n, user=user, k=5)
            seen = found.json()["items"]
        elif n % 5 == 1:
            records = [{"request": f"q{n - 1}", "item": item} for item in seen]
            found = await post(
                service, "events", n,
                exposures=[one | {"user": user, "context": {"device": "phone"}} for one in records],
                labels=[one | {"labels": {"click": chance.randrange(2)}} for one in records],
                events=[{"user": user, "item": seen[0], "behavior": "click"}],
            )  # fmt: skip
        elif n % 5 == 3:
            session = [{"item": seen[0], "behavior": "click"}]
            found = await post(service, "rank", n, events=session, candidates=[*seen, NEW, NEW + n], k=4)
        else:
            found = await post(service, "items", n, items=[{"item": NEW + n, "name": f"new {n}"}])
        answers.append(found.content)
    return answers


def exported(bundle: Path, state: Path) -> dict[str, list[Any]]:
    """What a service has written, as its exports have it, but for how long answers took, and for digests,
    which begin with what names the log."""
    opened = mgoe.load(bundle)
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(str(state))))
        kinds = EventReader.of(opened).kinds
        rows = taken_rows(log, opened.settings, kinds, BEGIN + 100 * HOUR).read_all()
        found = {
            "events": [(mark.position, event) for mark, event in every(log)],
            "exposures": rows.drop_columns("digest").to_pylist(),
        }
    write_answers(state, state / "answers.parquet")
    answers = pq.read_table(state / "answers.parquet").drop_columns("latency").to_pylist()
    return found | {"answers": answers}


@pytest.fixture(scope="module")
def arms(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of two arms with a bundle each, one of which explores; every request is compared."""
    folder = tmp_path_factory.mktemp("arms")
    shutil.copytree(shown / "bundle", folder / "copy")
    arms = [
        {"name": "served", "share": 0.5},
        {"name": "copy", "share": 0.5, "bundle": str(folder / "copy"), "explore": {"temperature": 1.0}},
    ]
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({"id": "one", "arms": arms, "compare": 1.0}))
    return file


def test_both_transports_give_the_same_answers_and_the_same_logs(shown: Path, arms: Path, tmp_path: Path):
    answers, logs = list[list[bytes]](), list[dict[str, list[Any]]]()
    for http in (False, True):
        state = tmp_path / str(http)
        answers.append(asked(shown / "bundle", state, http, day, experiment=[arms]))
        logs.append(exported(shown / "bundle", state))
    assert answers[0] == answers[1]
    assert logs[0] == logs[1]
    assert len({*answers[0]}) > 30
    lists = [one["use"] for one in logs[0]["answers"] if one["arm"]]
    assert lists == ["answer", "compare"] * (len(lists) // 2)
    assert len(lists) >= 40
    assert {len(logs[0][name]) for name in ("events", "exposures")} == {10, 50}
    assert any(one["propensities"] for one in logs[0]["answers"])
    assert all(BEGIN <= one["time"] <= BEGIN + 50 * HOUR for one in logs[0]["answers"])


def test_a_list_that_is_compared_late_is_logged_before_the_next_answer(
    shown: Path, arms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waiting, compared, caught_up = asyncio.Event(), Experiment._compared, Experiment.caught_up

    async def compared_late(self: Experiment, *given: Any) -> list[Answer]:
        await waiting.wait()
        return await compared(self, *given)

    async def caught_up_now(self: Experiment) -> None:
        waiting.set()
        await caught_up(self)

    monkeypatch.setattr(Experiment, "_compared", compared_late)
    monkeypatch.setattr(Experiment, "caught_up", caught_up_now)

    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        for _ in range(2):
            waiting.clear()
            await recommended(service, user=1, k=1)
        waiting.set()

    asked(shown / "bundle", tmp_path, False, use, experiment=[arms])
    uses = [one["use"] for one in exported(shown / "bundle", tmp_path)["answers"]]
    assert uses == ["answer", "compare"] * 2


@BOTH
def test_what_was_acknowledged_counts_in_the_next_answer_though_no_time_has_passed(
    shown: Path, tmp_path: Path, http: bool
):
    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        item = (await recommended(service, user=1, k=1))["items"][0]

        async def click() -> float:
            answer = await post(service, "score", users=[1], items=[item])
            return answer.json()["tasks"]["click"][0]

        scores = [await click()]
        for n in range(3):
            records = [{"request": f"{n} {k}", "item": item} for k in range(300)]
            await post(service, "events", exposures=[one | {"user": NEW} for one in records])
            scores.append(await click())
            await post(service, "events", labels=[one | {"labels": {"click": 1}} for one in records])
            scores.append(await click())
        assert np.all(np.diff(scores) != 0)
        assert scores[-1] == await click()

    asked(shown / "bundle", tmp_path, http, use)


def test_a_log_that_is_longer_than_one_look_is_read_to_its_end_at_the_start(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So a day that is resumed goes on as it would have."""
    item = mgoe.load(shown / "bundle").encoders.items.ids([0]).to_pylist()[0]
    exposures = [{"request": f"{k}", "user": NEW, "item": item} for k in range(50)]

    async def score(service: httpx.AsyncClient, clock: Clock) -> bytes:
        return (await post(service, "score", users=[1], items=[item])).content

    async def send_and_score(service: httpx.AsyncClient, clock: Clock) -> bytes:
        await post(service, "events", exposures=exposures)
        return await score(service, clock)

    before = asked(shown / "bundle", tmp_path / "other", False, score)
    once = asked(shown / "bundle", tmp_path / "state", False, send_and_score)
    monkeypatch.setattr("mgoe.serving.online.live_rates.AT_ONCE", 7)
    assert asked(shown / "bundle", tmp_path / "state", False, score) == once != before


@BOTH
def test_the_clock_says_what_is_in_the_future(finished: Path, tmp_path: Path, http: bool):
    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        for ahead, accepted in ((4, 1), (6, 0)):
            time = clock.now + ahead * 60 * SECOND
            event = {"user": 1, "item": 1, "behavior": "click", "time": time // SECOND}
            assert (await post(service, "events", events=[event])).json()["accepted"] == accepted
        as_of = (await recommended(service, user=1, k=1))["as_of"]
        assert datetime.fromisoformat(as_of).timestamp() * 1e6 == clock.now
        await post(service, "events", events=[{"user": 1, "item": 2, "behavior": "click"}])

    asked(finished / "bundle", tmp_path, http, use)
    with closing(open_log(str(tmp_path))) as log:
        assert [one.time - BEGIN for _, one in every(log)] == [240 * SECOND, 0]


def test_an_experiment_starts_and_ends_by_the_clock(finished: Path, tmp_path: Path):
    file, (start, end) = tmp_path / "experiment.yaml", (BEGIN + HOUR, BEGIN + 2 * HOUR)
    arms = [{"name": name, "share": 0.5} for name in ("one", "two")]
    when = {name: datetime.fromtimestamp(at // SECOND, UTC) for name, at in (("start", start), ("end", end))}
    file.write_text(yaml.safe_dump({"id": "one", "arms": arms} | when))

    async def use(service: httpx.AsyncClient, clock: Clock) -> list[bool]:
        found = []
        for clock.now in (BEGIN, start - 1, start, end - 1, end, end + HOUR):
            found.append("experiment" in await recommended(service, user=1, k=1))
        return found

    state = tmp_path / "state"
    found = asked(finished / "bundle", state, False, use, experiment=[file])
    assert found == [False, False, True, True, False, False]
    write_answers(state, tmp_path / "answers.parquet")
    times = pq.read_table(tmp_path / "answers.parquet")["time"].to_pylist()
    assert times == [BEGIN, start - 1, start, end - 1, end, end + HOUR]


@BOTH
def test_a_clock_that_goes_back_is_refused_until_it_has_come_as_far(
    finished: Path, tmp_path: Path, http: bool
):
    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        before = await recommended(service, user=1, k=2)
        clock.now -= 1
        with pytest.raises(ServiceError) as error:
            await recommended(service, user=1, k=2)
        assert str(error.value) == (
            "/v1/recommend: the service answered 503, clock: must not go back, "
            "found 2020-02-29T23:59:59.999999+00:00 after 2020-03-01T00:00:00+00:00; set it ahead"
        )
        clock.now += 1
        assert await recommended(service, user=1, k=2) == before

    asked(finished / "bundle", tmp_path, http, use)


def test_a_clock_behind_the_log_is_refused_at_the_start(shown: Path, tmp_path: Path):
    async def use(service: httpx.AsyncClient, clock: Clock, later: int = 1) -> None:
        clock.now += later
        await post(service, "events", exposures=[{"user": 1, "item": 1}])

    asked(shown / "bundle", tmp_path, False, partial(use, later=0))
    asked(shown / "bundle", tmp_path, False, use)
    rule = r"^clock: must not be behind the log, which has exposures taken after 2020-03-01T00:00:00\+00:00; "
    with pytest.raises(ConfigError, match=rule):
        asked(shown / "bundle", tmp_path, False, use)


def test_a_log_on_redis_takes_exposures_at_moments_of_the_clock(shown: Path, tmp_path: Path):
    """Also after what Redis dates: the deployment, items and events."""

    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        for item in (1, 2):
            clock.now += 1
            exposure, event = {"user": 1, "item": item}, {"user": 1, "item": item, "behavior": "click"}
            await post(service, "items", items=[{"item": NEW + item, "name": "new"}])
            await post(service, "events", events=[event])
            assert (await post(service, "events", exposures=[exposure])).json()["accepted"] == 1

    server = Server(tmp_path / "redis")
    try:
        asked(shown / "bundle", tmp_path / "state", False, use, redis=server.url)
        with closing(open_log(with_query(server.url, state=tmp_path / "other"))) as log:
            assert [log.before(BEGIN + later) for later in (1, 2, 3)] == [0, *exposed(log)]
    finally:
        server.kill()


def exposed(log: ServiceLog) -> list[int]:
    return [row[0] for rows in log.rows(["click"], 0, 1 << 62, 1 << 62, 0) for row in rows]


@BOTH
def test_a_refused_request_names_path_status_and_sentence(
    finished: Path, tmp_path: Path, http: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MGOE_TOKEN", "0123456789abcdef rank\nfedcba9876543210")

    async def use(service: httpx.AsyncClient, clock: Clock) -> None:
        with pytest.raises(ServiceError) as error:
            await recommended(service)
        assert str(error.value) == (
            "/v1/recommend: the service answered 422, user: must be given, or the events of a "
            "session instead, found none; give one"
        )
        assert (await service.get("/metrics")).status_code == 200, "its token may do everything"

    asked(finished / "bundle", tmp_path, http, use)


def test_an_answer_of_something_else_is_quoted():
    response = httpx.Response(502, text="<h1>Bad gateway</h1>", request=httpx.Request("GET", "http://x/y"))
    with pytest.raises(ServiceError, match=r"/y: the service answered 502, <h1>Bad gateway</h1>"):
        asyncio.run(module._check(response))


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extras.importlib, "import_module", lambda name: __import__(name + ".missing"))
    with pytest.raises(MissingExtra, match=r"cannot be imported .*install it with: pip install"):
        asked(tmp_path, tmp_path, False, day)


def test_the_example_prints_what_it_says(finished: Path, tmp_path: Path):
    how = {"bundle": finished / "bundle", "state": tmp_path, "runtime": {"engine": "torch"}}
    names = {"settings": ServeSettings.model_validate(how), "asyncio": asyncio, "client": module.client}
    (example,) = doctest.DocTestFinder().find(module.client, globs=names)
    assert doctest.DocTestRunner().run(example).failed == 0
