"""Days of a world: played once, or resumed after any interruption."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import ConfigError, OutputError
from mgoe.simulation import Shown, Truth, Visits, VisitSettings, make_truth, play
from mgoe.simulation.loop import JOURNAL, OUTCOMES, Clock, Service, first_day
from mgoe.simulation.visits import Page, Report
from tests.effort import up_to
from tests.simulation.worlds import SMALL

WORLD = SMALL.model_copy(update={"users": 60})


class Stopped(Exception):
    pass


class Counting:
    """Shows what was clicked least, so every page depends on all that was told before."""

    def __init__(self, stops: int | None = None):
        self.told, self.asked, self.changed, self._stops = dict[str, Any](), 0, list[Any](), stops
        self.time = 0

    async def show(self, page: Page, visits: Visits) -> Shown:
        if self.asked == self._stops:
            raise Stopped
        assert page.time >= self.time
        self.asked, self.time = self.asked + 1, page.time
        clicks = [label["item"] for label in self.told.values() if label["labels"].get("click")]
        alive = visits.truth.item_ids.of(visits.alive(page.day)).tolist()
        seen = {*visits.seen(page)}
        ranked = sorted(
            (item for item in alive if item not in seen), key=lambda item: (clicks.count(item), item)
        )
        return Shown(ranked[:4], "odd" if page.user % 2 else None, "least")

    async def tell(self, reports: Sequence[Report], time: int) -> None:
        assert time >= self.time
        self.time = time
        for report in reports:
            self.told |= {
                json.dumps([one["request"], one["item"], *one["labels"]]): one for one in report.labels
            }

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None:
        assert time >= self.time
        self.changed, self.time = [*self.changed, *items], time


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth(WORLD)


def run(
    truth: Truth, policy: Counting, folder: Path, days: range = range(4, 7), lifetime: int | None = None
) -> None:
    asyncio.run(play(Visits(truth, VisitSettings(delay=8, lifetime=lifetime)), policy, folder, days))


@given(data=st.data())
@up_to(6)
def test_an_interrupted_day_resumes_to_what_an_uninterrupted_one_gives(
    truth: Truth, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    whole, cut = (tmp_path_factory.mktemp(name) for name in ("whole", "cut"))
    once = Counting()
    run(truth, once, whole)
    policy = Counting(data.draw(st.integers(0, once.asked - 1)))
    with pytest.raises(Stopped):
        run(truth, policy, cut)
    kept = (cut / JOURNAL).read_bytes()
    rest = (whole / JOURNAL).read_bytes()[len(kept) :]
    torn = data.draw(st.integers(0, rest.index(b"\n")))  # of the line that was being written
    (cut / JOURNAL).write_bytes(kept + rest[:torn])
    again = Counting()
    again.told, again.time = policy.told, policy.time  # a service does not go back
    run(truth, again, cut)
    assert (cut / JOURNAL).read_bytes() == (whole / JOURNAL).read_bytes()
    for file in (whole / OUTCOMES).iterdir():
        assert pq.read_table(file).equals(pq.read_table(cut / OUTCOMES / file.name))
    assert again.told == once.told


def test_days_follow_one_another_and_finished_ones_ask_nothing(truth: Truth, tmp_path: Path):
    assert first_day(tmp_path) is None
    first = Counting()
    run(truth, first, tmp_path, range(4, 5))
    assert first_day(tmp_path) == 4
    assert [one["item"] for one in first.changed] == truth.item_ids.of(
        np.flatnonzero(truth.items.arrival == 4)
    ).tolist()
    more = Counting()
    more.told = first.told
    run(truth, more, tmp_path, range(4, 7))
    assert more.asked > 0
    again = Counting()
    run(truth, again, tmp_path, range(4, 7))
    assert (again.asked, again.told, again.changed) == (0, {}, [])
    table = pq.read_table(tmp_path / OUTCOMES).to_pandas()
    assert len(table) == 4 * (first.asked + more.asked)
    index = truth.user_ids.index(table["user_id"])
    assert ((index % 2 == 1) == table["arm"].eq("odd")).all()


def test_an_item_goes_once_however_often_days_are_continued(truth: Truth, tmp_path: Path):
    whole, parts = Counting(), Counting()
    run(truth, whole, tmp_path / "whole", range(4, 8), lifetime=2)
    for stop in range(5, 9):
        run(truth, parts, tmp_path / "parts", range(4, stop), lifetime=2)
    gone = [one["item"] for one in whole.changed if one.get("withdrawn")]
    assert len(gone) == len({*gone}) > 1
    assert parts.changed == whole.changed


def test_days_of_another_world_are_refused_and_stay(truth: Truth, tmp_path: Path):
    run(truth, Counting(), tmp_path, range(4, 5))
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(OutputError, match=r"its visits is not|its visits are not"):
        asyncio.run(play(Visits(truth, VisitSettings(seed=9)), Counting(), tmp_path, range(4, 5)))
    with pytest.raises(OutputError, match="its first"):
        run(truth, Counting(), tmp_path, range(5, 6))
    assert (tmp_path / JOURNAL).read_bytes() == before
    (tmp_path / JOURNAL).write_bytes(before.replace(b'"request"', b"request", 1))
    with pytest.raises(OutputError, match="is damaged"):
        run(truth, Counting(), tmp_path, range(4, 5))


def test_days_that_outgrow_memory_are_refused_before_they_begin(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    needed = Visits(truth, VisitSettings(delay=8)).needed_memory(3)
    monkeypatch.setattr("mgoe.simulation.loop.available_memory", lambda: needed - 1)
    rule = (
        r"^world: 3 days of visits must fit into memory and need about 0\.\d+ GiB, found 0\.\d+ GiB; "
        "play fewer days, lower `sessions`, or simulate fewer users$"
    )
    with pytest.raises(ConfigError, match=rule):
        run(truth, Counting(), tmp_path / "days")
    assert not (tmp_path / "days").exists()
    run(truth, Counting(), tmp_path / "days", range(4, 6))


class Any4:
    """Shows other items to each user, so that as many pairs as possible are remembered."""

    async def show(self, page: Page, visits: Visits) -> Shown:
        items = np.random.default_rng([page.time, page.user]).choice(200, 10, replace=False)
        return Shown(visits.truth.item_ids.of(items).tolist())

    async def tell(self, reports: Sequence[Report], time: int) -> None: ...

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None: ...


def test_the_memory_of_days_is_about_what_is_said(tmp_path: Path):
    world = SMALL.model_copy(update={"positions": 10, "users": 100})
    truth = make_truth(world)
    asyncio.run(play(Visits(truth, VisitSettings()), Any4(), tmp_path / "first", range(9, 10)))  # imports
    visits = Visits(truth, VisitSettings(sessions=1))
    run_once = play(visits, Any4(), tmp_path / "days", range(9, 11))
    gc.collect()
    tracemalloc.start()
    asyncio.run(run_once)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.7 < visits.needed_memory(2) / peak < 1.5


def test_a_service_with_a_task_that_the_world_lacks_is_refused(truth: Truth, tmp_path: Path):
    about = {"tasks": ["click", "share"], "context": [], "busiest_users": []}

    @asynccontextmanager
    async def connect(clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=about))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client

    async def refused() -> None:
        visits = Visits(truth, VisitSettings())
        async with Service(connect, visits) as service:
            await play(visits, service, tmp_path, range(4, 5))

    rule = "^--serve: every task must be a behaviour of the world or stay, found 'share', of click, "
    with pytest.raises(ConfigError, match=rule):
        asyncio.run(refused())


def test_a_bundle_from_before_the_world_is_refused(truth: Truth):
    visits = Visits(truth, VisitSettings())
    start = WORLD.start
    assert visits.day_after(f"{start}T23:59:59+00:00") == 1
    with pytest.raises(ConfigError, match=f"which begins on {start}, found 1999-12-31; serve a bundle"):
        visits.day_after("1999-12-31T00:00:00+00:00")
