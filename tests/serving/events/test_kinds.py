"""One log of all kinds of record: in any order, and what a reader of one kind need not know of others."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.bundle.held import START, Mark
from mgoe.bundle.items import Item
from mgoe.config import CLOCK_SKEW
from mgoe.errors import DamagedLogError, StoreError
from mgoe.serving.events.chain import TABLES, Kind, chained
from mgoe.serving.events.event import Event
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.log import DAY, SECOND, ServiceLog, records
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.stores import with_query
from tests.effort import up_to
from tests.serving.events.stores import Server

NOW = 1_700_000_000 * SECOND


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


def event(number: int) -> Event:
    return Event(number % 3, number % 5, "click", number * SECOND, f"e{number}")


def exposure(number: int) -> Exposure:
    return Exposure(f"r{number}", str(number % 3), "a", number * SECOND)


def label(number: int) -> Label:
    return Label(f"r{number}", "", "a", "click", number * SECOND, 1.0)


def shown(log: ServiceLog) -> list[tuple[str, float | None]]:
    """Request and label of each exposure."""
    return [(row[2], row[9]) for rows in log.rows(["click"], 0, 1 << 60, 1 << 62, 0) for row in rows]


def marks(log: ServiceLog) -> list[Mark]:
    """Those of all records that are left."""
    return [
        Mark(str(number), digest.hex())
        for number, digest in log._store.read("SELECT id, digest FROM chain ORDER BY id")
    ]


BATCH = st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2), st.booleans())
"""Events, whether there is an item, exposures, and whether these have labels."""
STEPS = st.lists(BATCH | st.tuples(st.just("erase"), st.integers(0, 2)) | st.just(("trim",)), max_size=12)


@up_to(25)
@given(steps=STEPS, trimmed=st.floats(0, 1))
def test_any_order_of_kinds_is_one_chain(
    tmp_path_factory: pytest.TempPathFactory, server: Server, steps: list, trimmed: float
):
    """In a file and on Redis: what is left is what was taken, in one sequence, and each mark of it holds."""
    folder = tmp_path_factory.mktemp("kinds")
    for log in (
        ServiceLog(folder / "log.sqlite", window=1),
        RedisLog(with_query(server.url, prefix=folder.name, state=folder), window=1),
    ):
        number = 0
        written, requests, seen = list[Event | Item](), list[str](), list[Mark]()
        labelled, erasures = set[str](), 0
        for step in steps:
            number += 10
            if step[0] == "trim":
                upto = int(trimmed * len(seen))
                before = seen[upto - 1].number if upto else 0
                log.forget(before, before, before, delay=-CLOCK_SKEW)
                seen = marks(log)
                former, taken = (written, requests)
                written, requests = [one for _, one in records(log)], [name for name, _ in shown(log)]
                assert former[len(former) - len(written) :] == written
                assert taken[len(taken) - len(requests) :] == requests
            elif step[0] == "erase":
                erasures, gone = erasures + 1, str(step[1])
                log.erase({gone: 1 << 60}, erasures)
                written = [one for one in written if isinstance(one, Item) or str(one.user) != gone]
                requests = [name for name in requests if str(int(name[1:]) % 3) != gone]
            else:
                events, has_item, exposures, has_labels = step
                new = [event(number + k) for k in range(events)] + [Item(number, {})] * has_item
                rows = [exposure(number + k) for k in range(exposures)]
                log.append(new, rows, [label(int(one.request[1:])) for one in rows * has_labels])
                written, requests = written + new, requests + [one.request for one in rows]
                labelled |= {one.request for one in rows * has_labels}
            former, seen = seen, marks(log)
            assert {*former} <= {*seen}
            for mark in seen:
                log.check(mark)
            assert [one.number for one in seen] == sorted({one.number for one in seen})
            assert [one for _, one in records(log)] == written
            assert shown(log) == [(name, 1.0 if name in labelled else None) for name in requests]
            for after, _ in log.read():
                assert [mark.number for mark, _ in records(log, after)] == [
                    mark.number for mark, _ in log.read() if mark.number > after.number
                ]
        log.close()


@pytest.mark.parametrize("make", [True, False])
def test_a_store_of_the_former_format_is_refused_and_stays_as_it_is(tmp_path: Path, make: bool):
    """It had a chain of events and one of exposures."""
    file = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(file)) as former:
        former.executescript(
            """
            PRAGMA user_version = 1;
            CREATE TABLE identity(id TEXT NOT NULL);
            INSERT INTO identity SELECT hex(randomblob(16));
            CREATE TABLE events(
                id INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL, digest BLOB NOT NULL);
            CREATE TABLE exposure_counts(name TEXT PRIMARY KEY, n INTEGER NOT NULL);
            """
        )
    rule = "found 1; update once with the version of mgoe that wrote it, then start with an empty folder"
    content = file.read_bytes()
    with pytest.raises(StoreError, match=rule):
        ServiceLog(file, make=make)
    with closing(sqlite3.connect(file)) as same:
        assert [name for (name,) in same.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")] == [
            "identity", "events", "sqlite_sequence", "exposure_counts",
        ]  # fmt: skip
    assert make or file.read_bytes() == content


def filled(path: Path) -> ServiceLog:
    log = ServiceLog(path)
    for number in range(6):
        log.append([event(number)], [exposure(number)], [label(number)], now=NOW + number)
    return log


def test_a_record_of_an_unknown_kind_stops_those_who_would_read_it(tmp_path: Path):
    """Exposures are read, and records are taken, as before."""
    log = filled(tmp_path / "log.sqlite")
    before, last = log.read(), marks(log)[-1]
    record = b'{"of": "a later version"}'
    row = last.number + 1, 9, record, bytes.fromhex(chained(last.digest, record))
    log._store.write(lambda connection: connection.execute("INSERT INTO records VALUES (?, ?, ?, ?)", row))
    rule = "holds a record of the kind 9, which this version of mgoe does not know; use the version that"
    for after in (START, before[-1][0]):
        with pytest.raises(StoreError, match=rule):
            log.read(after)
    assert log.read(limit=6) == before
    assert len(shown(log)) == 6
    log.append([event(7)], [exposure(7)], [], now=NOW + 7)
    assert len(shown(log)) == 7
    assert marks(log)[-1].number == last.number + 3


def test_an_unknown_change_on_redis_stops_those_who_would_follow_it(server: Server, tmp_path: Path):
    with closing(RedisLog(with_query(server.url, prefix=tmp_path.name, state=tmp_path))) as log:
        log.append([event(1)])
        assert len(log.read()) == 1
        ((_, digest),) = log._store.read("SELECT position, digest FROM followed")
        payload = b'{"of a later version": []}'
        log._server.client.xadd(log._stream, {"d": chained(digest, payload), "r": payload})
        with pytest.raises(StoreError, match="which this version of mgoe does not know; use the version"):
            log.read()
        assert len(log._store.read("SELECT id FROM chain")) == 1


@pytest.mark.parametrize("table", TABLES)
def test_damage_of_a_kind_stops_those_who_read_it_alone(tmp_path: Path, table: str):
    """Digests of others go on from the one that is stored."""
    log = filled(tmp_path / "log.sqlite")
    column = {"records": "record", "exposures": "item", "others": "kind"}[table]
    damage: Callable[[sqlite3.Connection], object] = lambda connection: connection.execute(  # noqa: E731
        f"UPDATE {table} SET {column} = substr({column}, 2) WHERE id > 3"
    )
    log._store.write(damage)
    if table == "records":
        with pytest.raises(DamagedLogError, match="the log is damaged at event"):
            log.read()
    else:
        assert [one for _, one in log.read()] == [event(number) for number in range(6)]
    if table != "exposures":
        assert [value for _, value in shown(log)] == [1.0] * 6
    log.append([event(7)], [exposure(7)], [], now=NOW + 7)
    assert marks(log)[-1].number == 20


@given(size=st.integers(1, 8))
def test_a_disk_that_fills_in_the_middle_of_a_batch_leaves_nothing_of_it(
    tmp_path_factory: pytest.TempPathFactory, size: int
):
    """Of no kind; what was there stays, and the batch is taken once there is room."""
    log = filled(tmp_path_factory.mktemp("full") / "log.sqlite")
    before = marks(log), log.read(), shown(log), log.counts
    numbers = range(100, 100 + 200 * size)
    batch = [event(n) for n in numbers], [exposure(n) for n in numbers], [label(n) for n in numbers]
    ((pages,),) = log._store.read("PRAGMA page_count")
    room = pages + size
    log._store.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {room}"))
    with pytest.raises(StoreError, match="full; check that"):
        log.append(*batch, now=NOW + 100)
    assert (marks(log), log.read(), shown(log), log.counts) == before
    log.close()
    log.append(*batch, now=NOW + 100)
    assert len(log.read()) == len(shown(log)) == 6 + len(numbers)
    assert len(marks(log)) == len(before[0]) + 2 * len(numbers) + 1
    log.close()


def test_a_kind_is_trimmed_as_far_as_all_others_allow(tmp_path: Path):
    """The last record of each kind stays, and with it the marks of what is read from there."""
    log = filled(tmp_path / "log.sqlite")
    upto = {kind: log.begin(kind) for kind in (Kind.EVENT, Kind.EXPOSURE)}
    assert upto == dict.fromkeys(upto, START)
    late = 1 << 40
    assert not log.forget(late, 0, late, delay=-DAY)
    assert log.forget(late, log.mark(10).number, late)
    assert [number for number, _ in shown(log)] == [f"r{number}" for number in range(3, 6)]
    assert len(log.read()) == 3
    assert log.begin(Kind.EVENT) == log.read()[0][0]
    assert log.begin(Kind.EXPOSURE) == log.mark(10)
    log.close()
