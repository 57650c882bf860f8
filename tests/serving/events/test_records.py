"""Damage in a log's file: a torn write is ignored, corruption is an error."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import StoreError
from mgoe.serving import open_log
from mgoe.serving.events.log import ServiceLog, every
from tests.serving.events.stores import events

N = 12


@contextmanager
def written() -> Iterator[tuple[Path, list[int]]]:
    """The folder of a log of N events as a killed process leaves it, and where each ends in the file that
    SQLite appends to."""
    with tempfile.TemporaryDirectory() as name:
        log, folder = ServiceLog(Path(name) / "open" / "log.sqlite"), Path(name) / "state"
        ends = []
        for event in events(N):
            log.append([event])
            ends.append((Path(name) / "open" / "log.sqlite-wal").stat().st_size)
        shutil.copytree(Path(name) / "open", folder)
        log.close()
        yield folder, ends


@given(data=st.data())
def test_a_torn_tail_is_ignored(data: st.DataObject):
    """Cut anywhere, as by a kill; or of zeros beyond, as a machine that went down may leave them."""
    with written() as (folder, ends):
        size, wal = data.draw(st.integers(0, ends[-1])), folder / "log.sqlite-wal"
        os.truncate(wal, size)
        os.truncate(wal, size + data.draw(st.integers(0, 5000)))
        left = events(sum(end <= size for end in ends))
        assert [event for _, event in every(open_log(folder, make=False))] == left
        log = open_log(folder)
        log.append(events(1, first=90))
        assert [event for _, event in every(log)] == left + events(1, first=90)
        log.close()


@given(data=st.data())
def test_a_flipped_bit_of_an_event_is_an_error(data: st.DataObject):
    """For everyone who reads the log, and nothing is cut."""
    with written() as (folder, _):
        ServiceLog(folder / "log.sqlite").close()  # which leaves one file
        content = bytearray((folder / "log.sqlite").read_bytes())
        k = data.draw(st.integers(0, N - 1))
        payload = events(N)[k].encode()
        place = content.index(payload) + data.draw(st.integers(0, len(payload) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        (folder / "log.sqlite").write_bytes(content)
        with pytest.raises(StoreError, match=f"damaged at event {k + 1}; restore"):
            list(every(open_log(folder, make=False)))
        assert (folder / "log.sqlite").read_bytes() == content


def test_a_file_that_is_no_log_is_an_error(tmp_path: Path):
    (tmp_path / "log.sqlite").write_bytes(b"something else" * 100)
    for make in (True, False):
        with pytest.raises(StoreError, match="is damaged"):
            open_log(tmp_path, make=make).read()


def test_a_log_that_is_only_read_is_not_created(tmp_path: Path):
    with pytest.raises(StoreError, match="holds no log of events"):
        open_log(tmp_path, make=False)
    assert not any(tmp_path.iterdir())
