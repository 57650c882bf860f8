"""Both kinds of log, and what only a log in a folder does."""

import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import EventError, StoreError
from mgoe.serving.events.event import START, Event, EventLog, every
from mgoe.serving.events.file_log import FileLog
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.online.live import HELD, position_of
from tests.effort import SOAK, up_to
from tests.serving.events.stores import Server, events, when_back

KILLS = 20 if SOAK else 2
ROOT = Path(__file__).parents[3]
Opener = Callable[[], EventLog]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


@pytest.fixture(params=["file", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same empty log again and again."""
    if request.param == "file":
        return lambda: FileLog(tmp_path / "events", segment=400)
    url = request.getfixturevalue("server").url
    return lambda: RedisLog(url, f"test:{tmp_path.name}")


def held(log: EventLog, after: str = START) -> list[Event]:
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
    order = [log.order(position) for position, _ in found]
    assert log.order(START) < order[0]
    assert all(a < b for a, b in itertools.pairwise(order))


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
        assert one.may_have(position)
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
    log.forget(positions[19])
    assert held(log, positions[19]) == events(10, first=20)
    left = held(log)
    assert left == events(len(left), first=30 - len(left))
    assert 10 <= len(left) < 30
    log.append(events(1, first=30))
    assert held(log, positions[-1]) == events(1, first=30)
    log.forget(START)
    assert held(opener()) == left + events(1, first=30)


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
        with pytest.raises(StoreError):
            RedisLog(server.url)
        server.start()
        when_back(lambda: log.append(events(1, first=5)))
        assert held(log) == events(6)
        assert held(log, position) == events(1, first=5)
    finally:
        server.kill()


class Keys:
    """The part of a Redis client that a log's identity needs."""

    def __init__(self):
        self.held: dict[str, bytes] = {}

    def set(self, key: str, value: str, nx: bool) -> None:
        assert nx
        self.held.setdefault(key, value.encode())

    def get(self, key: str) -> bytes | None:
        return self.held.get(key)

    def delete(self, key: str) -> None:
        del self.held[key]


@pytest.mark.parametrize("kind", ["stand-in", "server"])
def test_a_redis_that_lost_its_data_is_another_log_to_processes_that_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """A bundle that another process refreshed since then belongs to the present log."""
    pytest.importorskip("redis", reason="the Python package redis is not installed: pip install redis")
    if kind == "server":
        running, other = (
            RedisLog(request.getfixturevalue("server").url, f"test:{tmp_path.name}") for _ in range(2)
        )
    else:
        running, other = object.__new__(RedisLog), object.__new__(RedisLog)
        running.__dict__ |= {"_redis": (keys := Keys()), "name": "test"}
        other.__dict__ |= {"_redis": keys, "name": "test"}
    before = running.identity
    assert other.identity == before
    running._redis.delete(f"{running.name}:identity")
    (tmp_path / HELD).write_text(json.dumps({"positions": {other.identity: "7-0"}}))
    assert position_of(tmp_path, running) == "7-0"
    assert running.identity == other.identity != before
    (tmp_path / HELD).write_text(json.dumps({"positions": {before: "7-0"}}))
    assert position_of(tmp_path, running) == START


def test_an_invalid_address_is_refused():
    pytest.importorskip("redis", reason="the Python package redis is not installed: pip install redis")
    with pytest.raises(StoreError, match="redis://host"):
        RedisLog("localhost:6379")


# --- a folder ---


@up_to(30)
@given(n=st.integers(1, 12), cut=st.integers(0, 200), data=st.data())
def test_a_torn_tail_is_cut_off(n, cut, data):
    """Complete records are read, whatever a killed process left of its last ones, and appends follow them."""
    with tempfile.TemporaryDirectory() as folder:
        log = FileLog(Path(folder))
        ends = [0]
        for event in events(n):
            log.append([event])
            ends.append(int(log.read()[-1][0]))
        file = next(Path(folder).glob("*.log"))
        size = max(0, ends[-1] - cut)
        os.truncate(file, size)
        if data.draw(st.booleans(), "opened again"):
            log = FileLog(Path(folder))
            assert file.stat().st_size == max(end for end in ends if end <= size)
        whole = sum(end <= size for end in ends) - 1
        assert held(FileLog(Path(folder))) == events(whole)
        other = FileLog(Path(folder))
        other.append(events(2, first=50))
        assert held(other) == events(whole) + events(2, first=50)


def test_another_process_cuts_off_a_torn_tail_of_an_open_log(tmp_path: Path):
    one, other = FileLog(tmp_path), FileLog(tmp_path)
    one.append(events(3))
    with next(tmp_path.glob("*.log")).open("ab") as file:
        file.write(b"\x40\x00\x00\x00half")
    assert held(one) == events(3)
    other.append(events(1, first=3))
    one.append(events(1, first=4))
    assert held(one) == held(other) == events(5)
    assert [kept.read_bytes() for kept in tmp_path.glob("*.cut")] == [b"\x40\x00\x00\x00half"]


def test_a_damaged_last_record_is_kept_aside(tmp_path: Path):
    log = FileLog(tmp_path)
    log.append(events(3))
    file = next(tmp_path.glob("*.log"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    again = FileLog(tmp_path)
    assert held(again) == events(2)
    assert len(list(tmp_path.glob("*.cut"))) == 1


def test_corruption_in_the_middle_is_an_error(tmp_path: Path):
    log = FileLog(tmp_path, segment=200)
    for event in events(20):
        log.append([event])
    first = sorted(tmp_path.glob("*.log"))[0]
    content = bytearray(first.read_bytes())
    content[10] ^= 1
    first.write_bytes(content)
    with pytest.raises(StoreError, match="damaged at byte 0"):
        log.read()


def test_a_position_of_another_log_is_an_error(tmp_path: Path):
    log = FileLog(tmp_path)
    log.append(events(1))
    with pytest.raises(StoreError, match="ends before position 5000"):
        log.read("5000")


def test_a_folder_knows_at_once_whether_events_came(tmp_path: Path):
    log = FileLog(tmp_path / "events", segment=400)
    for number in range(20):
        held(log, position := log.read()[-1][0] if number else START)
        assert not log.may_have(position)
        log.append(events(1, first=number))
    (tmp_path / "events").rename(tmp_path / "away")
    assert log.may_have(position)


def test_a_folder_that_goes_away_and_comes_back(tmp_path: Path):
    log = FileLog(tmp_path / "events")
    log.append(events(2))
    (tmp_path / "events").rename(tmp_path / "away")
    with pytest.raises(StoreError):
        log.append(events(1, first=2))
    (tmp_path / "away").rename(tmp_path / "events")
    log.append(events(1, first=2))
    assert held(log) == events(3)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="free space"):
        FileLog(tmp_path / "file" / "events")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log, real = FileLog(tmp_path), os.pwrite
    log.append(events(2))

    def full(file: int, view: memoryview, at: int) -> int:
        if len(view) > 5:
            return real(file, view[:5], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        os, "pwrite", lambda file, view, at: full(file, view, at) if at < 10_000 and len(view) != 0 else 0
    )
    with pytest.raises(StoreError, match="No space left"):
        log.append([Event(1, 1, "click", 1, "12345")])
    monkeypatch.undo()
    log.append(events(1, first=2))
    assert held(log) == events(3)


def test_what_was_read_of_a_write_that_fails_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk takes one record and a half, and a reader reads before the append fails."""
    log, reader, real = FileLog(tmp_path), FileLog(tmp_path), os.pwrite
    log.append(events(1))
    size, found = next(tmp_path.glob("*.log")).stat().st_size, reader.read()

    def full(file: int, view: memoryview, at: int) -> int:
        if at == size:
            return real(file, view[: 3 * len(view) // 4], at)
        found.extend(reader.read(found[-1][0]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="No space left"):
        log.append(events(2, first=1))
    monkeypatch.undo()
    assert [event for _, event in found] == events(2)
    for event in events(3, first=2):
        log.append([event])
    assert held(reader, found[-1][0]) == events(3, first=2)
    assert held(log) == events(5)


@pytest.mark.parametrize("segment", [10, 10_000])
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("syncs", range(3))
def test_an_acknowledged_event_survives_a_crash_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int, before: int, syncs: int
):
    """A process is killed after some syncs, another appends, and the machine loses what was not synced."""
    folder, lost = tmp_path / "events", tmp_path / "lost"
    one, other = FileLog(folder, segment), FileLog(folder, segment)
    left, names, sizes, real = [-1], set[str](), dict[int, int](), os.fsync

    def sync(file: int) -> None:
        if left[0] == 0:
            raise OSError(5, "killed")
        left[0] -= 1
        real(file)
        facts = os.fstat(file)
        if stat.S_ISDIR(facts.st_mode):
            names.update(path.name for path in folder.glob("*.log"))
        else:
            sizes[facts.st_ino] = facts.st_size

    monkeypatch.setattr(os, "fsync", sync)
    for event in events(before):
        one.append([event])
    left[0] = syncs
    with suppress(StoreError):
        one.append(events(1, first=before))
    left[0] = -1
    other.append(events(1, first=before + 1))
    lost.mkdir()
    for name in names:
        content = (folder / name).read_bytes()
        (lost / name).write_bytes(content[: sizes.get((folder / name).stat().st_ino, 0)])
    found = held(FileLog(lost))
    assert [event for event in found if event.id != f"e{before}"] == events(before) + events(
        1, first=before + 1
    )


def test_an_event_too_long_is_refused(tmp_path: Path):
    log = FileLog(tmp_path)
    with pytest.raises(EventError, match="at most"):
        log.append([Event("u" * 2_000_000, 1, "click", 1)])


# --- kills ---


def test_every_acknowledged_event_survives_a_kill(tmp_path: Path):
    """Two processes append; one is killed at a random moment, again and again."""
    log, acknowledged = FileLog(tmp_path / "events", segment=4000), []
    for kill in range(KILLS):
        words = [sys.executable, "-m", "tests.serving.events.test_log", str(tmp_path / "events"), str(kill)]
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
    found = [event.id for event in held(FileLog(tmp_path / "events"))]
    assert len(acknowledged) > 20 * KILLS
    assert len(set(found)) == len(found)
    assert set(acknowledged) <= set(found)


if __name__ == "__main__":
    writer, run = FileLog(Path(sys.argv[1]), segment=4000), sys.argv[2]
    for number in range(1_000_000):
        writer.append([Event(run, number, "click", number, f"{run}:{number}")])
        print(f"{run}:{number}", flush=True)
