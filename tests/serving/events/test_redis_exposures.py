"""Exposures on Redis: the same as in one file, on every machine and whatever happens to Redis."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import OtherLogError, StoreError
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.stores import with_query
from tests.effort import SOAK, up_to
from tests.serving.events.stores import Server, when_back
from tests.serving.events.test_exposures import KNOWN, NOW, READER, SECOND, SHOWN, TASKS, exposure, label

KILLS = 20 if SOAK else 2
PER_SECOND = 500
WINDOW = 600 * SECOND


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    """Keys of the test's own."""
    return with_query(server.url, prefix=tmp_path.name)


def opened(url: str, folder: Path, window: int | None = WINDOW) -> RedisLog:
    """A machine with its replica in a folder."""
    return RedisLog(with_query(url, state=folder), window)


def shown(number: int) -> Exposure:
    return Exposure(f"r{number}", f"u{number % 7}", "a", NOW)


def clicked(number: int) -> Label:
    return Label(f"r{number}", "", "a", "click", NOW, 1.0)


def contents(log: ServiceLog) -> dict[str, Any]:
    """Everything that a log holds and says."""
    if isinstance(log, RedisLog):
        log.follow()
    tables = ("records", "exposures", "labels", "sqlite_sequence", "notes WHERE name <> 'window'")
    found: dict[str, Any] = {name: log._store.read(f"SELECT * FROM {name}") for name in tables}
    return found | {
        "counts": log.counts,
        "newest": log.newest,
        "mark": log.mark(1 << 62),
        "settled": [log.before(NOW + k * WINDOW) for k in range(0, 10, 3)],
        "touched": log.touched(0, 0, 1 << 62, READER.delay),
        "rows": [row for rows in log.rows([*TASKS], 0, 1 << 62, 1 << 62, READER.delay) for row in rows],
    }


BATCHES = st.lists(
    st.tuples(
        st.lists(SHOWN.map(lambda one: exposure(*one)), max_size=3),
        st.lists(KNOWN.map(lambda one: label(*one)), max_size=3),
        st.integers(1, 400),  # seconds since the batch before
        st.booleans(),  # by which machine
        st.booleans(),  # whether the other one follows
    ),
    max_size=12,
)


@up_to(8)
@given(before=BATCHES, after=BATCHES, forgotten=st.integers(0, 30))
def test_two_machines_hold_what_one_file_would(
    server: Server, tmp_path_factory: pytest.TempPathFactory, before: list, after: list, forgotten: int
):
    """Whoever takes what; also once the oldest are forgotten, and on a third machine that begins then."""
    folder = tmp_path_factory.mktemp("machines")
    url, file = with_query(server.url, prefix=folder.name), ServiceLog(folder / "file.sqlite", WINDOW)
    machines = [opened(url, folder / name) for name in "ab"]
    identity = machines[0].identity
    file._store.write(lambda connection: connection.execute("UPDATE identity SET id = ?", (identity,)))
    now = NOW
    for part, exact in ((before, True), (after, False)):
        for shown, labels, seconds, first, follows in part:
            now += seconds * SECOND
            batch = (
                [READER.read_exposure(one, NOW) for one in shown],
                [found for one in labels for found in READER.read_labels(one, NOW)],
                READER.delay,
            )
            refused = machines[first].append(
                (), *batch, now if exact else None
            )  # which Redis dates after forgetting
            now = now if exact else moment(machines[first])
            assert file.append((), *batch, now) == refused
            if follows:
                machines[not first].follow()
        assert contents(machines[0]) == contents(machines[1]) == contents(file)
        for log in (machines[0], file):
            log.forget(exposures=forgotten, delay=READER.delay)
        machines.append(opened(url, folder / f"fresh {exact}"))
        assert all(contents(machine) == contents(file) for machine in machines)
    for log in (file, *machines):
        log.close()


def moment(log: RedisLog) -> int:
    """When Redis dated the newest entry, in microseconds since 1970."""
    return int(log._store.read("SELECT position FROM followed")[0][0].partition("-")[0]) * 1000


def test_deployments_on_one_server_do_not_meet(server: Server, tmp_path: Path):
    logs = [
        opened(with_query(server.url, prefix=f"{tmp_path.name}.{name}"), tmp_path / name) for name in "ab"
    ]
    logs[0].append((), [shown(1)], [clicked(1)])
    assert [log.newest for log in logs] == [(1, 1), (0, 0)]
    assert logs[0].identity != logs[1].identity
    assert logs[0].mark(1) != logs[1].mark(1)
    with pytest.raises(OtherLogError, match=r"was emptied, or is another log than what .*replica.sqlite"):
        opened(with_query(server.url, prefix=f"{tmp_path.name}.b"), tmp_path / "a").append((), [shown(2)], [])


