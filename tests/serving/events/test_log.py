"""Both kinds of log, and what only a log in a file does."""

import itertools
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.bundle.held import START, Mark
from mgoe.bundle.items import Item
from mgoe.errors import AwayError, OtherLogError, StoreError
from mgoe.serving.events.event import Event
from mgoe.serving.events.log import ServiceLog, every, records
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.stores import with_query
from tests.effort import SOAK, up_to
from tests.serving.events.stores import Server, events, when_back

KILLS = 20 if SOAK else 1
ROOT = Path(__file__).parents[3]
Opener = Callable[[], ServiceLog]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


@pytest.fixture(params=["file", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same empty log again and again."""
    if request.param == "file":
        return lambda: ServiceLog(tmp_path / "log.sqlite")
    url = request.getfixturevalue("server").url
    return lambda: RedisLog(with_query(url, prefix=tmp_path.name, state=tmp_path))


def held(log: ServiceLog, after: Mark = START) -> list[Event]:
    return [event for _, event in every(log, after)]


# --- what every log promises ---


def test_events_come_back_in_order_after_any_position(opener: Opener):
    log, written = opener(), events(25)
    log.append(written[:10])
    log.append([])
    for event in written[10:]:
        log.append([event])
    found = log.read()
    assert [event for _, event in found] == written
    for k, (position, _) in enumerate(found):
        assert held(log, position) == written[k + 1 :]
    order = [mark.number for mark, _ in found]
    assert START.number < order[0]
    assert all(a < b for a, b in itertools.pairwise(order))


def test_items_are_records_between_the_events(opener: Opener):
    log, written = opener(), events(4)
    items = [Item(7, {"color": "réd", "tags": ["a", "b"], "price": 1.5}, "Shoe"), Item("7", withdrawn=True)]
    log.append([written[0], items[0], *written[1:3]])
    log.append([items[1], written[3]])
    assert [one for _, one in records(opener())] == [
        written[0],
        items[0],
        *written[1:3],
        items[1],
        written[3],
    ]
    assert held(log) == written
    until = {str(event.user): event.time for event in written}
    assert log.erase(until, 1)["events"] == len(written)
    assert [one for _, one in records(opener())] == items


def test_an_empty_log_holds_nothing(opener: Opener):
    assert opener().read() == []
    assert held(opener()) == []


def test_reads_are_as_long_as_asked_for(opener: Opener):
    log, written = opener(), events(25)
    log.append(written)
    assert [event for _, event in log.read(limit=4)] == written[:4]
    assert held(log) == written


def test_a_log_opened_again_and_others_see_the_same(opener: Opener):
    one, other = opener(), opener()
    assert one.identity == other.identity
    one.append(events(3))
    position = other.read()[-1][0]
    assert held(other) == events(3)
    other.append(events(2, first=3))
    assert held(one, position) == events(2, first=3)
    one.close()
    assert held(opener()) == events(5)


def test_a_reader_that_found_nothing_finds_later_events(opener: Opener):
    one, other, position = opener(), opener(), START
    for event in events(20):  # of several segments
        assert one.read(position) == []
        other.append([event])
        ((position, found),) = one.read(position)
        assert found == event


def test_many_threads_append_and_nothing_is_lost(opener: Opener):
    logs = [opener(), opener()]

    def write(k: int) -> None:
        for n in range(5):
            logs[k % 2].append([Event(k, n, "click", n)])

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = held(opener())
    assert sorted((event.user, event.item) for event in found) == [(k, n) for k in range(8) for n in range(5)]
    for k in range(8):
        assert [event.item for event in found if event.user == k] == list(range(5))


def test_forgetting_events_keeps_positions(opener: Opener):
    log = opener()
    for event in events(30):
        log.append([event])
    positions = [position for position, _ in log.read()]
    log.forget(positions[19].number)
    assert held(log, positions[19]) == events(10, first=20)
    left = held(log)
    assert left == events(len(left), first=30 - len(left))
    assert 11 <= len(left) < 30
    log.check(positions[19])
    with pytest.raises(OtherLogError, match="begins after position"):
        log.check(positions[0])
    log.append(events(1, first=30))
    assert held(log, positions[-1]) == events(1, first=30)
    log.forget()
    assert held(opener()) == left + events(1, first=30)


@up_to(10)
@given(data=st.data())
def test_erased_events_are_gone_and_marks_of_all_stay(
    tmp_path_factory: pytest.TempPathFactory, server: Server, data: st.DataObject
):
    """Of any users, up to any moment, before 1970 too, in logs whose beginning may be dropped."""
    place, before_1970 = tmp_path_factory.mktemp("erased"), data.draw(st.integers(0, 10**7), "before 1970")
    written = [
        replace(one, time=one.time - before_1970) for one in events(data.draw(st.integers(0, 12), "events"))
    ]
    users = data.draw(
        st.dictionaries(st.sampled_from([str(one.user) for one in events(12)]), st.integers(-(10**7), 10**7))
    )
    for open_log in (
        lambda: ServiceLog(place / "log.sqlite"),
        lambda: RedisLog(with_query(server.url, prefix=place.name)),
    ):
        log = open_log()
        log.append(written)
        before = log.read()
        if forgotten := data.draw(st.integers(0, len(written)), "forgotten"):
            log.forget(before[forgotten - 1][0].number)
            before = before[forgotten - 1 :]
        gone = [one for _, one in before if str(one.user) in users and one.time <= users[str(one.user)]]
        assert (log.erased, log.erase(users, 3)["events"], log.erased) == (0, len(gone), 3)
        for mark, _ in before:
            log.check(mark)
            assert held(log, mark) == [
                one for at, one in before if at.number > mark.number and one not in gone
            ]
        log.append(events(2, first=20))
        for size in (1, 100):
            read, after = [], START
            while found := log.read(after, limit=size):
                read, after = read + found, found[-1][0]
            left = [one for _, one in before if one not in gone] + events(2, first=20)
            assert [one for _, one in read] == left
        log.close()


def test_the_bytes_of_an_erased_id_are_in_no_file(opener: Opener, server: Server, tmp_path: Path):
    log, name = opener(), "somebody@example.com"
    if isinstance(log, RedisLog):
        log._server.client.config_set("rdbcompression", "no")
    for k in range(300):  # of several nodes of a stream, and pages of a file
        log.append([Event(name if k % 2 else f"user {k}", k, "click", k)])
    assert log.erase({name: 1000}, 1)["events"] == 150
    files = [file for folder in (tmp_path, server.folder) for file in folder.rglob("*") if file.is_file()]
    assert any(b"user 298" in file.read_bytes() for file in files)
    assert not any(name.encode() in file.read_bytes() for file in files)
    assert len(held(opener())) == 150


# --- Redis ---


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path):
    server = Server(tmp_path)
    try:
        log = RedisLog(server.url)
        assert log.durable is True
        log.append(events(5))
        position = log.read()[-1][0]
        server.kill()
        for call in (lambda: log.append(events(1, first=5)), lambda: log.read(position)):
            with pytest.raises(StoreError, match="the log of events cannot be used"):
                call()
        with pytest.raises(AwayError):
            RedisLog(server.url).read()
        server.start()
        when_back(lambda: log.append(events(1, first=5)))
        assert held(log) == events(6)
        assert held(log, position) == events(1, first=5)
    finally:
        server.kill()


def test_a_redis_that_lost_its_data_takes_nothing_from_processes_that_run(server: Server, tmp_path: Path):
    """They have followed what it no longer holds; one that begins continues with what is there."""
    running, other = (RedisLog(with_query(server.url, prefix=tmp_path.name)) for _ in range(2))
    before = running.identity
    assert other.identity == before
    running._server.client.delete(f"{tmp_path.name}:events:identity")
    for use in (lambda: running.identity, running.read, lambda: running.append(events(1)) or running.read()):
        with pytest.raises(OtherLogError, match="was emptied, or is another log than"):
            use()
    assert RedisLog(with_query(server.url, prefix=tmp_path.name)).identity != before


def test_a_log_of_another_format_on_redis_is_refused(server: Server, tmp_path: Path):
    log = RedisLog(with_query(server.url, prefix=tmp_path.name))
    log._server.client.set(f"{log._stream}:identity", "7-a")
    with pytest.raises(StoreError, match="must be a log of format 2, found that of another version"):
        RedisLog(with_query(server.url, prefix=tmp_path.name)).identity  # noqa: B018


def test_an_invalid_address_is_refused():
    pytest.importorskip("redis", reason="the Python package redis is not installed: pip install redis")
    with pytest.raises(StoreError, match="redis://host"):
        RedisLog("localhost:6379")


# --- a file ---


def test_an_older_copy_is_noticed_even_when_it_has_grown_on(tmp_path: Path):
    log, place = ServiceLog(tmp_path / "log.sqlite"), tmp_path / "older.sqlite"
    log.append(events(3))
    shutil.copy(tmp_path / "log.sqlite", place)
    shutil.copy(tmp_path / "log.sqlite-wal", tmp_path / "older.sqlite-wal")
    log.append(events(2, first=3))
    mark, older = log.read()[-1][0], ServiceLog(place)
    assert older.identity == log.identity
    for refuses in (older.check, older.read):
        with pytest.raises(OtherLogError, match=r"ends before position 5, .*; restore the latest copy"):
            refuses(mark)
    older.append(events(4, first=10))
    for refuses in (older.check, older.read):
        with pytest.raises(OtherLogError, match="holds another record at position 5"):
            refuses(mark)
    older.check(log.read()[2][0])
    log.check(mark)


def test_another_log_with_the_same_events_is_another_log(opener: Opener, tmp_path: Path):
    log, other = opener(), ServiceLog(tmp_path / "other.sqlite")
    for one in (log, other):
        one.append(events(3))
    with pytest.raises(OtherLogError):
        other.check(Mark("3", log.read()[-1][0].digest))


def test_a_log_of_another_format_is_refused(tmp_path: Path):
    ServiceLog(tmp_path / "log.sqlite").close()
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    for make in (True, False):
        with pytest.raises(
            StoreError, match=r"must be a log of format 2, found 7; update once with the version"
        ):
            ServiceLog(tmp_path / "log.sqlite", make)


def test_a_folder_that_goes_away_and_comes_back(tmp_path: Path):
    log = ServiceLog(tmp_path / "state" / "log.sqlite")
    log.append(events(2))
    (tmp_path / "state").rename(tmp_path / "away")
    for use in (lambda: log.append(events(1, first=2)), log.read):
        with pytest.raises(StoreError, match="check that the folder exists"):
            use()
    (tmp_path / "away").rename(tmp_path / "state")
    log.append(events(1, first=2))
    assert held(log) == events(3)


def test_a_folder_that_another_takes_the_place_of(tmp_path: Path):
    """What is acknowledged is in the log that others open, not in one that was deleted."""
    log, other = (ServiceLog(tmp_path / name / "log.sqlite") for name in ("state", "other"))
    log.append(events(3))
    other.append(events(1, first=3))
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "other").rename(tmp_path / "state")
    log.append(events(1, first=4))
    assert held(ServiceLog(tmp_path / "state" / "log.sqlite")) == events(2, first=3) == held(log)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="free space"):
        ServiceLog(tmp_path / "file" / "log.sqlite")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path):
    log = ServiceLog(tmp_path / "log.sqlite")
    log.append(events(2))
    log._store.write(lambda connection: connection.execute("PRAGMA max_page_count = 5"))
    with pytest.raises(StoreError, match="full; check that"):
        log.append([Event("u" * 500, 1, "click", k) for k in range(1000)])
    log.close()
    log.append(events(1, first=2))
    assert held(log) == events(3)


def test_every_append_waits_for_the_disk(tmp_path: Path):
    log = ServiceLog(tmp_path / "log.sqlite")
    log.append(events(1))

    def settings(connection: sqlite3.Connection) -> list[object]:
        return [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]

    assert log._store.write(settings) == ["wal", 2]


# --- kills ---


def test_every_acknowledged_record_survives_a_kill(tmp_path: Path):
    """Two processes append events and items; one is killed at a random moment, again and again."""
    file, acknowledged = tmp_path / "log.sqlite", []
    log = ServiceLog(file)
    for kill in range(KILLS):
        words = [sys.executable, "-m", "tests.serving.events.test_log", str(file), str(kill)]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            acknowledged += [
                process.stdout.readline().strip() for _ in range(20)
            ]  # however slow the machine is
            time.sleep(0.05 + 0.01 * (kill * 7 % 10))
            log.append([Event("here", kill, "click", kill, f"here {kill}")])
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")] + [
                f"here {kill}"
            ]
        log.append([Event("here", kill, "click", kill, f"after {kill}")])
        acknowledged.append(f"after {kill}")
    found = [one.id if isinstance(one, Event) else one.item for _, one in records(ServiceLog(file))]
    assert len(acknowledged) > 20 * KILLS
    assert len(set(found)) == len(found)
    assert set(acknowledged) <= set(found)


if __name__ == "__main__":
    writer, run = ServiceLog(Path(sys.argv[1])), sys.argv[2]
    for number in range(1_000_000):
        name = f"{run}:{number}"
        writer.append([Item(name, {}) if number % 2 else Event(run, number, "click", number, name)])
        print(name, flush=True)
