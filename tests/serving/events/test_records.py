"""Damage in the last segment of the log: a torn write is cut off and kept, corruption is an error."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import StoreError
from mgoe.serving import Event, open_events
from mgoe.serving.events.event import every
from mgoe.serving.events.file_log import LARGEST, FileLog, is_corrupt
from tests.effort import up_to
from tests.serving.events.stores import events

N = 12


@contextmanager
def written() -> Iterator[tuple[Path, Path, list[int]]]:
    """A state folder with a log of N events, its only segment, and where each event ends in it."""
    with tempfile.TemporaryDirectory() as name:
        log = FileLog(Path(name) / "events")
        for event in events(N):
            log.append([event])
        (file,) = log.folder.glob("*.log")
        yield Path(name), file, [0, *(int(position) for position, _ in log.read())]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@up_to(100)
@given(data=st.data())
def test_a_flipped_bit_before_intact_events_is_an_error_and_nothing_is_cut(data: st.DataObject):
    """For everyone who opens the log, appends to it or reads it."""
    with written() as (state, file, ends):
        bit = data.draw(st.integers(0, 8 * ends[-2] - 1))
        flip(file, bit)
        before = contents(state)
        for use in (FileLog, lambda folder: FileLog(folder, make=False).append(events(1))):
            with pytest.raises(StoreError, match="damaged at byte"):
                use(file.parent)
        found: list[Event] = []
        with pytest.raises(StoreError, match="damaged at byte"):
            found.extend(event for _, event in every(open_events(state, make=False)))
        assert found == events(sum(end <= bit // 8 for end in ends) - 1)
        assert contents(state) == before


@up_to(50)
@given(data=st.data())
def test_a_damaged_last_event_is_kept_aside(data: st.DataObject):
    """Its length may be damaged, so that it looks like the start of a longer record."""
    with written() as (_, file, ends):
        flip(file, data.draw(st.integers(8 * ends[-2], 8 * ends[-1] - 1)))
        tail = file.read_bytes()[ends[-2] :]
        assert [event for _, event in every(FileLog(file.parent))] == events(N - 1)
        assert [kept.read_bytes() for kept in file.parent.glob("*.cut")] == [tail]


@up_to(50)
@given(size=st.integers(0, 12 * 40), zeros=st.integers(0, 40))
def test_readers_ignore_a_torn_tail_and_writers_keep_it_aside(size: int, zeros: int):
    """Cut anywhere, as by a kill; or of zeros beyond, as a machine that went down may leave them."""
    with written() as (state, file, ends):
        os.truncate(file, min(size, ends[-1]))
        os.truncate(file, file.stat().st_size + zeros)
        whole = max(end for end in ends if end <= size)
        tail, before = file.read_bytes()[whole:], contents(state)
        assert [event for _, event in every(open_events(state, make=False))] == events(ends.index(whole))
        assert contents(state) == before
        log = FileLog(file.parent)
        assert [kept.read_bytes() for kept in file.parent.glob("*.cut")] == [tail] * bool(tail)
        log.append(events(1, first=90))
        assert [event for _, event in every(log)] == events(ends.index(whole)) + events(1, first=90)


def test_a_tail_is_durable_before_it_is_cut_and_named_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with written() as (_, file, ends), caplog.at_level(logging.WARNING):
        os.truncate(file, ends[-1] - 3)
        synced, real = [], os.fsync

        def sync(held: int) -> None:
            real(held)
            synced.append((os.readlink(f"/proc/self/fd/{held}"), file.stat().st_size))

        monkeypatch.setattr(os, "fsync", sync)
        FileLog(file.parent)
        (kept,) = file.parent.glob("*.cut")
        assert synced == [(str(kept.resolve()), ends[-1] - 3), (str(file.parent.resolve()), ends[-1] - 3)]
        (line,) = caplog.records
        assert (line.getMessage(), line.levelname) == ("tail cut off", "WARNING")
        assert line.__dict__["fields"] == {"kept": str(kept), "bytes": kept.stat().st_size}


def test_a_second_tail_at_the_same_place_keeps_the_first():
    with written() as (_, file, ends):
        for more in (b"\x40\x00\x00\x00one", b"\x40\x00\x00\x00other"):
            with file.open("ab") as end:
                end.write(more)
            FileLog(file.parent)
        assert {kept.read_bytes() for kept in file.parent.glob("*.cut")} == {
            b"\x40\x00\x00\x00one",
            b"\x40\x00\x00\x00other",
        }
        assert file.stat().st_size == ends[-1]


@given(
    start=st.integers(0, 5 * LARGEST),
    filling=st.sampled_from([b"\x00", b"[", b"\x05\x00\x00\x00\x01\x02\x03\x04["]),
)
@up_to(10)
def test_an_intact_event_is_found_however_far_behind_the_damage(start: int, filling: bytes):
    with written() as (_, file, ends):
        one = file.read_bytes()[: ends[1]]
        file.write_bytes((filling * (start // len(filling) + 1))[:start] + one)
        with file.open("rb") as held:
            assert is_corrupt(held.fileno(), 0) == (start > 0)
            assert not is_corrupt(held.fileno(), start)
            assert not is_corrupt(held.fileno(), start + 1)


def test_a_log_that_is_only_read_is_not_created(tmp_path: Path):
    with pytest.raises(StoreError, match="holds no log of events"):
        open_events(tmp_path, make=False)
    (tmp_path / "events").mkdir()
    for use in (lambda log: log.read(), lambda log: log.identity):
        with pytest.raises(StoreError, match="cannot be used"):
            use(open_events(tmp_path, make=False))
    assert not list((tmp_path / "events").iterdir())