def test_the_first_window_holds_for_everybody(url: str, tmp_path: Path):
    opened(url, tmp_path / "a", 700 * SECOND).append((), [shown(1)], [])
    with closing(RedisLog(url)) as reader:  # with a replica of its own while it is open
        assert (reader.window, reader.newest) == (700 * SECOND, (1, 0))
    other = opened(url, tmp_path / "b", 800 * SECOND)
    with pytest.raises(StoreError, match="labels of this log wait for 700 s, found a window of 800 s"):
        other.append((), [shown(2)], [])
    assert opened(url, tmp_path / "c", None).window == 700 * SECOND


def test_a_replica_that_is_removed_or_far_behind_is_filled_again(url: str, tmp_path: Path):
    one, behind = (opened(url, tmp_path / name) for name in "ab")
    for number in range(8):
        one.append((), [shown(number)], [clicked(number)], now=NOW + number * SECOND)
        if number < 3:
            behind.follow()
    assert one.forget(exposures=one.mark(12).number)
    with closing(opened(url, tmp_path / "fresh")) as fresh:
        assert contents(fresh) == contents(behind) == contents(one)
    for file in (tmp_path / "fresh").iterdir():
        file.unlink()
    assert contents(opened(url, tmp_path / "fresh")) == contents(one)
    assert [row[0] for rows in one.rows(["click"], 0, 99, 1 << 62, 0) for row in rows] == [11, 13, 15]


@pytest.mark.parametrize("forgets", [False, True])
def test_an_older_copy_of_redis_is_noticed_even_after_it_has_grown(
    forgets: bool, server: Server, url: str, tmp_path: Path
):
    """A machine ahead of the copy notices; one that is not continues from it, and its digests differ."""
    ahead, prefix = opened(url, tmp_path / "a"), tmp_path.name
    for number in range(4):
        ahead.append((), [shown(number)], [], now=NOW + number * SECOND)
    client = ahead._server.client
    for key in ("", ":identity"):
        client.copy(f"{prefix}:events{key}", f"{prefix}-older:events{key}")
    ahead.append((), [shown(4), shown(5)], [], now=NOW + 60 * SECOND)
    mark = ahead.mark(6)
    older = opened(with_query(server.url, prefix=f"{prefix}-older"), tmp_path / "b")
    for key in ("", ":identity"):
        client.copy(f"{prefix}-older:events{key}", f"{prefix}:events{key}", replace=True)
    for grows in (False, True):
        if grows:  # past the number that was read
            grown = opened(url, tmp_path / "grown")
            grown.append((), [shown(number) for number in range(10, 20)], [], now=NOW + 120 * SECOND)
            assert not forgets or grown.forget(exposures=3)
            assert grown.newest == (14, 0)
            with pytest.raises(OtherLogError, match="holds another record at position 6"):
                grown.append((), [shown(30)], [], after=mark)
        for use in (lambda: ahead.append((), [shown(6)], []), ahead.follow, lambda: ahead.identity):
            with pytest.raises(OtherLogError, match="lost the end, or continues an older copy"):
                use()
    assert older.newest == (4, 0)


def test_an_emptied_redis_is_noticed_and_takes_nothing(url: str, tmp_path: Path):
    log = opened(url, tmp_path / "a")
    log.append((), [shown(1)], [])
    for key in (f"{tmp_path.name}:events", f"{tmp_path.name}:events:identity"):
        log._server.client.delete(key)
        with pytest.raises(OtherLogError):
            log.append((), [shown(2)], [])
    assert not log._server.client.exists(f"{tmp_path.name}:events")
    other = opened(url, tmp_path / "b")
    other.append((), [shown(3)], [])
    with pytest.raises(OtherLogError, match="restore a newer copy of Redis, or stop the services and remove"):
        log.follow()


def test_a_damaged_entry_is_named(url: str, tmp_path: Path):
    log = opened(url, tmp_path / "a")
    log.append((), [shown(1)], [])
    log._server.client.xadd(f"{tmp_path.name}:events", {"d": "0" * 32, "r": b"{}"})
    with pytest.raises(StoreError, match=r"events is damaged at .*; restore Redis from an intact copy"):
        log.append((), [shown(2)], [])


