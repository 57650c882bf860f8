"""The log of a shadow gives back what was written, the newest records of all processes."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import StoreError
from mgoe.serving.events.shadow_log import ShadowLog, ShadowRecord, read_shadow_log

IDS = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)


@st.composite
def records(draw: st.DrawFn) -> ShadowRecord:
    n, score = draw(st.integers(0, 3)), st.floats(0, 1, width=32)
    scores = st.lists(st.lists(score, min_size=2, max_size=2), min_size=n, max_size=n)
    return ShadowRecord(
        time=draw(st.integers(0, 2**53)), version="a", shadow="b", tasks=["click", "buy"],
        users=draw(st.lists(IDS, min_size=1, max_size=1)), items=draw(st.lists(IDS, min_size=n, max_size=n)),
        shown=draw(st.integers(0, n)), scores=draw(scores), shadow_scores=draw(scores),
    )  # fmt: skip


def record(number: int) -> ShadowRecord:
    return ShadowRecord(number, "a", "b", ["click"], [1], [2], 1, [[0.5]], [[0.25]])


@given(st.lists(records()))
def test_what_is_written_is_read(written: list[ShadowRecord]):
    with tempfile.TemporaryDirectory() as folder:
        log = ShadowLog(Path(folder) / "shadow")
        for one in written:
            log.append(one)
        assert [*read_shadow_log(Path(folder) / "shadow")] == written
        log.close()


def test_the_newest_records_of_all_processes_stay(tmp_path: Path):
    logs = [ShadowLog(tmp_path, most=20) for _ in range(2)]
    for number in range(50):
        logs[number % 2].append(record(number))
    assert [one.time for one in read_shadow_log(tmp_path)] == [*range(30, 50)]
    assert [one.time for one in logs[0]] == [*range(30, 50)]
    for log in logs:
        log.close()


def test_users_are_erased_while_a_service_writes(tmp_path: Path):
    log = ShadowLog(tmp_path)
    for number in range(6):
        log.append(replace(record(number), users=[f"user{number % 2}"]))
    assert ShadowLog(tmp_path, make=False).erase({"user1": 3}) == 2
    assert [one.time for one in read_shadow_log(tmp_path)] == [0, 2, 4, 5]
    log.append(record(6))
    assert [one.time for one in read_shadow_log(tmp_path)] == [0, 2, 4, 5, 6]
    log.append(record(-7))  # of somebody else, before 1970
    assert log.erase({"user1": 9}) == 1
    assert [one.time for one in read_shadow_log(tmp_path)] == [0, 2, 4, 6, -7]
    assert not any(b"user1" in file.read_bytes() for file in tmp_path.iterdir())
    log.close()


def test_a_folder_without_a_log_holds_no_records(tmp_path: Path):
    assert [*read_shadow_log(tmp_path)] == []
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "shadow").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used: File exists; check that the folder"):
        ShadowLog(tmp_path / "shadow")