def test_a_server_that_is_away_at_the_start(tmp_path: Path):
    server = Server(tmp_path / "redis")
    try:
        url = with_query(server.url, prefix="shop")
        opened(url, tmp_path / "a").append((), [shown(1)], [])
        server.kill()
        known, new = opened(url, tmp_path / "a"), opened(url, tmp_path / "b")
        assert (known.counts["exposures taken"], new.counts["exposures taken"]) == (1, 0)
        for log in (known, new):
            for use in (lambda: log.append((), [shown(2)], []), lambda: log.newest, lambda: log.identity):  # noqa: B023
                with pytest.raises(StoreError, match="cannot be used"):
                    use()
        server.start()
        when_back(lambda: known.append((), [shown(2)], []))
        assert contents(new) == contents(known)
        assert new.newest == (2, 0)
    finally:
        server.kill()


def test_every_acknowledged_record_survives_kills_of_redis(tmp_path: Path):
    """Two machines, one with two processes, send batches, again until they are acknowledged; Redis is killed
    at random moments."""
    server, drawn = Server(tmp_path / "redis"), random.Random(0)
    logs = [opened(server.url, tmp_path / name) for name in "aab"]
    stop, sent, size = threading.Event(), ([], [], []), 25

    def send(machine: int) -> None:
        due = time.monotonic()
        while not stop.is_set():
            first = len(sent[machine]) * size
            numbers = [3 * number + machine for number in range(first, first + size)]
            labels = [clicked(number) for number in numbers if number % 4 < 2]
            when_back(lambda: logs[machine].append((), [*map(shown, numbers)], labels))  # noqa: B023
            sent[machine].append(time.monotonic())
            due += 3 * size / PER_SECOND
            stop.wait(max(0, due - time.monotonic()))

    threads = [threading.Thread(target=send, args=(machine,)) for machine in range(3)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        for _ in range(KILLS):
            time.sleep(drawn.uniform(0.3, 1.5))
            server.kill()
            time.sleep(drawn.uniform(0, 0.5))
            server.start()
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    lasted = time.monotonic() - began
    try:
        assert contents(logs[0]) == contents(logs[2]) == contents(opened(server.url, tmp_path / "fresh"))
        batches = [len(one) for one in sent]
        names = {
            f"r{3 * number + machine}" for machine in range(3) for number in range(batches[machine] * size)
        }
        rows = contents(logs[0])["rows"]
        assert sorted(row[2] for row in rows) == sorted(names)
        assert {row[2] for row in rows if row[9] == 1} == {name for name in names if int(name[1:]) % 4 < 2}
        print(f"{KILLS} kills, {len(rows)} exposures, {len(rows) / lasted:.0f} per second, ", end="")
        print({name: count for name, count in logs[0].counts.items() if count})
    finally:
        server.kill()


def test_erased_users_are_gone_from_every_replica_and_from_the_bytes_of_redis(
    server: Server, url: str, tmp_path: Path
):
    """Of a machine that followed before, of one that was behind, and of one that begins."""
    name, machines = "somebody@example.com", [tmp_path / f"machine{n}" for n in range(3)]
    one, behind = opened(url, machines[0]), opened(url, machines[1])
    one._server.client.config_set("rdbcompression", "no")
    for number in range(20):
        user = name if number % 4 == 0 else f"u{number}"
        one.append((), [Exposure(f"r{number}", user, "a", NOW)], [clicked(number)], now=NOW + number * SECOND)
        if number == 10:
            behind.follow()
    one.append((), [], [Label("", name, "b", "click", NOW, 1.0)], now=NOW + 30 * SECOND)
    marks, digests = [one.mark(upto) for upto in range(41)], contents(one)["mark"]
    assert one.users({name: NOW + SECOND}) == [name] * 11
    assert one.erase({name: NOW + SECOND}, 1) == {"events": 0, "exposures": 5, "labels": 6}
    logs = [one, behind, opened(url, machines[2])]
    for log in logs:
        assert log.users({name: 1 << 60}) == []
        assert contents(log) == contents(one)
        assert (log.newest[0], log.mark(1 << 62)) == (39, digests)
        for mark in marks:
            log.check(mark)
    one.append((), [shown(100)], [])
    assert {log.newest[0] for log in logs} == {43}
    for log in logs:
        log.close()
    for folder in (server.folder, machines[0], machines[2]):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        assert not any(name.encode() in file.read_bytes() for file in files)
